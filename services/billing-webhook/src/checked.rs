//! The last look at a billing event before it is published: ids of the contract's alphabet, so that
//! none can break out of a subject or a key.

use access_domain::ids::EventId;
use contracts::billing::v1::BillingEvent;

/// Names the first field that is no id.
pub fn ids(event: &BillingEvent) -> Result<(), String> {
    let required = [
        ("event_id", event.event_id.as_str()),
        ("provider", event.provider.as_str()),
        ("account", event.account.as_str()),
    ];
    let optional = [
        ("invoice_id", &event.invoice_id),
        ("payment_id", &event.payment_id),
        ("subscription_id", &event.subscription_id),
        ("mandate_id", &event.mandate_id),
        ("new_mandate_id", &event.new_mandate_id),
        ("customer_id", &event.customer_id),
    ];
    let optional = optional
        .into_iter()
        .filter_map(|(name, id)| Some((name, id.as_deref()?)));
    for (name, id) in required.into_iter().chain(optional) {
        // One alphabet for all of them.
        EventId::parse(id).map_err(|why| format!("`{name}` {why}"))?;
    }
    Ok(())
}

/// An event about nothing could never be applied.
pub fn names_something(event: &BillingEvent) -> Result<(), String> {
    let named = [
        event.invoice_id.is_some(),
        event.payment_id.is_some(),
        event.subscription_id.is_some(),
        event.mandate_id.is_some(),
        event.customer_id.is_some(),
        event.metadata.contains_key("gymflow_membership_id"),
    ];
    if named.contains(&true) {
        return Ok(());
    }
    Err(
        "one of `invoice_id`, `payment_id`, `subscription_id`, `mandate_id` and `customer_id` \
         must say what the event is about"
            .into(),
    )
}
