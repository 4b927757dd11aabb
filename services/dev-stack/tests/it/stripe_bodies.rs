//! A history in Stripe's words: the events that Stripe makes of each happening, in both generations
//! of shapes. Written from the facts about Stripe, and not from the product's reading of them.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::history::{Card, Happening, Noise, PauseOf, Provider, Signed, Told, What};
use crate::post::{Post, fact_id};

const PRICE: i64 = 3_900;

/// The events of all of `history` that Stripe collects for, in its order.
pub fn tell(memberships: &[Signed], history: &[Happening]) -> Vec<Post> {
    let mut posts = Vec::new();
    for happening in history {
        let signed = &memberships[happening.membership];
        if signed.provider != Provider::Stripe {
            continue;
        }
        for told in events(signed, happening) {
            posts.push(told.post(signed, happening.at, posts.len()));
        }
    }
    posts
}

/// An event before it has its envelope.
struct Draft {
    kind: &'static str,
    data: Value,
    is_fact: bool,
    is_live: bool,
}

fn fact(kind: &'static str, data: Value) -> Draft {
    Draft {
        kind,
        data,
        is_fact: true,
        is_live: true,
    }
}

fn no_fact(kind: &'static str, data: Value) -> Draft {
    Draft {
        is_fact: false,
        ..fact(kind, data)
    }
}

impl Draft {
    fn post(self, signed: &Signed, at: i64, number: usize) -> Post {
        let event_id = format!("evt_{number:05}");
        let mut event = json!({
            "id": event_id, "object": "event", "api_version": "2026-10-28.endive",
            "created": at, "data": self.data, "livemode": self.is_live, "pending_webhooks": 1,
            "request": { "id": null, "idempotency_key": null }, "type": self.kind,
        });
        if signed.has_old_shapes {
            event["api_version"] = "2024-06-20".into();
        }
        if signed.gym != dev_stack::roster::GYM {
            // The second gym is a connected account.
            event["account"] = signed.account.into();
        }
        if self.kind.starts_with("v1.") {
            event = json!({
                "id": event_id, "object": "v2.core.event", "type": self.kind, "livemode": true,
                "created": Timestamp::from_second(at).expect("an instant").to_string(),
                "related_object": { "id": "in_thin", "type": "invoice", "url": "/v1/invoices/in_thin" },
            });
        }
        let fact = fact_id(Provider::Stripe, signed.account, &event_id);
        Post {
            provider: Provider::Stripe,
            name: event_id,
            at,
            body: serde_json::to_vec_pretty(&event).expect("JSON"),
            facts: self.is_fact.then_some(fact).into_iter().collect(),
        }
    }
}

fn events(signed: &Signed, happening: &Happening) -> Vec<Draft> {
    let at = happening.at;
    match &happening.what {
        What::Card(card) => card_events(signed, at, card),
        What::Paused(PauseOf::Collection) => vec![fact(
            "customer.subscription.updated",
            json!({
                "object": subscription(signed, "active", json!({ "behavior": "void", "resumes_at": null })),
                "previous_attributes": { "pause_collection": null },
            }),
        )],
        What::Resumed(PauseOf::Collection) => vec![fact(
            "customer.subscription.updated",
            json!({
                "object": subscription(signed, "active", Value::Null),
                "previous_attributes": { "pause_collection": { "behavior": "void", "resumes_at": null } },
            }),
        )],
        What::Paused(PauseOf::Subscription) => {
            status_change(signed, "customer.subscription.paused", "active", "paused")
        }
        What::Resumed(PauseOf::Subscription) => {
            status_change(signed, "customer.subscription.resumed", "paused", "active")
        }
        What::Ended => {
            let mut object = subscription(signed, "canceled", Value::Null);
            object["canceled_at"] = at.into();
            object["ended_at"] = at.into();
            vec![fact("customer.subscription.deleted", of(object))]
        }
        What::DirectDebit(_) => unreachable!("GoCardless's"),
    }
}

