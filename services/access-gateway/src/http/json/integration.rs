//! JSON of the integration's routes.

use contracts::integration::v1 as wire;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::instant;
use crate::gateway::PolicyChange;

/// The link between a gym and its Kisi organization; never the key.
#[derive(Debug, Serialize, ToSchema)]
pub struct IntegrationBody {
    /// `disabled`, `key_saved`, `place_selected`, `ready`, `syncing`, `active` or `needs_attention`.
    #[schema(example = "active")]
    pub state: String,
    /// How the key is; absent while kisi-sync does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyBody>,
    /// Kisi's id of the place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place_id: Option<i64>,
    /// Which plan opens which group.
    pub associations: Vec<AssociationBody>,
    /// Plans that members hold and no group opens.
    pub plans_without_group: Vec<PlanWithoutGroupBody>,
    /// Members whose e-mail another member or a Kisi administrator has.
    pub conflicts: Vec<ConflictBody>,
    /// What somebody has to act on.
    pub attention: Vec<AttentionBody>,
    /// The policies.
    pub policies: PoliciesBody,
    /// Rights in our groups that others gave.
    pub unmanaged: i64,
    /// When the last full reconcile ended well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub last_reconciled_at: Option<String>,
    /// When the next one begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub next_reconcile_at: Option<String>,
    /// The doors behind each associated group.
    pub groups: Vec<GroupDoorsBody>,
    /// Grows with each change.
    pub version: i64,
}

impl From<wire::Integration> for IntegrationBody {
    fn from(integration: wire::Integration) -> Self {
        Self {
            state: integration.state,
            key: integration.key.map(Into::into),
            place_id: integration.place_id,
            associations: list(integration.associations),
            plans_without_group: list(integration.plans_without_group),
            conflicts: list(integration.conflicts),
            attention: list(integration.attention),
            policies: integration.policies.unwrap_or_default().into(),
            unmanaged: integration.unmanaged,
            last_reconciled_at: instant(integration.last_reconciled_at),
            next_reconcile_at: instant(integration.next_reconcile_at),
            groups: list(integration.groups),
            version: integration.version,
        }
    }
}

fn list<A: Into<B>, B>(items: Vec<A>) -> Vec<B> {
    items.into_iter().map(Into::into).collect()
}

/// How a Kisi API key is.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyBody {
    /// `ok`, `invalid`, `insufficient` or `none`.
    pub status: String,
    /// Kisi's id of the organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<i64>,
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub organization_name: String,
    /// Kisi's id of the person whose key it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_user_id: Option<i64>,
    /// When it was last looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub checked_at: Option<String>,
    /// Advice, such as a dedicated Kisi account.
    pub advice: Vec<String>,
}

impl From<wire::KeyHealth> for KeyBody {
    fn from(key: wire::KeyHealth) -> Self {
        Self {
            status: key.status,
            organization_id: key.organization_id,
            organization_name: key.organization_name,
            owner_user_id: key.owner_user_id,
            checked_at: instant(key.checked_at),
            advice: key.advice,
        }
    }
}

/// One plan opens one group's doors.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AssociationBody {
    /// Gymflow's id of the plan.
    pub plan_id: String,
    /// Kisi's id of the group.
    pub group_id: i64,
}

impl From<wire::Association> for AssociationBody {
    fn from(association: wire::Association) -> Self {
        Self {
            plan_id: association.plan_id,
            group_id: association.group_id,
        }
    }
}

impl From<AssociationBody> for wire::Association {
    fn from(association: AssociationBody) -> Self {
        Self {
            plan_id: association.plan_id,
            group_id: association.group_id,
        }
    }
}

/// A plan that members hold and no group opens.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlanWithoutGroupBody {
    /// The plan.
    pub plan_id: String,
    /// Members who hold it.
    pub members: i64,
}

impl From<wire::PlanWithoutGroup> for PlanWithoutGroupBody {
    fn from(plan: wire::PlanWithoutGroup) -> Self {
        Self {
            plan_id: plan.plan_id,
            members: plan.members,
        }
    }
}

/// Members who cannot be told apart in Kisi.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConflictBody {
    /// The members.
    pub member_ids: Vec<String>,
    /// `same_email` or `kisi_staff`.
    pub what: String,
}

impl From<wire::Conflict> for ConflictBody {
    fn from(conflict: wire::Conflict) -> Self {
        Self {
            member_ids: conflict.member_ids,
            what: conflict.what,
        }
    }
}

/// Something that somebody has to act on.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttentionBody {
    /// `key_invalid`, `key_rights`, `group_missing`, `place_missing`, `kisi_unreachable`,
    /// `plan_held` or `listing_distrusted`.
    pub what: String,
    /// The group, place or held plan it is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// In words staff can act on.
    pub message: String,
    /// Who has to act: `staff`, `platform` or `kisi`.
    pub who: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub since: Option<String>,
}

impl From<wire::Attention> for AttentionBody {
    fn from(attention: wire::Attention) -> Self {
        Self {
            what: attention.what,
            subject: attention.subject,
            message: attention.message,
            who: attention.who,
            since: instant(attention.since),
        }
    }
}

