//! JSON of the integration's routes.

use contracts::integration::v1 as wire;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::rights::OtherRightsBody;
use super::{instant, list};
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
    /// Who else opens these doors; absent before Kisi was first asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_rights: Option<OtherRightsBody>,
    /// Regular users who were not seen to have signed up with Kisi yet.
    pub sign_ups_needed: i64,
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
            other_rights: integration.other_rights.map(Into::into),
            sign_ups_needed: integration.sign_ups_needed,
        }
    }
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
    /// The owner's widest role in Kisi, such as `organization_owner`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub owner_role: String,
    /// The owner may do everything in the organization.
    pub owner_is_owner: bool,
    /// Nobody signs in as the key's owner, and no other key is hers.
    pub dedicated_account: bool,
    /// Other integrations in the organization.
    pub other_integrations: Vec<OtherIntegrationBody>,
    /// What checks found changed, newest first, each change once; at most 20.
    pub changes: Vec<KeyChangeBody>,
}

/// An integration in the key's organization that others set up.
#[derive(Debug, Serialize, ToSchema)]
pub struct OtherIntegrationBody {
    /// Kisi's id.
    pub id: i64,
    /// Kisi's word, such as `active_directory_user_import`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is switched on.
    pub enabled: bool,
}

impl From<wire::OtherIntegration> for OtherIntegrationBody {
    fn from(other: wire::OtherIntegration) -> Self {
        Self {
            id: other.id,
            kind: other.r#type,
            enabled: other.enabled,
        }
    }
}

/// Something about the key that changed between two checks.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyChangeBody {
    /// `status`, `owner`, `owner_role`, `organization`, `dedicated_account`, `integration_added` or
    /// `integration_removed`.
    pub what: String,
    /// Empty where there was nothing.
    pub from: String,
    /// Empty where there is nothing any more.
    pub to: String,
    /// Of the check that found it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub at: Option<String>,
}

impl From<wire::KeyChange> for KeyChangeBody {
    fn from(change: wire::KeyChange) -> Self {
        Self {
            what: change.what,
            from: change.from,
            to: change.to,
            at: instant(change.at),
        }
    }
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
            owner_role: key.owner_role,
            owner_is_owner: key.owner_is_owner,
            dedicated_account: key.dedicated_account,
            other_integrations: list(key.other_integrations),
            changes: list(key.changes),
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
    /// Who has to act: `staff`.
    pub who: String,
}

impl From<wire::Conflict> for ConflictBody {
    fn from(conflict: wire::Conflict) -> Self {
        Self {
            member_ids: conflict.member_ids,
            what: conflict.what,
            who: conflict.who,
        }
    }
}

/// Something that somebody has to act on.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttentionBody {
    /// `key_invalid`, `key_rights`, `group_missing`, `kisi_unreachable`,
    /// `plan_held`, `listing_distrusted`, `listing_failing`, `grants_failing`,
    /// `group_without_doors` or `another_writer`.
    pub what: String,
    /// The group or held plan it is about; `sealing` where a saved key cannot be opened.
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
