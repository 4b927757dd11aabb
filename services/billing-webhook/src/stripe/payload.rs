//! Stripe's JSON as it arrives: both generations of shapes, read by the fields present.
//!
//! Old is up to 2025-02-24.acacia, new is from 2025-03-31.basil. The version that the body names is
//! not looked at: an old event that is sent again keeps its old shape. Unknown fields and unknown
//! words never fail; whole numbers are never read through floats.

use serde::Deserialize;
use serde_json::{Map, Value};

/// The envelope of every snapshot event.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// Unix seconds.
    pub created: i64,
    #[serde(default)]
    pub livemode: bool,
    /// The connected account, on Connect.
    #[serde(default)]
    pub account: Option<String>,
    pub data: Data,
}

/// What changed.
#[derive(Clone, Debug, Deserialize)]
pub struct Data {
    pub object: Value,
    /// Old values of what changed, on `*.updated`.
    #[serde(default)]
    pub previous_attributes: Option<Map<String, Value>>,
}

/// Reads an object's fields without caring which generation it is of.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a>(pub &'a Value);

impl<'a> Object<'a> {
    /// A text that is there and not empty.
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// A whole number.
    pub fn integer(self, name: &str) -> Option<i64> {
        self.0.get(name)?.as_i64()
    }

    /// A yes.
    pub fn is(self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool) == Some(true)
    }

    /// An expandable field: an id, or an object with one.
    pub fn id_of(self, name: &str) -> Option<&'a str> {
        match self.0.get(name)? {
            Value::String(id) if !id.is_empty() => Some(id),
            Value::Object(object) => object.get("id")?.as_str(),
            _ => None,
        }
    }

    /// A field of fields.
    pub fn child(self, name: &str) -> Option<Object<'a>> {
        self.0
            .get(name)
            .filter(|value| value.is_object())
            .map(Object)
    }

    /// Whether the field is there with a value.
    pub fn has(self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    /// `customer`, else the newest versions' `customer_account`.
    pub fn customer(self) -> Option<&'a str> {
        self.id_of("customer")
            .or_else(|| self.id_of("customer_account"))
    }

    /// An invoice's `parent.subscription_details` (new), else its `subscription_details` (old).
    fn subscription_details(self) -> Option<Object<'a>> {
        self.child("parent")
            .and_then(|parent| parent.child("subscription_details"))
            .or_else(|| self.child("subscription_details"))
    }

    /// An invoice's subscription: new place, old place, then its first line that names one.
    pub fn invoice_subscription(self) -> Option<&'a str> {
        let of_line = || {
            self.0
                .get("lines")?
                .get("data")?
                .as_array()?
                .iter()
                .find_map(|line| {
                    let line = Object(line);
                    line.child("parent")
                        .and_then(|parent| parent.child("subscription_item_details"))
                        .and_then(|details| details.id_of("subscription"))
                        .or_else(|| line.id_of("subscription"))
                })
        };
        self.child("parent")
            .and_then(|parent| parent.child("subscription_details"))
            .and_then(|details| details.id_of("subscription"))
            .or_else(|| self.id_of("subscription"))
            .or_else(of_line)
    }

    /// An invoice's payment: old places, then an expanded `payments` (new).
    pub fn invoice_payment(self) -> Option<&'a str> {
        let of_payments = || {
            self.0
                .get("payments")?
                .get("data")?
                .as_array()?
                .iter()
                .find_map(|entry| {
                    let payment = Object(entry).child("payment")?;
                    payment
                        .id_of("payment_intent")
                        .or_else(|| payment.id_of("charge"))
                })
        };
        self.id_of("payment_intent")
            .or_else(|| self.id_of("charge"))
            .or_else(of_payments)
    }

    /// `gymflow_` keys of the subscription's snapshot, overridden by the object's own.
    pub fn metadata(self) -> Vec<(String, String)> {
        let maps = [
            self.subscription_details()
                .and_then(|details| details.child("metadata")),
            self.child("metadata"),
        ];
        maps.into_iter()
            .flatten()
            .filter_map(|map| map.0.as_object())
            .flatten()
            .filter(|(key, _)| key.starts_with("gymflow_"))
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    }
}
