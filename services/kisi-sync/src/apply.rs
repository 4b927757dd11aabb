//! Making Kisi match what one member should have: decide the next step, take a turn, check that it
//! is still wanted, send, write down what came of it, decide again.
//!
//! Every step has its own outcome: whatever is refused is put aside, and keeps no revoke from going
//! out. What is transient ends the attempt and leaves the intent; what is refused is told and waits
//! for the next version or the next reconcile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kisi_client::{HttpKisi, Lane, Turn};
use sea_orm::TransactionTrait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::brake::Brake;
use crate::error::Trouble;
use crate::ownership::LeaseProof;
use crate::record::{self, Outcome};
use crate::schedule;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::steps::{self, Refused, Step, row_window};
use crate::store::{applied_grants, members};

/// More steps than any member needs; past it something goes round in circles, or Kisi answers nothing
/// but that it is asked too often.
const MOST_STEPS: u32 = 60;
/// What is left then is tried again. Microseconds.
const AGAIN_AFTER_MOST_STEPS: i64 = 60_000_000;

/// When what must not be left is tried again, where no pass does it before. Microseconds.
const AGAIN_AFTER_REFUSAL: i64 = 3_600_000_000;

mod attempt;
mod beside_others;
mod bursts;
mod changed_person;
mod doubts;
mod everybody;
mod forget;
mod grant;
mod handed_over;
mod hidden;
mod key;
mod look;
mod manners;
mod pause;
mod person;
mod replacing;
mod revoke;
mod window;

pub(crate) use attempt::Attempt;
pub use bursts::Bursts;
pub use doubts::Doubts;
pub use everybody::{Everybody, Forgets};
pub use grant::new_row;
pub use key::Key;
pub use manners::Manners;
pub use pause::Pause;

/// Speaks to Kisi for one gym, under one lease.
#[derive(Clone)]
pub struct Engine {
    pub shared: Arc<Shared>,
    pub gym: String,
    pub kisi: HttpKisi,
    pub key: Arc<Key>,
    pub lease: LeaseProof,
    pub brake: Arc<Brake>,
    pub pause: Arc<Pause>,
    pub bursts: Arc<Bursts>,
    pub everybody: Arc<Everybody>,
    pub doubts: Arc<Doubts>,
    pub manners: Arc<Manners>,
    /// Cancelled when the lease is lost or the worker stops.
    pub stop: CancellationToken,
    /// Rung when something is decided about the member who is being settled.
    pub newer: Arc<Notify>,
}

impl Engine {
    /// Settles one member and answers its version. `seed` is what the intake has just committed.
    pub async fn settle(&self, member: &str, seed: Option<Snapshot>) -> Result<Outcome, Trouble> {
        let seed = match self.clear_doubts(member).await? {
            true => None,
            false => seed,
        };
        let loaded = match seed {
            Some(seed) => Some(seed),
            None => Snapshot::load(&self.shared.db, &self.gym, member, self.shared.now()).await?,
        };
        let Some(mut snapshot) = loaded else {
            return Ok(Outcome::default());
        };
        if !snapshot.member.pending && snapshot.member.answered_version >= snapshot.member.version {
            return Ok(Outcome::default());
        }
        if snapshot.member.is_behind() {
            // What is wanted by the version that is held was overtaken, and is heard of again.
            return Ok(Outcome::default());
        }
        self.doubt(&mut snapshot)?;
        let mut attempt = Attempt {
            outcome: Outcome {
                groups_before: snapshot.open_groups(),
                ..Outcome::default()
            },
            background: snapshot.member.background,
            snapshot,
            changes: Vec::new(),
            sent_at: 0,
            refused: Refused::default(),
            conflicted: BTreeSet::new(),
            made_way: BTreeSet::new(),
            was_doubtful: self.doubts.is_taken(member),
            replaced: BTreeMap::new(),
            replacing: None,
            gone_user: None,
            let_others_first: false,
            delete_unanswered: false,
            granted_before: 0,
            lease_lost: false,
        };
        let settled = self.bring_about(&mut attempt).await;
        if attempt.outcome.requests > 0 && (attempt.lease_lost || !self.lease.is_held()) {
            self.hand_over(&attempt).await;
        }
        settled.map(|()| attempt.outcome)
    }

