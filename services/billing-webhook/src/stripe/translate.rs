//! From a Stripe event to a [`BillingEvent`], or to "understood, not for us". Pure.
//!
//! One Stripe event makes at most one billing event. What each becomes and why is stated beside it;
//! the rest of Stripe's types repeat what these say.

mod invoice;
mod payment;
mod subscription;

use access_domain::billing::BillingEventKind as Kind;
use contracts::billing::v1::BillingEvent;
use contracts::wire;
use jiff::Timestamp;

use super::payload::{Event, Object};
use crate::endpoints::CollectsBy;

/// What a kind takes from the object.
struct Taken {
    kind: Kind,
    event: BillingEvent,
}

/// What `event` becomes; `None`: understood, and not for us. Provider and account are set by the
/// caller.
///
/// # Errors
/// When an event that is ours does not say who it is, when it was, or of which mode.
pub fn translate(
    event: Event<'_>,
    event_type: &str,
    collects_by: CollectsBy,
) -> Result<Option<BillingEvent>, String> {
    let object = event.object();
    let Some(taken) = take(event, event_type, collects_by) else {
        return Ok(None);
    };
    let id = event
        .id()
        .ok_or_else(|| "`id` must be the event's id".to_owned())?;
    let occurred_at = event
        .created()
        .and_then(|created| Timestamp::from_second(created).ok())
        .ok_or_else(|| "`created` must be a time in Unix seconds".to_owned())?;
    if event.livemode().is_none() {
        return Err("`livemode` must be true or false".into());
    }
    let mut billing = taken.event;
    billing.event_id = id.to_owned();
    billing.kind = taken.kind.as_str().to_owned();
    billing.occurred_at = Some(wire::timestamp(occurred_at));
    billing.metadata = object.metadata().into_iter().collect();
    Ok(Some(billing))
}

fn take(event: Event<'_>, event_type: &str, collects_by: CollectsBy) -> Option<Taken> {
    let object = event.object();
    let taken = match event_type {
        // The member has to pay or to authenticate; nothing was collected. The pay link is the way.
        "invoice.payment_failed" | "invoice.payment_action_required" => {
            invoice::failed(object, instant(object, "next_payment_attempt"))
        }
        // Out of band and amount zero included: the provider holds the invoice settled.
        "invoice.paid" | "invoice.payment_succeeded" => invoice::paid(object, event_type),
        "invoice_payment.paid" => invoice::link(object)?,
        "invoice.voided" => invoice::forgiven(object, None),
        "invoice.marked_uncollectible" => invoice::uncollectible(object)?,
        "customer.subscription.paused" => subscription::take(object, Kind::SubscriptionPaused),
        "customer.subscription.resumed" => subscription::take(object, Kind::SubscriptionResumed),
        "customer.subscription.deleted" => subscription::take(object, Kind::SubscriptionCancelled),
        "customer.subscription.created" => subscription::take(object, Kind::SubscriptionChanged),
        "customer.subscription.updated" => {
            subscription::take(object, subscription::updated(object, event.previous()))
        }
        // Several partial refunds add up; only the last one says that the whole is back.
        "charge.refunded" if object.is("refunded") => payment::refunded(object),
        // The money came back to the gym: the payment stands again.
        "refund.failed" => payment::refund_failed(object),
        "charge.dispute.created" if payment::moves_money(object) => {
            payment::of(object, Kind::PaymentReversed)
        }
        // The same fact, and also how an inquiry becomes a dispute: the type itself says that money
        // was taken.
        "charge.dispute.funds_withdrawn" => payment::of(object, Kind::PaymentReversed),
        "charge.dispute.funds_reinstated" => payment::of(object, Kind::PaymentSucceeded),
        "charge.dispute.closed" => match object.text("status")? {
            "won" => payment::of(object, Kind::PaymentSucceeded),
            "lost" => payment::of(object, Kind::PaymentReversed),
            _ => return None,
        },
        "payment_intent.payment_failed" | "payment_intent.succeeded"
            if collects_by == CollectsBy::PaymentIntents =>
        {
            payment::intent(object, event_type)?
        }
        "mandate.updated" if object.text("status") == Some("inactive") => mandate_failed(object),
        _ => return None,
    };
    Some(taken)
}

/// A bank debit's mandate that can be used no more. It names no customer.
fn mandate_failed(object: Object<'_>) -> Taken {
    Taken {
        kind: Kind::MandateFailed,
        event: BillingEvent {
            mandate_id: text(object.text("id")),
            reason: text(
                object
                    .child("payment_method_details")
                    .and_then(|details| details.child("bacs_debit"))
                    .and_then(|debit| debit.text("network_status")),
            ),
            ..Default::default()
        },
    }
}

/// What no calendar has says nothing, and the fact counts without it.
fn instant(object: Object<'_>, name: &str) -> Option<pbjson_types::Timestamp> {
    object
        .integer(name)
        .map(|seconds| pbjson_types::Timestamp { seconds, nanos: 0 })
        .filter(|at| wire::instant(at).is_some())
}

/// What is no code of ISO 4217 says nothing to anybody here, and the fact counts without it.
fn currency(object: Object<'_>) -> Option<String> {
    let code = object.text("currency")?.to_ascii_uppercase();
    let is_iso = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase());
    is_iso.then_some(code)
}

fn text(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}
