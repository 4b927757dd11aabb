//! `gymflow.kisi.v1.KisiSyncService`: parses, finds the replica that owns the gym, calls.
//!
//! What only reads the tables is answered by any replica. What speaks to Kisi, or changes what the
//! gym's worker goes by, is passed on to the owner, once: a forwarded call that has no owner here
//! either is refused, and its caller tries again.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use contracts::access::v1 as access;
use contracts::integration::v1 as api;
use contracts::kisi::v1::kisi_sync_service_client::KisiSyncServiceClient;
use contracts::kisi::v1::kisi_sync_service_server::KisiSyncService;
use contracts::kisi::v1::{PassKisiEventRequest, PassKisiEventResponse};
use futures_util::Stream;
use service_runtime::grpc::{ServiceChannel, on_behalf_of, service_channel};
use service_runtime::identity::ServiceToken;
use service_runtime::identity::grpc::caller_of;
use tonic::{Request, Response, Status};

use crate::desired::is_id;
use crate::devices::Phones;
use crate::key_check::Login;
use crate::ownership::{Leases, Owner};
use crate::setup::Setup;
use crate::shared::Shared;
use crate::store::{integrations, members};
use crate::worker::{Job, Urgency};
use crate::{devices, kisi_events, refusal, timeline, unlock};

const FORWARDED: &str = "x-gymflow-forwarded";
/// A set-up call pages through Kisi at the pace of the key.
const FORWARD_WITHIN: Duration = Duration::from_secs(120);

/// The service.
pub struct KisiSync {
    shared: Arc<Shared>,
    setup: Setup,
    token: ServiceToken,
}

impl KisiSync {
    pub fn new(shared: Arc<Shared>, token: ServiceToken) -> Self {
        let setup = Setup {
            shared: Arc::clone(&shared),
        };
        Self {
            shared,
            setup,
            token,
        }
    }

    /// A client of the owner, when that is another replica.
    async fn elsewhere<T>(
        &self,
        gym: &str,
        request: &Request<T>,
    ) -> Result<Option<KisiSyncServiceClient<ServiceChannel>>, Status> {
        let row = integrations::find(&self.shared.db, gym)
            .await
            .map_err(refusal::store)?;
        let Some(row) = row.filter(|row| row.enabled) else {
            return Ok(None);
        };
        let owner = self
            .shared
            .leases
            .owner(&row.lease_key)
            .await
            .map_err(|_| Status::unavailable("nobody works on this gym yet; try again"))?;
        match owner {
            Owner::Here(lease) => {
                let ensured = self.shared.workers.ensure(&self.shared, gym, lease).await;
                ensured.map_err(refusal::store)?;
                Ok(None)
            }
            Owner::There(_) if request.metadata().contains_key(FORWARDED) => Err(
                Status::unavailable("this gym changes hands just now; try again"),
            ),
            Owner::There(address) => Ok(Some(self.client_of(&address)?)),
        }
    }

    /// A client of the replica that speaks for a new key's owner already, where that is another: only
    /// there the key is asked at the owner's pace.
    async fn speaks_elsewhere<T>(
        &self,
        login: &Login,
        request: &Request<T>,
    ) -> Result<Option<KisiSyncServiceClient<ServiceChannel>>, Status> {
        let Some(owner) = login.owner else {
            return Ok(None);
        };
        if request.metadata().contains_key(FORWARDED) {
            return Ok(None);
        }
        let key = Leases::key_of_user(owner);
        let address = self.shared.leases.elsewhere(&key).await;
        let address = address.map_err(refusal::store)?;
        address.map(|address| self.client_of(&address)).transpose()
    }

    fn speaks_here(&self, login: &Login) -> bool {
        let key = login.owner.map(Leases::key_of_user);
        key.is_some_and(|key| self.shared.leases.held(&key).is_some())
    }

    fn client_of(&self, address: &str) -> Result<KisiSyncServiceClient<ServiceChannel>, Status> {
        let channel = service_channel(
            "ADVERTISE_ADDR",
            address,
            FORWARD_WITHIN,
            self.token.clone(),
        );
        let channel = channel.map_err(|error| refusal::internal(&error))?;
        Ok(KisiSyncServiceClient::new(channel))
    }
}