    /// Until nothing is left to do, or nothing can be done now; and writes that down.
    async fn bring_about(&self, attempt: &mut Attempt) -> Result<(), Trouble> {
        let trouble = loop {
            match self.run(attempt).await {
                Err(Trouble::Superseded) => self.start_over(attempt).await?,
                Err(trouble) => break Some(trouble),
                Ok(()) => break None,
            }
        };
        match &trouble {
            None => {}
            Some(Trouble::Unreachable(_)) => attempt.fails("kisi_unreachable", None),
            Some(Trouble::KeyDead(_)) => attempt.fails("key_invalid", None),
            Some(Trouble::Refused { failure, code }) => {
                attempt.outcome.failure = Some(failure);
                attempt.outcome.kisi_code.clone_from(code);
            }
            Some(_) => {
                // Nothing to tell: what was done is kept, and the intent stays. What was taken away and
                // not given anew is gone until somebody comes to it.
                let counted = self.count_unreplaced(attempt).await;
                self.write(attempt).await?;
                counted?;
                return Err(trouble.unwrap_or(Trouble::Superseded));
            }
        }
        let is_refused =
            matches!(trouble, Some(Trouble::Refused { .. })) || !attempt.refused.is_empty();
        let now = self.shared.now();
        let kept_until = attempt.first_kept_end(now)?;
        let (member, outcome) = (&attempt.snapshot.member, &mut attempt.outcome);
        // Nobody asks for her again, and others wait for the answer.
        let is_erasure = is_refused && member.erased && !outcome.erased;
        // By the next pass alone it would be a loss that nothing explains.
        let is_explained = attempt.refused.revoke && member.is_explained();
        if is_erasure || is_explained {
            outcome.stays_pending_until(now + AGAIN_AFTER_REFUSAL);
        }
        // Her door shuts then, and the next pass may be some way off.
        let next_pass = schedule::next(now, self.shared.reconcile_every);
        if let Some(end) = kept_until.filter(|end| *end < next_pass) {
            outcome.stays_pending_until(end);
        }
        self.finish(attempt).await?;
        match trouble {
            None | Some(Trouble::Refused { .. }) => Ok(()),
            Some(trouble) => Err(trouble),
        }
    }

    async fn run(&self, attempt: &mut Attempt) -> Result<(), Trouble> {
        let integration = &attempt.snapshot.integration;
        if !integration.is_live() {
            if integration.enabled && integration.activated {
                attempt.fails("key_invalid", None);
            } else {
                attempt.outcome.failure = Some("not_set_up");
                // Without a key there is nothing that could be removed.
                if attempt.snapshot.member.erased {
                    self.forget(attempt).await?;
                }
            }
            return Ok(());
        }
        for _ in 0..MOST_STEPS {
            let now = self.shared.now();
            let wanted = attempt.snapshot.wanted(now)?;
            let others = attempt.snapshot.member.opened_by_others()?;
            let epoch = self.lease.epoch();
            let situation =
                attempt
                    .snapshot
                    .situation(&wanted, &others, &attempt.refused, epoch, now);
            let Some(step) = situation.next_step() else {
                attempt.outcome.held = (situation.held && situation.unwanted().next().is_some())
                    || (situation.grants_held && !situation.missing().is_empty());
                let plans = attempt.snapshot.member.plans()?;
                if wanted.is_empty() && !plans.is_empty() && attempt.outcome.failure.is_none() {
                    attempt.outcome.failure = Some("no_association");
                }
                match self.forget_erased(attempt).await? {
                    true => return Ok(()),
                    // Kisi asked to wait.
                    false => continue,
                }
            };
            let rows = attempt.snapshot.rows.iter();
            let rows = rows.filter(|row| wanted.contains_key(&row.group_id));
            let standing = rows.filter(|row| row.state == applied_grants::STANDING);
            let standing = standing.map(|row| (row.group_id, row_window(row)));
            let replaces =
                situation.unwanted().next().is_some() || steps::closes(&wanted, standing, now);
            if let Err(trouble) = self.take(attempt, step.clone(), replaces).await {
                attempt.put_aside(step, trouble)?;
            }
        }
        let again = self.shared.now() + AGAIN_AFTER_MOST_STEPS;
        attempt.fails("kisi_unreachable", Some(again));
        Ok(())
    }

