//! Forgetting a person, in this order: the tombstone goes out, the doors answer `erased`, and only
//! then is what is left of the person taken from tables and streams.
//!
//! Each step may be done again, by any replica: how far an erasure is stands in its row, and a
//! process that dies in between leaves it to the next look. The row itself stays, as the proof that
//! it was done; it says when and on whose word, and not who it was.
//! Until the doors have answered, name and e-mail are kept, because removing a person there can
//! take them. Facts stay without what is personal in them: debts of others may hang on them. What a
//! provider says of the person later is taken in as a fact, and opens the erasure again.

mod theirs;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use access_domain::billing::INVOICE_PAID;
use access_domain::ids::{GymId, MemberId};
use contracts::access::v1::AccessApplied;
use contracts::billing::v1::BillingEvent;
use contracts::membership::v1::MembershipStatusChanged;
use contracts::subjects;
use event_bus::dead_letter::{DeadLetterError, DeadLetterFilter};
use event_bus::{Bus, EraseError, LastError};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::desk;
use crate::error::Error;
use crate::rows;
use crate::store::billing::Keys;
use crate::store::entity::erasures;
use crate::store::{self, StoreError, from_micros, micros};
use crate::unit::Decisions;

use theirs::Theirs;

/// Erasures that are not done.
pub const OPEN: &str = "membership_events_erasures_open";
/// How long the oldest of them has waited.
pub const AGE: &str = "membership_events_erasures_age_seconds";

