//! A membership: who holds it, who pays, when it runs, and its status at an instant.

use std::collections::BTreeSet;

use jiff::{Timestamp, civil::Date};

use crate::billing::{BillingState, SubscriptionState};
use crate::gym::GymRules;
use crate::ids::{MemberId, MembershipId, PauseId, PlanId, SubscriptionId};
use crate::words::words;

words! {
    /// Of a membership at an instant, in Gymflow's words.
    Status {
        /// Not started.
        Pending = "pending",
        Active = "active",
        Paused = "paused",
        /// At least one invoice is open; gives access within the gym's grace.
        Overdue = "overdue",
        /// Active until its end.
        Cancelling = "cancelling",
        Ended = "ended",
    }
}

words! {
    /// Why access is as it is. All that hold are kept.
    Reason {
        MissedPayment = "missed_payment",
        MembershipPaused = "membership_paused",
        MembershipNotStarted = "membership_not_started",
        MembershipEnded = "membership_ended",
        BarredByStaff = "barred_by_staff",
        LetInByStaff = "let_in_by_staff",
        /// The member holds no membership at all.
        NoMembership = "no_membership",
    }
}

words! {
    /// Who paused.
    PauseSource { Club = "club", Provider = "provider", }
}

/// A time without access and without charge, made by the club.
///
/// The provider's pauses are billing facts and live in [`BillingState`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    pub id: PauseId,
    /// First day paused.
    pub from: Date,
    /// First day back; `None` until resumed.
    pub until: Option<Date>,
    /// The instant it was resumed, which ends it early.
    pub resumed_at: Option<Timestamp>,
}

/// A cancellation that is held, and can be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancellation {
    /// Last day with access; `None`: at once, at `at`.
    pub ends_on: Option<Date>,
    pub at: Timestamp,
}

/// Another plan from a date on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextPlan {
    pub plan: PlanId,
    pub from: Date,
}

/// A contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub id: MembershipId,
    pub plan: PlanId,
    /// Each of whom gets access; at least one.
    pub holders: Vec<MemberId>,
    /// `None`: the first holder. Need hold no seat.
    pub payer: Option<MemberId>,
    /// First day with access.
    pub starts_on: Date,
    /// Last day with access; `None`: open-ended.
    pub ends_on: Option<Date>,
    pub cancellation: Option<Cancellation>,
    pub next_plan: Option<NextPlan>,
    pub pauses: Vec<Pause>,
    /// A resume without a pause id: it ends every pause of the provider that was said by then.
    pub provider_pauses_ended_at: Option<Timestamp>,
    /// The current billing reference's subscription. Only its cancellation ends the membership.
    pub current_subscription: Option<SubscriptionId>,
    /// Subscriptions of earlier references: never the current one again by themselves.
    pub former_subscriptions: BTreeSet<SubscriptionId>,
}

impl Membership {
    /// Who pays.
    pub fn payer(&self) -> Option<&MemberId> {
        self.payer.as_ref().or_else(|| self.holders.first())
    }

    /// Whether `member` holds a seat.
    pub fn is_held_by(&self, member: &MemberId) -> bool {
        self.holders.contains(member)
    }

    /// The plan in force at `now`.
    pub fn plan_at(&self, rules: &GymRules, now: Timestamp) -> &PlanId {
        match &self.next_plan {
            Some(next) if rules.begins(next.from) <= now => &next.plan,
            _ => &self.plan,
        }
    }

