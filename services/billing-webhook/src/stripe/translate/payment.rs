//! Charges, refunds, disputes and payment intents: they name a payment, and since basil no invoice.

use access_domain::billing::BillingEventKind as Kind;
use contracts::billing::v1::BillingEvent;

use super::{Object, Taken, currency, text};

/// A refund or a dispute: which payment it is about, and how much.
pub(super) fn of(object: Object<'_>, kind: Kind) -> Taken {
    Taken {
        kind,
        event: BillingEvent {
            payment_id: text(object.payment_intent_or_charge()),
            customer_id: text(object.customer()),
            amount_minor: object.amount("amount"),
            currency: currency(object),
            reason: text(object.text("reason")),
            ..Default::default()
        },
    }
}

/// A refund that did not reach the payer. Why it was asked for says nothing of that.
pub(super) fn refund_failed(refund: Object<'_>) -> Taken {
    let mut taken = of(refund, Kind::PaymentSucceeded);
    taken.event.reason = text(refund.text("failure_reason"));
    taken
}

/// A charge that was given back in full. Old ones name their invoice.
pub(super) fn refunded(charge: Object<'_>) -> Taken {
    let mut taken = of(charge, Kind::PaymentRefunded);
    taken.event.payment_id = text(charge.id_of("payment_intent").or_else(|| charge.text("id")));
    taken.event.invoice_id = text(charge.id_of("invoice"));
    taken.event.amount_minor = charge.amount("amount_refunded");
    taken
}

/// Inquiries ask and move no money.
pub(super) fn moves_money(dispute: Object<'_>) -> bool {
    dispute
        .text("status")
        .is_some_and(|status| !status.starts_with("warning_") && status != "prevented")
}

/// A payment of an account that collects without Stripe's invoices: its metadata names Gymflow's.
/// One that belongs to an invoice of Stripe's repeats what the invoice says.
pub(super) fn intent(object: Object<'_>, event_type: &str) -> Option<Taken> {
    let invoice = object.child("metadata")?.text("gymflow_invoice_id")?;
    if object.has("invoice") {
        return None;
    }
    let event = BillingEvent {
        invoice_id: text(Some(invoice)),
        payment_id: text(object.text("id")),
        customer_id: text(object.customer()),
        currency: currency(object),
        ..Default::default()
    };
    let asked = object.amount("amount");
    if event_type == "payment_intent.succeeded" {
        let event = BillingEvent {
            amount_minor: object.amount("amount_received").or(asked),
            ..event
        };
        return Some(Taken {
            kind: Kind::PaymentSucceeded,
            event,
        });
    }
    let error = object.child("last_payment_error");
    let event = BillingEvent {
        amount_minor: asked,
        reason: text(
            error.and_then(|error| error.text("decline_code").or_else(|| error.text("code"))),
        ),
        ..event
    };
    Some(Taken {
        kind: Kind::PaymentFailed,
        event,
    })
}
