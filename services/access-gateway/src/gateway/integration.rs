//! Setting an integration up: permitted and checked here, done by kisi-sync.

use std::time::Duration;

use contracts::integration::v1 as wire;
use contracts::kisi::v1::{PassKisiEventRequest, PassKisiEventResponse};
use service_runtime::identity::{Caller, Role};
use tonic::{Code, Streaming};

use super::Gateway;
use super::checks::{
    check_associations, check_decision, check_key, check_page, check_policies, check_word,
};
use crate::permit::{self, Scope, check_ids, check_kisi_id};
use crate::refusal::Refusal;
use crate::upstream::{kisi_refused, within};

/// kisi-sync answers from its database.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// kisi-sync asks Kisi, at its pace.
const KISI_LIMIT: Duration = Duration::from_secs(120);
/// Kisi's own webhooks wait this long for an answer.
const EVENT_LIMIT: Duration = Duration::from_secs(5);

/// New words for some of the policies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyChange {
    /// `leave` or `adopt`.
    pub unmanaged: Option<String>,
    /// `request`, `immediate` or `off`.
    pub member_resume: Option<String>,
    /// `managed` or `regular`.
    pub user_mode: Option<String>,
}

/// A call that is permitted by scope, checked, and passed on.
macro_rules! pass_on {
    ($($(#[$doc:meta])* $name:ident($request:ident: $from:ty) -> $to:ty, $scope:ident, $limit:ident, $check:expr;)*) => {
        impl Gateway {
            $($(#[$doc])*
            pub async fn $name(&self, caller: &Caller, $request: $from) -> Result<$to, Refusal> {
                permit::staff(caller, &$request.gym_id, Scope::$scope)?;
                $check?;
                let mut kisi = self.upstream.kisi();
                let answer = kisi.$name(within($limit, caller, $request)).await;
                Ok(answer.map_err(kisi_refused)?.into_inner())
            })*
        }
    };
}

pass_on! {
    /// Saves a Kisi API key.
    enable_integration(request: wire::EnableIntegrationRequest) -> wire::Integration, Configure, KISI_LIMIT,
        check_key(&request.api_key);
    /// The organization's places.
    list_places(request: wire::GymRequest) -> wire::ListPlacesResponse, Read, KISI_LIMIT, checked();
    /// Chooses the place.
    select_place(request: wire::SelectPlaceRequest) -> wire::Integration, Configure, KISI_LIMIT,
        check_kisi_id("place_id", request.place_id);
    /// The place's groups.
    list_groups(request: wire::GymRequest) -> wire::ListGroupsResponse, Read, KISI_LIMIT, checked();
    /// What a sync would do.
    preview_sync(request: wire::PreviewSyncRequest) -> wire::Preview, Read, KISI_LIMIT,
        check_associations(request.associations.as_ref().map_or(&[], |set| &set.associations));
    /// Replaces the whole set of associations.
    set_associations(request: wire::SetAssociationsRequest) -> wire::Integration, Configure, KISI_LIMIT,
        check_associations(&request.associations);
    /// A full reconcile now.
    start_sync(request: wire::StartSyncRequest) -> wire::Sync, Configure, KISI_LIMIT, checked();
    /// How a sync goes.
    get_sync(request: wire::GetSyncRequest) -> wire::Sync, Read, READ_LIMIT,
        check_ids(&[("sync_id", &request.sync_id)]);
    /// Who else opens these doors.
    list_other_rights(request: wire::ListOtherRightsRequest) -> wire::ListOtherRightsResponse, Read, KISI_LIMIT,
        check_page(request.page_size);
    /// Held plans.
    list_held_plans(request: wire::GymRequest) -> wire::ListHeldPlansResponse, Read, READ_LIMIT, checked();
    /// Applies exactly the set shown under this digest.
    approve_plan(request: wire::DecidePlanRequest) -> wire::HeldPlan, Approve, KISI_LIMIT,
        check_decision(&request);
    /// Lets a held plan go.
    discard_plan(request: wire::DecidePlanRequest) -> wire::HeldPlan, Approve, KISI_LIMIT,
        check_ids(&[("id", &request.id)]);
    /// Replaces the key.
    rotate_api_key(request: wire::EnableIntegrationRequest) -> wire::Integration, Configure, KISI_LIMIT,
        check_key(&request.api_key);
    /// Replaces the policies.
    set_policies(request: wire::SetPoliciesRequest) -> wire::Integration, Configure, KISI_LIMIT,
        check_policies(request.policies.as_ref());
    /// Ends the integration.
    disable_integration(request: wire::DisableIntegrationRequest) -> wire::Integration, Configure, KISI_LIMIT,
        check_word("access", &request.access, &["keep", "revoke"]);
}

impl Gateway {
    /// The integration; from memory, without what only kisi-sync knows, while that is down.
    pub async fn get_integration(
        &self,
        caller: &Caller,
        request: wire::GymRequest,
    ) -> Result<wire::Integration, Refusal> {
        permit::staff(caller, &request.gym_id, Scope::Read)?;
        let gym = request.gym_id.clone();
        let mut kisi = self.upstream.kisi();
        match kisi
            .get_integration(within(READ_LIMIT, caller, request))
            .await
        {
            Ok(answer) => Ok(answer.into_inner()),
            Err(down) if matches!(down.code(), Code::Unavailable | Code::DeadlineExceeded) => {
                match self.projection.gym(&gym) {
                    Some(held) if self.projection.is_caught_up() => {
                        Ok(remembered(held.message.clone()))
                    }
                    _ => Err(kisi_refused(down)),
                }
            }
            Err(status) => Err(kisi_refused(status)),
        }
    }

    /// Changes the policies that are named and keeps the others.
    pub async fn change_policies(
        &self,
        caller: &Caller,
        gym: String,
        change: PolicyChange,
    ) -> Result<wire::Integration, Refusal> {
        permit::staff(caller, &gym, Scope::Configure)?;
        let mut policies = wire::Policies {
            unmanaged: change.unmanaged.unwrap_or_default(),
            member_resume: change.member_resume.unwrap_or_default(),
            user_mode: change.user_mode.unwrap_or_default(),
        };
        check_policies(Some(&policies))?;
        let words = [
            &policies.unmanaged,
            &policies.member_resume,
            &policies.user_mode,
        ];
        if words.iter().any(|word| word.is_empty()) {
            let ask = wire::GymRequest {
                gym_id: gym.clone(),
            };
            let mut kisi = self.upstream.kisi();
            let answer = kisi.get_integration(within(READ_LIMIT, caller, ask)).await;
            let held = answer.map_err(kisi_refused)?.into_inner().policies;
            let held = held.unwrap_or_default();
            let keep = |word: &mut String, held: String| {
                if word.is_empty() {
                    *word = held;
                }
            };
            keep(&mut policies.unmanaged, held.unmanaged);
            keep(&mut policies.member_resume, held.member_resume);
            keep(&mut policies.user_mode, held.user_mode);
        }
        let request = wire::SetPoliciesRequest {
            gym_id: gym,
            policies: Some(policies),
        };
        self.set_policies(caller, request).await
    }

    /// One member now.
    pub async fn sync_member(
        &self,
        caller: &Caller,
        request: wire::SyncMemberRequest,
    ) -> Result<wire::SyncMemberResponse, Refusal> {
        check_ids(&[
            ("gym_id", &request.gym_id),
            ("member_id", &request.member_id),
        ])?;
        permit::staff(caller, &request.gym_id, Scope::Configure)?;
        let mut kisi = self.upstream.kisi();
        let answer = kisi.sync_member(within(KISI_LIMIT, caller, request)).await;
        Ok(answer.map_err(kisi_refused)?.into_inner())
    }

    /// A sync's progress, until it ends.
    pub async fn watch_sync(
        &self,
        caller: &Caller,
        request: wire::GetSyncRequest,
    ) -> Result<Streaming<wire::Sync>, Refusal> {
        permit::staff(caller, &request.gym_id, Scope::Read)?;
        check_ids(&[("sync_id", &request.sync_id)])?;
        let mut kisi = self.upstream.kisi();
        // No limit of ours: a first sync takes as long as it takes.
        let asked = service_runtime::grpc::on_behalf_of(caller, request);
        Ok(kisi
            .watch_sync(asked)
            .await
            .map_err(kisi_refused)?
            .into_inner())
    }

    /// A Kisi event webhook as it came. Its signature is the only credential, and kisi-sync's to
    /// check.
    pub async fn pass_kisi_event(
        &self,
        request: PassKisiEventRequest,
    ) -> Result<PassKisiEventResponse, Refusal> {
        check_ids(&[("gym_id", &request.gym_id)])?;
        let kisi_itself = Caller {
            role: Role::Service,
            sub: "kisi".to_owned(),
            gym: None,
            scopes: Default::default(),
            on_behalf_of: None,
        };
        let mut kisi = self.upstream.kisi();
        let passed = kisi.pass_kisi_event(within(EVENT_LIMIT, &kisi_itself, request));
        Ok(passed.await.map_err(kisi_refused)?.into_inner())
    }
}

fn remembered(message: wire::IntegrationChanged) -> wire::Integration {
    wire::Integration {
        gym_id: message.gym_id,
        state: message.state,
        place_id: message.place_id,
        associations: message.associations,
        attention: message.attention,
        policies: message.policies,
        last_reconciled_at: message.last_reconciled_at,
        groups: message.groups,
        version: message.version,
        ..Default::default()
    }
}

fn checked() -> Result<(), Refusal> {
    Ok(())
}
