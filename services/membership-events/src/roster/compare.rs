//! What differs between a roster's rows and what is held.
//!
//! The same comparison is made twice: once to sum up, on what is there, and once to apply, on rows
//! that are locked.

use std::collections::{BTreeMap, BTreeSet};

use access_domain::billing::{DebtKey, Fact, Ledger};
use access_domain::ids::{GymId, MemberId, MembershipId};
use contracts::billing::v1::BillingEvent;
use contracts::membership::v1::{PutMemberRequest, PutMembershipRequest};
use contracts::wire;
use sea_orm::ConnectionTrait;
use serde::de::DeserializeOwned;

use crate::decide::fact_of;
use crate::error::Error;
use crate::requests::{PutMember, PutMembership};
use crate::store::StoreError;
use crate::store::bulk::{self, Person};
use crate::store::entity::memberships;
use crate::store::keys::MembershipKey;
use crate::store::roster::missing::{self, Ending};
use crate::store::roster::staged::Staged;
use crate::writes::membership::membership_row;

/// What a row of the roster comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It says what is held.
    Same,
    /// It says what is held, under a newer number.
    Renumbered,
    /// It differs.
    Differs,
    /// It is older than what is held, or about somebody who was erased.
    LeftAlone,
}

impl Verdict {
    /// Whether there is a row to write.
    pub fn is_written(self) -> bool {
        matches!(self, Self::Renumbered | Self::Differs)
    }
}

fn nonsense(row: &Staged) -> StoreError {
    StoreError::Nonsense {
        table: "roster_rows",
        column: "body",
        row: format!("{}/{}", row.kind, row.row_id),
    }
}

fn read<T: DeserializeOwned>(row: &Staged) -> Result<T, StoreError> {
    serde_json::from_str(&row.body).map_err(|_| nonsense(row))
}

/// A person of the roster.
#[derive(Debug)]
pub(super) struct ComparedPerson {
    /// As the roster has it.
    pub put: PutMember,
    /// What it comes to.
    pub verdict: Verdict,
    /// Known by PutMember or an earlier roster.
    pub is_known: bool,
    /// The person was erased.
    pub is_erased: bool,
}

/// Compares people; what is held is locked where asked.
pub(super) async fn people(
    db: &impl ConnectionTrait,
    gym: &GymId,
    rows: &[Staged],
    locked: bool,
) -> Result<Vec<ComparedPerson>, Error> {
    let mut puts = Vec::with_capacity(rows.len());
    for row in rows {
        let request: PutMemberRequest = read(row)?;
        puts.push(PutMember::try_from(request).map_err(|_| nonsense(row))?);
    }
    let ids = puts.iter().map(|put| put.member.clone()).collect();
    let held = bulk::list_people(db, gym, &ids, locked).await?;
    let held: BTreeMap<&MemberId, &Person> =
        held.iter().map(|row| (&row.member_id.0, row)).collect();
    Ok(puts
        .into_iter()
        .map(|put| {
            let held = held.get(&put.member);
            ComparedPerson {
                verdict: held.map_or(Verdict::Differs, |held| person(held, &put)),
                is_known: held.is_some(),
                is_erased: held.is_some_and(|held| held.erased),
                put,
            }
        })
        .collect())
}

fn person(held: &Person, put: &PutMember) -> Verdict {
    let same = held.email == put.email && held.name == put.name;
    if held.erased {
        return Verdict::LeftAlone;
    }
    numbered(same, held.source_version, put.source_version)
}

fn numbered(same: bool, held: i64, put: i64) -> Verdict {
    match (same, held.cmp(&put)) {
        (true, std::cmp::Ordering::Less) => Verdict::Renumbered,
        (true, _) => Verdict::Same,
        (false, std::cmp::Ordering::Greater) => Verdict::LeftAlone,
        (false, _) => Verdict::Differs,
    }
}

/// A membership of the roster.
#[derive(Debug)]
pub(super) struct ComparedMembership {
    /// As the roster has it.
    pub put: PutMembership,
    /// What it comes to.
    pub verdict: Verdict,
    /// The row to write.
    pub row: memberships::Model,
    /// The row that is held.
    pub held: Option<memberships::Model>,
    /// An import ended it, and that is taken back.
    pub is_back: bool,
}

/// Parses memberships, each with the message it came with.
pub(super) fn parse_memberships(rows: &[Staged]) -> Result<Vec<(PutMembership, i64)>, Error> {
    let mut puts = Vec::with_capacity(rows.len());
    for row in rows {
        let request: PutMembershipRequest = read(row)?;
        let put = PutMembership::try_from(request).map_err(|_| nonsense(row))?;
        puts.push((put, row.position));
    }
    Ok(puts)
}

/// Everybody whom these memberships name.
pub(super) fn named(puts: &[(PutMembership, i64)]) -> BTreeSet<MemberId> {
    puts.iter()
        .flat_map(|(put, _)| put.holders.iter().chain(&put.payer))
        .cloned()
        .collect()
}

