//! `gymflow.integration.v1.IntegrationService`.

use std::pin::Pin;
use std::sync::Arc;

use contracts::integration::v1 as wire;
use contracts::integration::v1::integration_service_server::IntegrationService;
use futures_util::{Stream, StreamExt};
use service_runtime::identity::grpc::caller_of;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::gateway::Gateway;

#[derive(Debug)]
pub(super) struct Integration {
    pub(super) gateway: Arc<Gateway>,
    pub(super) shutdown: CancellationToken,
}

macro_rules! hand_over {
    ($self:ident, $request:ident, $call:ident) => {{
        let caller = caller_of(&$request)?;
        let answer = $self.gateway.$call(&caller, $request.into_inner()).await?;
        Ok(Response::new(answer))
    }};
}

#[tonic::async_trait]
impl IntegrationService for Integration {
    async fn get_integration(
        &self,
        request: Request<wire::GymRequest>,
    ) -> Result<Response<wire::Integration>, Status> {
        hand_over!(self, request, get_integration)
    }

    async fn enable_integration(
        &self,
        request: Request<wire::EnableIntegrationRequest>,
    ) -> Result<Response<wire::Integration>, Status> {
        hand_over!(self, request, enable_integration)
    }

    async fn list_places(
        &self,
        request: Request<wire::GymRequest>,
    ) -> Result<Response<wire::ListPlacesResponse>, Status> {
        hand_over!(self, request, list_places)
    }

    async fn select_place(
        &self,
        request: Request<wire::SelectPlaceRequest>,
    ) -> Result<Response<wire::Integration>, Status> {
        hand_over!(self, request, select_place)
    }

    async fn list_groups(
        &self,
        request: Request<wire::GymRequest>,
    ) -> Result<Response<wire::ListGroupsResponse>, Status> {
        hand_over!(self, request, list_groups)
    }

    async fn preview_sync(
        &self,
        request: Request<wire::PreviewSyncRequest>,
    ) -> Result<Response<wire::Preview>, Status> {
        hand_over!(self, request, preview_sync)
    }

    async fn set_associations(
        &self,
        request: Request<wire::SetAssociationsRequest>,
    ) -> Result<Response<wire::Integration>, Status> {
        hand_over!(self, request, set_associations)
    }

    async fn start_sync(
        &self,
        request: Request<wire::StartSyncRequest>,
    ) -> Result<Response<wire::Sync>, Status> {
        hand_over!(self, request, start_sync)
    }

    async fn get_sync(
        &self,
        request: Request<wire::GetSyncRequest>,
    ) -> Result<Response<wire::Sync>, Status> {
        hand_over!(self, request, get_sync)
    }

    async fn sync_member(
        &self,
        request: Request<wire::SyncMemberRequest>,
    ) -> Result<Response<wire::SyncMemberResponse>, Status> {
        hand_over!(self, request, sync_member)
    }

    type WatchSyncStream = Pin<Box<dyn Stream<Item = Result<wire::Sync, Status>> + Send>>;

    async fn watch_sync(
        &self,
        request: Request<wire::GetSyncRequest>,
    ) -> Result<Response<Self::WatchSyncStream>, Status> {
        let caller = caller_of(&request)?;
        let stream = self
            .gateway
            .watch_sync(&caller, request.into_inner())
            .await?;
        // A first sync may take longer than a drain: the watcher asks another replica.
        let until_shutdown = self.shutdown.clone().cancelled_owned();
        Ok(Response::new(Box::pin(stream.take_until(until_shutdown))))
    }

    async fn list_other_rights(
        &self,
        request: Request<wire::ListOtherRightsRequest>,
    ) -> Result<Response<wire::ListOtherRightsResponse>, Status> {
        hand_over!(self, request, list_other_rights)
    }

    async fn list_held_plans(
        &self,
        request: Request<wire::GymRequest>,
    ) -> Result<Response<wire::ListHeldPlansResponse>, Status> {
        hand_over!(self, request, list_held_plans)
    }

    async fn approve_plan(
        &self,
        request: Request<wire::DecidePlanRequest>,
    ) -> Result<Response<wire::HeldPlan>, Status> {
        hand_over!(self, request, approve_plan)
    }

    async fn discard_plan(
        &self,
        request: Request<wire::DecidePlanRequest>,
    ) -> Result<Response<wire::HeldPlan>, Status> {
        hand_over!(self, request, discard_plan)
    }

    async fn rotate_api_key(
        &self,
        request: Request<wire::EnableIntegrationRequest>,
    ) -> Result<Response<wire::Integration>, Status> {
        hand_over!(self, request, rotate_api_key)
    }

    async fn set_policies(
        &self,
        request: Request<wire::SetPoliciesRequest>,
    ) -> Result<Response<wire::Integration>, Status> {
        hand_over!(self, request, set_policies)
    }

    async fn disable_integration(
        &self,
        request: Request<wire::DisableIntegrationRequest>,
    ) -> Result<Response<wire::Integration>, Status> {
        hand_over!(self, request, disable_integration)
    }

    async fn list_dead_letters(
        &self,
        request: Request<wire::ListDeadLettersRequest>,
    ) -> Result<Response<wire::ListDeadLettersResponse>, Status> {
        hand_over!(self, request, list_dead_letters)
    }

    async fn replay_dead_letters(
        &self,
        request: Request<wire::ReplayDeadLettersRequest>,
    ) -> Result<Response<wire::ReplayDeadLettersResponse>, Status> {
        hand_over!(self, request, replay_dead_letters)
    }
}
