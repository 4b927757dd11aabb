//! `gymflow.access.v1.AccessService`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use contracts::access::v1 as wire;
use contracts::access::v1::access_service_server::AccessService;
use futures_util::Stream;
use jiff::Timestamp;
use service_runtime::identity::grpc::caller_of;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::access_wire;
use crate::decide;
use crate::gateway::Gateway;
use crate::permissions::PhonePermissions;
use crate::projection::Change;
use crate::refusal::Refusal;

/// Time alone changes access too: a window ends, a report grows old.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Access {
    pub(super) gateway: Arc<Gateway>,
    pub(super) shutdown: CancellationToken,
}

#[tonic::async_trait]
impl AccessService for Access {
    async fn get_access_status(
        &self,
        request: Request<wire::GetAccessStatusRequest>,
    ) -> Result<Response<wire::AccessStatus>, Status> {
        let caller = caller_of(&request)?;
        let ask = request.into_inner();
        let access = self
            .gateway
            .access_status(&caller, &ask.gym_id, &ask.member_id)
            .await?;
        let status = access_wire::access_status(&ask.gym_id, &ask.member_id, access);
        Ok(Response::new(status))
    }

    async fn check_access(
        &self,
        request: Request<wire::CheckAccessRequest>,
    ) -> Result<Response<wire::CheckAccessResponse>, Status> {
        let caller = caller_of(&request)?;
        let answer = self.gateway.check_access(&caller, request.get_ref())?;
        Ok(Response::new(answer))
    }

    async fn batch_check_access(
        &self,
        request: Request<wire::BatchCheckAccessRequest>,
    ) -> Result<Response<wire::BatchCheckAccessResponse>, Status> {
        let caller = caller_of(&request)?;
        let answer = self
            .gateway
            .batch_check_access(&caller, request.get_ref())?;
        Ok(Response::new(answer))
    }

    type WatchAccessStream = Pin<Box<dyn Stream<Item = Result<wire::AccessStatus, Status>> + Send>>;

