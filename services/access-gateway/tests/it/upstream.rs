//! kisi-sync and membership-events as a scripted gRPC server: each call is kept, and answered as
//! the test said, else UNIMPLEMENTED.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use contracts::access::v1 as access;
use contracts::integration::v1 as integration;
use contracts::kisi::v1 as kisi;
use contracts::kisi::v1::kisi_sync_service_server::{KisiSyncService, KisiSyncServiceServer};
use contracts::membership::v1 as membership;
use contracts::membership::v1::membership_service_server::{
    MembershipService, MembershipServiceServer,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

/// A call as it came.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: &'static str,
    pub actor: Option<String>,
    pub authorization: String,
    /// Canonical proto3 JSON.
    pub message: Value,
}

/// The scripted server. Clones share it.
#[derive(Clone, Default)]
pub struct Upstream {
    answers: Arc<Mutex<HashMap<&'static str, Result<Value, Status>>>>,
    queued: Arc<Mutex<HashMap<&'static str, VecDeque<Value>>>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Upstream {
    /// Serves on a free port; answers its address.
    pub async fn serve(&self) -> anyhow::Result<String> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = tonic::transport::Server::builder()
            .add_service(KisiSyncServiceServer::new(self.clone()))
            .add_service(MembershipServiceServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        Ok(url)
    }

    /// From now on `method` answers this.
    pub fn answer<M: Serialize>(&self, method: &'static str, message: &M) {
        let message = serde_json::to_value(message).expect("a message");
        self.lock_answers().insert(method, Ok(message));
    }

    /// The next call of `method` answers this, before what else was said.
    pub fn answer_once<M: Serialize>(&self, method: &'static str, message: &M) {
        let message = serde_json::to_value(message).expect("a message");
        let mut queued = self.queued.lock().expect("no test panicked here");
        queued.entry(method).or_default().push_back(message);
    }

    /// From now on `method` refuses.
    pub fn refuse(&self, method: &'static str, status: Status) {
        self.lock_answers().insert(method, Err(status));
    }

    /// Calls of `method` so far.
    pub fn calls(&self, method: &str) -> Vec<Call> {
        let calls = self.calls.lock().expect("no test panicked here");
        calls
            .iter()
            .filter(|call| call.method == method)
            .cloned()
            .collect()
    }

    fn lock_answers(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<&'static str, Result<Value, Status>>> {
        self.answers.lock().expect("no test panicked here")
    }

    fn take<Q: Serialize, R: DeserializeOwned>(
        &self,
        method: &'static str,
        request: &Request<Q>,
    ) -> Result<R, Status> {
        let text = |name: &str| {
            let value = request.metadata().get(name)?;
            Some(value.to_str().ok()?.to_owned())
        };
        self.calls
            .lock()
            .expect("no test panicked here")
            .push(Call {
                method,
                actor: text("x-gymflow-actor"),
                authorization: text("authorization").unwrap_or_default(),
                message: serde_json::to_value(request.get_ref()).expect("a message"),
            });
        let mut queued = self.queued.lock().expect("no test panicked here");
        let next = queued.get_mut(method).and_then(VecDeque::pop_front);
        let answer = match next {
            Some(message) => Some(Ok(message)),
            None => self.lock_answers().get(method).cloned(),
        };
        let message = answer.unwrap_or_else(|| Err(Status::unimplemented("not scripted")))?;
        Ok(serde_json::from_value(message).expect("the scripted answer is of the call's type"))
    }
}

macro_rules! scripted {
    ($service:ident { $(type $stream:ident = $item:ty;)* } $({ $body:item })* $($name:ident($from:ty) -> $to:ty;)*) => {
        #[tonic::async_trait]
        impl $service for Upstream {
            $(type $stream = Pin<Box<dyn Stream<Item = Result<$item, Status>> + Send>>;)*
            $($body)*
            $(async fn $name(&self, request: Request<$from>) -> Result<Response<$to>, Status> {
                self.take(stringify!($name), &request).map(Response::new)
            })*
        }
    };
}

