//! Gyms and people.

use std::collections::BTreeSet;

use access_domain::gym::OverdueScope;
use access_domain::ids::{AccountId, GymId, MemberId, MembershipId};
use contracts::membership::v1 as wire;
use jiff::SignedDuration;
use tonic::Status;

use crate::fields::Fields;

/// `PutGym`.
#[derive(Debug, Clone)]
pub struct PutGym {
    /// The gym.
    pub gym: GymId,
    /// For people.
    pub name: String,
    /// IANA name of a zone that exists.
    pub time_zone: String,
    /// Not negative.
    pub overdue_grace: SignedDuration,
    /// How far a debt reaches.
    pub overdue_scope: OverdueScope,
    /// (provider, account).
    pub accounts: BTreeSet<(String, String)>,
    /// The caller's number.
    pub source_version: i64,
}

impl TryFrom<wire::PutGymRequest> for PutGym {
    type Error = Status;

    fn try_from(request: wire::PutGymRequest) -> Result<Self, Status> {
        let mut fields = Fields::new();
        let gym = fields.id("gym_id", &request.gym_id);
        let name = fields.text("name", &request.name, 200);
        let zone = fields.zone("time_zone", &request.time_zone);
        let grace = fields.span("overdue_grace", request.overdue_grace.as_ref());
        let scope = match request.overdue_scope.as_str() {
            "" => Some(OverdueScope::Member),
            word => fields.word("overdue_scope", word),
        };
        let mut accounts = BTreeSet::new();
        for (i, account) in request.billing_accounts.iter().enumerate() {
            let provider = fields.provider(
                &format!("billing_accounts[{i}].provider"),
                &account.provider,
            );
            let id: Option<AccountId> =
                fields.id(&format!("billing_accounts[{i}].account"), &account.account);
            if let (Some(provider), Some(id)) = (provider, id) {
                accounts.insert((provider.as_str().to_owned(), id.as_str().to_owned()));
            }
        }
        let source_version = fields.source_version(request.source_version);
        let value = (|| {
            zone?;
            Some(Self {
                gym: gym?,
                name: name?,
                time_zone: request.time_zone,
                overdue_grace: grace?,
                overdue_scope: scope?,
                accounts,
                source_version: source_version?,
            })
        })();
        fields.check(value)
    }
}

/// `PutMember`.
#[derive(Debug, Clone)]
pub struct PutMember {
    /// The gym.
    pub gym: GymId,
    /// The person.
    pub member: MemberId,
    /// As Kisi will know the person; may be empty.
    pub email: String,
    /// For people.
    pub name: String,
    /// The caller's number.
    pub source_version: i64,
}

impl TryFrom<wire::PutMemberRequest> for PutMember {
    type Error = Status;

    fn try_from(request: wire::PutMemberRequest) -> Result<Self, Status> {
        let mut fields = Fields::new();
        let gym = fields.id("gym_id", &request.gym_id);
        let member = fields.id("member_id", &request.member_id);
        let email = fields.text("email", request.email.trim(), 254);
        if !request.email.is_empty() && !is_email(request.email.trim()) {
            fields.fault("email", "an e-mail address is expected");
        }
        let name = fields.text("name", &request.name, 200);
        let source_version = fields.source_version(request.source_version);
        let value = (|| {
            Some(Self {
                gym: gym?,
                member: member?,
                email: email?,
                name: name?,
                source_version: source_version?,
            })
        })();
        fields.check(value)
    }
}

/// Whether it has the shape of an address: one part on each side of one `@`, no blanks.
fn is_email(text: &str) -> bool {
    let mut parts = text.split('@');
    let (local, domain, more) = (parts.next(), parts.next(), parts.next());
    local.is_some_and(|local| !local.is_empty())
        && domain.is_some_and(|domain| !domain.is_empty())
        && more.is_none()
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// `RequestResume`.
#[derive(Debug, Clone)]
pub struct RequestResume {
    /// The gym.
    pub gym: GymId,
    /// What is to be resumed.
    pub membership: MembershipId,
    /// Who asks for it.
    pub member: MemberId,
}

impl TryFrom<wire::RequestResumeRequest> for RequestResume {
    type Error = Status;

    fn try_from(request: wire::RequestResumeRequest) -> Result<Self, Status> {
        let mut fields = Fields::new();
        let gym = fields.id("gym_id", &request.gym_id);
        let membership = fields.id("membership_id", &request.membership_id);
        let member = fields.id("member_id", &request.member_id);
        let value = (|| {
            Some(Self {
                gym: gym?,
                membership: membership?,
                member: member?,
            })
        })();
        fields.check(value)
    }
}