    async fn watch_access(
        &self,
        request: Request<wire::GetAccessStatusRequest>,
    ) -> Result<Response<Self::WatchAccessStream>, Status> {
        let caller = caller_of(&request)?;
        let ask = request.into_inner();
        // Subscribed before the first look, so that no change falls between.
        let changes = self.gateway.projection().changes();
        let first = self
            .gateway
            .access_status(&caller, &ask.gym_id, &ask.member_id)
            .await?;
        let (statuses, stream) = mpsc::channel(4);
        let watch = Watch {
            gateway: Arc::clone(&self.gateway),
            caller,
            ask,
            statuses,
        };
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            let gone = watch.statuses.clone();
            tokio::select! {
                () = watch.run(first, changes) => {}
                () = gone.closed() => {}
                () = shutdown.cancelled() => {
                    let _ = gone.try_send(Err(Status::unavailable("this replica is stopping; watch again")));
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn list_members_access(
        &self,
        request: Request<wire::ListMembersAccessRequest>,
    ) -> Result<Response<wire::ListMembersAccessResponse>, Status> {
        let caller = caller_of(&request)?;
        let page = self
            .gateway
            .list_members(&caller, request.get_ref())
            .await?;
        Ok(Response::new(page))
    }

    async fn list_doors(
        &self,
        request: Request<wire::GetAccessStatusRequest>,
    ) -> Result<Response<wire::ListDoorsResponse>, Status> {
        let caller = caller_of(&request)?;
        let ask = request.get_ref();
        let doors = self
            .gateway
            .list_doors(&caller, &ask.gym_id, &ask.member_id)?;
        Ok(Response::new(wire::ListDoorsResponse {
            doors: doors.into_iter().map(access_wire::door).collect(),
        }))
    }

    async fn unlock(
        &self,
        request: Request<wire::UnlockRequest>,
    ) -> Result<Response<wire::UnlockResponse>, Status> {
        let caller = caller_of(&request)?;
        let answer = self.gateway.unlock(&caller, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn enrol_device(
        &self,
        request: Request<wire::EnrolDeviceRequest>,
    ) -> Result<Response<wire::EnrolDeviceResponse>, Status> {
        let caller = caller_of(&request)?;
        let answer = self
            .gateway
            .enrol_device(&caller, request.into_inner())
            .await?;
        Ok(Response::new(answer))
    }

    async fn list_devices(
        &self,
        request: Request<wire::GetAccessStatusRequest>,
    ) -> Result<Response<wire::ListDevicesResponse>, Status> {
        let caller = caller_of(&request)?;
        let answer = self
            .gateway
            .list_devices(&caller, request.into_inner())
            .await?;
        Ok(Response::new(answer))
    }

    async fn make_primary(
        &self,
        request: Request<wire::DeviceRequest>,
    ) -> Result<Response<wire::Device>, Status> {
        let caller = caller_of(&request)?;
        let answer = self
            .gateway
            .make_primary(&caller, request.into_inner())
            .await?;
        Ok(Response::new(answer))
    }

    async fn reset_devices(
        &self,
        request: Request<wire::GetAccessStatusRequest>,
    ) -> Result<Response<wire::ListDevicesResponse>, Status> {
        let caller = caller_of(&request)?;
        let answer = self
            .gateway
            .reset_devices(&caller, request.into_inner())
            .await?;
        Ok(Response::new(answer))
    }

    async fn report_permissions(
        &self,
        request: Request<wire::ReportPermissionsRequest>,
    ) -> Result<Response<wire::ReportPermissionsResponse>, Status> {
        let caller = caller_of(&request)?;
        let report = request.into_inner();
        let phone = PhonePermissions {
            bluetooth: report.bluetooth,
            location: report.location,
        };
        let alerts =
            self.gateway
                .report_permissions(&caller, &report.gym_id, &report.member_id, phone)?;
        Ok(Response::new(wire::ReportPermissionsResponse {
            alerts: alerts.into_iter().map(Into::into).collect(),
        }))
    }

    async fn get_timeline(
        &self,
        _: Request<wire::GetTimelineRequest>,
    ) -> Result<Response<wire::GetTimelineResponse>, Status> {
        Err(Refusal::NotYet("the timeline of membership-events and kisi-sync").into())
    }

    async fn explain_access(
        &self,
        request: Request<wire::ExplainAccessRequest>,
    ) -> Result<Response<wire::ExplainAccessResponse>, Status> {
        let caller = caller_of(&request)?;
        let answer = self.gateway.explain(&caller, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn resume_membership(
        &self,
        request: Request<wire::ResumeAccessRequest>,
    ) -> Result<Response<wire::ResumeAccessResponse>, Status> {
        let caller = caller_of(&request)?;
        let outcome = self.gateway.resume(&caller, request.get_ref()).await?;
        Ok(Response::new(wire::ResumeAccessResponse {
            outcome: outcome.as_str().to_owned(),
        }))
    }
}

/// One watcher of one member.
struct Watch {
    gateway: Arc<Gateway>,
    caller: service_runtime::identity::Caller,
    ask: wire::GetAccessStatusRequest,
    statuses: mpsc::Sender<Result<wire::AccessStatus, Status>>,
}

impl Watch {
    async fn run(&self, first: decide::Access, mut changes: Receiver<Change>) {
        let mut told = as_told(&first);
        if !self.tell(first).await {
            return;
        }
        loop {
            let look = tokio::time::timeout(LOOK_AGAIN, self.concerns(&mut changes));
            if look.await.is_ok_and(|more| !more) {
                return;
            }
            let (gym, member) = (&self.ask.gym_id, &self.ask.member_id);
            let seen = match self.gateway.access_now(gym, member) {
                Ok(access) => access,
                Err(refusal) => {
                    let _ = self.statuses.send(Err(refusal.into())).await;
                    return;
                }
            };
            let seen = as_told(&seen);
            if seen == told {
                continue;
            }
            told = seen;
            let answer = self.gateway.access_status(&self.caller, gym, member).await;
            let more = match answer {
                Ok(access) => self.tell(access).await,
                Err(refusal) => {
                    let _ = self.statuses.send(Err(refusal.into())).await;
                    false
                }
            };
            if !more {
                return;
            }
        }
    }

    async fn tell(&self, access: decide::Access) -> bool {
        let status = access_wire::access_status(&self.ask.gym_id, &self.ask.member_id, access);
        self.statuses.send(Ok(status)).await.is_ok()
    }

    /// Ends with `true` at a change that may concern this member, with `false` when none can come.
    async fn concerns(&self, changes: &mut Receiver<Change>) -> bool {
        loop {
            match changes.recv().await {
                Ok(change) => {
                    let member = change.member.as_deref();
                    let ours = member.is_none_or(|member| member == self.ask.member_id);
                    if ours && change.gym.as_ref() == self.ask.gym_id {
                        return true;
                    }
                }
                Err(RecvError::Lagged(_)) => return true,
                Err(RecvError::Closed) => return false,
            }
        }
    }
}

/// What makes two statuses differ to a watcher: everything but the instant and the pay link.
fn as_told(access: &decide::Access) -> decide::Access {
    let mut access = access.clone();
    access.as_of = Timestamp::UNIX_EPOCH;
    for alert in &mut access.alerts {
        if let decide::Action::Pay(url) = &mut alert.action {
            *url = None;
        }
    }
    access
}
