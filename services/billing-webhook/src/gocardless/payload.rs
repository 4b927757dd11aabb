//! GoCardless's JSON as it arrives, read field by field: a field of another shape in an event that
//! is not for us must not spoil the other 249 of its body.

use serde_json::Value;

/// The events of a body; `None`: it is no GoCardless body.
pub fn events(body: &Value) -> Option<impl Iterator<Item = Event<'_>>> {
    Some(body.get("events")?.as_array()?.iter().map(Event))
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a>(pub &'a Value);

impl<'a> Event<'a> {
    /// A text that is there and not empty.
    pub fn text(self, name: &str) -> Option<&'a str> {
        non_empty(self.0.get(name)?)
    }

    /// The id of a resource that the event is about or that belongs to it.
    pub fn link(self, name: &str) -> Option<&'a str> {
        non_empty(self.0.get("links")?.get(name)?)
    }

    /// Why, in GoCardless's words. Its `reason_code` differs by bank and scheme, and its
    /// `description` is free to change.
    pub fn cause(self) -> Option<&'a str> {
        non_empty(self.0.get("details")?.get("cause")?)
    }

    /// `gymflow_` keys of the API call that caused the event, overridden by the resource's own.
    pub fn metadata(self) -> impl Iterator<Item = (String, String)> {
        [self.0.get("metadata"), self.0.get("resource_metadata")]
            .into_iter()
            .filter_map(|map| map?.as_object())
            .flatten()
            .filter(|(key, _)| key.starts_with("gymflow_"))
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
    }
}

fn non_empty(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}
