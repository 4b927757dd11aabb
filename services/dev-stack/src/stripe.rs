//! Stripe's side of the demo: event bodies as a 2026 API version words them, and their signature.

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::roster::Contract;

const API_VERSION: &str = "2026-10-28.endive";

/// An invoice of `contract`, in the shape since basil.
fn invoice(contract: &Contract, invoice: &str, status: &str, now: Timestamp) -> Value {
    let paid = status == "paid";
    json!({
        "id": invoice, "object": "invoice",
        "amount_due": 3900, "amount_paid": if paid { 3900 } else { 0 },
        "amount_remaining": if paid { 0 } else { 3900 },
        "attempt_count": 1, "attempted": true, "billing_reason": "subscription_cycle",
        "collection_method": "charge_automatically", "created": now.as_second(), "currency": "gbp",
        "customer": contract.customer_id, "livemode": true,
        "hosted_invoice_url": format!("https://invoice.stripe.com/i/{invoice}"),
        "next_payment_attempt": if paid { Value::Null } else { (now.as_second() + 86_400).into() },
        "status": status,
        "parent": {
            "type": "subscription_details", "quote_details": null,
            "subscription_details": {
                "subscription": contract.subscription_id,
                "metadata": { "gymflow_membership_id": contract.membership_id },
            },
        },
    })
}

/// `invoice.payment_failed` or `invoice.paid` of the invoice named `number`.
pub fn invoice_event(
    kind: &str,
    contract: &Contract,
    number: &str,
    event_id: &str,
    now: Timestamp,
) -> Vec<u8> {
    let status = if kind == "invoice.paid" {
        "paid"
    } else {
        "open"
    };
    event(
        kind,
        event_id,
        now,
        json!({ "object": invoice(contract, number, status, now) }),
    )
}

/// `customer.subscription.paused` or `.resumed`.
pub fn subscription_event(
    kind: &str,
    contract: &Contract,
    event_id: &str,
    now: Timestamp,
) -> Vec<u8> {
    let (status, before) = match kind {
        "customer.subscription.paused" => ("paused", "active"),
        _ => ("active", "paused"),
    };
    let object = json!({
        "id": contract.subscription_id, "object": "subscription",
        "cancel_at": null, "cancel_at_period_end": false, "canceled_at": null, "ended_at": null,
        "collection_method": "charge_automatically", "created": now.as_second() - 86_400,
        "currency": "gbp", "customer": contract.customer_id, "livemode": true,
        "metadata": { "gymflow_membership_id": contract.membership_id },
        "pause_collection": null, "status": status,
    });
    let data = json!({ "object": object, "previous_attributes": { "status": before } });
    event(kind, event_id, now, data)
}

fn event(kind: &str, event_id: &str, now: Timestamp, data: Value) -> Vec<u8> {
    let event = json!({
        "id": event_id, "object": "event", "api_version": API_VERSION,
        "created": now.as_second(), "data": data, "livemode": true, "pending_webhooks": 1,
        "request": { "id": null, "idempotency_key": null }, "type": kind,
    });
    event.to_string().into_bytes()
}

/// The header `Stripe-Signature` for `body`.
pub fn signature(secret: &str, body: &[u8], now: Timestamp) -> String {
    let at = now.as_second();
    let digest = match Hmac::<Sha256>::new_from_slice(secret.as_bytes()) {
        Ok(mut mac) => {
            mac.update(format!("{at}.").as_bytes());
            mac.update(body);
            hex::encode(mac.finalize().into_bytes())
        }
        // HMAC takes keys of any length.
        Err(_) => String::new(),
    };
    format!("t={at},v1={digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_official_vector_is_signed_alike() {
        let at = Timestamp::from_second(1_614_265_330).expect("an instant");
        assert_eq!(
            signature("whsec_test_secret", br#"{"test": 2432232314}"#, at),
            "t=1614265330,v1=10c96c6fd3f320fcfc264cdc4f476c15060ede8e8a08404cea2ddf3b72544a9c"
        );
    }
}
