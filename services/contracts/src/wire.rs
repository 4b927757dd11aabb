//! Between wire and domain, parsed once at the edge: instants and dates, a provider's event into a
//! billing fact, a decision into the message that carries it. Pure.

use std::str::FromStr;

use access_domain::billing::{BillingEventKind, Fact, INVOICE_PAID};
use access_domain::entitlement::{Entitlement, MembershipView};
use access_domain::gym::GymRules;
use access_domain::ids::{GymId, MemberId};
use jiff::{SignedDuration, Timestamp, civil::Date};

use crate::billing::v1::BillingEvent;
use crate::membership::v1::{Cause, MembershipState, MembershipStatusChanged, PlanAccess};

/// A field of a message that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct WireError {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it, without its value.
    pub problem: String,
}

impl WireError {
    fn new(field: &'static str, problem: impl ToString) -> Self {
        Self {
            field,
            problem: problem.to_string(),
        }
    }
}

fn parse<T>(field: &'static str, text: &str) -> Result<T, WireError>
where
    T: FromStr,
    T::Err: ToString,
{
    text.parse().map_err(|error| WireError::new(field, error))
}

/// An empty text counts as absent: proto3 senders write both.
fn parse_optional<T>(field: &'static str, text: Option<&str>) -> Result<Option<T>, WireError>
where
    T: FromStr,
    T::Err: ToString,
{
    text.filter(|text| !text.is_empty())
        .map(|text| parse(field, text))
        .transpose()
}

fn optional_instant(
    field: &'static str,
    at: Option<&pbjson_types::Timestamp>,
) -> Result<Option<Timestamp>, WireError> {
    at.map(|at| instant(at).ok_or_else(|| WireError::new(field, "must be an instant")))
        .transpose()
}

fn not_negative(field: &'static str, amount: Option<i64>) -> Result<Option<i64>, WireError> {
    match amount {
        Some(amount) if amount < 0 => Err(WireError::new(field, "must not be negative")),
        amount => Ok(amount),
    }
}

fn currency(code: Option<&str>) -> Result<Option<String>, WireError> {
    match code.filter(|code| !code.is_empty()) {
        None => Ok(None),
        Some(code) if code.len() == 3 && code.bytes().all(|b| b.is_ascii_alphabetic()) => {
            Ok(Some(code.to_ascii_uppercase()))
        }
        Some(_) => Err(WireError::new("currency", "must be three letters")),
    }
}

/// The fact in a provider's event.
///
/// # Errors
/// Names the first field that cannot be understood.
pub fn fact(event: &BillingEvent) -> Result<Fact, WireError> {
    let key = (
        parse("provider", &event.provider)?,
        parse("account", &event.account)?,
        parse("event_id", &event.event_id)?,
    );
    let kind: BillingEventKind = parse("kind", &event.kind)?;
    let occurred_at = optional_instant("occurred_at", event.occurred_at.as_ref())?
        .ok_or_else(|| WireError::new("occurred_at", "is missing"))?;
    let mut fact = Fact::new(key, kind, occurred_at);
    fact.invoice = parse_optional("invoice_id", event.invoice_id.as_deref())?;
    fact.payment = parse_optional("payment_id", event.payment_id.as_deref())?;
    fact.subscription = parse_optional("subscription_id", event.subscription_id.as_deref())?;
    fact.customer = parse_optional("customer_id", event.customer_id.as_deref())?;
    fact.mandate = parse_optional("mandate_id", event.mandate_id.as_deref())?;
    fact.new_mandate = parse_optional("new_mandate_id", event.new_mandate_id.as_deref())?;
    fact.amount_minor = not_negative("amount_minor", event.amount_minor)?;
    fact.amount_due_minor = not_negative("amount_due_minor", event.amount_due_minor)?;
    fact.currency = currency(event.currency.as_deref())?;
    fact.attempt_count = event.attempt_count;
    fact.next_attempt_at = optional_instant("next_attempt_at", event.next_attempt_at.as_ref())?;
    fact.ends_at = optional_instant("ends_at", event.ends_at.as_ref())?;
    fact.settles =
        kind == BillingEventKind::PaymentSucceeded && event.reason.as_deref() == Some(INVOICE_PAID);
    fact.reason.clone_from(&event.reason);
    fact.payment_url.clone_from(&event.payment_url);
    Ok(fact)
}

/// The message that carries a decision. `rules` give the zone for its dates.
pub fn status_changed(
    gym: &GymId,
    member: &MemberId,
    version: i64,
    entitlement: &Entitlement,
    rules: &GymRules,
    decided_at: Timestamp,
    cause: Cause,
) -> MembershipStatusChanged {
    MembershipStatusChanged {
        gym_id: gym.to_string(),
        member_id: member.to_string(),
        version,
        allowed: entitlement.allowed,
        plans: entitlement
            .plans
            .iter()
            .map(|plan| PlanAccess {
                plan_id: plan.plan.to_string(),
                valid_from: plan.valid_from.map(timestamp),
                valid_until: plan.valid_until.map(timestamp),
            })
            .collect(),
        memberships: entitlement
            .memberships
            .iter()
            .map(|view| membership_state(view, rules))
            .collect(),
        reasons: words(&entitlement.reasons),
        decided_at: Some(timestamp(decided_at)),
        changes_at: entitlement.changes_at.map(timestamp),
        cause: Some(cause),
        erased: false,
    }
}

/// The last message about an erased member: nothing is allowed any more.
pub fn erased(
    gym: &GymId,
    member: &MemberId,
    version: i64,
    decided_at: Timestamp,
    cause: Cause,
) -> MembershipStatusChanged {
    MembershipStatusChanged {
        gym_id: gym.to_string(),
        member_id: member.to_string(),
        version,
        decided_at: Some(timestamp(decided_at)),
        cause: Some(cause),
        erased: true,
        ..MembershipStatusChanged::default()
    }
}

fn membership_state(view: &MembershipView, rules: &GymRules) -> MembershipState {
    MembershipState {
        membership_id: view.membership.to_string(),
        plan_id: view.plan.to_string(),
        status: view.status.to_string(),
        reasons: words(&view.reasons),
        gives_access: view.gives_access,
        starts_on: view.starts_on.to_string(),
        ends_on: view.ends_on.map(|day| day.to_string()).unwrap_or_default(),
        paused_until: view
            .paused_until
            .map(|at| rules.time_zone.to_datetime(at).date().to_string())
            .unwrap_or_default(),
        overdue_since: view.overdue_since.map(timestamp),
    }
}

fn words(reasons: &[access_domain::membership::Reason]) -> Vec<String> {
    reasons.iter().map(ToString::to_string).collect()
}

/// A protobuf instant, exact to the nanosecond. Its nanoseconds count forward, before 1970 too.
pub fn timestamp(at: Timestamp) -> pbjson_types::Timestamp {
    let (seconds, nanos) = (at.as_second(), at.subsec_nanosecond());
    match nanos < 0 {
        true => pbjson_types::Timestamp {
            seconds: seconds - 1,
            nanos: nanos + 1_000_000_000,
        },
        false => pbjson_types::Timestamp { seconds, nanos },
    }
}

/// The domain's instant; `None` when it lies outside years 1 to 9999, which protobuf ends at.
pub fn instant(at: &pbjson_types::Timestamp) -> Option<Timestamp> {
    const FIRST_YEAR: i64 = -62_135_596_800;
    if at.seconds < FIRST_YEAR || !(0..1_000_000_000).contains(&at.nanos) {
        return None;
    }
    Timestamp::new(at.seconds, at.nanos).ok()
}

/// A protobuf span.
pub fn duration(span: SignedDuration) -> pbjson_types::Duration {
    pbjson_types::Duration {
        seconds: span.as_secs(),
        nanos: span.subsec_nanos(),
    }
}

/// The domain's span; `None` when seconds and nanos have different signs.
pub fn span(duration: &pbjson_types::Duration) -> Option<SignedDuration> {
    let opposite = (duration.seconds > 0 && duration.nanos < 0)
        || (duration.seconds < 0 && duration.nanos > 0);
    if opposite || duration.nanos.abs() >= 1_000_000_000 {
        return None;
    }
    Some(SignedDuration::new(duration.seconds, duration.nanos))
}

/// An ISO 8601 calendar date, `2026-03-01`; `None` for anything else, times included.
pub fn date(text: &str) -> Option<Date> {
    if text.len() != 10 {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> BillingEvent {
        BillingEvent {
            event_id: "evt_1".into(),
            provider: "stripe".into(),
            account: "acct_1".into(),
            kind: "payment_succeeded".into(),
            occurred_at: Some(timestamp(
                "2026-01-01T05:00:00Z".parse().expect("an instant"),
            )),
            invoice_id: Some("in_1".into()),
            currency: Some("eur".into()),
            reason: Some("invoice_paid".into()),
            ..BillingEvent::default()
        }
    }

    #[test]
    fn an_event_becomes_the_fact_it_tells() {
        let fact = fact(&event()).expect("a fact");
        assert_eq!(fact.kind, BillingEventKind::PaymentSucceeded);
        assert_eq!(fact.invoice.as_ref().map(|id| id.as_str()), Some("in_1"));
        assert_eq!(fact.currency.as_deref(), Some("EUR"));
        assert!(fact.settles);
        assert_eq!(fact.subscription, None);
    }

    #[test]
    fn an_event_that_cannot_be_understood_names_its_field() {
        type Change = fn(&mut BillingEvent);
        let changes: [(&str, Change); 5] = [
            ("kind", |e| e.kind = "payment_exploded".into()),
            ("event_id", |e| e.event_id = "a.b".into()),
            ("occurred_at", |e| e.occurred_at = None),
            ("amount_minor", |e| e.amount_minor = Some(-1)),
            ("currency", |e| e.currency = Some("euro".into())),
        ];
        for (field, change) in changes {
            let mut event = event();
            change(&mut event);
            let error = fact(&event).expect_err(field);
            assert_eq!(error.field, field);
        }
    }

    #[test]
    fn instants_survive_the_way_there_and_back() {
        for text in [
            "0001-01-01T00:00:00Z",
            "1969-12-31T23:59:59.5Z",
            "2026-10-01T05:00:07.000000001Z",
        ] {
            let at: Timestamp = text.parse().expect("an instant");
            let sent = timestamp(at);
            assert_eq!(instant(&sent), Some(at), "{text}");
            let json = serde_json::to_string(&sent).expect("JSON");
            assert_eq!(serde_json::from_str(&json).ok(), Some(sent), "{text}");
        }
    }

    #[test]
    fn what_protobuf_has_no_instant_for_is_none() {
        for (seconds, nanos) in [
            (-62_135_596_801, 0),
            (i64::MIN, 0),
            (i64::MAX, 0),
            (0, -1),
            (0, 1_000_000_000),
        ] {
            let at = pbjson_types::Timestamp { seconds, nanos };
            assert_eq!(instant(&at), None, "{at:?}");
        }
    }

    #[test]
    fn dates_are_whole_iso_dates_and_nothing_else() {
        assert!(date("2026-02-28").is_some());
        for text in [
            "2026-02-30",
            "2026-2-3",
            "2026-02-28T00:00:00",
            "",
            "28/02/2026",
        ] {
            assert!(date(text).is_none(), "{text}");
        }
    }
}
