//! From a GoCardless event to a [`BillingEvent`], or to "understood, not for us". Pure.
//!
//! The resource and the action decide, then the cause. A payment keeps its id through its retries,
//! can fail after it was confirmed and even after it was paid out; which of its facts stands is for
//! the reader of them to say, by their time.

use access_domain::billing::BillingEventKind as Kind;
use contracts::billing::v1::BillingEvent;
use contracts::wire;
use jiff::Timestamp;

use super::payload::Event;

/// What `event` becomes; `None`: understood, and not for us. Provider and account are set by the
/// caller.
///
/// # Errors
/// When an event that is ours does not say who it is, about what, or when it was.
pub fn translate(
    event: Event<'_>,
    resource: &str,
    action: &str,
) -> Result<Option<BillingEvent>, String> {
    let Some(kind) = kind(resource, action, event.cause()) else {
        return Ok(None);
    };
    let what = format!("an event {resource}.{action} must have");
    let id = event.text("id").ok_or_else(|| format!("{what} an `id`"))?;
    let occurred_at: Timestamp = event
        .text("created_at")
        .and_then(|at| at.parse().ok())
        .ok_or_else(|| format!("{what} a time `created_at`"))?;
    let own = match resource {
        "payments" => "payment",
        "subscriptions" => "subscription",
        _ => "mandate",
    };
    if event.link(own).is_none() {
        return Err(format!("{what} the id `links.{own}`"));
    }
    let link = |name: &str| event.link(name).map(str::to_owned);
    Ok(Some(BillingEvent {
        event_id: id.to_owned(),
        kind: kind.as_str().to_owned(),
        occurred_at: Some(wire::timestamp(occurred_at)),
        // `subscriptions.payment_created` names two: it alone ties a payment to its subscription.
        payment_id: link("payment"),
        subscription_id: link("subscription"),
        mandate_id: link("mandate"),
        new_mandate_id: link("new_mandate"),
        reason: event.cause().map(str::to_owned),
        metadata: event.metadata().collect(),
        ..Default::default()
    }))
}

/// The kind by resource, action and cause.
fn kind(resource: &str, action: &str, cause: Option<&str>) -> Option<Kind> {
    let kind = match (resource, action) {
        // `customer_approval_denied`: nothing will be collected, and what it was for stays owed.
        ("payments", "failed" | "customer_approval_denied") => Kind::PaymentFailed,
        // `confirmed` is "long enough without an error", and the same fact again is `paid_out`.
        // `chargeback_cancelled`: the payer withdrew the claim.
        ("payments", "confirmed" | "paid_out" | "chargeback_cancelled") => Kind::PaymentSucceeded,
        // `late_failure_settled` accounts for a failure that `failed` has told already.
        ("payments", "charged_back" | "late_failure_settled") => Kind::PaymentReversed,
        // Called off by the gym it is forgiven. Fallen out of its mandate or for any other cause
        // nobody will collect it, and the debt stands.
        ("payments", "cancelled") => match cause {
            Some("payment_cancelled" | "instalment_schedule_cancelled") => Kind::InvoiceForgiven,
            _ => Kind::PaymentFailed,
        },
        ("subscriptions", "paused") => Kind::SubscriptionPaused,
        ("subscriptions", "resumed") => Kind::SubscriptionResumed,
        ("subscriptions", "cancelled" | "customer_approval_denied") => Kind::SubscriptionCancelled,
        // `finished` says that the last payment has been made, not that it is collected or its
        // month is over. Scheduled changes tell no date; what is scheduled is told when it happens.
        (
            "subscriptions",
            "finished"
            | "scheduled_pause"
            | "scheduled_pause_cancelled"
            | "scheduled_resume"
            | "payment_created"
            | "amended"
            | "created",
        ) => Kind::SubscriptionChanged,
        ("mandates", "cancelled" | "failed" | "expired" | "blocked") => Kind::MandateFailed,
        ("mandates", "replaced" | "reinstated" | "active") => Kind::SubscriptionChanged,
        // Steps on the way, accounting, retries to come, and resources that say nothing of access.
        _ => return None,
    };
    Some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_of_every_resource_has_its_kind() {
        use Kind::{
            InvoiceForgiven, MandateFailed, PaymentFailed, PaymentReversed, PaymentSucceeded,
            SubscriptionCancelled, SubscriptionChanged, SubscriptionPaused, SubscriptionResumed,
        };
        let rows: &[(Option<Kind>, &str, &str)] = &[
            (
                Some(PaymentFailed),
                "payments",
                "failed customer_approval_denied cancelled",
            ),
            (
                Some(PaymentSucceeded),
                "payments",
                "confirmed paid_out chargeback_cancelled",
            ),
            (
                Some(PaymentReversed),
                "payments",
                "charged_back late_failure_settled",
            ),
            (
                None,
                "payments",
                "chargeback_settled surcharge_fee_debited resubmission_requested created submitted \
                 customer_approval_granted something_new",
            ),
            (Some(SubscriptionPaused), "subscriptions", "paused"),
            (Some(SubscriptionResumed), "subscriptions", "resumed"),
            (
                Some(SubscriptionCancelled),
                "subscriptions",
                "cancelled customer_approval_denied",
            ),
            (
                Some(SubscriptionChanged),
                "subscriptions",
                "finished scheduled_pause scheduled_pause_cancelled scheduled_resume \
                 payment_created amended created",
            ),
            (
                None,
                "subscriptions",
                "customer_approval_granted something_new",
            ),
            (
                Some(MandateFailed),
                "mandates",
                "cancelled failed expired blocked",
            ),
            (
                Some(SubscriptionChanged),
                "mandates",
                "replaced reinstated active",
            ),
            (
                None,
                "mandates",
                "consumed transferred submitted created resubmission_requested \
                 customer_approval_granted customer_approval_skipped something_new",
            ),
            (
                None,
                "refunds",
                "created failed paid refund_settled funds_returned",
            ),
            (None, "payouts", "paid"),
            (None, "billing_requests", "fulfilled cancelled failed"),
            (None, "instalment_schedules", "created cancelled errored"),
            (None, "something_new", "failed cancelled paused"),
        ];
        for (expected, resource, actions) in rows {
            for action in actions.split_whitespace() {
                assert_eq!(
                    kind(resource, action, None),
                    *expected,
                    "{resource}.{action}"
                );
            }
        }
        for (cause, expected) in [
            ("payment_cancelled", InvoiceForgiven),
            ("instalment_schedule_cancelled", InvoiceForgiven),
            ("mandate_cancelled", PaymentFailed),
            ("bank_account_closed", PaymentFailed),
        ] {
            assert_eq!(
                kind("payments", "cancelled", Some(cause)),
                Some(expected),
                "{cause}"
            );
        }
    }
}
