//! One unit of work: a transaction that changes rows, decides again about the members concerned,
//! writes the outbox, and after the commit hands on what has to happen next.
//!
//! Nothing leaves the process before the commit; what was committed and not yet published is in
//! the outbox. Deliberately not here: what a change means (see [`crate::writes`] and
//! [`crate::billing_intake`]) and how to decide ([`crate::decide`]).

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use access_domain::ids::{GymId, MemberId, MembershipId};
use jiff::Timestamp;
use sea_orm::DatabaseTransaction;
use service_runtime::clock::Clock;
use tokio::sync::Notify;

use crate::cause::{CauseOf, Causes};
use crate::decide::{self, Decision, Whom};
use crate::error::Error;
use crate::outbox::Relay;
use crate::store::entity::members;
use crate::store::entity::outbox::Model as OutboxRow;
use crate::store::keys::MemberKey;
use crate::store::links::Pair;
use crate::store::{self, Step, Store, micros};
use crate::timers::Wake;

/// How often a transaction that lost against another one is done again.
const ATTEMPTS: u32 = 5;

/// What every unit of work needs. Clones share it.
#[derive(Debug, Clone)]
pub struct Decisions {
    store: Store,
    relay: Relay,
    wake: Wake,
    clock: Arc<dyn Clock>,
    erasures: Arc<Notify>,
    resume_requests: Arc<Notify>,
    rule_changes: Arc<Notify>,
}

impl Decisions {
    /// Put together by `lib.rs`.
    pub fn new(store: Store, relay: Relay, wake: Wake, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            relay,
            wake,
            clock,
            erasures: Arc::default(),
            resume_requests: Arc::default(),
            rule_changes: Arc::default(),
        }
    }

    /// The tables.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The present instant.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Waits while many messages are on their way: for work that stands back behind live events.
    pub async fn stand_back(&self) {
        self.relay.until_few_in_flight().await;
    }

    /// A person is to be forgotten, and that is committed.
    pub fn ask_erasure(&self) {
        self.erasures.notify_one();
    }

    /// Ends when a person is to be forgotten.
    pub async fn erasure_asked(&self) {
        self.erasures.notified().await;
    }

    /// Notified when a member has asked to be resumed, and that is committed.
    pub fn resume_requests(&self) -> &Notify {
        &self.resume_requests
    }

    /// Notified when a gym's rules have changed, and that is committed.
    pub fn rule_changes(&self) -> &Notify {
        &self.rule_changes
    }

    /// Begins a unit of work. Dropping it undoes it.
    pub async fn begin(&self, causes: impl Into<Causes>) -> Result<Unit<'_>, Error> {
        Ok(Unit {
            decisions: self,
            txn: self.store.begin().await?,
            causes: causes.into(),
            mine: Vec::new(),
            leaves_rows: false,
            next_timer: None,
            changed: 0,
            versions: BTreeMap::new(),
        })
    }

    /// Does `work` again when its transaction lost against another one.
    pub async fn retrying<T, F>(&self, mut work: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut attempt = 1;
        loop {
            match work().await {
                Err(error) if error.is_conflict() && attempt < ATTEMPTS => attempt += 1,
                done => return done,
            }
        }
    }
}

/// An open unit of work.
#[derive(Debug)]
pub struct Unit<'a> {
    decisions: &'a Decisions,
    txn: DatabaseTransaction,
    causes: Causes,
    mine: Vec<OutboxRow>,
    leaves_rows: bool,
    next_timer: Option<Timestamp>,
    changed: usize,
    versions: BTreeMap<MemberId, i64>,
}

/// A state on its way to the outbox.
struct Outgoing {
    member: MemberId,
    version: i64,
    payload: String,
    occurred_at: Timestamp,
    traceparent: Option<String>,
}