fn forwarded<T, U: Clone>(request: &Request<T>, message: &U) -> Result<Request<U>, Status> {
    let caller = caller_of(request)?;
    let mut onward = on_behalf_of(&caller, message.clone());
    let mark = tonic::metadata::MetadataValue::from_static("1");
    onward.metadata_mut().insert(FORWARDED, mark);
    Ok(onward)
}

fn require_gym(gym: &str) -> Result<(), Status> {
    if is_id(gym) {
        Ok(())
    } else {
        Err(refusal::invalid("gym_id", "it is no id"))
    }
}

/// Checks the gym and passes the call on when another replica owns it.
macro_rules! at_owner {
    ($self:ident, $request:ident, $method:ident) => {{
        require_gym(&$request.get_ref().gym_id)?;
        let gym = $request.get_ref().gym_id.clone();
        if let Some(mut owner) = $self.elsewhere(&gym, &$request).await? {
            return owner
                .$method(forwarded(&$request, $request.get_ref())?)
                .await;
        }
        gym
    }};
}

type SyncStream = Pin<Box<dyn Stream<Item = Result<api::Sync, Status>> + Send>>;

#[tonic::async_trait]
impl KisiSyncService for KisiSync {
    async fn get_integration(
        &self,
        request: Request<api::GymRequest>,
    ) -> Result<Response<api::Integration>, Status> {
        require_gym(&request.get_ref().gym_id)?;
        Ok(Response::new(
            self.setup.show(&request.get_ref().gym_id).await?,
        ))
    }

    async fn enable_integration(
        &self,
        request: Request<api::EnableIntegrationRequest>,
    ) -> Result<Response<api::Integration>, Status> {
        require_gym(&request.get_ref().gym_id)?;
        let message = request.get_ref();
        let login = self.setup.log_in(&message.gym_id, &message.api_key).await?;
        if let Some(mut owner) = self.speaks_elsewhere(&login, &request).await? {
            return owner
                .enable_integration(forwarded(&request, message)?)
                .await;
        }
        Ok(Response::new(
            self.setup.enable(&message.gym_id, login).await?,
        ))
    }

    async fn list_places(
        &self,
        request: Request<api::GymRequest>,
    ) -> Result<Response<api::ListPlacesResponse>, Status> {
        let gym = at_owner!(self, request, list_places);
        Ok(Response::new(self.setup.places(&gym).await?))
    }

    async fn select_place(
        &self,
        request: Request<api::SelectPlaceRequest>,
    ) -> Result<Response<api::Integration>, Status> {
        let gym = at_owner!(self, request, select_place);
        let place = request.get_ref().place_id;
        Ok(Response::new(self.setup.select_place(&gym, place).await?))
    }

    async fn list_groups(
        &self,
        request: Request<api::GymRequest>,
    ) -> Result<Response<api::ListGroupsResponse>, Status> {
        let gym = at_owner!(self, request, list_groups);
        Ok(Response::new(self.setup.groups(&gym).await?))
    }

    async fn preview_sync(
        &self,
        request: Request<api::PreviewSyncRequest>,
    ) -> Result<Response<api::Preview>, Status> {
        let gym = at_owner!(self, request, preview_sync);
        let set = request.get_ref().associations.as_ref();
        let set = set.map(|set| set.associations.as_slice());
        Ok(Response::new(self.setup.preview(&gym, set).await?))
    }

    async fn set_associations(
        &self,
        request: Request<api::SetAssociationsRequest>,
    ) -> Result<Response<api::Integration>, Status> {
        let gym = at_owner!(self, request, set_associations);
        let actor = caller_of(&request)?.actor();
        let message = request.into_inner();
        let shown = self
            .setup
            .set_associations(&gym, &message.associations, message.digest, &actor)
            .await?;
        Ok(Response::new(shown))
    }

    async fn start_sync(
        &self,
        request: Request<api::StartSyncRequest>,
    ) -> Result<Response<api::Sync>, Status> {
        let gym = at_owner!(self, request, start_sync);
        let actor = caller_of(&request)?.actor();
        let digest = request.into_inner().digest;
        let sync = self.setup.start_sync(&gym, digest, &actor).await?;
        Ok(Response::new(sync))
    }

    async fn get_sync(
        &self,
        request: Request<api::GetSyncRequest>,
    ) -> Result<Response<api::Sync>, Status> {
        let message = request.into_inner();
        require_gym(&message.gym_id)?;
        let sync = self
            .setup
            .find_sync(&message.gym_id, &message.sync_id)
            .await?;
        Ok(Response::new(sync))
    }

