//! The last look at a billing event before it is published: its readers will understand it (ids of
//! the contract's alphabet, so that none breaks out of a subject, times of the calendar, amounts and
//! currency), its link is one, and nothing in it is so long that the bus would never take it.

use access_domain::billing::BillingEventKind as Kind;
use access_domain::ids::EventId;
use contracts::billing::v1::BillingEvent;
use contracts::wire;
use url::Url;

/// Stripe's limits, and more than others allow.
const MOST_METADATA: usize = 50;
const LONGEST_KEY: usize = 64;
const LONGEST_VALUE: usize = 512;
const LONGEST_REASON: usize = 256;
const LONGEST_LINK: usize = 2048;

/// Names the first field that is not as it must be, without its value.
pub fn event(event: &BillingEvent) -> Result<(), String> {
    names_something(event)?;
    wire::fact(event).map_err(|error| format!("`{}` {}", error.field, error.problem))?;
    lengths(event)?;
    match &event.payment_url {
        Some(link) if !is_web_link(link) => {
            Err("`payment_url` must be a web address beginning with https://".into())
        }
        _ => Ok(()),
    }
}

/// Whether the text is an id of the contract's alphabet, which is the same for all of them.
pub fn is_id(text: &str) -> bool {
    EventId::parse(text).is_ok()
}

/// Whether a person can be sent there: an absolute https address with a host, no credentials that
/// could dress it up as another's, and nothing that a parser would have to drop.
pub fn is_web_link(text: &str) -> bool {
    let is_plain = |part: char| !part.is_whitespace() && !part.is_control();
    text.len() <= LONGEST_LINK
        && text.chars().all(is_plain)
        && text
            .get(..8)
            .is_some_and(|start| start.eq_ignore_ascii_case("https://"))
        && Url::parse(text).is_ok_and(|url| {
            url.has_host() && url.username().is_empty() && url.password().is_none()
        })
}

/// An event about nothing could never be applied: a debt is known by its invoice, payment or
/// subscription, and what a subscription does by the subscription.
fn names_something(event: &BillingEvent) -> Result<(), String> {
    let subscription = ("`subscription_id`", event.subscription_id.is_some());
    let money = [
        ("`invoice_id`", event.invoice_id.is_some()),
        ("`payment_id`", event.payment_id.is_some()),
        subscription,
    ];
    let mandate = [
        ("`mandate_id`", event.mandate_id.is_some()),
        ("`customer_id`", event.customer_id.is_some()),
        subscription,
    ];
    let needed: &[(&str, bool)] = match event.kind.parse() {
        Ok(Kind::SubscriptionPaused | Kind::SubscriptionResumed | Kind::SubscriptionCancelled) => {
            &[subscription]
        }
        // A mandate that replaces another changes what it pays for.
        Ok(Kind::MandateFailed | Kind::SubscriptionChanged) => &mandate,
        Ok(_) => &money,
        // Refused for its kind.
        Err(_) => return Ok(()),
    };
    if needed.iter().any(|(_, is_there)| *is_there) {
        return Ok(());
    }
    let names: Vec<&str> = needed.iter().map(|(name, _)| *name).collect();
    Err(match names.as_slice() {
        [name] => format!("{name} must say what a `{}` is about", event.kind),
        names => format!(
            "one of {} must say what a `{}` is about",
            names.join(", "),
            event.kind
        ),
    })
}

fn lengths(event: &BillingEvent) -> Result<(), String> {
    let length = |text: &str| text.chars().count();
    if event.reason.as_deref().map_or(0, length) > LONGEST_REASON {
        return Err(format!(
            "`reason` must have at most {LONGEST_REASON} characters"
        ));
    }
    let fits = |(key, value): (&String, &String)| {
        length(key) <= LONGEST_KEY && length(value) <= LONGEST_VALUE
    };
    if event.metadata.len() > MOST_METADATA || !event.metadata.iter().all(fits) {
        return Err(format!(
            "`metadata` must have at most {MOST_METADATA} entries, with keys of at most \
             {LONGEST_KEY} and values of at most {LONGEST_VALUE} characters"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_https_address_is_a_web_link() {
        for link in [
            "https://pay.example.com/i/7001",
            "HTTPS://pay.example.com",
            "https://pay.example.com:8443/i?s=ap#top",
            "https://zahlen.müller.example/i",
            "https://[2001:db8::1]/i",
        ] {
            assert!(is_web_link(link), "{link}");
        }
        for link in [
            "",
            "http://pay.example.com/i",
            "javascript:alert(1)",
            "data:text/html,x",
            "https:",
            "https://",
            "https:pay.example.com",
            "//pay.example.com/i",
            "pay.example.com/i",
            " https://pay.example.com",
            "https://pay.example.com/a b",
            "https://pay.example.com/\n",
            "https://bank.example@pay.example.com/",
            "https://a:b@pay.example.com/",
            "https://pay.example.com:99999/",
        ] {
            assert!(!is_web_link(link), "{link}");
        }
        let long = format!("https://pay.example.com/{}", "a".repeat(LONGEST_LINK));
        assert!(!is_web_link(&long));
    }
}
