//! Stripe's list of events: <https://docs.stripe.com/api/events/list>,
//! <https://docs.stripe.com/webhooks/process-undelivered-events>.
//!
//! `delivery_success=false` are those that wait for a delivery or have failed all of them, at any
//! of the account's endpoints and not only at ours, for the 30 days that Stripe keeps events.
//! Newest first. An event of a connected account is asked for in that account's name; what it then
//! says of its account is not relied on.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::catchup::listing::{Ask, Listed, Listing, Page};
use crate::endpoints::Endpoint;

/// The most that Stripe gives.
const PAGE: &str = "100";

/// Stripe's.
pub struct StripeEvents;

impl Listing for StripeEvents {
    /// One for both modes: the key decides.
    fn base(&self, _livemode: bool) -> &'static str {
        "https://api.stripe.com"
    }

    fn accounts(&self, endpoint: &Endpoint) -> Vec<String> {
        let mut accounts = vec![endpoint.account.clone()];
        for connected in &endpoint.accounts {
            if !accounts.contains(connected) {
                accounts.push(connected.clone());
            }
        }
        accounts
    }

    fn keeps_cursor(&self) -> bool {
        false
    }

    fn ask(
        &self,
        endpoint: &Endpoint,
        account: &str,
        _since: Timestamp,
        after: Option<&str>,
    ) -> Ask {
        let mut query = vec![
            ("delivery_success", "false".to_owned()),
            ("limit", PAGE.to_owned()),
        ];
        query.extend(after.map(|after| ("starting_after", after.to_owned())));
        // The key's own account is the one that is asked without naming it.
        let connected = (account != endpoint.account).then(|| account.to_owned());
        Ask {
            path: "/v1/events",
            query,
            headers: connected
                .map(|id| ("Stripe-Account", id))
                .into_iter()
                .collect(),
        }
    }

    fn page(&self, answer: &[u8]) -> Option<Page> {
        #[derive(Deserialize)]
        struct Answer<'a> {
            #[serde(borrow)]
            data: Vec<&'a RawValue>,
            has_more: bool,
        }
        let answer: Answer<'_> = serde_json::from_slice(answer).ok()?;
        let events = Listed::all(answer.data)?;
        let next = match answer.has_more {
            true => Some(events.last()?.id.clone()),
            false => None,
        };
        Some(Page { events, next })
    }

    fn as_posted(&self, event: &RawValue) -> Vec<u8> {
        event.get().as_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_of_a_page_leads_to_the_next() {
        let page = |text: &str| StripeEvents.page(text.as_bytes());
        let more = r#"{"object":"list","data":[{"id":"evt_2"},{"id":"evt_1"}],"has_more":true}"#;
        let read = page(more).expect("a page");
        assert_eq!((read.events.len(), read.next), (2, Some("evt_1".into())));
        let last = page(r#"{"data":[],"has_more":false}"#).expect("a page");
        assert_eq!((last.events.len(), last.next), (0, None));
        for odd in [
            r#"{"data":[],"has_more":true}"#,
            r#"{"data":[{"type":"invoice.paid"}],"has_more":false}"#,
            r#"{"data":[]}"#,
            r#"{"has_more":false}"#,
            "[]",
            "<html>",
            "",
        ] {
            assert!(page(odd).is_none(), "{odd}");
        }
    }
}
