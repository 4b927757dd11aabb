//! The parts of a roster: its header, then people, memberships and open invoices in any order.
//!
//! People and memberships are what `PutMember` and `PutMembership` take. An open invoice is a
//! provider's event without an event: its id follows from what it says, so that the same invoice in
//! the next roster is the same fact.

use std::collections::BTreeSet;

use access_domain::billing::{BillingEventKind, Fact};
use access_domain::ids::GymId;
use contracts::billing::v1::BillingEvent;
use contracts::membership::v1::import_roster_request::Part as WirePart;
use contracts::membership::v1::{PutMemberRequest, PutMembershipRequest, RosterHeader};
use contracts::wire;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use tonic::Status;
use tonic_types::StatusExt;

use super::{PutMember, PutMembership};
use crate::fields::Fields;

/// Clocks differ: a roster may be this much ahead of ours.
const AHEAD: SignedDuration = SignedDuration::from_mins(1);

/// How a roster begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The gym.
    pub gym: GymId,
    /// What was written after it is left alone.
    pub as_of: Timestamp,
    /// The summary that a person has seen.
    pub confirm_digest: Option<String>,
    /// How many parts follow, where the sender knows.
    pub parts: Option<i64>,
}

impl Header {
    /// Parses the first message.
    pub fn parse(header: RosterHeader, now: Timestamp) -> Result<Self, Status> {
        let mut fields = Fields::new();
        let gym = fields.id("messages[0].header.gym_id", &header.gym_id);
        let as_of = fields.instant("messages[0].header.as_of", header.as_of.as_ref());
        if as_of.is_some_and(|as_of| as_of.duration_since(now) > AHEAD) {
            fields.fault(
                "messages[0].header.as_of",
                "an instant that is not to come is expected",
            );
        }
        if header.parts.is_some_and(|parts| parts < 0) {
            fields.fault("messages[0].header.parts", "zero or more is expected");
        }
        let value = (|| {
            Some(Self {
                gym: gym?,
                as_of: as_of?.min(now),
                confirm_digest: header.confirm_digest.filter(|digest| !digest.is_empty()),
                parts: header.parts,
            })
        })();
        fields.check(value)
    }
}

/// What kind of row a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A person.
    Member,
    /// A contract.
    Membership,
    /// An open invoice.
    OpenInvoice,
}

impl Kind {
    /// Its word, in the tables and in the names of fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Membership => "membership",
            Self::OpenInvoice => "open_invoice",
        }
    }
}

/// A part that makes sense by itself.
#[derive(Debug, Clone)]
pub struct Part {
    /// What it is.
    pub kind: Kind,
    /// Its key in the roster: a second part of the same is a fault.
    pub id: String,
    /// What is kept until the roster is applied, proto3 JSON.
    pub body: String,
}

/// Whose roster the parts are of.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The gym.
    pub gym: GymId,
    /// Its provider accounts.
    pub accounts: BTreeSet<(String, String)>,
    /// The roster's instant.
    pub as_of: Timestamp,
}

/// Parses message `position` of the stream; the header is message 0.
pub fn part(part: Option<WirePart>, scope: &Scope, position: i64) -> Result<Part, Status> {
    let (kind, parsed) = match part {
        Some(WirePart::Member(member)) => {
            let request = PutMemberRequest {
                gym_id: scope.gym.to_string(),
                member_id: member.member_id,
                email: member.email,
                name: member.name,
                source_version: member.source_version,
            };
            let id = request.member_id.clone();
            let body = json(&request);
            let parsed = PutMember::try_from(request).and_then(|_| Ok((id, body?)));
            (Kind::Member, parsed)
        }
        Some(WirePart::Membership(request)) => (Kind::Membership, membership(request, scope)),
        Some(WirePart::OpenInvoice(event)) => (Kind::OpenInvoice, open_invoice(event, scope)),
        Some(WirePart::Header(_)) => {
            return Err(fault(
                position,
                "header",
                "one header, in the first message, is expected",
            ));
        }
        None => {
            return Err(fault(
                position,
                "part",
                "a member, a membership or an open invoice is expected",
            ));
        }
    };
    match parsed {
        Ok((id, body)) => Ok(Part { kind, id, body }),
        Err(status) => Err(in_message(&status, position, kind)),
    }
}

