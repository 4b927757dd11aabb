//! Kisi's objects in Kisi's words, as far as we read them.
//!
//! Unknown fields are ignored and everything but ids may be null, because fields have appeared
//! and vanished over the years. What must not be defaulted silently is an `Option`. Objects with
//! personal data are values to act on, never to log.

mod assignments;
mod events;
mod links;
mod logins;
mod organization;
mod users;

pub use assignments::{
    AppliesToType, Assignee, AssigneeType, AssignmentFilter, NewGroupAssignment, RoleAssignment,
    Window,
};
pub use events::{
    Event, EventSet, EventSetStatus, Integration, IntegrationPatch, NewEventSet, NewEventWebhook,
};
pub use links::GroupLink;
pub use logins::{CreatedLogin, Location, Login, NewDeviceLogin, ScramCredentials, UnlockRequest};
pub use organization::{
    Group, GroupFilter, GroupLock, GroupScope, Lock, Named, Organization, Place, Role,
};
pub use users::{CurrentUser, Metadata, NewUser, User, UserFilter, UserPatch, UserRef};

use serde::{Deserialize, Deserializer};

/// A null where a value is published reads as that type's empty value.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Objects with an id, so that a listing can tell rows apart.
pub trait Identified {
    fn id(&self) -> i64;
}

macro_rules! identified {
    ($($object:ty),*) => { $(impl Identified for $object { fn id(&self) -> i64 { self.id } })* };
}
identified!(
    Group,
    GroupLink,
    GroupLock,
    Integration,
    Lock,
    Login,
    Place,
    RoleAssignment,
    User
);
