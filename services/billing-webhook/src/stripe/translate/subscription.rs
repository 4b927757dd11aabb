//! Subscriptions: paused, resumed, gone, or changed in a way that moves no door by itself.

use access_domain::billing::BillingEventKind as Kind;
use contracts::billing::v1::BillingEvent;
use serde_json::{Map, Value};

use super::{Object, Taken, instant, text};

pub(super) fn take(object: Object<'_>, kind: Kind) -> Taken {
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
pub(super) fn updated(object: Object<'_>, previous: Option<&Map<String, Value>>) -> Kind {
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
