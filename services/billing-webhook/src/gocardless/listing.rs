//! GoCardless's list of events: <https://developer.gocardless.com/api-reference/#events-list-events>.
//!
//! It holds delivered events and others alike and does not tell them apart, so it is read from
//! where the last completed run began. The key is one organisation's: its events, the endpoint's
//! own account, and none of a partner's other organisations.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::catchup::listing::{Ask, Listed, Listing, Page};
use crate::endpoints::Endpoint;

/// The most that GoCardless gives.
const PAGE: &str = "500";
/// The version of the API whose events are translated here; the only one there is.
const VERSION: &str = "2015-07-06";

/// GoCardless's.
pub struct GoCardlessEvents;

impl Listing for GoCardlessEvents {
    fn base(&self, livemode: bool) -> &'static str {
        match livemode {
            true => super::LIVE,
            false => super::SANDBOX,
        }
    }

    fn accounts(&self, endpoint: &Endpoint) -> Vec<String> {
        vec![endpoint.account.clone()]
    }

    fn keeps_cursor(&self) -> bool {
        true
    }

    fn ask(
        &self,
        _endpoint: &Endpoint,
        _account: &str,
        since: Timestamp,
        after: Option<&str>,
    ) -> Ask {
        let mut query = vec![
            ("created_at[gte]", format!("{since:.3}")),
            ("limit", PAGE.to_owned()),
        ];
        query.extend(after.map(|after| ("after", after.to_owned())));
        Ask {
            path: "/events",
            query,
            headers: vec![("GoCardless-Version", VERSION.to_owned())],
        }
    }

    fn page(&self, answer: &[u8]) -> Option<Page> {
        #[derive(Deserialize)]
        struct Answer<'a> {
            #[serde(borrow)]
            events: Vec<&'a RawValue>,
            meta: Meta,
        }
        #[derive(Deserialize)]
        struct Meta {
            cursors: Cursors,
        }
        #[derive(Deserialize)]
        struct Cursors {
            after: Option<String>,
        }
        let answer: Answer<'_> = serde_json::from_slice(answer).ok()?;
        Some(Page {
            events: Listed::all(answer.events)?,
            next: answer.meta.cursors.after,
        })
    }

    fn as_posted(&self, event: &RawValue) -> Vec<u8> {
        format!("{{\"events\":[{}]}}", event.get()).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_of_a_page_leads_to_the_next() {
        let page = |text: &str| GoCardlessEvents.page(text.as_bytes());
        let more = r#"{"events":[{"id":"EV2"},{"id":"EV1"}],"meta":{"cursors":{"before":null,"after":"EV1"},"limit":2}}"#;
        let read = page(more).expect("a page");
        assert_eq!((read.events.len(), read.next), (2, Some("EV1".into())));
        let last = r#"{"events":[],"meta":{"cursors":{"before":"EV1","after":null},"limit":2}}"#;
        let last = page(last).expect("a page");
        assert_eq!((last.events.len(), last.next), (0, None));
        for odd in [
            r#"{"events":[]}"#,
            r#"{"events":[{"action":"failed"}],"meta":{"cursors":{}}}"#,
            r#"{"meta":{"cursors":{}}}"#,
            "[]",
            "<html>",
        ] {
            assert!(page(odd).is_none(), "{odd}");
        }
    }

    #[test]
    fn the_instant_is_asked_for_to_the_millisecond() {
        let since: Timestamp = "2026-11-03T04:05:06.789123Z".parse().expect("an instant");
        let endpoint = crate::endpoints::Endpoints::parse(
            "endpoints: [{ id: gym, provider: gocardless, account: OR1, secrets: [s] }]",
        );
        let endpoint = endpoint.expect("a file");
        let endpoint = endpoint.find("gocardless", "gym").expect("the endpoint");
        let ask = GoCardlessEvents.ask(endpoint, "OR1", since, Some("EV1"));
        let asked = [
            ("created_at[gte]", "2026-11-03T04:05:06.789Z".to_owned()),
            ("limit", "500".to_owned()),
            ("after", "EV1".to_owned()),
        ];
        assert_eq!(ask.query, asked);
    }
}