/// Compares memberships; what is held is locked where asked. `erased` are people of theirs.
pub(super) async fn memberships(
    db: &impl ConnectionTrait,
    gym: &GymId,
    puts: Vec<(PutMembership, i64)>,
    as_of: i64,
    erased: &BTreeSet<MemberId>,
    locked: bool,
) -> Result<Vec<ComparedMembership>, Error> {
    let ids: BTreeSet<MembershipId> = puts.iter().map(|(put, _)| put.membership.clone()).collect();
    let mut held: BTreeMap<MembershipKey, memberships::Model> =
        bulk::list_memberships(db, gym, &ids, locked)
            .await?
            .into_iter()
            .map(|row| (row.membership_id.clone(), row))
            .collect();
    let endings: BTreeMap<MembershipKey, Ending> = missing::list_endings(db, gym, &ids)
        .await?
        .into_iter()
        .map(|ending| (ending.membership_id.clone(), ending))
        .collect();
    let mut compared = Vec::with_capacity(puts.len());
    for (put, _) in puts {
        let key = MembershipKey::from(&put.membership);
        let held = held.remove(&key);
        let (verdict, row, is_back) =
            membership(held.as_ref(), endings.get(&key), &put, as_of, erased)?;
        compared.push(ComparedMembership {
            put,
            verdict,
            row,
            held,
            is_back,
        });
    }
    Ok(compared)
}

fn membership(
    held: Option<&memberships::Model>,
    ending: Option<&Ending>,
    put: &PutMembership,
    as_of: i64,
    erased: &BTreeSet<MemberId>,
) -> Result<(Verdict, memberships::Model, bool), Error> {
    let written_at = held.map_or(as_of, |held| held.written_at.max(as_of));
    let mut row = membership_row(put, held, written_at)?;
    let Some(held) = held else {
        // It would be nobody's.
        let is_nobodys = put.holders.iter().all(|member| erased.contains(member));
        let verdict = if is_nobodys {
            Verdict::LeftAlone
        } else {
            Verdict::Differs
        };
        return Ok((verdict, row, false));
    };
    let said = memberships::Model {
        source_version: held.source_version,
        written_at: held.written_at,
        ..row.clone()
    };
    let mut verdict = numbered(said == *held, held.source_version, put.source_version);
    if verdict == Verdict::LeftAlone {
        row = held.clone();
    }
    row.source_version = held.source_version.max(put.source_version);
    // What an import ended, and nobody cancelled otherwise since, a later one brings back.
    let ending = ending.filter(|ending| {
        ending.ended_at <= as_of
            && held.cancelled_at == Some(ending.ended_at)
            && held.cancel_ends_on.is_none()
    });
    if let Some(ending) = ending {
        row.cancelled_at = ending.cancelled_at;
        row.cancel_ends_on.clone_from(&ending.cancel_ends_on);
        verdict = Verdict::Differs;
    }
    Ok((verdict, row, ending.is_some()))
}

/// An open invoice of the roster.
#[derive(Debug)]
pub(super) struct ComparedInvoice {
    /// The fact as the event that tells it.
    pub event: BillingEvent,
    /// What it comes to.
    pub verdict: Verdict,
}

/// Compares open invoices with the facts that are held of them.
pub(super) async fn invoices(
    db: &impl ConnectionTrait,
    rows: &[Staged],
) -> Result<Vec<ComparedInvoice>, Error> {
    let mut by_account: BTreeMap<(String, String), Vec<(BillingEvent, Fact)>> = BTreeMap::new();
    for row in rows {
        let event: BillingEvent = read(row)?;
        let fact = wire::fact(&event).map_err(|_| nonsense(row))?;
        let account = (event.provider.clone(), event.account.clone());
        by_account.entry(account).or_default().push((event, fact));
    }
    let mut compared = Vec::with_capacity(rows.len());
    for ((provider, account), invoices) in by_account {
        let texts = |id: fn(&BillingEvent) -> Option<&str>| -> Vec<&str> {
            invoices.iter().filter_map(|(event, _)| id(event)).collect()
        };
        let known = texts(|event| Some(&event.event_id));
        let known = bulk::list_held_events(db, &provider, &account, &known).await?;
        let facts = bulk::list_facts(
            db,
            &provider,
            &account,
            &texts(|event| event.invoice_id.as_deref()),
            &texts(|event| event.payment_id.as_deref()),
        )
        .await?;
        let before = Ledger::from_facts(facts.iter().filter_map(|json| fact_of(json)));
        let mut after = before.clone();
        for (_, fact) in &invoices {
            after.join(fact.clone());
        }
        let (state_before, state_after) = (before.state(), after.state());
        for (event, fact) in invoices {
            let is_open = |state: &access_domain::billing::BillingState| {
                keys(&fact, &after).iter().any(|key| {
                    state
                        .debts
                        .get(key)
                        .is_some_and(|debt| debt.open_since.is_some())
                })
            };
            let verdict = if known.contains(&event.event_id) || is_open(&state_before) {
                Verdict::Same
            } else if is_open(&state_after) {
                Verdict::Differs
            } else {
                // It was paid or forgiven, which counts whenever it is heard of.
                Verdict::LeftAlone
            };
            compared.push(ComparedInvoice { event, verdict });
        }
    }
    Ok(compared)
}

/// What the debt of this fact can be known by, where `ledger` may tie a payment to an invoice.
fn keys(fact: &Fact, ledger: &Ledger) -> Vec<DebtKey> {
    if let Some(invoice) = &fact.invoice {
        return vec![DebtKey::Invoice(invoice.clone())];
    }
    if let Some(payment) = &fact.payment {
        let tied = ledger
            .facts()
            .filter(|other| other.payment.as_ref() == Some(payment))
            .filter_map(|other| other.invoice.clone())
            .map(DebtKey::Invoice);
        return tied.chain([DebtKey::Payment(payment.clone())]).collect();
    }
    fact.subscription
        .iter()
        .map(|id| DebtKey::Subscription(id.clone()))
        .collect()
}
