//! Stripe's JSON as it arrives: both generations of shapes, read by the fields present.
//!
//! Old is up to 2025-02-24.acacia, new is from 2025-03-31.basil. The version that the body names is
//! not looked at: an old event that is sent again keeps its old shape. Unknown fields and unknown
//! words never fail; whole numbers are never read through floats.

use serde_json::{Map, Value};

use crate::checked;

/// The envelope. What it must have is asked of an event that is ours, and of no other.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a>(pub &'a Value);

impl<'a> Event<'a> {
    /// `type`.
    pub fn kind(self) -> Option<&'a str> {
        Object(self.0).text("type")
    }

    /// A v2 event: ids only, and no data to read.
    pub fn is_thin(self) -> bool {
        Object(self.0)
            .text("object")
            .is_some_and(|object| object.starts_with("v2."))
    }

    pub fn id(self) -> Option<&'a str> {
        Object(self.0).text("id")
    }

    /// Unix seconds.
    pub fn created(self) -> Option<i64> {
        Object(self.0).integer("created")
    }

    /// Whether it is of live mode; every event says so.
    pub fn livemode(self) -> Option<bool> {
        self.0.get("livemode")?.as_bool()
    }

    /// The connected account, on Connect.
    pub fn account(self) -> Option<&'a str> {
        Object(self.0).text("account")
    }

    /// What it is about, as it is now.
    pub fn object(self) -> Object<'a> {
        let object = self.0.get("data").and_then(|data| data.get("object"));
        Object(object.unwrap_or(&Value::Null))
    }

    /// Old values of what changed, on `*.updated`.
    pub fn previous(self) -> Option<&'a Map<String, Value>> {
        self.0.get("data")?.get("previous_attributes")?.as_object()
    }
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

    /// An amount in the currency's smallest unit. Nothing that is paid or owed is below zero.
    pub fn amount(self, name: &str) -> Option<i64> {
        self.integer(name).filter(|amount| *amount >= 0)
    }

    /// A yes.
    pub fn is(self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool) == Some(true)
    }

    /// An expandable field: an id, or an object with one.
    pub fn id_of(self, name: &str) -> Option<&'a str> {
        match self.0.get(name)? {
            Value::String(id) if !id.is_empty() => Some(id),
            value @ Value::Object(_) => Object(value).text("id"),
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

    /// `customer`, else the newest versions' `customer_account`. Gyms could once choose customers'
    /// ids, e-mail addresses among them: such a one is left out.
    pub fn customer(self) -> Option<&'a str> {
        self.id_of("customer")
            .or_else(|| self.id_of("customer_account"))
            .filter(|id| checked::is_id(id))
    }

    /// An invoice's `parent.subscription_details`: the new place.
    fn subscription_details(self) -> Option<Object<'a>> {
        self.child("parent")?.child("subscription_details")
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
        self.subscription_details()
            .and_then(|details| details.id_of("subscription"))
            .or_else(|| self.id_of("subscription"))
            .or_else(of_line)
    }

    /// An invoice's payment: an expanded `payments` (new), else the old places.
    pub fn invoice_payment(self) -> Option<&'a str> {
        let of_payments = || {
            let payments = self.0.get("payments")?.get("data")?.as_array()?;
            let mut payments = payments.iter().map(Object);
            let default = payments.clone().find(|entry| entry.is("is_default"));
            default.or_else(|| payments.next())?.payment()
        };
        of_payments().or_else(|| self.payment_intent_or_charge())
    }

    /// Of an `invoice_payment`: which payment it is.
    pub fn payment(self) -> Option<&'a str> {
        self.child("payment")?.payment_intent_or_charge()
    }

    /// The id under which a payment is known: its intent's, and its charge's where it has none.
    pub fn payment_intent_or_charge(self) -> Option<&'a str> {
        self.id_of("payment_intent")
            .or_else(|| self.id_of("charge"))
    }

    /// `gymflow_` keys of the subscription's snapshot, overridden by the object's own.
    pub fn metadata(self) -> Vec<(String, String)> {
        let of_subscription = |details: Option<Object<'a>>| details?.child("metadata");
        let maps = [
            of_subscription(self.child("subscription_details")),
            of_subscription(self.subscription_details()),
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
