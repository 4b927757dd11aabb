//! Memberships, their pauses and their end.

use access_domain::ids::{
    AccountId, CustomerId, GymId, MandateId, MemberId, MembershipId, PauseId, PlanId, ProviderId,
    SubscriptionId,
};
use contracts::membership::v1 as wire;
use jiff::Timestamp;
use jiff::civil::Date;
use tonic::Status;

use crate::fields::Fields;

/// The provider's ids of a membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Payment provider.
    pub provider: ProviderId,
    /// Its account.
    pub account: AccountId,
    /// Subscription.
    pub subscription: Option<SubscriptionId>,
    /// Customer.
    pub customer: Option<CustomerId>,
    /// Mandate.
    pub mandate: Option<MandateId>,
}

impl Reference {
    fn parse(fields: &mut Fields, reference: &wire::BillingReference) -> Option<Self> {
        let provider = fields.provider("billing.provider", &reference.provider);
        let account = fields.id("billing.account", &reference.account);
        let subscription = fields.optional_id(
            "billing.subscription_id",
            reference.subscription_id.as_deref(),
        );
        let customer = fields.optional_id("billing.customer_id", reference.customer_id.as_deref());
        let mandate = fields.optional_id("billing.mandate_id", reference.mandate_id.as_deref());
        Some(Self {
            provider: provider?,
            account: account?,
            subscription: subscription?,
            customer: customer?,
            mandate: mandate?,
        })
    }

    /// (kind, id) of each id that is there.
    pub fn ids(&self) -> Vec<(&'static str, String)> {
        let subscription = self.subscription.as_ref().map(|id| id.as_str().to_owned());
        let customer = self.customer.as_ref().map(|id| id.as_str().to_owned());
        let mandate = self.mandate.as_ref().map(|id| id.as_str().to_owned());
        [
            ("subscription", subscription),
            ("customer", customer),
            ("mandate", mandate),
        ]
        .into_iter()
        .filter_map(|(kind, id)| Some((kind, id?)))
        .collect()
    }
}

/// `PutMembership`.
#[derive(Debug, Clone)]
pub struct PutMembership {
    /// The gym.
    pub gym: GymId,
    /// The membership.
    pub membership: MembershipId,
    /// Its plan from the start.
    pub plan: PlanId,
    /// At least one, without repeats, in the caller's order.
    pub holders: Vec<MemberId>,
    /// Where each holder first stands in the request.
    pub places: Vec<usize>,
    /// Who pays, where named.
    pub payer: Option<MemberId>,
    /// First day.
    pub starts_on: Date,
    /// Last day, not before the first.
    pub ends_on: Option<Date>,
    /// The plan that follows, and its first day.
    pub next_plan: Option<(PlanId, Date)>,
    /// The current billing reference.
    pub billing: Option<Reference>,
    /// The caller's number.
    pub source_version: i64,
}

impl TryFrom<wire::PutMembershipRequest> for PutMembership {
    type Error = Status;

    fn try_from(request: wire::PutMembershipRequest) -> Result<Self, Status> {
        let mut fields = Fields::new();
        let gym = fields.id("gym_id", &request.gym_id);
        let membership = fields.id("membership_id", &request.membership_id);
        let plan = fields.id("plan_id", &request.plan_id);
        let (mut holders, mut places) = (Vec::new(), Vec::new());
        if request.member_ids.is_empty() {
            fields.fault("member_ids", "at least one holder is expected");
        }
        if request.member_ids.len() > 100 {
            fields.fault("member_ids", "at most 100 holders are expected");
        }
        for (i, id) in request.member_ids.iter().take(100).enumerate() {
            if let Some(member) = fields.id::<MemberId>(&format!("member_ids[{i}]"), id)
                && !holders.contains(&member)
            {
                holders.push(member);
                places.push(i);
            }
        }
        let payer = fields.optional_id("payer_member_id", request.payer_member_id.as_deref());
        let starts_on = fields.date("starts_on", &request.starts_on);
        let ends_on = fields.optional_date("ends_on", request.ends_on.as_deref());
        if let (Some(starts_on), Some(Some(ends_on))) = (starts_on, ends_on)
            && ends_on < starts_on
        {
            fields.fault("ends_on", "a date not before starts_on is expected");
        }
        let next_plan = match &request.next_plan {
            None => Some(None),
            Some(next) => {
                let plan = fields.id("next_plan.plan_id", &next.plan_id);
                let from = fields.date("next_plan.from", &next.from);
                plan.zip(from).map(Some)
            }
        };
        let billing = match &request.billing {
            None => Some(None),
            Some(reference) => Reference::parse(&mut fields, reference).map(Some),
        };
        let source_version = fields.source_version(request.source_version);
        let value = (|| {
            Some(Self {
                gym: gym?,
                membership: membership?,
                plan: plan?,
                holders,
                places,
                payer: payer?,
                starts_on: starts_on?,
                ends_on: ends_on?,
                next_plan: next_plan?,
                billing: billing?,
                source_version: source_version?,
            })
        })();
        fields.check(value)
    }
}

