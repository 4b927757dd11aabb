//! What is told about bad input: what is wrong, in words of ours, and nothing of the input.

use billing_webhook::provider::Refusal;

use super::input::SECRET_PARTS;

/// Longer than anything that has to be said.
const LONGEST: usize = 400;

/// Shorter parts of an input are not looked for: they stand in ordinary sentences.
pub const SHORTEST_PART: usize = 8;

/// The words of our sentences, so that an input which holds them too is not taken for repeated.
const OURS: &[&str] = &[
    "the body must be JSON",
    "the body must be a BillingEvent in proto3 JSON (line, column",
    "`events` must be a list of events",
    "each event must have a `resource_type` and an `action`",
    "an event must have an `id`",
    "must have a time `created_at`",
    "must have the id `links.payment` `links.subscription` `links.mandate`",
    "`type` must be the event's type",
    "`id` must be the event's id",
    "`created` must be a time in Unix seconds",
    "`livemode` must be true or false",
    "must be 1 to 64 characters of A-Z, a-z, 0-9, `_` and `-`",
    "`occurred_at` is missing",
    "`next_attempt_at` `ends_at` must be an instant",
    "`amount_minor` `amount_due_minor` must not be negative",
    "`currency` must be three letters",
    "`reason` must have at most 256 characters",
    "`metadata` must have at most 50 entries, with keys of at most 64 and values of at most 512 \
     characters",
    "`payment_url` must be a web address beginning with https://",
    "one of `invoice_id`, `payment_id`, `subscription_id`, `mandate_id` and `customer_id` must say \
     what the event is about",
    "`provider` `account` `event_id` `new_mandate_id` `kind` must be one of payment_failed, \
     payment_succeeded, invoice_forgiven, payment_refunded, payment_reversed, subscription_paused, \
     subscription_resumed, subscription_cancelled, subscription_changed, mandate_failed",
    // Types of events that GoCardless sends: they are named where one lacks something.
    "payments subscriptions mandates failed customer_approval_denied confirmed paid_out \
     chargeback_cancelled charged_back late_failure_settled cancelled paused resumed finished \
     scheduled_pause scheduled_pause_cancelled scheduled_resume payment_created amended created \
     expired blocked replaced reinstated active",
];

/// Of a signature, before anything is known of the sender.
pub fn of_a_signature(refusal: &Refusal) {
    assert!(matches!(refusal, Refusal::Signature(_)), "{refusal:?}");
    sentence(&refusal.to_string());
}

/// Of a body, to its sender and into a log line.
pub fn of_a_body(refusal: &Refusal, body: &[u8]) {
    assert!(matches!(refusal, Refusal::Body(_)), "{refusal:?}");
    let said = refusal.to_string();
    sentence(&said);
    for part in body.split(|byte| *byte == b'"') {
        if let Ok(part) = str::from_utf8(part)
            && part.len() >= SHORTEST_PART
            && said.contains(part)
        {
            let ours = OURS.iter().any(|sentence| sentence.contains(part));
            assert!(ours, "a part of the body is repeated: {said}");
        }
    }
}

/// One line in plain letters, without a secret or a link.
pub fn sentence(said: &str) {
    assert!(!said.is_empty() && said.len() <= LONGEST, "{said}");
    assert!(
        said.bytes().all(|byte| matches!(byte, b' '..=b'~')),
        "{said}"
    );
    assert!(!said.trim_end_matches("https://").contains("://"), "{said}");
    for secret in SECRET_PARTS {
        assert!(!said.contains(secret), "a secret is shown: {said}");
    }
}