/// The doors behind a group.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupDoorsBody {
    /// Kisi's id.
    pub group_id: i64,
    /// Its name.
    pub name: String,
    /// Its doors.
    pub doors: Vec<super::access::DoorBody>,
}

impl From<wire::GroupDoors> for GroupDoorsBody {
    fn from(group: wire::GroupDoors) -> Self {
        Self {
            group_id: group.group_id,
            name: group.name,
            doors: list(group.doors),
        }
    }
}

/// The policies.
#[derive(Debug, Serialize, ToSchema)]
pub struct PoliciesBody {
    /// Rights for our members in our groups that others gave: `leave` or `adopt`.
    pub unmanaged: String,
    /// `request`, `immediate` or `off`.
    pub member_resume: String,
    /// `managed` or `regular`.
    pub user_mode: String,
}

impl From<wire::Policies> for PoliciesBody {
    fn from(policies: wire::Policies) -> Self {
        let word = |word: String, default: &str| match word.is_empty() {
            true => default.to_owned(),
            false => word,
        };
        Self {
            unmanaged: word(policies.unmanaged, "leave"),
            member_resume: word(policies.member_resume, "request"),
            user_mode: word(policies.user_mode, "managed"),
        }
    }
}

/// New policies; what is absent stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
pub struct PutPoliciesBody {
    /// `leave` or `adopt`.
    pub unmanaged: Option<String>,
    /// `request`, `immediate` or `off`.
    pub member_resume: Option<String>,
    /// `managed` or `regular`.
    pub user_mode: Option<String>,
}

impl From<PutPoliciesBody> for PolicyChange {
    fn from(body: PutPoliciesBody) -> Self {
        Self {
            unmanaged: body.unmanaged,
            member_resume: body.member_resume,
            user_mode: body.user_mode,
        }
    }
}

/// A Kisi API key. Sealed at once; never answered, never logged.
#[derive(Deserialize, ToSchema)]
pub struct ApiKeyBody {
    /// The key.
    pub api_key: String,
}

/// Places of the organization.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlacesBody {
    /// The places.
    pub places: Vec<PlaceBody>,
}

impl From<wire::ListPlacesResponse> for PlacesBody {
    fn from(answer: wire::ListPlacesResponse) -> Self {
        Self {
            places: list(answer.places),
        }
    }
}

/// A place.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlaceBody {
    /// Kisi's id.
    pub place_id: i64,
    /// Its name.
    pub name: String,
}

impl From<wire::Place> for PlaceBody {
    fn from(place: wire::Place) -> Self {
        Self {
            place_id: place.place_id,
            name: place.name,
        }
    }
}

/// The place to connect.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SelectPlaceBody {
    /// Kisi's id.
    pub place_id: i64,
}

/// Groups that a plan can open.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupsBody {
    /// The groups.
    pub groups: Vec<GroupBody>,
}

impl From<wire::ListGroupsResponse> for GroupsBody {
    fn from(answer: wire::ListGroupsResponse) -> Self {
        Self {
            groups: list(answer.groups),
        }
    }
}

/// A group.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupBody {
    /// Kisi's id.
    pub group_id: i64,
    /// Its name.
    pub name: String,
    /// `organization` or `place`.
    pub scope: String,
    /// People in it.
    pub users_count: i64,
}

impl From<wire::Group> for GroupBody {
    fn from(group: wire::Group) -> Self {
        Self {
            group_id: group.group_id,
            name: group.name,
            scope: group.scope,
            users_count: group.users_count,
        }
    }
}

/// The whole set of associations.
#[derive(Debug, Deserialize, ToSchema)]
pub struct PutAssociationsBody {
    /// Replaces what is there.
    pub associations: Vec<AssociationBody>,
    /// Of a preview that staff confirmed.
    pub digest: Option<String>,
}

/// What to preview.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct PreviewRequestBody {
    /// Absent: the associations held.
    pub associations: Option<Vec<AssociationBody>>,
}

/// What a sync would do.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreviewBody {
    /// Confirms exactly this plan.
    pub digest: String,
    /// Rights to be given.
    pub grants: i64,
    /// Rights to be taken back.
    pub revokes: i64,
    /// Rights in these groups by other hands.
    pub unmanaged: i64,
    /// Members who cannot be told apart in Kisi.
    pub conflicts: Vec<ConflictBody>,
    /// Plans that members hold and no group opens.
    pub plans_without_group: Vec<PlanWithoutGroupBody>,
    /// How long it would take, at the pace kept.
    pub seconds: i64,
}

impl From<wire::Preview> for PreviewBody {
    fn from(preview: wire::Preview) -> Self {
        Self {
            digest: preview.digest,
            grants: preview.grants,
            revokes: preview.revokes,
            unmanaged: preview.unmanaged,
            conflicts: list(preview.conflicts),
            plans_without_group: list(preview.plans_without_group),
            seconds: preview.seconds,
        }
    }
}

/// A sync to start.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct StartSyncBody {
    /// Of a preview that staff confirmed.
    pub digest: Option<String>,
}

