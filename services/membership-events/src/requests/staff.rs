//! What staff do: money, write-offs, overrides.

use access_domain::entitlement::OverrideKind;
use access_domain::ids::{
    AccountId, EventId, GymId, InvoiceId, MemberId, MembershipId, OverrideId, PaymentId, ProviderId,
};
use contracts::membership::v1 as wire;
use jiff::{SignedDuration, Timestamp};
use tonic::Status;

use crate::fields::Fields;

/// The longest an override may last.
pub const OVERRIDE_AT_MOST: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Tolerated difference between a caller's clock and ours where an instant is bounded by now.
pub const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

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
    /// Who says so; empty is the caller.
    pub actor: String,
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
        let actor = fields.text("actor", &request.actor, 200);
        let forgiven_at = fields.optional_instant("forgiven_at", request.forgiven_at.as_ref());
        let value = (|| {
            Some(Self {
                gym: gym?,
                membership: membership?,
                invoice: invoice?,
                forgiveness: forgiveness?,
                reason: reason?,
                actor: actor?,
                forgiven_at: forgiven_at?,
            })
        })();
        fields.check(value)
    }
}

/// `LinkBilling`.
#[derive(Debug, Clone)]
pub struct LinkBilling {
    /// The gym.
    pub gym: GymId,
    /// The membership the event is about.
    pub membership: MembershipId,
    /// Payment provider.
    pub provider: ProviderId,
    /// Its account.
    pub account: AccountId,
    /// The provider's id of the event.
    pub event: EventId,
    /// Who says so; empty is the caller.
    pub actor: String,
}

impl TryFrom<wire::LinkBillingRequest> for LinkBilling {
    type Error = Status;

    fn try_from(request: wire::LinkBillingRequest) -> Result<Self, Status> {
        let mut fields = Fields::new();
        let gym = fields.id("gym_id", &request.gym_id);
        let membership = fields.id("membership_id", &request.membership_id);
        let provider = fields.provider("provider", &request.provider);
        let account = fields.id("account", &request.account);
        let event = fields.id("event_id", &request.event_id);
        let actor = fields.text("actor", &request.actor, 200);
        let value = (|| {
            Some(Self {
                gym: gym?,
                membership: membership?,
                provider: provider?,
                account: account?,
                event: event?,
                actor: actor?,
            })
        })();
        fields.check(value)
    }
}

/// `ClearOverride`.
#[derive(Debug, Clone)]
pub struct ClearOverride {
    /// The gym.
    pub gym: GymId,
    /// The person.
    pub member: MemberId,
    /// The override.
    pub id: OverrideId,
    /// Who decided it; empty is the caller.
    pub actor: String,
}

impl TryFrom<wire::ClearOverrideRequest> for ClearOverride {
    type Error = Status;

    fn try_from(request: wire::ClearOverrideRequest) -> Result<Self, Status> {
        let mut fields = Fields::new();
        let gym = fields.id("gym_id", &request.gym_id);
        let member = fields.id("member_id", &request.member_id);
        let id = fields.id("override_id", &request.override_id);
        let actor = fields.text("actor", &request.actor, 200);
        let value = (|| {
            Some(Self {
                gym: gym?,
                member: member?,
                id: id?,
                actor: actor?,
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
    pub kind: OverrideKind,
    /// At most 7 days from now.
    pub until: Timestamp,
    /// In the caller's words.
    pub reason: String,
    /// Who decided it; empty is the caller.
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
