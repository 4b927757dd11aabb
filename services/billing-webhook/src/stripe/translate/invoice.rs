//! Invoices, and the object that ties a payment to one.

use access_domain::billing::{BillingEventKind as Kind, INVOICE_PAID};
use contracts::billing::v1::BillingEvent;

use super::{Object, Taken, currency, text};
use crate::checked;

/// What every invoice event takes.
fn invoice(object: Object<'_>, kind: Kind) -> Taken {
    Taken {
        kind,
        event: BillingEvent {
            invoice_id: text(object.text("id")),
            payment_id: text(object.invoice_payment()),
            subscription_id: text(object.invoice_subscription()),
            customer_id: text(object.customer()),
            amount_due_minor: object.amount("amount_due"),
            currency: currency(object),
            attempt_count: object
                .integer("attempt_count")
                .and_then(|count| i32::try_from(count).ok()),
            ..Default::default()
        },
    }
}

/// What is still to be collected.
fn outstanding(object: Object<'_>) -> Option<i64> {
    object
        .amount("amount_remaining")
        .or_else(|| object.amount("amount_due"))
}

pub(super) fn failed(
    object: Object<'_>,
    next_attempt_at: Option<pbjson_types::Timestamp>,
) -> Taken {
    let mut taken = invoice(object, Kind::PaymentFailed);
    taken.event.amount_minor = outstanding(object);
    taken.event.next_attempt_at = next_attempt_at;
    // The fact counts without its link.
    taken.event.payment_url = text(
        object
            .text("hosted_invoice_url")
            .filter(|link| checked::is_web_link(link)),
    );
    // Only where the payment is not an id but the object itself.
    let of_intent = || {
        let error = object
            .child("payment_intent")?
            .child("last_payment_error")?;
        error.text("decline_code").or_else(|| error.text("code"))
    };
    let of_charge = || object.child("charge")?.text("failure_code");
    taken.event.reason = text(of_intent().or_else(of_charge));
    taken
}

pub(super) fn paid(object: Object<'_>, event_type: &str) -> Taken {
    let mut taken = invoice(object, Kind::PaymentSucceeded);
    // Versions before basil leave money taken elsewhere out of `amount_paid`.
    taken.event.amount_minor = match object.amount("amount_paid") {
        Some(0) if object.is("paid_out_of_band") => object.amount("amount_due"),
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
pub(super) fn link(object: Object<'_>) -> Option<Taken> {
    let (paid, asked) = (
        object.amount("amount_paid")?,
        object.amount("amount_requested")?,
    );
    if !object.is("is_default") || paid < asked {
        return None;
    }
    Some(Taken {
        kind: Kind::PaymentSucceeded,
        event: BillingEvent {
            invoice_id: text(object.id_of("invoice")),
            payment_id: text(object.payment()),
            amount_minor: Some(paid),
            amount_due_minor: Some(asked),
            currency: currency(object),
            ..Default::default()
        },
    })
}

pub(super) fn forgiven(object: Object<'_>, reason: Option<&str>) -> Taken {
    let mut taken = invoice(object, Kind::InvoiceForgiven);
    taken.event.amount_minor = outstanding(object);
    taken.event.reason = text(reason);
    taken
}

/// Forgiven by a person, or while paused; given up by the machine after its last attempt is a debt
/// all the same. Versions before endive do not say which: then it is forgiven. A reason that nobody
/// knows yet says nothing: the invoice stays what it was.
pub(super) fn uncollectible(object: Object<'_>) -> Option<Taken> {
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