    async fn take(&self, attempt: &mut Attempt, step: Step, replaces: bool) -> Result<(), Trouble> {
        // What is known so far is durable before anything else is sent.
        if !matches!(step, Step::Forget { .. }) {
            self.write(attempt).await?;
        }
        let shuts = attempt.shuts(&step, self.shared.now())?;
        let lane = match shuts {
            true => Lane::Revoke,
            false => attempt.grant_lane(replaces),
        };
        if lane == Lane::Grant && step.opens() {
            self.wait_for_quiet(&attempt.snapshot.member.member_id)
                .await?;
        }
        match step {
            Step::FindUser => self.find_user(attempt, lane).await,
            Step::Look => self.look(attempt, lane).await,
            Step::CheckPerson => self.check_person(attempt, lane).await,
            Step::LeaveFormer => self.leave_former(attempt).await,
            Step::Intend(groups) => self.intend(attempt, &groups).await.map_err(Trouble::from),
            Step::Forget { row } => {
                attempt.remove_row(row);
                Ok(())
            }
            Step::Grant { row, group } => self.grant(attempt, row, group, lane).await,
            Step::ChangeWindow { row, group, window } => {
                self.change_window(attempt, (row, group), window, lane)
                    .await
            }
            Step::RemoveDuplicate { row, .. } => {
                let lane = if shuts { lane } else { Lane::Reconcile };
                let gone = self.delete(attempt, row, "duplicate_removed", lane).await?;
                attempt.outcome.duplicates += u32::from(gone);
                Ok(())
            }
            Step::Revoke { row, .. } => self.revoke(attempt, row).await,
        }
    }

    /// In a burst of changes only the last one counts: what has waited begins again with the newest.
    async fn wait_for_quiet(&self, member: &str) -> Result<(), Trouble> {
        tokio::select! {
            waited = self.bursts.quiet(member) => match waited {
                true => Err(Trouble::Superseded),
                false => Ok(()),
            },
            () = self.stop.cancelled() => Err(Trouble::NotOwner),
        }
    }

    /// A question, given up when the worker stops: nobody wants its answer then, and it may wait long
    /// for its turn. What changes something is never given up: it takes a [`turn`](Self::turn) first.
    pub(crate) async fn asking<T>(&self, question: impl Future<Output = T>) -> Result<T, Trouble> {
        tokio::select! {
            answer = question => Ok(answer),
            () = self.stop.cancelled() => Err(Trouble::NotOwner),
        }
    }

    /// Something newer was decided about a member of whom a right stands: it may have to go at once, and
    /// what waits for its turn may be less urgent, or not wanted any more.
    pub(crate) async fn overtaken(&self, attempt: &Attempt) {
        let mut rows = attempt.snapshot.rows.iter();
        match rows.any(|row| row.state == applied_grants::STANDING) {
            true => self.newer.notified().await,
            false => std::future::pending().await,
        }
    }

    /// Waits for a turn and then looks once more: at the lease and the key, and, unless the member was
    /// only just read, at the version and the mapping.
    pub(crate) async fn turn(&self, attempt: &Attempt, lane: Lane) -> Result<Turn, Trouble> {
        let turn = tokio::select! {
            turn = self.kisi.pacer().turn(lane) => turn,
            () = self.stop.cancelled() => return Err(Trouble::NotOwner),
            () = self.key.over() => return Err(Trouble::Paused),
            () = self.overtaken(attempt) => return Err(Trouble::Superseded),
        };
        if !attempt.snapshot.is_fresh(self.shared.now()) {
            let member = &attempt.snapshot.member;
            let held = members::current(&self.shared.db, &self.gym, &member.member_id).await?;
            let mapping = &attempt.snapshot.integration.associations;
            if held.is_none_or(|held| held.0 != member.version || held.1 != *mapping) {
                return Err(Trouble::Superseded);
            }
        }
        self.may_send()?;
        // A process may be held still anywhere from here to the socket.
        let (lease, timeout) = (self.lease.clone(), self.shared.request_timeout);
        Ok(turn.only_while(move || lease.covers(timeout)))
    }