/// `PauseMembership`.
#[derive(Debug, Clone)]
pub struct PauseMembership {
    /// The gym.
    pub gym: GymId,
    /// The membership.
    pub membership: MembershipId,
    /// The pause.
    pub pause: PauseId,
    /// First day paused.
    pub from: Date,
    /// First day back, after `from`.
    pub until: Option<Date>,
    /// The caller's number, of this pause.
    pub source_version: i64,
}

impl TryFrom<wire::PauseMembershipRequest> for PauseMembership {
    type Error = Status;

    fn try_from(request: wire::PauseMembershipRequest) -> Result<Self, Status> {
        let mut fields = Fields::new();
        let gym = fields.id("gym_id", &request.gym_id);
        let membership = fields.id("membership_id", &request.membership_id);
        let pause = fields.id("pause_id", &request.pause_id);
        let from = fields.date("from", &request.from);
        let until = fields.optional_date("until", request.until.as_deref());
        if let (Some(from), Some(Some(until))) = (from, until)
            && until <= from
        {
            fields.fault("until", "the first day back, after from, is expected");
        }
        let source_version = fields.source_version(request.source_version);
        let value = (|| {
            Some(Self {
                gym: gym?,
                membership: membership?,
                pause: pause?,
                from: from?,
                until: until?,
                source_version: source_version?,
            })
        })();
        fields.check(value)
    }
}

/// `ResumeMembership`.
#[derive(Debug, Clone)]
pub struct ResumeMembership {
    /// The gym.
    pub gym: GymId,
    /// The membership.
    pub membership: MembershipId,
    /// One pause; none is every pause in force.
    pub pause: Option<PauseId>,
    /// None is now.
    pub at: Option<Timestamp>,
    /// The caller's number; none of a caller that keeps none.
    pub source_version: Option<i64>,
}

impl TryFrom<wire::ResumeMembershipRequest> for ResumeMembership {
    type Error = Status;

    fn try_from(request: wire::ResumeMembershipRequest) -> Result<Self, Status> {
        let mut fields = Fields::new();
        let gym = fields.id("gym_id", &request.gym_id);
        let membership = fields.id("membership_id", &request.membership_id);
        let pause = fields.optional_id("pause_id", request.pause_id.as_deref());
        let at = fields.optional_instant("at", request.at.as_ref());
        let source_version = if request.unnumbered {
            if request.pause_id.is_some() {
                fields.fault("pause_id", "one pause is resumed by number alone");
            }
            if request.at.is_none() {
                fields.fault("at", "without a number the instant is expected");
            }
            Some(None)
        } else {
            fields.source_version(request.source_version).map(Some)
        };
        let value = (|| {
            Some(Self {
                gym: gym?,
                membership: membership?,
                pause: pause?,
                at: at?,
                source_version: source_version?,
            })
        })();
        fields.check(value)
    }
}

/// `CancelMembership`.
#[derive(Debug, Clone)]
pub struct CancelMembership {
    /// The gym.
    pub gym: GymId,
    /// The membership.
    pub membership: MembershipId,
    /// What is asked.
    pub change: Cancelling,
    /// The caller's number.
    pub source_version: i64,
}

/// Cancel or take it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelling {
    /// Last day with access; none is at once.
    Cancel(Option<Date>),
    /// Undo the cancellation held.
    TakeBack,
}

impl TryFrom<wire::CancelMembershipRequest> for CancelMembership {
    type Error = Status;

    fn try_from(request: wire::CancelMembershipRequest) -> Result<Self, Status> {
        let mut fields = Fields::new();
        let gym = fields.id("gym_id", &request.gym_id);
        let membership = fields.id("membership_id", &request.membership_id);
        let ends_on = fields.optional_date("ends_on", request.ends_on.as_deref());
        let take_back = request.take_back.unwrap_or(false);
        if take_back && request.ends_on.is_some() {
            fields.fault("take_back", "either an end or taking back is expected");
        }
        let source_version = fields.source_version(request.source_version);
        let value = (|| {
            Some(Self {
                gym: gym?,
                membership: membership?,
                change: if take_back {
                    Cancelling::TakeBack
                } else {
                    Cancelling::Cancel(ends_on?)
                },
                source_version: source_version?,
            })
        })();
        fields.check(value)
    }
}
