//! Parsing a request once, at the edge, with every fault named at once.
//!
//! [`Fields`] collects violations while fields are parsed one by one; [`Fields::check`] turns them
//! into one `INVALID_ARGUMENT` with `google.rpc.BadRequest` details. Values are never repeated in
//! a message: some of them are personal.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use access_domain::ids::{InvalidId, ProviderId};
use contracts::wire;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tonic::{Code, Status};
use tonic_types::{BadRequest, ErrorDetails, FieldViolation, StatusExt};

/// Whose events and references there are.
const PROVIDERS: [&str; 3] = ["stripe", "gocardless", "standard"];

/// An id newtype of the domain.
pub trait Id: Sized {
    /// The id, if `text` is one.
    fn parse_id(text: &str) -> Result<Self, InvalidId>;
}

macro_rules! ids {
    ($($id:ident),*) => {
        $(impl Id for access_domain::ids::$id {
            fn parse_id(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        })*
    };
}
ids!(
    GymId,
    MemberId,
    MembershipId,
    PlanId,
    PauseId,
    InvoiceId,
    PaymentId,
    SubscriptionId,
    CustomerId,
    MandateId,
    AccountId,
    ProviderId,
    EventId,
    OverrideId
);

/// What is wrong with a request so far.
#[derive(Debug, Default)]
pub struct Fields {
    violations: Vec<FieldViolation>,
}

impl Fields {
    /// Nothing is wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names a fault.
    pub fn fault(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.violations
            .push(FieldViolation::new(field.into(), description.into()));
    }

    /// True while no fault was named.
    pub fn is_empty(&self) -> bool {
        self.violations.is_empty()
    }

    /// `value` if nothing was wrong with the request, else what was.
    ///
    /// `value` is `None` only where a fault was named.
    pub fn check<T>(self, value: Option<T>) -> Result<T, Status> {
        match value {
            Some(value) if self.violations.is_empty() => Ok(value),
            _ => Err(self.into_status()),
        }
    }

    /// `NOT_FOUND`, with the fields that name what is not known.
    pub fn into_not_found(self, message: &str) -> Status {
        self.with_code(Code::NotFound, message)
    }

    /// `FAILED_PRECONDITION`, with the fields that contradict what is held.
    pub fn into_refusal(self, message: &str) -> Status {
        self.with_code(Code::FailedPrecondition, message)
    }

    fn with_code(self, code: Code, message: &str) -> Status {
        let mut details = ErrorDetails::new();
        details.set_bad_request(BadRequest::new(self.violations).field_violations);
        Status::with_error_details(code, message, details)
    }

    /// `INVALID_ARGUMENT`, with all that was named.
    pub fn into_status(self) -> Status {
        let names: BTreeSet<_> = self.violations.iter().map(|v| v.field.as_str()).collect();
        let message = format!(
            "The request is not valid: {}.",
            names.into_iter().collect::<Vec<_>>().join(", ")
        );
        self.with_code(Code::InvalidArgument, &message)
    }

    /// An id.
    pub fn id<I: Id>(&mut self, field: &str, text: &str) -> Option<I> {
        match I::parse_id(text) {
            Ok(id) => Some(id),
            Err(_) => {
                self.fault(field, "1 to 64 letters, digits, _ or - are expected");
                None
            }
        }
    }

    /// An id that may be absent. The outer `None` is a fault.
    pub fn optional_id<I: Id>(&mut self, field: &str, text: Option<&str>) -> Option<Option<I>> {
        match text {
            None => Some(None),
            Some(text) => self.id(field, text).map(Some),
        }
    }

    /// A date.
    pub fn date(&mut self, field: &str, text: &str) -> Option<Date> {
        let date = wire::date(text);
        if date.is_none() {
            self.fault(field, "a date such as 2026-03-01 is expected");
        }
        date
    }

    /// A date that may be absent. The outer `None` is a fault.
    pub fn optional_date(&mut self, field: &str, text: Option<&str>) -> Option<Option<Date>> {
        match text {
            None => Some(None),
            Some(text) => self.date(field, text).map(Some),
        }
    }

    /// An instant that must be there.
    pub fn instant(
        &mut self,
        field: &str,
        at: Option<&pbjson_types::Timestamp>,
    ) -> Option<Timestamp> {
        let at = at.and_then(wire::instant);
        if at.is_none() {
            self.fault(field, "an instant is expected");
        }
        at
    }

    /// An instant that may be absent. The outer `None` is a fault.
    pub fn optional_instant(
        &mut self,
        field: &str,
        at: Option<&pbjson_types::Timestamp>,
    ) -> Option<Option<Timestamp>> {
        match at {
            None => Some(None),
            Some(_) => self.instant(field, at).map(Some),
        }
    }

    /// A span of zero or more; absent is zero.
    pub fn span(
        &mut self,
        field: &str,
        span: Option<&pbjson_types::Duration>,
    ) -> Option<SignedDuration> {
        let Some(span) = span else {
            return Some(SignedDuration::ZERO);
        };
        let span = wire::span(span)
            .filter(|span| !span.is_negative() && *span <= SignedDuration::from_hours(24 * 366));
        if span.is_none() {
            self.fault(field, "a span from zero to a year is expected");
        }
        span
    }

    /// An IANA zone.
    pub fn zone(&mut self, field: &str, name: &str) -> Option<TimeZone> {
        let zone = TimeZone::get(name).ok();
        if zone.is_none() {
            self.fault(field, "an IANA time zone such as Europe/London is expected");
        }
        zone
    }

    /// A word of a closed vocabulary; the error lists the allowed ones.
    pub fn word<W>(&mut self, field: &str, word: &str) -> Option<W>
    where
        W: FromStr,
        W::Err: Display,
    {
        match word.parse() {
            Ok(word) => Some(word),
            Err(error) => {
                self.fault(field, format!("{error}"));
                None
            }
        }
    }

    /// A source version: the caller's own number, from 0.
    pub fn source_version(&mut self, version: i64) -> Option<i64> {
        if version < 0 {
            self.fault("source_version", "zero or more is expected");
            return None;
        }
        Some(version)
    }

    /// Money that was taken.
    pub fn amount(&mut self, field: &str, amount: i64) -> Option<i64> {
        if amount <= 0 {
            self.fault(field, "more than zero is expected");
            return None;
        }
        Some(amount)
    }

    /// ISO 4217, upper case.
    pub fn currency(&mut self, field: &str, currency: &str) -> Option<String> {
        let is_code = currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_alphabetic());
        if !is_code {
            self.fault(field, "three letters such as EUR are expected");
            return None;
        }
        Some(currency.to_ascii_uppercase())
    }

    /// One of the payment providers there are.
    pub fn provider(&mut self, field: &str, provider: &str) -> Option<ProviderId> {
        if !PROVIDERS.contains(&provider) {
            self.fault(field, format!("must be one of {}", PROVIDERS.join(", ")));
            return None;
        }
        self.id(field, provider)
    }

    /// Text for people, of a bounded length.
    pub fn text(&mut self, field: &str, text: &str, at_most: usize) -> Option<String> {
        // PostgreSQL has no form for it.
        if text.contains('\0') {
            self.fault(field, "text without U+0000 is expected");
            return None;
        }
        if text.chars().count() > at_most {
            self.fault(field, format!("at most {at_most} letters are expected"));
            return None;
        }
        Some(text.to_owned())
    }
}
