//! From a Stripe event to a [`BillingEvent`], or to "understood, not for us". Pure.
//!
//! One Stripe event makes at most one billing event. What each becomes and why is stated beside it;
//! the rest of Stripe's types repeat what these say.

use contracts::billing::v1::BillingEvent;
use contracts::wire;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::payload::{Event, Object};
use access_domain::billing::{BillingEventKind as Kind, INVOICE_PAID};

/// What a kind takes from the object.
struct Taken {
    kind: Kind,
    event: BillingEvent,
}

/// What `event` becomes; `None`: understood, and not for us. Provider and account are set by the
/// caller.
///
/// # Errors
/// When an event that is ours has a time no calendar knows.
pub fn translate(event: &Event) -> Result<Option<BillingEvent>, String> {
    let object = Object(&event.data.object);
    let Some(taken) = take(event, object) else {
        return Ok(None);
    };
    let occurred_at = Timestamp::from_second(event.created)
        .map_err(|_| "`created` must be a time in Unix seconds".to_owned())?;
    let mut billing = taken.event;
    billing.event_id.clone_from(&event.id);
    billing.kind = taken.kind.as_str().to_owned();
    billing.occurred_at = Some(wire::timestamp(occurred_at));
    billing.metadata = object.metadata().into_iter().collect();
    Ok(Some(billing))
}

fn take(event: &Event, object: Object<'_>) -> Option<Taken> {
    let taken = match event.kind.as_str() {
        // The member has to pay or to authenticate; nothing was collected. The pay link is the way.
        "invoice.payment_failed" | "invoice.payment_action_required" => {
            failed(object, instant(object, "next_payment_attempt"))
        }
        // Out of band and amount zero included: the provider holds the invoice settled.
        "invoice.paid" | "invoice.payment_succeeded" => paid(object, &event.kind),
        "invoice_payment.paid" => invoice_payment(object)?,
        "invoice.voided" => forgiven(object, None),
        "invoice.marked_uncollectible" => uncollectible(object)?,
        "customer.subscription.paused" => subscription(object, Kind::SubscriptionPaused),
        "customer.subscription.resumed" => subscription(object, Kind::SubscriptionResumed),
        "customer.subscription.deleted" => subscription(object, Kind::SubscriptionCancelled),
        "customer.subscription.created" => subscription(object, Kind::SubscriptionChanged),
        "customer.subscription.updated" => subscription(
            object,
            updated(object, event.data.previous_attributes.as_ref()),
        ),
        // Several partial refunds add up; only the last one says that the whole is back.
        "charge.refunded" if object.is("refunded") => {
            let mut taken = charge(object, Kind::PaymentRefunded, "amount_refunded");
            taken.event.invoice_id = text(object.id_of("invoice"));
            taken.event.payment_id =
                text(object.id_of("payment_intent").or_else(|| object.text("id")));
            taken
        }
        // The money came back to the gym: the payment stands again.
        "refund.failed" => charge(object, Kind::PaymentSucceeded, "amount"),
        "charge.dispute.created" | "charge.dispute.funds_withdrawn" if moves_money(object) => {
            charge(object, Kind::PaymentReversed, "amount")
        }
        "charge.dispute.funds_reinstated" => charge(object, Kind::PaymentSucceeded, "amount"),
        "charge.dispute.closed" => match object.text("status")? {
            "won" => charge(object, Kind::PaymentSucceeded, "amount"),
            "lost" => charge(object, Kind::PaymentReversed, "amount"),
            _ => return None,
        },
        "mandate.updated" if object.text("status") == Some("inactive") => Taken {
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
        },
        _ => return None,
    };
    Some(taken)
}

/// What every invoice event takes.
fn invoice(object: Object<'_>, kind: Kind) -> Taken {
    Taken {
        kind,
        event: BillingEvent {
            invoice_id: text(object.text("id")),
            payment_id: text(object.invoice_payment()),
            subscription_id: text(object.invoice_subscription()),
            customer_id: text(object.customer()),
            amount_due_minor: object.integer("amount_due"),
            currency: currency(object),
            attempt_count: object
                .integer("attempt_count")
                .and_then(|count| i32::try_from(count).ok()),
            ..Default::default()
        },
    }
}

fn failed(object: Object<'_>, next_attempt_at: Option<pbjson_types::Timestamp>) -> Taken {
    let mut taken = invoice(object, Kind::PaymentFailed);
    taken.event.amount_minor = object
        .integer("amount_remaining")
        .or_else(|| object.integer("amount_due"));
    taken.event.next_attempt_at = next_attempt_at;
    taken.event.payment_url = text(object.text("hosted_invoice_url"));
    taken.event.reason = text(
        object
            .child("last_payment_error")
            .and_then(|error| error.text("decline_code").or_else(|| error.text("code"))),
    );
    taken
}

fn paid(object: Object<'_>, event_type: &str) -> Taken {
    let mut taken = invoice(object, Kind::PaymentSucceeded);
    let amount = object.integer("amount_paid");
    // Versions before basil leave money taken elsewhere out of `amount_paid`.
    taken.event.amount_minor = match amount {
        Some(0) if object.is("paid_out_of_band") => object.integer("amount_due"),
        amount => amount,
    };
    // Its twin says the same, unless the invoice is settled only in part.
    if event_type == "invoice.paid" || object.text("status") == Some("paid") {
        taken.event.reason = Some(INVOICE_PAID.to_owned());
    }
    taken
}