    type WatchSyncStream = SyncStream;

    async fn watch_sync(
        &self,
        request: Request<api::GetSyncRequest>,
    ) -> Result<Response<SyncStream>, Status> {
        let message = request.into_inner();
        require_gym(&message.gym_id)?;
        let setup = self.setup.clone();
        let first = setup.find_sync(&message.gym_id, &message.sync_id).await?;
        let stream = async_stream::stream! {
            let mut last = first.clone();
            yield Ok(first);
            while matches!(last.state.as_str(), "queued" | "running") {
                tokio::time::sleep(Duration::from_millis(200)).await;
                match setup.find_sync(&message.gym_id, &message.sync_id).await {
                    Ok(sync) if sync != last => {
                        last = sync.clone();
                        yield Ok(sync);
                    }
                    Ok(_) => {}
                    Err(status) => {
                        yield Err(status);
                        return;
                    }
                }
            }
        };
        Ok(Response::new(Box::pin(stream)))
    }

    async fn sync_member(
        &self,
        request: Request<api::SyncMemberRequest>,
    ) -> Result<Response<api::SyncMemberResponse>, Status> {
        let gym = at_owner!(self, request, sync_member);
        let actor = caller_of(&request)?.actor();
        let member = request.into_inner().member_id;
        if !is_id(&member) {
            return Err(refusal::invalid("member_id", "it is no id"));
        }
        let row = self.setup.enabled(&gym).await?;
        if !row.activated {
            return Err(refusal::missing_step(
                "the first sync has not been started (StartSync)",
            ));
        }
        let known = members::find(&self.shared.db, &gym, &member)
            .await
            .map_err(refusal::store)?
            .ok_or_else(|| Status::not_found("there is no such member"))?;
        // Whoever asks may have changed the e-mail a moment ago. Without an answer the rest is done.
        if let Ok(Some(person)) = self.shared.directory.find_person(&gym, &member).await
            && known.kisi_user_id.is_some()
            && known.person_digest != Some(person.digest(&gym, &member))
        {
            members::set_person_digest(&self.shared.db, &gym, &member, members::CHANGED)
                .await
                .map_err(refusal::store)?;
        }
        let cause = members::Cause::new("call", "SyncMember", Some(&actor));
        members::look_again(&self.shared.db, &gym, &member, &cause, self.shared.now())
            .await
            .map_err(refusal::store)?;
        let job = Job::look(&member, Urgency::Grant);
        self.shared.workers.wake(&gym, job);
        Ok(Response::new(api::SyncMemberResponse {
            outcome: "queued".to_owned(),
        }))
    }

    async fn list_other_rights(
        &self,
        request: Request<api::ListOtherRightsRequest>,
    ) -> Result<Response<api::ListOtherRightsResponse>, Status> {
        at_owner!(self, request, list_other_rights);
        let page = self.setup.list_other_rights(request.get_ref()).await?;
        Ok(Response::new(page))
    }

    async fn list_held_plans(
        &self,
        request: Request<api::GymRequest>,
    ) -> Result<Response<api::ListHeldPlansResponse>, Status> {
        require_gym(&request.get_ref().gym_id)?;
        let gym = request.into_inner().gym_id;
        Ok(Response::new(self.setup.held_plans(&gym).await?))
    }

    async fn approve_plan(
        &self,
        request: Request<api::DecidePlanRequest>,
    ) -> Result<Response<api::HeldPlan>, Status> {
        at_owner!(self, request, approve_plan);
        let actor = caller_of(&request)?.actor();
        let decided = self.setup.decide(request.get_ref(), true, actor).await?;
        Ok(Response::new(decided))
    }

    async fn discard_plan(
        &self,
        request: Request<api::DecidePlanRequest>,
    ) -> Result<Response<api::HeldPlan>, Status> {
        at_owner!(self, request, discard_plan);
        let actor = caller_of(&request)?.actor();
        let decided = self.setup.decide(request.get_ref(), false, actor).await?;
        Ok(Response::new(decided))
    }