fn card_events(signed: &Signed, at: i64, card: &Card) -> Vec<Draft> {
    match card {
        Card::Failed { invoice, attempt } => {
            let object = Invoice::open(invoice, *attempt).json(signed, at);
            vec![fact("invoice.payment_failed", of(object))]
        }
        Card::ActionRequired { invoice, attempt } => {
            let object = Invoice::open(invoice, *attempt).json(signed, at);
            vec![fact("invoice.payment_action_required", of(object))]
        }
        Card::GivenUp { invoice, attempt } => {
            let mut object = Invoice::open(invoice, *attempt).json(signed, at);
            object["status"] = "uncollectible".into();
            object["next_payment_attempt"] = Value::Null;
            object["status_details"] =
                json!({ "uncollectible": { "reason": "max_payment_attempts" } });
            vec![fact("invoice.marked_uncollectible", of(object))]
        }
        Card::Forgiven { invoice, is_voided } => {
            let mut object = Invoice::open(invoice, 1).json(signed, at);
            object["next_payment_attempt"] = Value::Null;
            if *is_voided {
                object["status"] = "void".into();
                return vec![fact("invoice.voided", of(object))];
            }
            object["status"] = "uncollectible".into();
            if !signed.has_old_shapes {
                object["status_details"] =
                    json!({ "uncollectible": { "reason": "user_forgiven" } });
            }
            vec![fact("invoice.marked_uncollectible", of(object))]
        }
        Card::Paid {
            invoice,
            payment,
            told,
        } => paid(signed, at, invoice, payment, *told),
        Card::PaidInPart { invoice, payment } => vec![no_fact(
            "invoice_payment.paid",
            of(link(invoice, payment, PRICE / 3, false)),
        )],
        Card::Refunded { payment, is_whole } => {
            let mut charge = json!({
                "id": payment.replacen("pi_", "ch_", 1), "object": "charge", "amount": PRICE,
                "amount_refunded": if *is_whole { PRICE } else { PRICE / 2 }, "currency": "gbp",
                "customer": signed.contract.customer_id, "payment_intent": payment,
                "refunded": is_whole, "metadata": {}, "livemode": true,
            });
            if signed.has_old_shapes {
                charge["invoice"] = payment.replacen("pi_", "in_", 1).into();
            }
            let told = if *is_whole { fact } else { no_fact };
            vec![told("charge.refunded", of(charge))]
        }
        Card::Inquiry { payment } => vec![no_fact(
            "charge.dispute.created",
            of(dispute(payment, "warning_needs_response")),
        )],
        Card::Disputed { payment } => vec![
            fact(
                "charge.dispute.created",
                of(dispute(payment, "needs_response")),
            ),
            fact(
                "charge.dispute.funds_withdrawn",
                of(dispute(payment, "needs_response")),
            ),
        ],
        Card::DisputeWon { payment } => vec![
            fact("charge.dispute.closed", of(dispute(payment, "won"))),
            fact(
                "charge.dispute.funds_reinstated",
                of(dispute(payment, "won")),
            ),
        ],
        Card::DisputeLost { payment } => {
            vec![fact("charge.dispute.closed", of(dispute(payment, "lost")))]
        }
        Card::Noise(noise) => vec![noise_event(signed, at, *noise)],
    }
}

fn of(object: Value) -> Value {
    json!({ "object": object })
}

/// What an invoice says.
struct Invoice<'a> {
    id: &'a str,
    status: &'static str,
    attempts: i64,
    paid: i64,
    payment: Option<&'a str>,
}

impl<'a> Invoice<'a> {
    fn open(id: &'a str, attempts: i64) -> Self {
        Self {
            id,
            status: "open",
            attempts,
            paid: 0,
            payment: None,
        }
    }

    fn json(&self, signed: &Signed, at: i64) -> Value {
        let subscription = &signed.contract.subscription_id;
        let mut invoice = json!({
            "id": self.id, "object": "invoice", "amount_due": PRICE, "amount_paid": self.paid,
            "amount_remaining": PRICE - self.paid, "attempt_count": self.attempts, "attempted": true,
            "billing_reason": "subscription_cycle", "collection_method": "charge_automatically",
            "created": at, "currency": "gbp", "customer": signed.contract.customer_id,
            "livemode": true, "metadata": {}, "status": self.status,
            "hosted_invoice_url": format!("https://invoice.stripe.com/i/{}", self.id),
            "next_payment_attempt":
                if self.status == "open" { Value::from(at + 86_400) } else { Value::Null },
        });
        if signed.has_old_shapes {
            invoice["subscription"] = subscription.as_str().into();
            invoice["subscription_details"] = json!({ "metadata": metadata(signed) });
            invoice["payment_intent"] = self.payment.into();
            invoice["paid"] = (self.status == "paid").into();
        } else {
            invoice["parent"] = json!({
                "type": "subscription_details", "quote_details": null,
                "subscription_details": { "subscription": subscription, "metadata": metadata(signed) },
            });
        }
        invoice
    }
}

