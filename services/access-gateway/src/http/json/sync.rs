//! JSON of previews, syncs and held plans.

use contracts::integration::v1 as wire;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::integration::{AssociationBody, ConflictBody, PlanWithoutGroupBody};
use super::rights::OtherRightsBody;
use super::{instant, list};

/// What to preview.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct PreviewRequestBody {
    /// Absent: the associations held.
    pub associations: Option<Vec<AssociationBody>>,
}

/// What a sync would do.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreviewBody {
    /// Confirms exactly what is shown here.
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
    /// How long it would take, at the pace kept: pages to be read, and writes.
    pub seconds: i64,
    /// Members who get a right, at most 1000.
    pub member_ids_in: Vec<String>,
    /// How many they are.
    pub members_in: i64,
    /// Members who lose a right and get none instead, at most 1000.
    pub member_ids_out: Vec<String>,
    /// How many they are.
    pub members_out: i64,
    /// Members for whom others open these doors already, at most 1000.
    pub member_ids_in_by_others: Vec<String>,
    /// How many they are.
    pub members_in_by_others: i64,
    /// Everybody and everything else that opens these doors by other hands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_rights: Option<OtherRightsBody>,
    /// Requests to Kisi that it takes.
    pub requests: i64,
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
            member_ids_in: preview.member_ids_in,
            members_in: preview.members_in,
            member_ids_out: preview.member_ids_out,
            members_out: preview.members_out,
            member_ids_in_by_others: preview.member_ids_in_by_others,
            members_in_by_others: preview.members_in_by_others,
            other_rights: preview.other_rights.map(Into::into),
            requests: preview.requests,
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