    /// The subscription whose pauses and end are the membership's.
    ///
    /// The one that the billing reference names. Where it names none, because the membership was
    /// linked by metadata, customer or mandate, it is whichever of the linked ones was heard of
    /// last and is not over: a subscription that another replaced says nothing any more.
    fn subscription<'a>(&self, billing: &'a BillingState) -> Option<&'a SubscriptionState> {
        if let Some(id) = &self.current_subscription {
            return billing.subscriptions.get(id);
        }
        billing
            .subscriptions
            .iter()
            .filter(|(id, _)| !self.former_subscriptions.contains(*id))
            .max_by_key(|(id, state)| (state.cancelled_at.is_none(), state.last_heard, *id))
            .map(|(_, state)| state)
    }

    /// The first instant without access by an end that is known; `None`: open-ended.
    pub fn end(&self, billing: &BillingState, rules: &GymRules) -> Option<Timestamp> {
        let by_term = self.ends_on.map(|day| rules.after(day));
        let by_cancellation = self.cancellation.as_ref().map(|cancellation| {
            cancellation
                .ends_on
                .map_or(cancellation.at, |day| rules.after(day))
        });
        let by_provider = self
            .subscription(billing)
            .and_then(|subscription| subscription.cancelled_at);
        [by_term, by_cancellation, by_provider]
            .into_iter()
            .flatten()
            .min()
    }

    /// Every time without access by a pause: first instant, and the first instant back.
    pub(crate) fn paused_spans(
        &self,
        billing: &BillingState,
        rules: &GymRules,
    ) -> Vec<(Timestamp, Option<Timestamp>)> {
        let earlier = |a: Option<Timestamp>, b: Option<Timestamp>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let club = self.pauses.iter().map(|pause| {
            let until = pause.until.map(|day| rules.begins(day));
            (rules.begins(pause.from), earlier(until, pause.resumed_at))
        });
        let provider = self
            .subscription(billing)
            .and_then(|subscription| subscription.pause.as_ref())
            .map_or_else(Vec::new, |pause| {
                let resumed = self
                    .provider_pauses_ended_at
                    .filter(|at| *at >= pause.since);
                let first = (pause.since, earlier(pause.until, resumed));
                match resumed {
                    Some(resumed) if resumed < pause.said_at => {
                        vec![first, (pause.said_at, pause.until)]
                    }
                    _ => vec![first],
                }
            });
        club.chain(provider)
            .filter(|(from, until)| until.is_none_or(|until| until > *from))
            .collect()
    }

    /// Status and reasons at `now`, by this membership's own facts.
    pub fn status_at(&self, billing: &BillingState, rules: &GymRules, now: Timestamp) -> StatusAt {
        let end = self.end(billing, rules);
        let ended = end.is_some_and(|end| end <= now);
        let pending = rules.begins(self.starts_on) > now;
        let pause = self
            .paused_spans(billing, rules)
            .into_iter()
            .filter(|(from, until)| *from <= now && until.is_none_or(|until| until > now))
            // The one that ends last decides when access is back.
            .max_by_key(|(_, until)| until.unwrap_or(Timestamp::MAX));
        let overdue_since = billing.closes_at(rules);
        let in_debt = billing.oldest_open().is_some_and(|since| since <= now);
        let closed_by_debt = overdue_since.is_some_and(|at| at <= now);
        let cancelled = self.cancellation.is_some() || (self.ends_on.is_none() && end.is_some());

        let mut reasons = Vec::new();
        if pending {
            reasons.push(Reason::MembershipNotStarted);
        }
        if ended {
            reasons.push(Reason::MembershipEnded);
        }
        if pause.is_some() {
            reasons.push(Reason::MembershipPaused);
        }
        if closed_by_debt {
            reasons.push(Reason::MissedPayment);
        }
        reasons.sort_unstable();
        let status = if ended {
            Status::Ended
        } else if pending {
            Status::Pending
        } else if pause.is_some() {
            Status::Paused
        } else if in_debt {
            Status::Overdue
        } else if cancelled {
            Status::Cancelling
        } else {
            Status::Active
        };
        StatusAt {
            gives_access: reasons.is_empty(),
            status,
            reasons,
            paused_until: pause.and_then(|(_, until)| until),
            overdue_since: overdue_since.filter(|_| closed_by_debt),
        }
    }
}

/// A membership's status at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusAt {
    pub status: Status,
    /// All that hold, sorted.
    pub reasons: Vec<Reason>,
    /// Whether it opens its plan's doors by itself.
    pub gives_access: bool,
    /// First instant back of the pause in force.
    pub paused_until: Option<Timestamp>,
    /// Since when its own debt closes it.
    pub overdue_since: Option<Timestamp>,
}