/// New shapes name the payment in an object of its own alone.
fn paid(signed: &Signed, at: i64, invoice: &str, payment: &str, told: Told) -> Vec<Draft> {
    let mut it = Invoice {
        status: "paid",
        paid: PRICE,
        payment: Some(payment),
        ..Invoice::open(invoice, 1)
    };
    if told == Told::OutOfBand {
        it.payment = None;
        let mut object = it.json(signed, at);
        if signed.has_old_shapes {
            object["amount_paid"] = 0.into();
            object["paid_out_of_band"] = true.into();
        }
        return vec![fact("invoice.paid", of(object))];
    }
    let mut events = vec![fact("invoice.paid", of(it.json(signed, at)))];
    if told == Told::Twice {
        events.push(fact("invoice.payment_succeeded", of(it.json(signed, at))));
    }
    if !signed.has_old_shapes {
        let link = link(invoice, payment, PRICE, true);
        events.push(fact("invoice_payment.paid", of(link)));
    }
    events
}

fn link(invoice: &str, payment: &str, amount: i64, is_default: bool) -> Value {
    json!({
        "id": payment.replacen("pi_", "inpay_", 1), "object": "invoice_payment",
        "invoice": invoice, "amount_paid": amount, "amount_requested": PRICE, "currency": "gbp",
        "is_default": is_default, "livemode": true, "status": "paid",
        "payment": { "type": "payment_intent", "payment_intent": payment },
    })
}

fn dispute(payment: &str, status: &str) -> Value {
    json!({
        "id": payment.replacen("pi_", "du_", 1), "object": "dispute", "amount": PRICE,
        "charge": payment.replacen("pi_", "ch_", 1), "payment_intent": payment, "currency": "gbp",
        "reason": "fraudulent", "status": status, "livemode": true, "metadata": {},
    })
}

fn subscription(signed: &Signed, status: &str, pause: Value) -> Value {
    json!({
        "id": signed.contract.subscription_id, "object": "subscription", "status": status,
        "customer": signed.contract.customer_id, "metadata": metadata(signed),
        "pause_collection": pause, "cancel_at": null, "cancel_at_period_end": false,
        "canceled_at": null, "ended_at": null, "currency": "gbp", "livemode": true,
    })
}

/// The type of its own, and `updated` beside it.
fn status_change(signed: &Signed, kind: &'static str, from: &str, to: &str) -> Vec<Draft> {
    let data = json!({
        "object": subscription(signed, to, Value::Null), "previous_attributes": { "status": from },
    });
    vec![
        fact(kind, data.clone()),
        fact("customer.subscription.updated", data),
    ]
}

fn metadata(signed: &Signed) -> Value {
    if signed.is_named {
        json!({ "gymflow_membership_id": signed.contract.membership_id })
    } else {
        json!({})
    }
}

fn noise_event(signed: &Signed, at: i64, noise: Noise) -> Draft {
    let failed = || Invoice::open("in_noise", 1).json(signed, at);
    match noise {
        Noise::PastDue => fact(
            "customer.subscription.updated",
            json!({
                "object": subscription(signed, "past_due", Value::Null),
                "previous_attributes": { "status": "active" },
            }),
        ),
        Noise::CancelScheduled => {
            let mut object = subscription(signed, "active", Value::Null);
            object["cancel_at_period_end"] = true.into();
            object["cancel_at"] = (at + 30 * 86_400).into();
            let before = json!({ "cancel_at_period_end": false, "cancel_at": null });
            fact(
                "customer.subscription.updated",
                json!({ "object": object, "previous_attributes": before }),
            )
        }
        Noise::InvoiceCreated => no_fact("invoice.created", of(failed())),
        Noise::PaymentIntent => no_fact(
            "payment_intent.payment_failed",
            of(json!({ "id": "pi_noise", "object": "payment_intent", "amount": PRICE })),
        ),
        // A live endpoint hears of test mode too.
        Noise::TestMode => Draft {
            is_live: false,
            ..no_fact("invoice.payment_failed", of(failed()))
        },
        Noise::Thin => no_fact("v1.invoice.payment_failed", Value::Null),
    }
}
