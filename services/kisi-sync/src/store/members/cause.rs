//! What, and who, caused what is done for a member: the newest version, or a look that somebody asked for.

use serde::{Deserialize, Serialize};

use super::Model;

/// What, and who, caused a change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// As `MembershipStatusChanged.cause`, or one of `reconcile`, [`HELD_PLAN`], `kisi_event`, `call`,
    /// [`LEASE_LOST`], [`SHARED_RIGHT`], [`SHARED_USER`].
    pub kind: String,
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
}

/// The cause of a look that follows from a held plan that was approved.
pub const HELD_PLAN: &str = "held_plan";

/// The cause of a look that a replica asked for whose lease was gone when its request ended.
pub const LEASE_LOST: &str = "lease_lost";

/// The cause of a look at whoever took a right up that another gym has just taken back.
pub const SHARED_RIGHT: &str = "shared_right";

/// The cause of a look at whoever took a user up whom another gym's erasure has just deleted.
pub const SHARED_USER: &str = "shared_user";

impl Cause {
    pub fn new(kind: &str, id: &str, actor: Option<&str>) -> Self {
        Self {
            kind: kind.to_owned(),
            id: id.to_owned(),
            actor: actor.map(str::to_owned),
        }
    }

    /// As `members.look_cause` keeps it: who asks again asks for another look, whatever the cause.
    pub fn stored(&self, now: i64) -> Option<String> {
        self.asked(now, false)
    }

    /// The same for a look besides what is under way, which keeps its own cause.
    pub(super) fn stored_besides(&self, now: i64) -> Option<String> {
        self.asked(now, true)
    }

    fn asked(&self, now: i64, besides: bool) -> Option<String> {
        let asked = Asked {
            cause: self.clone(),
            asked_at: now,
            besides,
        };
        serde_json::to_string(&asked).ok()
    }
}

/// A look that somebody asked for, as `members.look_cause` keeps it.
#[derive(Serialize, Deserialize)]
struct Asked {
    #[serde(flatten)]
    cause: Cause,
    #[serde(default)]
    asked_at: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    besides: bool,
}

/// What `look_cause` has in it that was asked for besides.
pub(super) const BESIDES: &str = "\"besides\":true";

impl Model {
    /// Why what is under way is done: a look that somebody asked for, else the newest version.
    pub fn cause(&self) -> Cause {
        let look = self.asked().filter(|look| !look.besides);
        look.map_or_else(
            || Cause {
                kind: self.cause_kind.clone(),
                id: self.cause_id.clone(),
                actor: self.cause_actor.clone(),
            },
            |look| look.cause,
        )
    }

    /// Whether it is done because somebody asked for a look, and not by the newest version.
    pub fn is_look(&self) -> bool {
        self.asked().is_some_and(|look| !look.besides)
    }

    /// The look that was asked for, as `look_cause` keeps it where nothing else is under way.
    pub fn look_alone(&self) -> Option<String> {
        let look = self.asked()?;
        look.cause.stored(look.asked_at)
    }

    /// The look that goes on besides a new version: what others did, or may have done, to her rights is not
    /// known any better by that.
    pub fn look_besides(&self) -> Option<String> {
        let look = self.asked()?;
        let kinds = [LEASE_LOST, SHARED_RIGHT, SHARED_USER];
        let goes_on = kinds.contains(&look.cause.kind.as_str());
        goes_on.then(|| look.cause.stored_besides(look.asked_at))?
    }

    /// Whether a look was asked for this reason, even if besides what is under way.
    pub fn is_asked_by(&self, kind: &str) -> bool {
        self.asked().is_some_and(|look| look.cause.kind == kind)
    }

    fn asked(&self) -> Option<Asked> {
        let look = self.look_cause.as_deref()?;
        serde_json::from_str(look).ok()
    }

    /// What is under way follows from a fact about this very member: from a version that is still to be
    /// carried out. A roster or a gym's new rules are one change of many members, and a look is none.
    pub fn is_explained(&self) -> bool {
        let is_look = self.is_look() && self.answered_version >= self.version;
        let is_of_many = match self.cause_kind.as_str() {
            "import" => true,
            "call" => self.cause_id == "PutGym",
            _ => false,
        };
        !self.background && !is_look && !is_of_many
    }
}