    async fn rotate_api_key(
        &self,
        request: Request<api::EnableIntegrationRequest>,
    ) -> Result<Response<api::Integration>, Status> {
        require_gym(&request.get_ref().gym_id)?;
        let message = request.get_ref();
        let login = self.setup.log_in_anew(&message.gym_id, &message.api_key);
        let login = login.await?;
        if let Some(mut owner) = self.speaks_elsewhere(&login, &request).await? {
            return owner.rotate_api_key(forwarded(&request, message)?).await;
        }
        // With the key the gym goes to whoever speaks for its owner.
        if !self.speaks_here(&login) {
            at_owner!(self, request, rotate_api_key);
        }
        let actor = caller_of(&request)?.actor();
        let gym = request.into_inner().gym_id;
        Ok(Response::new(self.setup.rotate(&gym, login, &actor).await?))
    }

    async fn set_policies(
        &self,
        request: Request<api::SetPoliciesRequest>,
    ) -> Result<Response<api::Integration>, Status> {
        let gym = at_owner!(self, request, set_policies);
        let policies = request.into_inner().policies;
        Ok(Response::new(
            self.setup.set_policies(&gym, policies).await?,
        ))
    }

    async fn disable_integration(
        &self,
        request: Request<api::DisableIntegrationRequest>,
    ) -> Result<Response<api::Integration>, Status> {
        let gym = at_owner!(self, request, disable_integration);
        let actor = caller_of(&request)?.actor();
        let message = request.into_inner();
        let shown = self
            .setup
            .disable(&gym, &message.access, message.digest, &actor)
            .await?;
        Ok(Response::new(shown))
    }

    async fn unlock(
        &self,
        request: Request<access::UnlockRequest>,
    ) -> Result<Response<access::UnlockResponse>, Status> {
        at_owner!(self, request, unlock);
        if !is_id(&request.get_ref().member_id) {
            return Err(refusal::invalid("member_id", "it is no id"));
        }
        let actor = caller_of(&request)?.actor();
        let answer = unlock::unlock(&self.shared, request.get_ref(), &actor).await?;
        Ok(Response::new(answer))
    }

    async fn enrol_device(
        &self,
        request: Request<access::EnrolDeviceRequest>,
    ) -> Result<Response<access::EnrolDeviceResponse>, Status> {
        let gym = at_owner!(self, request, enrol_device);
        let actor = caller_of(&request)?.actor();
        let member = &request.get_ref().member_id;
        let phones = Phones::of(&self.shared, &gym, member, &actor).await?;
        Ok(Response::new(phones.enrol(request.get_ref()).await?))
    }

    async fn list_devices(
        &self,
        request: Request<access::GetAccessStatusRequest>,
    ) -> Result<Response<access::ListDevicesResponse>, Status> {
        require_gym(&request.get_ref().gym_id)?;
        let request = request.into_inner();
        let listed = devices::list(&self.shared, &request.gym_id, &request.member_id).await?;
        Ok(Response::new(listed))
    }

    async fn make_primary(
        &self,
        request: Request<access::DeviceRequest>,
    ) -> Result<Response<access::Device>, Status> {
        let gym = at_owner!(self, request, make_primary);
        let actor = caller_of(&request)?.actor();
        let member = &request.get_ref().member_id;
        let phones = Phones::of(&self.shared, &gym, member, &actor).await?;
        Ok(Response::new(phones.make_primary(request.get_ref()).await?))
    }

    async fn reset_devices(
        &self,
        request: Request<access::GetAccessStatusRequest>,
    ) -> Result<Response<access::ListDevicesResponse>, Status> {
        let gym = at_owner!(self, request, reset_devices);
        let actor = caller_of(&request)?.actor();
        let member = &request.get_ref().member_id;
        let phones = Phones::of(&self.shared, &gym, member, &actor).await?;
        Ok(Response::new(phones.reset().await?))
    }

    async fn get_timeline(
        &self,
        request: Request<access::GetTimelineRequest>,
    ) -> Result<Response<access::GetTimelineResponse>, Status> {
        let request = request.into_inner();
        require_gym(&request.gym_id)?;
        let page = timeline::page(&self.shared, &request).await?;
        Ok(Response::new(page))
    }

    async fn pass_kisi_event(
        &self,
        request: Request<PassKisiEventRequest>,
    ) -> Result<Response<PassKisiEventResponse>, Status> {
        require_gym(&request.get_ref().gym_id)?;
        // Whoever cannot sign costs no other replica anything.
        kisi_events::verify(&self.shared, request.get_ref()).await?;
        let gym = at_owner!(self, request, pass_kisi_event);
        let looked_again = kisi_events::take(&self.shared, &gym, &request.get_ref().body).await?;
        Ok(Response::new(PassKisiEventResponse { looked_again }))
    }
}
