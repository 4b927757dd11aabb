//! Ids, one newtype each, so that no two kinds can be mixed up.
//!
//! Gymflow's and the providers' ids are opaque strings `[A-Za-z0-9_-]{1,64}`, checked once where
//! they enter; Kisi's are integers.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest id, in bytes.
pub const MAX_LENGTH: usize = 64;

/// Why a text is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 characters of A-Z, a-z, 0-9, `_` and `-`")]
pub struct InvalidId;

fn check(text: &str) -> Result<(), InvalidId> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if text.is_empty() || text.len() > MAX_LENGTH || !text.bytes().all(allowed) {
        return Err(InvalidId);
    }
    Ok(())
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks the alphabet and the length.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                check(text)?;
                Ok(Self(text.into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidId;

            fn try_from(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A gym.
    GymId,
    /// A person in a gym.
    MemberId,
    /// A contract.
    MembershipId,
    /// What a contract is for; associated with one access group.
    PlanId,
    /// One pause of one membership.
    PauseId,
    /// An override by staff.
    OverrideId,
    /// `stripe`, `gocardless`, `standard`; `gymflow` for facts of staff.
    ProviderId,
    /// A provider's account.
    AccountId,
    /// A provider's id of an event.
    EventId,
    /// A provider's invoice.
    InvoiceId,
    /// A provider's payment.
    PaymentId,
    /// A provider's subscription.
    SubscriptionId,
    /// A provider's customer.
    CustomerId,
    /// A direct debit mandate.
    MandateId,
}

/// A Kisi group: the set of doors that a plan opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub i64);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_to_their_alphabet_and_length() {
        let longest = "x".repeat(MAX_LENGTH);
        for good in ["a", "m_42", "sub-1A", longest.as_str()] {
            assert_eq!(
                MemberId::parse(good).map(|id| id.to_string()),
                Ok(good.to_owned())
            );
        }
        let too_long = "x".repeat(MAX_LENGTH + 1);
        for bad in ["", "a.b", "a b", "é", "*", ">", too_long.as_str()] {
            assert_eq!(MemberId::parse(bad), Err(InvalidId), "{bad}");
        }
    }
}
