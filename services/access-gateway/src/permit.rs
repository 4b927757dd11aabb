//! Who may call what: a member reaches their own page, staff their own gym by scope, a service
//! everything. Ids are checked first, so that a malformed one is named before anything else.

use access_domain::ids::MemberId;
use service_runtime::identity::{Caller, Role};

use crate::refusal::{FieldError, Refusal};

/// A word of the claim `scope`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Look at members and the integration.
    Read,
    /// Act for a member.
    Override,
    /// Change the integration.
    Configure,
    /// Decide on held plans.
    Approve,
}

impl Scope {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Override => "override",
            Self::Configure => "configure",
            Self::Approve => "approve",
        }
    }
}

/// Ids that travel as text, checked together so that all bad ones are named at once.
pub fn check_ids(ids: &[(&str, &str)]) -> Result<(), Refusal> {
    let bad: Vec<FieldError> = ids
        .iter()
        // Every kind of id has the same alphabet; access-domain keeps it.
        .filter_map(|(field, id)| {
            let invalid = MemberId::parse(id).err()?;
            Some(FieldError {
                field: (*field).to_owned(),
                message: invalid.to_string(),
            })
        })
        .collect();
    if bad.is_empty() {
        Ok(())
    } else {
        Err(Refusal::Invalid(bad))
    }
}

/// A Kisi id: positive.
pub fn check_kisi_id(field: &str, id: i64) -> Result<(), Refusal> {
    if id > 0 {
        return Ok(());
    }
    Err(Refusal::field(field, "a Kisi id above 0 is expected"))
}

/// The gym's staff with `scope`, or a service.
pub fn staff(caller: &Caller, gym: &str, scope: Scope) -> Result<(), Refusal> {
    check_ids(&[("gym_id", gym)])?;
    permit_staff(caller, gym, scope)
}

/// The member themself, the gym's staff with `scope`, or a service.
pub fn member(caller: &Caller, gym: &str, member: &str, scope: Scope) -> Result<(), Refusal> {
    check_ids(&[("gym_id", gym), ("member_id", member)])?;
    match caller.role {
        Role::Member => {
            own_gym(caller, gym)?;
            if caller.sub == member {
                Ok(())
            } else {
                Err(Refusal::Forbidden("this is another member's".to_owned()))
            }
        }
        Role::Staff | Role::Service => permit_staff(caller, gym, scope),
    }
}

fn permit_staff(caller: &Caller, gym: &str, scope: Scope) -> Result<(), Refusal> {
    own_gym(caller, gym)?;
    match caller.role {
        Role::Service => Ok(()),
        Role::Staff if caller.scopes.contains(scope.as_str()) => Ok(()),
        Role::Staff => Err(Refusal::Forbidden(format!(
            "the scope {} is missing",
            scope.as_str()
        ))),
        Role::Member => Err(Refusal::Forbidden("this is for staff only".to_owned())),
    }
}

fn own_gym(caller: &Caller, gym: &str) -> Result<(), Refusal> {
    Ok(caller.require_gym(gym)?)
}