/// A full reconcile.
#[derive(Debug, Serialize, ToSchema)]
pub struct SyncBody {
    /// Its id.
    pub id: String,
    /// The same id.
    pub sync_id: String,
    /// `queued`, `running`, `done`, `done_with_failures`, `held` or `failed`.
    pub state: String,
    /// What set it off: `schedule`, `staff`, `first`, `associations` or `key`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub activation: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub started_at: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub ended_at: Option<String>,
    /// True when Kisi holds what is desired, for everything that is ours.
    pub in_sync: bool,
    /// What it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<ReportBody>,
}

impl From<wire::Sync> for SyncBody {
    fn from(sync: wire::Sync) -> Self {
        Self {
            id: sync.sync_id.clone(),
            sync_id: sync.sync_id,
            state: sync.state,
            activation: sync.activation,
            started_at: instant(sync.started_at),
            ended_at: instant(sync.ended_at),
            in_sync: sync.in_sync,
            report: sync.report.map(Into::into),
        }
    }
}

/// What a sync did.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReportBody {
    /// Members looked at.
    pub members: i64,
    /// Rights given.
    pub granted: i64,
    /// Rights taken back.
    pub revoked: i64,
    /// Rights that were as they should be.
    pub unchanged: i64,
    /// Steps Kisi refused.
    pub refused: i64,
    /// Steps that failed otherwise.
    pub failed: i64,
    /// Rights that others gave.
    pub unmanaged: i64,
    /// Rights that stood twice.
    pub duplicates_removed: i64,
    /// Rights whose window changed.
    pub windows_changed: i64,
    /// Steps that wait for a person.
    pub held: i64,
    /// Requests made to Kisi.
    pub requests: i64,
    /// What failed, at most 100.
    pub failures: Vec<FailureBody>,
    /// Rights that others gave, at most 100.
    pub unmanaged_grants: Vec<UnmanagedBody>,
}

impl From<wire::SyncReport> for ReportBody {
    fn from(report: wire::SyncReport) -> Self {
        Self {
            members: report.members,
            granted: report.granted,
            revoked: report.revoked,
            unchanged: report.unchanged,
            refused: report.refused,
            failed: report.failed,
            unmanaged: report.unmanaged,
            duplicates_removed: report.duplicates_removed,
            windows_changed: report.windows_changed,
            held: report.held,
            requests: report.requests,
            failures: list(report.failures),
            unmanaged_grants: list(report.unmanaged_grants),
        }
    }
}

/// A step that failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailureBody {
    /// The member.
    pub member_id: String,
    /// Kisi's id of the group.
    pub group_id: i64,
    /// What was to be done.
    pub step: String,
    /// Why it was not, in words.
    pub failure: String,
}

impl From<wire::StepFailure> for FailureBody {
    fn from(step: wire::StepFailure) -> Self {
        Self {
            member_id: step.member_id,
            group_id: step.group_id,
            step: step.step,
            failure: step.failure,
        }
    }
}

/// A right that others gave.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnmanagedBody {
    /// Kisi's id of it.
    pub assignment_id: i64,
    /// Kisi's id of the group.
    pub group_id: i64,
    /// Kisi's id of the person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kisi_user_id: Option<i64>,
    /// When the person is a member of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
}

impl From<wire::UnmanagedGrant> for UnmanagedBody {
    fn from(grant: wire::UnmanagedGrant) -> Self {
        Self {
            assignment_id: grant.assignment_id,
            group_id: grant.group_id,
            kisi_user_id: grant.kisi_user_id,
            member_id: grant.member_id,
        }
    }
}

/// Plans that wait for a person.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeldPlansBody {
    /// The plans.
    pub held_plans: Vec<HeldPlanBody>,
}

impl From<wire::ListHeldPlansResponse> for HeldPlansBody {
    fn from(answer: wire::ListHeldPlansResponse) -> Self {
        Self {
            held_plans: list(answer.held_plans),
        }
    }
}

/// A plan that waits, or waited, for a person.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeldPlanBody {
    /// Its id.
    pub id: String,
    /// Of the exact set.
    pub digest: String,
    /// `explained`, `unexplained` or `grants`.
    pub class: String,
    /// What brought it about.
    pub causes: Vec<String>,
    /// Rights to be taken back.
    pub revokes: i64,
    /// Rights to be given.
    pub grants: i64,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub held_at: Option<String>,
    /// Until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// `held`, `approved`, `discarded` or `expired`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
}

impl From<wire::HeldPlan> for HeldPlanBody {
    fn from(plan: wire::HeldPlan) -> Self {
        Self {
            id: plan.id,
            digest: plan.digest,
            class: plan.class,
            causes: plan.causes,
            revokes: plan.revokes,
            grants: plan.grants,
            held_at: instant(plan.held_at),
            expires_at: instant(plan.expires_at),
            state: plan.state,
        }
    }
}

/// Confirms a held plan by its digest.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ApproveBody {
    /// The digest shown.
    pub digest: String,
}

/// Lets a held plan go.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct DiscardBody {
    /// The digest shown.
    pub digest: Option<String>,
}
