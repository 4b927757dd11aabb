//! How a provider's API lists its events: questions and answers as values, no socket.

use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::endpoints::Endpoint;

/// Of a provider whose API can be asked for what it could not deliver.
pub trait Listing: Send + Sync {
    /// Where the API is, unless a setting says otherwise.
    fn base(&self, livemode: bool) -> &'static str;

    /// Whose events are asked for, one after the other. The endpoint's own account comes first.
    fn accounts(&self, endpoint: &Endpoint) -> Vec<String>;

    /// Whether the list holds everything since an instant, delivered or not, so that it must be
    /// remembered up to where it was read.
    fn keeps_cursor(&self) -> bool;

    /// The next page: after the cursor of the page before, else the first.
    fn ask(&self, endpoint: &Endpoint, account: &str, since: Timestamp, after: Option<&str>)
    -> Ask;

    /// Reads an answer; `None`: it is no page of events.
    fn page(&self, answer: &[u8]) -> Option<Page>;

    /// The body in which the provider would have posted this event.
    fn as_posted(&self, event: &RawValue) -> Vec<u8>;
}

/// One request but for its address and its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    pub path: &'static str,
    pub query: Vec<(&'static str, String)>,
    pub headers: Vec<(&'static str, String)>,
}

/// One page of the list.
#[derive(Debug)]
pub struct Page {
    pub events: Vec<Listed>,
    /// The cursor of the next page; `None`: this was the last.
    pub next: Option<String>,
}

/// One event as the API tells it, byte for byte.
#[derive(Debug)]
pub struct Listed {
    /// The provider's id of it.
    pub id: String,
    pub event: Box<RawValue>,
}

impl Listed {
    /// All of them; `None` when one has no id.
    pub fn all(events: Vec<&RawValue>) -> Option<Vec<Self>> {
        #[derive(serde::Deserialize)]
        struct Named {
            id: String,
        }
        let listed = events.into_iter().map(|event| {
            let Named { id } = serde_json::from_str(event.get()).ok()?;
            Some(Self {
                id,
                event: event.to_owned(),
            })
        });
        listed.collect()
    }
}
