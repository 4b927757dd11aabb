//! A call that writes, as it waits for its turn.

use std::collections::BTreeSet;
use std::sync::Arc;

use access_domain::ids::{GymId, MemberId, MembershipId};

use super::{By, Facts, Outcome, Verdict, member, membership, together};
use crate::cause::CauseOf;
use crate::error::Error;
use crate::lanes::Work;
use crate::requests::{
    CancelMembership, ClearOverride, ForgiveInvoice, PauseMembership, PutMember, PutMembership,
    PutOverride, RecordPayment, ResumeMembership,
};
use crate::unit::Decisions;
use crate::{desk, pauses, people};

/// What is asked.
#[derive(Debug)]
pub enum Write {
    /// `PutMember`.
    Member(PutMember),
    /// `PutMembership`.
    Membership(PutMembership),
    /// `PauseMembership`.
    Pause(PauseMembership),
    /// `ResumeMembership`.
    Resume(ResumeMembership),
    /// `CancelMembership`.
    Cancel(CancelMembership),
    /// `RecordPayment`.
    Payment(RecordPayment),
    /// `ForgiveInvoice`.
    Forgive(ForgiveInvoice),
    /// `PutOverride`.
    Override(PutOverride),
    /// `ClearOverride`.
    ClearOverride(ClearOverride),
}

macro_rules! writes {
    ($($request:ident => $write:ident),* $(,)?) => {$(
        impl From<$request> for Write {
            fn from(request: $request) -> Self {
                Self::$write(request)
            }
        }
    )*};
}
writes! {
    PutMember => Member,
    PutMembership => Membership,
    PauseMembership => Pause,
    ResumeMembership => Resume,
    CancelMembership => Cancel,
    RecordPayment => Payment,
    ForgiveInvoice => Forgive,
    PutOverride => Override,
    ClearOverride => ClearOverride,
}

impl Write {
    pub(super) fn gym(&self) -> &GymId {
        match self {
            Self::Member(put) => &put.gym,
            Self::Membership(put) => &put.gym,
            Self::Pause(pause) => &pause.gym,
            Self::Resume(resume) => &resume.gym,
            Self::Cancel(cancel) => &cancel.gym,
            Self::Payment(payment) => &payment.gym,
            Self::Forgive(forgive) => &forgive.gym,
            Self::Override(put) => &put.gym,
            Self::ClearOverride(clear) => &clear.gym,
        }
    }

    /// The membership it is about.
    pub(super) fn membership(&self) -> Option<&MembershipId> {
        match self {
            Self::Membership(put) => Some(&put.membership),
            Self::Pause(pause) => Some(&pause.membership),
            Self::Resume(resume) => Some(&resume.membership),
            Self::Cancel(cancel) => Some(&cancel.membership),
            Self::Payment(payment) => Some(&payment.membership),
            Self::Forgive(forgive) => Some(&forgive.membership),
            Self::Member(_) | Self::Override(_) | Self::ClearOverride(_) => None,
        }
    }

    /// The people it names.
    pub(super) fn people(&self) -> Vec<&MemberId> {
        match self {
            Self::Member(put) => vec![&put.member],
            Self::Membership(put) => put.holders.iter().chain(&put.payer).collect(),
            Self::Override(put) => vec![&put.member],
            Self::ClearOverride(clear) => vec![&clear.member],
            Self::Pause(_)
            | Self::Resume(_)
            | Self::Cancel(_)
            | Self::Payment(_)
            | Self::Forgive(_) => Vec::new(),
        }
    }

    /// The id of the fact it makes.
    fn fact(&self) -> Option<&str> {
        match self {
            Self::Payment(payment) => Some(payment.payment.as_str()),
            Self::Forgive(forgive) => Some(forgive.forgiveness.as_str()),
            _ => None,
        }
    }
}

/// A call that writes.
#[derive(Debug)]
pub struct Call {
    /// What it says.
    pub(super) write: Write,
    /// Who calls, and when.
    pub(super) cause: Arc<CauseOf>,
}

impl Call {
    /// Made now.
    pub fn new(decisions: &Decisions, by: &By, write: impl Into<Write>) -> Self {
        Self {
            write: write.into(),
            cause: Arc::new(by.cause(decisions)),
        }
    }

    /// What it comes to.
    pub(super) fn weigh(&self, facts: &Facts) -> Result<Verdict, Error> {
        match &self.write {
            Write::Member(put) => member::weigh(put, facts),
            Write::Membership(put) => membership::weigh(put, facts),
            Write::Pause(pause) => pauses::weigh_pause(pause, facts),
            Write::Resume(resume) => pauses::weigh_resume(resume, facts),
            Write::Cancel(cancel) => membership::weigh_cancel(cancel, facts),
            Write::Payment(payment) => desk::weigh_payment(payment, facts),
            Write::Forgive(forgive) => desk::weigh_forgive(forgive, facts),
            Write::Override(put) => people::weigh_override(put, self.cause.actor(), facts),
            Write::ClearOverride(clear) => people::weigh_clear(clear, facts),
        }
    }
}

impl Work for Call {
    type Means = Decisions;
    type Done = Outcome;
    const MOST: usize = 64;

    fn names(&self) -> BTreeSet<String> {
        let gym = self.write.gym();
        let membership = self.write.membership();
        let membership = membership.map(|id| format!("membership/{gym}/{id}"));
        let fact = self.write.fact().map(|id| format!("fact/{gym}/{id}"));
        let people = self.write.people().into_iter();
        people
            .map(|id| format!("member/{gym}/{id}"))
            .chain(membership)
            .chain(fact)
            .collect()
    }

    /// Of one gym, whose rows are read and written in one statement each.
    fn fits(&self, other: &Self) -> bool {
        self.write.gym() == other.write.gym()
    }

    async fn alone(&self, decisions: &Decisions) -> Result<Outcome, Error> {
        together::take_alone(decisions, self).await
    }

    async fn together(
        decisions: &Decisions,
        group: &[Self],
    ) -> Vec<Option<Result<Outcome, Error>>> {
        together::take(decisions, group).await
    }
}