/// The one body that ties a payment to its invoice in the new shape. A part payment must not settle
/// the invoice.
fn invoice_payment(object: Object<'_>) -> Option<Taken> {
    let (paid, asked) = (
        object.integer("amount_paid")?,
        object.integer("amount_requested")?,
    );
    if !object.is("is_default") || paid < asked {
        return None;
    }
    let payment = object.child("payment");
    Some(Taken {
        kind: Kind::PaymentSucceeded,
        event: BillingEvent {
            invoice_id: text(object.id_of("invoice")),
            payment_id: text(payment.and_then(|payment| {
                payment
                    .id_of("payment_intent")
                    .or_else(|| payment.id_of("charge"))
            })),
            amount_minor: Some(paid),
            amount_due_minor: Some(asked),
            currency: currency(object),
            ..Default::default()
        },
    })
}

fn forgiven(object: Object<'_>, reason: Option<&str>) -> Taken {
    let mut taken = invoice(object, Kind::InvoiceForgiven);
    taken.event.amount_minor = object
        .integer("amount_remaining")
        .or_else(|| object.integer("amount_due"));
    taken.event.reason = text(reason);
    taken
}

/// Forgiven by a person, or while paused; given up by the machine after its last attempt is a debt
/// all the same. Versions before endive do not say which: then it is forgiven. A reason that nobody
/// knows yet says nothing: the invoice stays what it was.
fn uncollectible(object: Object<'_>) -> Option<Taken> {
    let reason = object
        .child("status_details")
        .and_then(|details| details.child("uncollectible"))
        .and_then(|details| details.text("reason"));
    match reason {
        Some("max_payment_attempts" | "payment_not_received" | "subscription_canceled") => {
            let mut taken = failed(object, None);
            taken.event.reason = text(reason);
            Some(taken)
        }
        None | Some("user_forgiven" | "subscription_paused") => Some(forgiven(object, reason)),
        Some(_) => None,
    }
}

fn subscription(object: Object<'_>, kind: Kind) -> Taken {
    let pause = object.child("pause_collection");
    let ends_at = match kind {
        Kind::SubscriptionPaused => pause.and_then(|pause| instant(pause, "resumes_at")),
        Kind::SubscriptionChanged => instant(object, "cancel_at"),
        _ => None,
    };
    let paused_why = || {
        let details = object.child("status_details")?.child("paused")?;
        details
            .child("subscription")
            .and_then(|of| of.text("type"))
            .or_else(|| details.text("type"))
    };
    let cancelled_why = || object.child("cancellation_details")?.text("reason");
    let reason = match kind {
        Kind::SubscriptionPaused => pause
            .and_then(|pause| pause.text("behavior"))
            .or_else(paused_why),
        Kind::SubscriptionCancelled => cancelled_why(),
        Kind::SubscriptionChanged => object.text("status"),
        _ => None,
    };
    Taken {
        kind,
        event: BillingEvent {
            subscription_id: text(object.text("id")),
            customer_id: text(object.customer()),
            ends_at,
            reason: text(reason),
            ..Default::default()
        },
    }
}

/// What `customer.subscription.updated` says, first that holds. New values are read from the
/// object, old ones from `previous_attributes`, where null means "was unset".
fn updated(object: Object<'_>, previous: Option<&Map<String, Value>>) -> Kind {
    let status = object.text("status");
    if matches!(status, Some("canceled" | "incomplete_expired")) {
        return Kind::SubscriptionCancelled;
    }
    let was = |name: &str| previous.and_then(|previous| previous.get(name));
    let collection_changed = was("pause_collection").is_some();
    let old_status = was("status").and_then(Value::as_str);
    let paused_by_collection = object.has("pause_collection");
    let paused_by_status = status == Some("paused");
    if (collection_changed && paused_by_collection) || (old_status.is_some() && paused_by_status) {
        return Kind::SubscriptionPaused;
    }
    let left_pause = collection_changed || old_status == Some("paused");
    if left_pause && !paused_by_collection && !paused_by_status {
        return Kind::SubscriptionResumed;
    }
    Kind::SubscriptionChanged
}

/// A charge, refund or dispute: it names a payment, and since basil no invoice.
fn charge(object: Object<'_>, kind: Kind, amount: &str) -> Taken {
    Taken {
        kind,
        event: BillingEvent {
            payment_id: text(
                object
                    .id_of("payment_intent")
                    .or_else(|| object.id_of("charge")),
            ),
            customer_id: text(object.customer()),
            amount_minor: object.integer(amount),
            currency: currency(object),
            reason: text(object.text("reason")),
            ..Default::default()
        },
    }
}

/// Inquiries ask and move no money.
fn moves_money(dispute: Object<'_>) -> bool {
    dispute
        .text("status")
        .is_some_and(|status| !status.starts_with("warning_") && status != "prevented")
}

fn instant(object: Object<'_>, name: &str) -> Option<pbjson_types::Timestamp> {
    object
        .integer(name)
        .and_then(|at| Timestamp::from_second(at).ok())
        .map(wire::timestamp)
}

fn currency(object: Object<'_>) -> Option<String> {
    object.text("currency").map(str::to_uppercase)
}

fn text(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}
