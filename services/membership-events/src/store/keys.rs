//! Ids of the domain as columns: text in the table, checked when a row is read.
//!
//! The domain knows nothing of databases, so each id it owns gets a wrapper here; it derefs to the
//! id itself. The providers' own ids stay text: they are stored as they came.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use access_domain::ids::{GymId, InvalidId, MemberId, MembershipId, PlanId};
use sea_orm::{DbErr, DeriveValueType, TryFromU64};

macro_rules! keys {
    ($($(#[$doc:meta])* $key:ident($id:ident),)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
        #[sea_orm(value_type = "String")]
        pub struct $key(pub $id);

        impl Deref for $key {
            type Target = $id;

            fn deref(&self) -> &$id {
                &self.0
            }
        }

        impl fmt::Display for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $key {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                $id::parse(text).map(Self)
            }
        }

        impl From<&$id> for $key {
            fn from(id: &$id) -> Self {
                Self(id.clone())
            }
        }

        impl TryFromU64 for $key {
            fn try_from_u64(_: u64) -> Result<Self, DbErr> {
                Err(DbErr::ConvertFromU64(stringify!($key)))
            }
        }
    )*};
}

keys! {
    /// A gym.
    GymKey(GymId),
    /// A person in a gym.
    MemberKey(MemberId),
    /// A contract.
    MembershipKey(MembershipId),
    /// What a contract is for.
    PlanKey(PlanId),
}