/// Between two looks while something waits. An erasure takes as long as Kisi does.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks while nothing waits here; another replica may have been asked.
const IDLE: Duration = Duration::from_secs(5);
/// One that waits for long is looked at less often, but at least this often.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);
/// Erasures looked at in one go.
const AT_ONCE: u64 = 500;
/// Dead letters read at once.
const LETTERS: usize = 200;
/// Messages are looked for from this long before the table says that one came.
const MARGIN: SignedDuration = SignedDuration::from_hours(1);
/// No event waits longer before it is set aside.
const GIVEN_UP_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// Why a step was not done. It is done again.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Work(#[from] Error),
    #[error(transparent)]
    Last(#[from] LastError),
    #[error(transparent)]
    Erase(#[from] EraseError),
    #[error(transparent)]
    Letters(#[from] DeadLetterError),
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self::Work(Error::Store(error))
    }
}

/// Goes on with erasures until `shutdown`.
pub async fn run(decisions: Decisions, bus: Bus, shutdown: CancellationToken) {
    let mut looked: BTreeMap<(GymId, MemberId), Instant> = BTreeMap::new();
    loop {
        let wait = match look(&decisions, &bus, &mut looked).await {
            Ok(true) => LOOK,
            Ok(false) => IDLE,
            Err(error) => {
                error!(
                    "Erasures could not go on: {}",
                    service_runtime::lifecycle::chain(&error)
                );
                IDLE
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = decisions.erasure_asked() => {}
        }
    }
}

/// Looks at all that are open; true when some are left.
async fn look(
    decisions: &Decisions,
    bus: &Bus,
    looked: &mut BTreeMap<(GymId, MemberId), Instant>,
) -> Result<bool, StoreError> {
    let store = decisions.store();
    let open = store::erasures::list_open(store.reads(), AT_ONCE).await?;
    let now = decisions.now();
    looked.retain(|key, _| {
        open.iter()
            .any(|row| (&row.gym_id.0, &row.member_id.0) == (&key.0, &key.1))
    });
    for row in &open {
        let key = (row.gym_id.0.clone(), row.member_id.0.clone());
        let age = now.duration_since(from_micros(row.requested_at));
        let pause = Duration::try_from(age / 10).unwrap_or_default();
        let pause = pause.min(AT_LEAST_EVERY);
        if looked.get(&key).is_some_and(|at| at.elapsed() < pause) {
            continue;
        }
        if let Err(error) = go_on(decisions, bus, row).await {
            error!(
                gym.id = %row.gym_id, member.id = %row.member_id,
                "The erasure of member {} could not go on: {}", row.member_id,
                service_runtime::lifecycle::chain(&error)
            );
        }
        looked.insert(key, Instant::now());
    }
    let left = store::erasures::count_open(store.reads()).await?;
    metrics::gauge!(OPEN).set(left as f64);
    let oldest = open.first().filter(|_| left > 0);
    let age = oldest.map_or(0, |row| micros(now).saturating_sub(row.requested_at).max(0));
    metrics::gauge!(AGE).set(age as f64 / 1e6);
    Ok(left > 0)
}

/// Does what can be done of one.
async fn go_on(decisions: &Decisions, bus: &Bus, row: &erasures::Model) -> Result<(), StepError> {
    let (gym, member) = (&row.gym_id.0, &row.member_id.0);
    if row.answered_at.is_none() {
        if !is_answered(bus, row).await? {
            return Ok(());
        }
        let now = decisions.now();
        store::erasures::set_answered(decisions.store().reads(), row, now).await?;
    }
    let mut forgotten = forget_in_tables(decisions, row, false).await?;
    loop {
        forget_on_streams(bus, row, &forgotten.theirs).await?;
        // A provider may have said more meanwhile.
        forgotten = forget_in_tables(decisions, row, true).await?;
        if !forgotten.anything {
            break;
        }
    }
    info!(gym.id = %gym, member.id = %member, "Member {member} of gym {gym} is erased");
    Ok(())
}

/// Whether the doors have answered the tombstone, and the bus has nothing newer than it.
async fn is_answered(bus: &Bus, row: &erasures::Model) -> Result<bool, StepError> {
    let (gym, member) = (row.gym_id.0.as_str(), row.member_id.0.as_str());
    let subject = subjects::access(gym, member);
    let answer = bus.last(subjects::ACCESS, &subject).await?;
    let answered = answer
        .and_then(|body| serde_json::from_slice::<AccessApplied>(&body).ok())
        .is_some_and(|answer| answer.outcome == "erased" && answer.version >= row.version);
    if !answered {
        return Ok(false);
    }
    let subject = subjects::membership(gym, member);
    let last = bus.last(subjects::MEMBERSHIP, &subject).await?;
    Ok(last
        .and_then(|body| serde_json::from_slice::<MembershipStatusChanged>(&body).ok())
        .is_some_and(|last| last.erased))
}

/// What was taken out of the tables.
struct Forgotten {
    theirs: Theirs,
    /// Something personal was in one of the events.
    anything: bool,
}

/// Takes the person out of the tables. With `streams_are_clean` and nothing left to take the
/// erasure is done, in the same transaction: a billing event that comes after it opens it again.
async fn forget_in_tables(
    decisions: &Decisions,
    row: &erasures::Model,
    streams_are_clean: bool,
) -> Result<Forgotten, StepError> {
    let (gym, member) = (&row.gym_id.0, &row.member_id.0);
    let once = || async {
        let txn = decisions.store().begin().await?;
        let one = BTreeSet::from([member.clone()]);
        store::members::lock(&txn, gym, &one).await?;
        store::members::forget(&txn, gym, member).await?;
        store::history::erase(&txn, gym, member).await?;
        let theirs = theirs::find(&txn, gym, member).await?;
        let mut anything = false;
        for fact in &theirs.facts {
            let mut event: BillingEvent =
                serde_json::from_str(&fact.event).map_err(|_| rows::nonsense_event(fact))?;
            if !strip(&mut event) {
                continue;
            }
            let json = serde_json::to_string(&event).map_err(Error::Json)?;
            store::billing::replace(&txn, &Keys::of_row(fact), &fact.event_id, json).await?;
            anything = true;
        }
        if streams_are_clean && !anything {
            store::erasures::set_purged(&txn, row, decisions.now()).await?;
        }
        txn.commit().await.map_err(|source| StoreError::Database {
            step: "committing",
            source,
        })?;
        Ok(Forgotten { theirs, anything })
    };
    Ok(decisions.retrying(once).await?)
}

/// Leaves of an event what a debt is made of; false when there was nothing else.
fn strip(event: &mut BillingEvent) -> bool {
    let by_staff = event.provider == desk::PROVIDER;
    let words = event
        .reason
        .take_if(|reason| by_staff && reason != INVOICE_PAID);
    let link = event.payment_url.take();
    let had_metadata = !std::mem::take(&mut event.metadata).is_empty();
    words.is_some() || link.is_some() || had_metadata
}

async fn forget_on_streams(
    bus: &Bus,
    row: &erasures::Model,
    theirs: &Theirs,
) -> Result<(), StepError> {
    let (gym, member) = (row.gym_id.0.as_str(), row.member_id.0.as_str());
    let eraser = bus.eraser();
    let subject = subjects::membership(gym, member);
    eraser.keep_last(subjects::MEMBERSHIP, &subject).await?;
    let subject = subjects::access(gym, member);
    eraser.keep_last(subjects::ACCESS, &subject).await?;

    let mut said: BTreeMap<(String, String), Said> = BTreeMap::new();
    let facts = theirs.facts.iter();
    for fact in facts.filter(|fact| fact.provider != desk::PROVIDER) {
        let of = said
            .entry((fact.provider.clone(), fact.account.clone()))
            .or_default();
        of.add(&fact.event_id, from_micros(fact.received_at));
    }
    for letter in letters_about(bus, theirs).await? {
        let of = said.entry((letter.provider, letter.account)).or_default();
        of.add(&letter.event_id, letter.received_at);
    }
    let mut all = HashSet::new();
    for ((provider, account), said) in said {
        let ids: HashSet<String> = said
            .events
            .iter()
            .map(|event| format!("{provider}/{account}/{event}"))
            .collect();
        let filter = subjects::billing(&provider, &account, "*");
        let since = said.since.and_then(|at| at.checked_sub(MARGIN).ok());
        let since = since.unwrap_or(Timestamp::UNIX_EPOCH);
        eraser
            .erase_by_id(subjects::BILLING, &filter, since, &ids)
            .await?;
        all.extend(ids);
    }
    let about = format!("{gym}/{member}");
    eraser.erase_dead_letters(&about, &all).await?;
    Ok(())
}

/// What an account said of a person.
#[derive(Default)]
struct Said {
    events: BTreeSet<String>,
    /// Not before this.
    since: Option<Timestamp>,
}

impl Said {
    fn add(&mut self, event: &str, received_at: Timestamp) {
        self.events.insert(event.to_owned());
        self.since = Some(
            self.since
                .map_or(received_at, |since| since.min(received_at)),
        );
    }
}

/// An event that was set aside.
struct Letter {
    provider: String,
    account: String,
    event_id: String,
    received_at: Timestamp,
}

/// Events that were set aside and never held, which speak of the same invoices, payments,
/// subscriptions, customers or mandates.
async fn letters_about(bus: &Bus, theirs: &Theirs) -> Result<Vec<Letter>, StepError> {
    let filter = DeadLetterFilter {
        stream: Some(subjects::BILLING.to_owned()),
        ..DeadLetterFilter::default()
    };
    let mut found = Vec::new();
    let mut after = 0;
    loop {
        let letters = bus.dead_letters().list(&filter, after, LETTERS).await?;
        let Some(last) = letters.last() else {
            return Ok(found);
        };
        after = last.sequence;
        for letter in letters {
            let Ok(event) = serde_json::from_slice::<BillingEvent>(&letter.body) else {
                continue;
            };
            if theirs.are_named(&Keys::of_event(&event)) {
                found.push(Letter {
                    provider: event.provider,
                    account: event.account,
                    event_id: event.event_id,
                    // It was on the stream for a while before it was given up.
                    received_at: letter.at.checked_sub(GIVEN_UP_AFTER).unwrap_or(letter.at),
                });
            }
        }
    }
}