impl Unit<'_> {
    /// All that follows is brought about by this.
    pub fn set_cause(&mut self, cause: CauseOf) {
        self.causes = cause.into();
    }

    /// Of several events, the one that touches this membership.
    pub fn add_cause(&mut self, pair: Pair, cause: Arc<CauseOf>) {
        if let Causes::Each(each) = &mut self.causes {
            each.insert(pair, cause);
        }
    }

    /// Of several calls, the one that is about these people.
    pub fn add_cause_of(&mut self, people: &BTreeSet<MemberId>, cause: &Arc<CauseOf>) {
        if let Causes::OfPeople(of) = &mut self.causes {
            of.extend(people.iter().map(|id| (id.clone(), Arc::clone(cause))));
        }
    }

    /// The transaction, for reading and writing rows.
    pub fn db(&self) -> &DatabaseTransaction {
        &self.txn
    }

    /// The present instant.
    pub fn now(&self) -> Timestamp {
        self.decisions.clock.now()
    }

    /// How many members got a new version.
    pub fn changed(&self) -> usize {
        self.changed
    }

    /// Locks these members, decides again about each, and keeps and sends on what changed.
    ///
    /// Rows that the decisions depend on must have been written before.
    pub async fn decide(&mut self, gym: &GymId, members: &BTreeSet<MemberId>) -> Result<(), Error> {
        self.decide_about(gym, Whom::Members(members)).await
    }

    /// As [`Self::decide`], about everybody who holds or pays for these memberships.
    pub async fn decide_people_of(
        &mut self,
        gym: &GymId,
        memberships: &BTreeSet<MembershipId>,
    ) -> Result<(), Error> {
        self.decide_about(gym, Whom::PeopleOf(memberships)).await
    }

    /// As [`Self::decide`], about people whose rows are locked, and as they are now.
    pub async fn decide_locked(
        &mut self,
        gym: &GymId,
        people: &[members::Model],
    ) -> Result<(), Error> {
        let (db, now) = (&self.txn, || self.now());
        let decisions = decide::decide_about(db, gym, people, now, &self.causes).await?;
        self.keep(gym, decisions).await
    }

    async fn decide_about(&mut self, gym: &GymId, whom: Whom<'_>) -> Result<(), Error> {
        let decisions = decide::decide(&self.txn, gym, whom, || self.now(), &self.causes).await?;
        self.keep(gym, decisions).await
    }

    /// Makes the last version of a member, after which none follows. What is left of the person
    /// goes when the doors have answered it; see [`crate::erasure`].
    pub async fn erase(&mut self, gym: &GymId, member: &MemberId, held: i64) -> Result<(), Error> {
        store::members::erase(&self.txn, gym, member).await?;
        store::roster::staged::erase(&self.txn, gym, member).await?;
        let cause = self.causes.one()?;
        let (now, by) = (self.now(), cause.actor());
        let decision = decide::tombstone(gym, member, held, now, cause);
        let version = decision.version();
        store::erasures::insert(&self.txn, gym, member, version, now, &by).await?;
        self.keep(gym, vec![decision]).await
    }

    /// Sends the held state of these members again, under its version.
    pub async fn republish(
        &mut self,
        gym: &GymId,
        members: &BTreeSet<MemberId>,
    ) -> Result<usize, Error> {
        let states = decide::held(&self.txn, gym, members).await?;
        let (occurred_at, traceparent) = (self.now(), self.causes.one()?.traceparent());
        let states: Vec<Outgoing> = states
            .into_iter()
            .map(|(member, version, payload)| Outgoing {
                member,
                version,
                payload,
                occurred_at,
                traceparent: traceparent.clone(),
            })
            .collect();
        let sent = states.len();
        self.send(gym, states).await?;
        Ok(sent)
    }

    async fn keep(&mut self, gym: &GymId, decisions: Vec<Decision>) -> Result<(), Error> {
        let mut changed = Vec::new();
        let mut kept = Vec::new();
        for decision in decisions {
            self.versions
                .insert(decision.member.clone(), decision.version());
            let Some(change) = decision.change else {
                continue;
            };
            let json = serde_json::to_string(&change.state).map_err(Error::Json)?;
            kept.push(store::members::NewDecision {
                member: decision.member.clone(),
                version: change.state.version,
                state: json.clone(),
                changes_at: change.changes_at,
            });
            self.next_timer = self.next_timer.into_iter().chain(change.changes_at).min();
            changed.push(Outgoing {
                member: decision.member,
                version: change.state.version,
                payload: json,
                occurred_at: change.occurred_at,
                traceparent: change.traceparent,
            });
        }
        store::members::put_decisions(&self.txn, gym, &kept).await?;
        self.changed += changed.len();
        self.send(gym, changed).await
    }

    /// Writes outbox rows. They are this process's to publish, unless older ones of the same
    /// member are still on their way: then whichever relay finds them the oldest does it.
    async fn send(&mut self, gym: &GymId, states: Vec<Outgoing>) -> Result<(), Error> {
        if states.is_empty() {
            return Ok(());
        }
        let relay = &self.decisions.relay;
        let created_at = micros(self.now());
        let claimed_until = relay.claim_until();
        let rows = states
            .into_iter()
            .map(|state| store::outbox::NewRow {
                gym_id: gym.into(),
                claimed_until,
                member_id: MemberKey(state.member),
                version: state.version,
                payload: state.payload,
                traceparent: state.traceparent,
                occurred_at: micros(state.occurred_at),
                created_at,
            })
            .collect();
        let written = store::outbox::insert(&self.txn, rows).await?;
        let (mut mine, mut others): (Vec<_>, Vec<_>) =
            written.into_iter().partition(|row| row.claimed_until > 0);
        if !others.is_empty() && claimed_until > 0 {
            // What was acked is only not removed yet, and nothing has to wait for it.
            let members = others.iter().map(|row| row.member_id.0.clone()).collect();
            let new: BTreeSet<i64> = others.iter().map(|row| row.seq).collect();
            let waiting: BTreeSet<MemberKey> =
                store::outbox::list_waiting(&self.txn, gym, &members)
                    .await?
                    .into_iter()
                    .filter(|(seq, _)| !new.contains(seq) && !relay.is_acked(*seq))
                    .map(|(_, member)| member)
                    .collect();
            let free: Vec<_> = others
                .extract_if(.., |row| !waiting.contains(&row.member_id))
                .collect();
            let seqs: Vec<i64> = free.iter().map(|row| row.seq).collect();
            store::outbox::take(&self.txn, &seqs, claimed_until).await?;
            mine.extend(free.into_iter().map(|row| OutboxRow {
                claimed_until,
                ..row
            }));
        }
        if !others.is_empty() && !self.leaves_rows {
            self.leaves_rows = true;
            store::outbox::notify(&self.txn).await?;
        }
        self.mine.extend(mine);
        Ok(())
    }

    /// Commits, starts publishing, and answers the versions now held of all members decided about.
    pub async fn commit(self) -> Result<BTreeMap<MemberId, i64>, Error> {
        self.txn.commit().await.step("committing")?;
        self.decisions.relay.submit(self.mine);
        if self.leaves_rows {
            self.decisions.relay.wake();
        }
        if let Some(at) = self.next_timer {
            self.decisions.wake.stored(at);
        }
        Ok(self.versions)
    }
}