    /// To be asked after whatever took time in a turn: what stopped meanwhile stops here, and need not
    /// come as far as the socket.
    pub(super) fn may_send(&self) -> Result<(), Trouble> {
        if !self.lease.covers(self.shared.request_timeout) {
            return Err(Trouble::NotOwner);
        }
        if self.pause.is_on() || self.key.is_over() {
            return Err(Trouble::Paused);
        }
        Ok(())
    }

    pub(crate) async fn write(&self, attempt: &mut Attempt) -> Result<(), Trouble> {
        if attempt.changes.is_empty() {
            return Ok(());
        }
        let txn = self.shared.db.begin().await?;
        if !self.lease.keep(&txn).await? {
            attempt.lease_lost = true;
            return Err(Trouble::NotOwner);
        }
        let now = self.shared.now();
        record::write(&txn, &attempt.snapshot, &attempt.changes, now).await?;
        record::log(&txn, &self.gym, &attempt.changes, None, now).await?;
        txn.commit().await?;
        attempt.changes.clear();
        Ok(())
    }

    async fn finish(&self, attempt: &mut Attempt) -> Result<(), Trouble> {
        let now = self.shared.now();
        let wanted = attempt.snapshot.wanted(now).unwrap_or_default();
        let open = attempt.snapshot.open_groups();
        let others = attempt.snapshot.member.opened_by_others()?;
        if attempt.snapshot.integration.is_live() {
            attempt.outcome.groups_missing = wanted
                .keys()
                .filter(|group| !open.contains(group) && !others.contains(group))
                .copied()
                .collect();
        }
        self.count_unreplaced(attempt).await?;
        let (changes, outcome) = (&attempt.changes, &attempt.outcome);
        let (shared, lease) = (&self.shared, &self.lease);
        if !record::settle(shared, lease, &mut attempt.snapshot, changes, outcome).await? {
            attempt.lease_lost = true;
            return Err(Trouble::NotOwner);
        }
        attempt.changes.clear();
        let outcome = &attempt.outcome;
        let changed = outcome.granted + outcome.revoked > 0 && !attempt.background;
        let on_its_way = attempt
            .snapshot
            .member
            .received_at
            .filter(|_| changed)
            .map(|received| (now - received).max(0) as f64 / 1e6);
        crate::measures::settled(outcome.word(), on_its_way);
        tracing::info!(
            gym.id = %self.gym,
            member.id = %attempt.snapshot.member.member_id,
            member.version = attempt.snapshot.member.version,
            outcome = outcome.word(),
            failure = outcome.failure,
            kisi.requests = outcome.requests,
            "Member {} is settled: {}",
            attempt.snapshot.member.member_id,
            outcome.word()
        );
        Ok(())
    }

    /// Keeps what is done and begins again with the newest version.
    async fn start_over(&self, attempt: &mut Attempt) -> Result<(), Trouble> {
        self.write(attempt).await?;
        let member = attempt.snapshot.member.member_id.clone();
        match Snapshot::load(&self.shared.db, &self.gym, &member, self.shared.now()).await? {
            Some(mut newest) => {
                self.doubt(&mut newest)?;
                attempt.background = newest.member.background;
                if newest.member.version != attempt.snapshot.member.version {
                    attempt.granted_before = attempt.outcome.granted;
                }
                attempt.snapshot = newest;
                attempt.refused = Refused::default();
                attempt.outcome.failure = None;
                (attempt.outcome.stays_pending, attempt.outcome.retry_at) = (false, None);
                Ok(())
            }
            None => Err(Trouble::NotOwner),
        }
    }
}
