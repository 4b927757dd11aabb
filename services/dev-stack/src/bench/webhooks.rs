//! Webhooks as Stripe sends them, made and signed beforehand.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;

use super::connection;
use crate::roster::Contract;
use crate::stripe;

/// Members of this many, one after the other.
const MEMBERS: usize = 10_000;

/// Makes webhooks of which no two are alike.
#[derive(Default)]
pub struct Webhooks {
    made: AtomicUsize,
}

impl Webhooks {
    /// `count` requests to `host`, each of another invoice that was not paid.
    pub fn make(&self, count: usize, host: SocketAddr, secret: &str) -> Vec<Vec<u8>> {
        let now = Timestamp::now();
        (0..count)
            .map(|_| {
                let number = self.made.fetch_add(1, Ordering::Relaxed);
                let member = number % MEMBERS;
                let contract = Contract {
                    membership_id: format!("ms_m{member:05}a"),
                    plan_id: "open-gym",
                    holders: Vec::new(),
                    subscription_id: format!("sub_m{member:05}a"),
                    customer_id: format!("cus_m{member:05}"),
                };
                let event = Event {
                    kind: "invoice.payment_failed",
                    invoice: &format!("in_bench_{number}"),
                    id: &format!("evt_bench_{number}"),
                };
                request(host, secret, &contract, event, now)
            })
            .collect()
    }
}

/// What happened.
pub struct Event<'a> {
    pub kind: &'a str,
    pub invoice: &'a str,
    pub id: &'a str,
}

/// One signed request.
pub fn request(
    host: SocketAddr,
    secret: &str,
    contract: &Contract,
    event: Event<'_>,
    now: Timestamp,
) -> Vec<u8> {
    let body = stripe::invoice_event(event.kind, contract, event.invoice, event.id, now);
    let signature = stripe::signature(secret, &body, now);
    let signature = [("stripe-signature", signature.as_str())];
    connection::post(host, "/webhooks/stripe/main", &signature, &body)
}