scripted! {
    KisiSyncService { type WatchSyncStream = integration::Sync; }
    {
        async fn watch_sync(
            &self,
            request: Request<integration::GetSyncRequest>,
        ) -> Result<Response<Self::WatchSyncStream>, Status> {
            let sync: integration::Sync = self.take("watch_sync", &request)?;
            let stream: Self::WatchSyncStream = Box::pin(tokio_stream::once(Ok(sync)));
            Ok(Response::new(stream))
        }
    }
    get_integration(integration::GymRequest) -> integration::Integration;
    enable_integration(integration::EnableIntegrationRequest) -> integration::Integration;
    list_places(integration::GymRequest) -> integration::ListPlacesResponse;
    select_place(integration::SelectPlaceRequest) -> integration::Integration;
    list_groups(integration::GymRequest) -> integration::ListGroupsResponse;
    preview_sync(integration::PreviewSyncRequest) -> integration::Preview;
    set_associations(integration::SetAssociationsRequest) -> integration::Integration;
    start_sync(integration::StartSyncRequest) -> integration::Sync;
    get_sync(integration::GetSyncRequest) -> integration::Sync;
    sync_member(integration::SyncMemberRequest) -> integration::SyncMemberResponse;
    list_other_rights(integration::ListOtherRightsRequest) -> integration::ListOtherRightsResponse;
    list_held_plans(integration::GymRequest) -> integration::ListHeldPlansResponse;
    approve_plan(integration::DecidePlanRequest) -> integration::HeldPlan;
    discard_plan(integration::DecidePlanRequest) -> integration::HeldPlan;
    rotate_api_key(integration::EnableIntegrationRequest) -> integration::Integration;
    set_policies(integration::SetPoliciesRequest) -> integration::Integration;
    disable_integration(integration::DisableIntegrationRequest) -> integration::Integration;
    unlock(access::UnlockRequest) -> access::UnlockResponse;
    enrol_device(access::EnrolDeviceRequest) -> access::EnrolDeviceResponse;
    list_devices(access::GetAccessStatusRequest) -> access::ListDevicesResponse;
    make_primary(access::DeviceRequest) -> access::Device;
    reset_devices(access::GetAccessStatusRequest) -> access::ListDevicesResponse;
    get_timeline(access::GetTimelineRequest) -> access::GetTimelineResponse;
    pass_kisi_event(kisi::PassKisiEventRequest) -> kisi::PassKisiEventResponse;
}

scripted! {
    MembershipService { type ImportRosterStream = membership::ImportRosterProgress; }
    {
        async fn import_roster(
            &self,
            _: Request<Streaming<membership::ImportRosterRequest>>,
        ) -> Result<Response<Self::ImportRosterStream>, Status> {
            Err(Status::unimplemented("not scripted"))
        }
    }
    put_gym(membership::PutGymRequest) -> membership::WriteOutcome;
    put_member(membership::PutMemberRequest) -> membership::WriteOutcome;
    delete_member(membership::DeleteMemberRequest) -> membership::WriteOutcome;
    put_membership(membership::PutMembershipRequest) -> membership::WriteOutcome;
    pause_membership(membership::PauseMembershipRequest) -> membership::WriteOutcome;
    resume_membership(membership::ResumeMembershipRequest) -> membership::WriteOutcome;
    request_resume(membership::RequestResumeRequest) -> membership::WriteOutcome;
    cancel_membership(membership::CancelMembershipRequest) -> membership::WriteOutcome;
    record_payment(membership::RecordPaymentRequest) -> membership::WriteOutcome;
    forgive_invoice(membership::ForgiveInvoiceRequest) -> membership::WriteOutcome;
    put_override(membership::PutOverrideRequest) -> membership::WriteOutcome;
    clear_override(membership::ClearOverrideRequest) -> membership::WriteOutcome;
    get_member(membership::GetMemberRequest) -> membership::Member;
    list_members(membership::ListMembersRequest) -> membership::ListMembersResponse;
    list_member_versions(membership::ListMemberVersionsRequest) -> membership::ListMemberVersionsResponse;
    republish_gym(membership::RepublishGymRequest) -> membership::RepublishGymResponse;
    explain_member(membership::ExplainMemberRequest) -> membership::ExplainMemberResponse;
    list_unmatched_billing(membership::ListUnmatchedBillingRequest) -> membership::ListUnmatchedBillingResponse;
    link_billing(membership::LinkBillingRequest) -> membership::WriteOutcome;
}