/// A fault of message `position`.
pub fn fault(position: i64, field: &str, description: &str) -> Status {
    let mut fields = Fields::new();
    fields.fault(format!("messages[{position}].{field}"), description);
    fields.into_status()
}

/// The same faults, of fields of a message's part.
fn in_message(status: &Status, position: i64, kind: Kind) -> Status {
    let violations = status
        .get_details_bad_request()
        .map(|bad| bad.field_violations)
        .unwrap_or_default();
    let mut fields = Fields::new();
    for violation in violations {
        fields.fault(
            format!("messages[{position}].{}.{}", kind.as_str(), violation.field),
            violation.description,
        );
    }
    if fields.is_empty() {
        return status.clone();
    }
    fields.into_status()
}

fn json(message: &impl serde::Serialize) -> Result<String, Status> {
    serde_json::to_string(message).map_err(|_| Status::internal("A part has no JSON form."))
}

fn membership(
    mut request: PutMembershipRequest,
    scope: &Scope,
) -> Result<(String, String), Status> {
    if request.gym_id.is_empty() {
        request.gym_id = scope.gym.to_string();
    }
    let mut fields = Fields::new();
    if request.gym_id != scope.gym.as_str() {
        fields.fault("gym_id", "the gym of the header is expected");
    }
    fields.check(Some(()))?;
    let id = request.membership_id.clone();
    let body = json(&request)?;
    PutMembership::try_from(request)?;
    Ok((id, body))
}

/// An open invoice as the fact it becomes.
fn open_invoice(mut event: BillingEvent, scope: &Scope) -> Result<(String, String), Status> {
    let mut fields = Fields::new();
    if event.kind.is_empty() {
        event.kind = BillingEventKind::PaymentFailed.to_string();
    }
    // Whatever id the sender gave: its own event may still come, with more in it.
    event.event_id = "roster".to_owned();
    let fact = match wire::fact(&event) {
        Ok(fact) => Some(fact),
        Err(error) => {
            fields.fault(error.field, error.problem);
            None
        }
    };
    let opens = |fact: &Fact| {
        matches!(
            fact.kind,
            BillingEventKind::PaymentFailed | BillingEventKind::PaymentReversed
        )
    };
    if fact.as_ref().is_some_and(|fact| !opens(fact)) {
        fields.fault("kind", "payment_failed or payment_reversed is expected");
    }
    let account = (event.provider.clone(), event.account.clone());
    if fact.is_some() && !scope.accounts.contains(&account) {
        fields.fault("account", "an account of the gym is expected");
    }
    if fact
        .as_ref()
        .is_some_and(|fact| fact.occurred_at > scope.as_of)
    {
        fields.fault("occurred_at", "an instant not after as_of is expected");
    }
    let debt = fact.as_ref().and_then(debt_of);
    if fact.is_some() && debt.is_none() {
        fields.fault(
            "invoice_id",
            "an invoice, a payment or a subscription is expected",
        );
    }
    let (fact, debt) = fields.check(fact.zip(debt))?;
    event.event_id = event_id(&fact, &debt);
    Ok((debt, json(&event)?))
}

/// What the invoice is known by.
fn debt_of(fact: &Fact) -> Option<String> {
    let invoice = fact.invoice.as_ref().map(|id| ("invoice", id.as_str()));
    let payment = fact.payment.as_ref().map(|id| ("payment", id.as_str()));
    let subscription = fact.subscription.as_ref();
    let subscription = subscription.map(|id| ("subscription", id.as_str()));
    let (kind, id) = invoice.or(payment).or(subscription)?;
    Some(format!("{}/{}/{kind}/{id}", fact.provider, fact.account))
}

