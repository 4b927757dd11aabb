//! The closed vocabularies the gateway reads from the bus, parsed once into enums.
//!
//! A newer producer may say a word this build does not know. That must not stop the projection, so
//! every vocabulary has a reading for the unknown, always the one that claims least.

/// Why a member's plans do not give access (or do, by an override).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// An open invoice closes the doors.
    MissedPayment,
    /// A pause is in force.
    MembershipPaused,
    /// The first day with access is yet to come.
    MembershipNotStarted,
    /// The last day with access is over.
    MembershipEnded,
    /// Staff barred the member until an instant.
    BarredByStaff,
    /// Staff let the member in until an instant.
    LetInByStaff,
    /// A word this build does not know.
    Unknown,
}

impl Reason {
    const ALL: [Self; 7] = [
        Self::MissedPayment,
        Self::MembershipPaused,
        Self::MembershipNotStarted,
        Self::MembershipEnded,
        Self::BarredByStaff,
        Self::LetInByStaff,
        Self::Unknown,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissedPayment => "missed_payment",
            Self::MembershipPaused => "membership_paused",
            Self::MembershipNotStarted => "membership_not_started",
            Self::MembershipEnded => "membership_ended",
            Self::BarredByStaff => "barred_by_staff",
            Self::LetInByStaff => "let_in_by_staff",
            Self::Unknown => "other",
        }
    }

    fn parse(word: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == word)
            .unwrap_or(Self::Unknown)
    }
}

/// A set of reasons in one byte: a projection holds one per membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reasons(u8);

impl Reasons {
    /// The set of these words.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Self {
        words
            .iter()
            .map(|word| Reason::parse(word.as_ref()))
            .collect()
    }

    /// Whether `reason` is in the set.
    pub fn contains(self, reason: Reason) -> bool {
        self.0 & (1 << reason as u8) != 0
    }

    /// The reasons in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Reason::ALL
            .into_iter()
            .filter(move |reason| self.contains(*reason))
    }
}

impl FromIterator<Reason> for Reasons {
    fn from_iter<I: IntoIterator<Item = Reason>>(reasons: I) -> Self {
        Self(
            reasons
                .into_iter()
                .fold(0, |set, reason| set | (1 << reason as u8)),
        )
    }
}

/// What came of a version at Kisi, as far as the gateway must tell outcomes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Granted, revoked or unchanged: Kisi agrees.
    Settled,
    /// Held for a person to look at.
    Held,
    /// Kisi did not take it.
    Failed,
    /// The member was erased.
    Erased,
}

impl Outcome {
    /// Unknown words count as settled: the grants listed with them are what stands.
    pub fn parse(word: &str) -> Self {
        match word {
            "held" => Self::Held,
            "failed" => Self::Failed,
            "erased" => Self::Erased,
            _ => Self::Settled,
        }
    }
}

/// Why a version failed or is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Kisi does not answer.
    KisiUnreachable,
    /// Kisi refused, with a code of its own.
    KisiRefused,
    /// The gym's key does not work.
    KeyInvalid,
    /// The e-mail belongs to another member or to a Kisi administrator.
    IdentityConflict,
    /// Held by the brake.
    Brake,
    /// The group is gone at Kisi.
    GroupMissing,
    /// The plan has no group.
    NoAssociation,
    /// The integration is not set up.
    NotSetUp,
    /// A word this build does not know.
    Unknown,
}

impl Failure {
    /// Reads the word.
    pub fn parse(word: &str) -> Self {
        match word {
            "kisi_unreachable" => Self::KisiUnreachable,
            "kisi_refused" => Self::KisiRefused,
            "key_invalid" => Self::KeyInvalid,
            "identity_conflict" => Self::IdentityConflict,
            "brake" => Self::Brake,
            "group_missing" => Self::GroupMissing,
            "no_association" => Self::NoAssociation,
            "not_set_up" => Self::NotSetUp,
            _ => Self::Unknown,
        }
    }
}

/// How far a gym's integration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegrationState {
    /// Not enabled, enabled without all steps done, or a word this build does not know.
    NotActive,
    /// The first sync runs.
    Syncing,
    /// Doors follow memberships.
    Active,
    /// It was active and something needs a person.
    NeedsAttention,
}

impl IntegrationState {
    /// Reads the word.
    pub fn parse(word: &str) -> Self {
        match word {
            "syncing" => Self::Syncing,
            "active" => Self::Active,
            "needs_attention" => Self::NeedsAttention,
            _ => Self::NotActive,
        }
    }
}

/// Who may end a member's pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemberResume {
    /// The member asks, billing answers: resuming may carry a charge.
    #[default]
    Request,
    /// The member's word is enough.
    Immediate,
    /// Only the gym.
    Off,
}

impl MemberResume {
    /// Reads the word; anything unknown is the default.
    pub fn parse(word: &str) -> Self {
        match word {
            "immediate" => Self::Immediate,
            "off" => Self::Off,
            _ => Self::Request,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_keep_every_word_and_read_unknown_ones_as_other() {
        let reasons = Reasons::parse(&["membership_paused", "missed_payment", "moon_phase"]);
        let words: Vec<_> = reasons.iter().map(Reason::as_str).collect();
        assert_eq!(words, ["missed_payment", "membership_paused", "other"]);
        assert!(!reasons.contains(Reason::BarredByStaff));
    }
}
