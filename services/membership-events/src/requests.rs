//! The writes of `MembershipService` as values: parsed once, every fault named at once.
//!
//! What needs the tables to be known (does the gym exist, is a holder known) is asked in
//! [`crate::writes`].

use std::collections::BTreeSet;

use access_domain::gym::OverdueScope;
use access_domain::ids::{
    AccountId, CustomerId, GymId, InvoiceId, MandateId, MemberId, MembershipId, OverrideId,
    PauseId, PaymentId, PlanId, ProviderId, SubscriptionId,
};
use contracts::membership::v1 as wire;
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use tonic::Status;

use crate::fields::Fields;

/// The longest an override may last.
pub const OVERRIDE_AT_MOST: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Tolerated difference between a caller's clock and ours where an instant is bounded by now.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

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
            let provider: Option<ProviderId> = fields.id(
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
        let provider = fields.id("billing.provider", &reference.provider);
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
        let mut holders = Vec::new();
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
    /// The caller's number.
    pub source_version: i64,
}

impl TryFrom<wire::ResumeMembershipRequest> for ResumeMembership {
    type Error = Status;

    fn try_from(request: wire::ResumeMembershipRequest) -> Result<Self, Status> {
        let mut fields = Fields::new();
        let gym = fields.id("gym_id", &request.gym_id);
        let membership = fields.id("membership_id", &request.membership_id);
        let pause = fields.optional_id("pause_id", request.pause_id.as_deref());
        let at = fields.optional_instant("at", request.at.as_ref());
        let source_version = fields.source_version(request.source_version);
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

/// `RecordPayment`.
#[derive(Debug, Clone)]
pub struct RecordPayment {
    /// The gym.
    pub gym: GymId,
    /// The membership paid for.
    pub membership: MembershipId,
    /// The caller's id.
    pub payment: PaymentId,
    /// None is the oldest open one.
    pub invoice: Option<InvoiceId>,
    /// More than zero.
    pub amount_minor: i64,
    /// Three upper-case letters.
    pub currency: String,
    /// When the money was taken.
    pub received_at: Timestamp,
}

impl TryFrom<wire::RecordPaymentRequest> for RecordPayment {
    type Error = Status;

    fn try_from(request: wire::RecordPaymentRequest) -> Result<Self, Status> {
        let mut fields = Fields::new();
        let gym = fields.id("gym_id", &request.gym_id);
        let membership = fields.id("membership_id", &request.membership_id);
        let payment = fields.id("payment_id", &request.payment_id);
        let invoice = fields.optional_id("invoice_id", request.invoice_id.as_deref());
        let amount_minor = fields.amount("amount_minor", request.amount_minor);
        let currency = fields.currency("currency", &request.currency);
        let received_at = fields.instant("received_at", request.received_at.as_ref());
        let value = (|| {
            Some(Self {
                gym: gym?,
                membership: membership?,
                payment: payment?,
                invoice: invoice?,
                amount_minor: amount_minor?,
                currency: currency?,
                received_at: received_at?,
            })
        })();
        fields.check(value)
    }
}

/// `ForgiveInvoice`.
#[derive(Debug, Clone)]
pub struct ForgiveInvoice {
    /// The gym.
    pub gym: GymId,
    /// The membership whose debt it is.
    pub membership: MembershipId,
    /// The debt.
    pub invoice: InvoiceId,
    /// The caller's id.
    pub forgiveness: PaymentId,
    /// In the caller's words.
    pub reason: String,
    /// When; none is now.
    pub forgiven_at: Option<Timestamp>,
}

impl TryFrom<wire::ForgiveInvoiceRequest> for ForgiveInvoice {
    type Error = Status;

    fn try_from(request: wire::ForgiveInvoiceRequest) -> Result<Self, Status> {
        let mut fields = Fields::new();
        let gym = fields.id("gym_id", &request.gym_id);
        let membership = fields.id("membership_id", &request.membership_id);
        let invoice = fields.id("invoice_id", &request.invoice_id);
        let forgiveness = fields.id("forgiveness_id", &request.forgiveness_id);
        let reason = fields.text("reason", &request.reason, 200);
        let forgiven_at = fields.optional_instant("forgiven_at", request.forgiven_at.as_ref());
        let value = (|| {
            Some(Self {
                gym: gym?,
                membership: membership?,
                invoice: invoice?,
                forgiveness: forgiveness?,
                reason: reason?,
                forgiven_at: forgiven_at?,
            })
        })();
        fields.check(value)
    }
}

/// `PutOverride`.
#[derive(Debug, Clone)]
pub struct PutOverride {
    /// The gym.
    pub gym: GymId,
    /// The person.
    pub member: MemberId,
    /// The override.
    pub id: OverrideId,
    /// Let in or bar.
    pub kind: access_domain::entitlement::OverrideKind,
    /// At most 7 days from now.
    pub until: Timestamp,
    /// In the caller's words.
    pub reason: String,
    /// Who decided it.
    pub actor: String,
}

impl PutOverride {
    /// Parses the request; `now` bounds `until`.
    pub fn parse(request: wire::PutOverrideRequest, now: Timestamp) -> Result<Self, Status> {
        let mut fields = Fields::new();
        let gym = fields.id("gym_id", &request.gym_id);
        let member = fields.id("member_id", &request.member_id);
        let id = fields.id("override_id", &request.override_id);
        let kind = fields.word("kind", &request.kind);
        let until = fields.instant("until", request.until.as_ref());
        if let Some(until) = until {
            let lasts = until.duration_since(now);
            if lasts <= SignedDuration::ZERO || lasts > OVERRIDE_AT_MOST + CLOCK_SKEW {
                fields.fault("until", "an instant within the next 7 days is expected");
            }
        }
        let reason = fields.text("reason", &request.reason, 200);
        let actor = fields.text("actor", &request.actor, 200);
        let value = (|| {
            Some(Self {
                gym: gym?,
                member: member?,
                id: id?,
                kind: kind?,
                until: until?,
                reason: reason?,
                actor: actor?,
            })
        })();
        fields.check(value)
    }
}