/// The fact's id: another roster that says the same says it under the same id.
fn event_id(fact: &Fact, debt: &str) -> String {
    let amount = |amount: Option<i64>| amount.map(|n| n.to_string()).unwrap_or_default();
    let parts = [
        debt.to_owned(),
        fact.kind.to_string(),
        fact.occurred_at.to_string(),
        fact.payment
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        amount(fact.amount_minor),
        amount(fact.amount_due_minor),
        fact.currency.clone().unwrap_or_default(),
    ];
    let digest = hex::encode(Sha256::digest(parts.join("\n").as_bytes()));
    format!("roster-{}", &digest[..40])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope {
            gym: "iron".parse().expect("an id"),
            accounts: [("stripe".to_owned(), "acct_1".to_owned())].into(),
            as_of: "2026-03-10T12:00:00Z".parse().expect("an instant"),
        }
    }

    fn invoice(change: impl FnOnce(&mut BillingEvent)) -> Option<WirePart> {
        let at = "2026-03-01T05:00:00Z".parse().expect("an instant");
        let mut event = BillingEvent {
            provider: "stripe".into(),
            account: "acct_1".into(),
            invoice_id: Some("in_1".into()),
            occurred_at: Some(wire::timestamp(at)),
            amount_due_minor: Some(4_000),
            ..BillingEvent::default()
        };
        change(&mut event);
        Some(WirePart::OpenInvoice(event))
    }

    fn names(status: &Status) -> Vec<String> {
        let bad = status.get_details_bad_request();
        let violations = bad.map(|bad| bad.field_violations).unwrap_or_default();
        violations.into_iter().map(|v| v.field).collect()
    }

    fn id_of(part: &Part) -> String {
        let event: BillingEvent = serde_json::from_str(&part.body).expect("an event");
        event.event_id
    }

    #[test]
    fn an_open_invoice_is_one_fact_whatever_id_its_sender_gave() {
        let parse = |change: fn(&mut BillingEvent)| part(invoice(change), &scope(), 3);
        let plain = parse(|_| {}).expect("a part");
        let named = parse(|event| event.event_id = "evt_9".into()).expect("a part");
        let dearer = parse(|event| event.amount_due_minor = Some(5_000)).expect("a part");
        assert_eq!(id_of(&plain), id_of(&named));
        assert_ne!(id_of(&plain), id_of(&dearer));
        assert_eq!(plain.id, dearer.id);
        assert_eq!(plain.id, "stripe/acct_1/invoice/in_1");
    }

    #[test]
    fn a_part_that_makes_no_sense_names_its_message_and_its_field() {
        type Change = fn(&mut BillingEvent);
        let bad: [(&str, Change); 5] = [
            ("kind", |e| e.kind = "payment_succeeded".into()),
            ("account", |e| e.account = "acct_2".into()),
            ("occurred_at", |e| e.occurred_at = None),
            ("invoice_id", |e| e.invoice_id = None),
            ("occurred_at", |e| {
                let late = "2026-03-11T00:00:00Z".parse().expect("an instant");
                e.occurred_at = Some(wire::timestamp(late));
            }),
        ];
        for (field, change) in bad {
            let status = part(invoice(change), &scope(), 7).expect_err(field);
            assert_eq!(
                names(&status),
                [format!("messages[7].open_invoice.{field}")]
            );
        }
        let other_gym = PutMembershipRequest {
            gym_id: "steel".into(),
            ..PutMembershipRequest::default()
        };
        let status = part(Some(WirePart::Membership(other_gym)), &scope(), 2).expect_err("a gym");
        assert_eq!(names(&status), ["messages[2].membership.gym_id"]);
        assert_eq!(
            names(&part(None, &scope(), 4).expect_err("nothing")),
            ["messages[4].part"]
        );
    }
}
