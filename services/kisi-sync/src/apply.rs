//! Making Kisi match what one member should have: decide the next step, take a turn, check that it
//! is still wanted, send, write down what came of it, decide again.
//!
//! Every step has its own outcome: a refused grant does not keep a revoke from going out. What is
//! transient ends the attempt and leaves the intent; what is refused is told and waits for the
//! next version or the next reconcile.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kisi_client::model::{NewGroupAssignment, RoleAssignment};
use kisi_client::{HttpKisi, KisiError, KisiRead, KisiWrite, Lane, Turn};
use sea_orm::{ActiveModelTrait, ActiveValue, DbErr, IntoActiveModel, TransactionTrait};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::brake::Brake;
use crate::error::Trouble;
use crate::ownership::LeaseProof;
use crate::record::{self, Change, Outcome};
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::steps::{Step, Window};
use crate::store::applied_grants::{self, INTENDED, STANDING, UNKNOWN};
use crate::store::{instant, members, micros};

/// More steps than any member needs; past it something goes round in circles.
const MOST_STEPS: u32 = 60;

/// Speaks to Kisi for one gym, under one lease.
#[derive(Clone)]
pub struct Engine {
    pub shared: Arc<Shared>,
    pub gym: String,
    pub kisi: HttpKisi,
    pub lease: LeaseProof,
    pub brake: Arc<Brake>,
    pub pause: Arc<Pause>,
    /// Cancelled when the lease is lost or the worker stops.
    pub stop: CancellationToken,
}

/// Nothing is sent for a while after Kisi did not answer.
#[derive(Debug, Default)]
pub struct Pause(Mutex<(Option<Instant>, u32)>);

impl Pause {
    /// True while nothing should be sent.
    pub fn is_on(&self) -> bool {
        self.until().is_some_and(|until| until > Instant::now())
    }

    /// When it ends, if one was made.
    pub fn until(&self) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Kisi did not answer: half a second first, doubled each time, half a minute at most.
    pub fn begin(&self) {
        let mut pause = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pause.0.is_some_and(|until| until > Instant::now()) {
            return;
        }
        let wait = Duration::from_millis(500 << pause.1.min(6)).min(Duration::from_secs(30));
        *pause = (Some(Instant::now() + wait), pause.1 + 1);
    }

    /// Kisi answers again.
    pub fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (None, 0);
    }
}

/// One attempt at settling one member.
pub(crate) struct Attempt {
    pub snapshot: Snapshot,
    pub outcome: Outcome,
    /// Not durable yet.
    pub changes: Vec<Change>,
    /// Groups whose grant was refused in this attempt.
    pub refused: BTreeSet<i64>,
    /// Groups for which Kisi said "there already" in this attempt.
    pub conflicted: BTreeSet<i64>,
    pub background: bool,
}

impl Engine {
    /// Settles one member and answers its version. `seed` is what the intake has just committed.
    pub async fn settle(&self, member: &str, seed: Option<Snapshot>) -> Result<Outcome, Trouble> {
        let loaded = match seed {
            Some(seed) => Some(seed),
            None => Snapshot::load(&self.shared.db, &self.gym, member).await?,
        };
        let Some(snapshot) = loaded else {
            return Ok(Outcome::default());
        };
        if !snapshot.member.pending && snapshot.member.answered_version >= snapshot.member.version {
            return Ok(Outcome::default());
        }
        let mut attempt = Attempt {
            outcome: Outcome {
                groups_before: snapshot.open_groups(),
                ..Outcome::default()
            },
            background: snapshot.member.background,
            snapshot,
            changes: Vec::new(),
            refused: BTreeSet::new(),
            conflicted: BTreeSet::new(),
        };
        let trouble = loop {
            match self.run(&mut attempt).await {
                Err(Trouble::Superseded) => self.start_over(&mut attempt).await?,
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
                // Nothing to tell: what was done is kept, and the intent stays.
                self.write(&mut attempt).await?;
                return Err(trouble.unwrap_or(Trouble::Superseded));
            }
        }
        self.finish(&mut attempt).await?;
        match trouble {
            None | Some(Trouble::Refused { .. }) => Ok(attempt.outcome),
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
                attempt.outcome.held = situation.held && situation.unwanted().next().is_some();
                let plans = attempt.snapshot.member.plans()?;
                if wanted.is_empty() && !plans.is_empty() && attempt.outcome.failure.is_none() {
                    attempt.outcome.failure = Some("no_association");
                }
                return self.forget_erased(attempt).await;
            };
            let replaces = situation.unwanted().next().is_some();
            self.take(attempt, step, replaces).await?;
        }
        Err(Trouble::Refused {
            failure: "kisi_refused",
            code: None,
        })
    }

    async fn take(&self, attempt: &mut Attempt, step: Step, replaces: bool) -> Result<(), Trouble> {
        // What is known so far is durable before anything else is sent.
        if !matches!(step, Step::Forget { .. }) {
            self.write(attempt).await?;
        }
        let lane = attempt.grant_lane(replaces);
        match step {
            Step::FindUser => self.find_user(attempt, lane).await,
            Step::Look => self.look(attempt, lane).await,
            Step::Intend(groups) => self.intend(attempt, &groups).await.map_err(Trouble::from),
            Step::Forget { row } => {
                attempt.remove_row(row);
                Ok(())
            }
            Step::Grant { row, group } => self.grant(attempt, row, group, lane).await,
            Step::ChangeWindow { row, group, window } => {
                self.change_window(attempt, row, group, window).await
            }
            Step::RemoveDuplicate { row, .. } => {
                self.delete(attempt, row, Lane::Reconcile).await?;
                attempt.outcome.duplicates += 1;
                Ok(())
            }
            Step::Revoke { row, .. } => self.revoke(attempt, row).await,
        }
    }

    /// Waits for a turn and then looks once more: at the lease, and at the version.
    pub(crate) async fn turn(&self, attempt: &Attempt, lane: Lane) -> Result<Turn, Trouble> {
        let turn = tokio::select! {
            turn = self.kisi.pacer().turn(lane) => turn,
            () = self.stop.cancelled() => return Err(Trouble::NotOwner),
        };
        if !self.lease.covers(self.shared.request_timeout) {
            return Err(Trouble::NotOwner);
        }
        if self.pause.is_on() {
            return Err(Trouble::Paused);
        }
        let member = &attempt.snapshot.member;
        let held = members::version(&self.shared.db, &self.gym, &member.member_id).await?;
        if held != Some(member.version) {
            return Err(Trouble::Superseded);
        }
        Ok(turn)
    }

    async fn revoke(&self, attempt: &mut Attempt, row: i64) -> Result<(), Trouble> {
        let class = if attempt.background {
            "unexplained"
        } else {
            "explained"
        };
        // A replacement is no loss, and a change that a person confirmed is not counted.
        let is_loss = attempt.outcome.granted == 0 && !attempt.snapshot.member.approved;
        let member = attempt.snapshot.member.member_id.clone();
        if is_loss && !self.brake.lets_go(&member, class, self.shared.now()) {
            return self.hold(attempt, class).await;
        }
        self.delete(attempt, row, Lane::Revoke).await?;
        attempt.outcome.revoked += 1;
        if is_loss {
            self.brake.lost(&member, class, self.shared.now());
            attempt.changes.push(Change::Lost { class });
        }
        Ok(())
    }

    /// DELETE of a row of ours; a right that another gym of the organization shares stays.
    async fn delete(&self, attempt: &mut Attempt, row: i64, lane: Lane) -> Result<(), Trouble> {
        let Some(model) = attempt.row(row) else {
            return Ok(());
        };
        let (organization, assignment) = (model.organization_id, model.assignment_id);
        let Some(assignment) = assignment else {
            attempt.remove_row(row);
            return Ok(());
        };
        let holders = applied_grants::holders(&self.shared.db, organization, assignment).await?;
        if holders <= 1 {
            let turn = self.turn(attempt, lane).await?;
            attempt.sends(self.shared.now());
            match self
                .kisi
                .delete_role_assignment(turn.into(), assignment)
                .await
            {
                Ok(_) => {}
                Err(KisiError::RateLimited { .. }) => return Ok(()),
                Err(error) => return Err(Trouble::of(error)),
            }
        }
        attempt.remove_row(row);
        Ok(())
    }

    /// POST for a row that was written down before.
    async fn grant(
        &self,
        attempt: &mut Attempt,
        row: i64,
        group: i64,
        lane: Lane,
    ) -> Result<(), Trouble> {
        let Some(model) = attempt.row(row) else {
            return Ok(());
        };
        let wanted = attempt.snapshot.wanted(self.shared.now())?;
        let window = wanted.get(&group).copied().unwrap_or_default();
        let request = NewGroupAssignment::basic(group, model.kisi_user_id, kisi_window(window));
        let turn = self.turn(attempt, lane).await?;
        attempt.sends(self.shared.now());
        match self
            .kisi
            .create_role_assignment(turn.into(), &request)
            .await
        {
            Ok(made) => {
                attempt.complete(row, &made, window);
                attempt.outcome.granted += 1;
                self.brake.gained();
                Ok(())
            }
            Err(KisiError::RateLimited { .. }) => Ok(()),
            Err(error) => self.grant_failed(attempt, row, group, error).await,
        }
    }

    async fn grant_failed(
        &self,
        attempt: &mut Attempt,
        row: i64,
        group: i64,
        error: KisiError,
    ) -> Result<(), Trouble> {
        let code = error.code().map(str::to_owned);
        if error.is_outcome_unknown() {
            attempt.set_state(row, UNKNOWN);
            self.write(attempt).await?;
            return Err(Trouble::Unreachable(error));
        }
        let conflict = error.is_already_exists() || error.is_unprocessable();
        if conflict && attempt.conflicted.insert(group) {
            // Somebody's row is in the way, perhaps ours: a look tells.
            attempt.set_state(row, UNKNOWN);
            return Ok(());
        }
        if error.is_not_found() {
            let failure = self.why_not_found(attempt, group).await?;
            if failure.is_none() && attempt.conflicted.insert(group) {
                return Ok(());
            }
            attempt.refuse(row, group, failure.unwrap_or("kisi_refused"), code);
            return Ok(());
        }
        if conflict {
            attempt.refuse(row, group, "kisi_refused", code);
            return Ok(());
        }
        match Trouble::of(error) {
            Trouble::Refused { failure, code } => {
                attempt.refuse(row, group, failure, code);
                Ok(())
            }
            trouble => Err(trouble),
        }
    }

    /// A grant answered 404: the group is gone, or the person is, or neither yet.
    async fn why_not_found(
        &self,
        attempt: &mut Attempt,
        group: i64,
    ) -> Result<Option<&'static str>, Trouble> {
        attempt.outcome.requests += 1;
        let found = self.kisi.find_group(Lane::Grant, group).await;
        if found.map_err(Trouble::of)?.is_none() {
            return Ok(Some("group_missing"));
        }
        let Some(user) = attempt.snapshot.member.kisi_user_id else {
            return Ok(None);
        };
        attempt.outcome.requests += 1;
        let found = self.kisi.find_user(Lane::Grant, user).await;
        if found.map_err(Trouble::of)?.is_none() {
            // The rights went with the person; both are made anew.
            let gone: Vec<i64> = attempt.snapshot.rows.iter().map(|row| row.id).collect();
            for row in gone {
                attempt.remove_row(row);
            }
            let member = &mut attempt.snapshot.member;
            member.kisi_user_id = None;
            member.kisi_user_ours = false;
            member.looked = false;
            attempt.changes.push(Change::Person);
        }
        Ok(None)
    }

    /// PATCH, read back, and where the window did not move: replace, new before old; where Kisi
    /// allows no second row, old and at once new.
    async fn change_window(
        &self,
        attempt: &mut Attempt,
        row: i64,
        group: i64,
        window: Window,
    ) -> Result<(), Trouble> {
        let Some(model) = attempt.row(row) else {
            return Ok(());
        };
        let (user, Some(assignment)) = (model.kisi_user_id, model.assignment_id) else {
            return Ok(());
        };
        let turn = self.turn(attempt, Lane::Grant).await?;
        attempt.sends(self.shared.now());
        let patched = self
            .kisi
            .update_role_assignment_window(turn.into(), assignment, kisi_window(window))
            .await;
        match patched {
            Ok(()) => {}
            Err(KisiError::RateLimited { .. }) => return Ok(()),
            Err(error) if error.is_unprocessable() || error.is_not_found() => {}
            Err(error) => return Err(Trouble::of(error)),
        }
        attempt.outcome.requests += 1;
        let read = self
            .kisi
            .find_role_assignment(Lane::Grant, assignment)
            .await;
        match read.map_err(Trouble::of)? {
            None => {
                attempt.remove_row(row);
                return Ok(());
            }
            Some(found) if found.window() == kisi_window(window) => {
                attempt.complete(row, &found, window);
                attempt.outcome.windows += 1;
                return Ok(());
            }
            Some(_) => {}
        }
        let new = self
            .insert(attempt, group, window, user, INTENDED, None)
            .await?;
        let turn = self.turn(attempt, Lane::Grant).await?;
        attempt.sends(self.shared.now());
        let request = NewGroupAssignment::basic(group, user, kisi_window(window));
        match self
            .kisi
            .create_role_assignment(turn.into(), &request)
            .await
        {
            Ok(made) => {
                attempt.complete(new, &made, window);
                attempt.outcome.windows += 1;
                Ok(())
            }
            Err(error) if error.is_already_exists() || error.is_unprocessable() => {
                attempt.remove_row(new);
                self.write(attempt).await?;
                self.delete(attempt, row, Lane::Revoke).await?;
                // The next steps grant it anew, ahead of all other work.
                attempt.outcome.windows += 1;
                Ok(())
            }
            Err(error) => self.grant_failed(attempt, new, group, error).await,
        }
    }

    async fn intend(&self, attempt: &mut Attempt, groups: &[(i64, Window)]) -> Result<(), DbErr> {
        let Some(user) = attempt.snapshot.member.kisi_user_id else {
            return Ok(());
        };
        for (group, window) in groups {
            self.insert(attempt, *group, *window, user, INTENDED, None)
                .await?;
        }
        Ok(())
    }

    /// A new row of ours, durable at once; answers its id.
    pub(crate) async fn insert(
        &self,
        attempt: &mut Attempt,
        group: i64,
        window: Window,
        user: i64,
        state: &str,
        assignment: Option<i64>,
    ) -> Result<i64, DbErr> {
        let row = new_row(
            &attempt.snapshot,
            group,
            window,
            user,
            self.lease.epoch(),
            self.shared.now(),
        );
        let row = applied_grants::ActiveModel {
            state: ActiveValue::Set(state.to_owned()),
            assignment_id: ActiveValue::Set(assignment),
            ..row
        };
        let row = row.insert(&self.shared.db).await?;
        let id = row.id;
        attempt.snapshot.rows.push(row);
        Ok(id)
    }

    pub(crate) async fn write(&self, attempt: &mut Attempt) -> Result<(), DbErr> {
        if attempt.changes.is_empty() {
            return Ok(());
        }
        let txn = self.shared.db.begin().await?;
        let now = self.shared.now();
        record::write(&txn, &attempt.snapshot, &attempt.changes, now).await?;
        txn.commit().await?;
        attempt.changes.clear();
        Ok(())
    }

    async fn finish(&self, attempt: &mut Attempt) -> Result<(), DbErr> {
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
        let (changes, outcome) = (&attempt.changes, &attempt.outcome);
        record::settle(&self.shared, &mut attempt.snapshot, changes, outcome).await?;
        attempt.changes.clear();
        let outcome = &attempt.outcome;
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
        match Snapshot::load(&self.shared.db, &self.gym, &member).await? {
            Some(newest) => {
                attempt.background = newest.member.background;
                attempt.snapshot = newest;
                attempt.refused.clear();
                attempt.outcome.failure = None;
                Ok(())
            }
            None => Err(Trouble::NotOwner),
        }
    }
}

impl Attempt {
    fn grant_lane(&self, replaces: bool) -> Lane {
        if self.background {
            Lane::Reconcile
        } else if replaces || self.outcome.revoked > 0 || self.outcome.windows > 0 {
            // A revoke waits for this grant, or a door is shut meanwhile.
            Lane::Revoke
        } else {
            Lane::Grant
        }
    }

    fn fails(&mut self, failure: &'static str, retry_at: Option<i64>) {
        self.outcome.failure = Some(failure);
        self.outcome.stays_pending = true;
        self.outcome.retry_at = retry_at;
    }

    pub(crate) fn sends(&mut self, now: i64) {
        self.outcome.requests += 1;
        self.outcome.sent_at.get_or_insert(now);
    }

    fn row(&self, id: i64) -> Option<&applied_grants::Model> {
        self.snapshot.rows.iter().find(|row| row.id == id)
    }

    pub(crate) fn remove_row(&mut self, id: i64) {
        self.snapshot.rows.retain(|row| row.id != id);
        self.changes
            .retain(|change| !matches!(change, Change::Row(row) if row.id == id));
        self.changes.push(Change::RemoveRow(id));
    }

    pub(crate) fn edit_row(&mut self, id: i64, edit: impl FnOnce(&mut applied_grants::Model)) {
        if let Some(row) = self.snapshot.rows.iter_mut().find(|row| row.id == id) {
            edit(row);
            self.changes.push(Change::Row(row.clone()));
        }
    }

    fn set_state(&mut self, id: i64, state: &str) {
        self.edit_row(id, |row| row.state = state.to_owned());
    }

    /// Kisi has it: its id, and the window as it was asked for or found.
    pub(crate) fn complete(&mut self, id: i64, made: &RoleAssignment, window: Window) {
        self.edit_row(id, |row| {
            row.state = STANDING.to_owned();
            row.assignment_id = Some(made.id);
            row.valid_from = window.from;
            row.valid_until = window.until;
        });
    }

    pub(crate) fn refuse(
        &mut self,
        row: i64,
        group: i64,
        failure: &'static str,
        code: Option<String>,
    ) {
        self.remove_row(row);
        self.refused.insert(group);
        self.outcome.failure = Some(failure);
        self.outcome.kisi_code = code;
    }
}

/// A row about to be granted under this epoch.
pub fn new_row(
    snapshot: &Snapshot,
    group: i64,
    window: Window,
    user: i64,
    epoch: i64,
    now: i64,
) -> applied_grants::ActiveModel {
    applied_grants::Model {
        id: 0,
        organization_id: snapshot.integration.organization_id.unwrap_or_default(),
        gym_id: snapshot.member.gym_id.clone(),
        member_id: snapshot.member.member_id.clone(),
        group_id: group,
        kisi_user_id: user,
        assignment_id: None,
        state: INTENDED.to_owned(),
        epoch,
        valid_from: window.from,
        valid_until: window.until,
        intended_at: now,
        updated_at: now,
    }
    .into_active_model()
    .reset_all_but_id()
}

trait AllButId {
    fn reset_all_but_id(self) -> Self;
}

impl AllButId for applied_grants::ActiveModel {
    fn reset_all_but_id(self) -> Self {
        let mut row = self.reset_all();
        row.id = ActiveValue::NotSet;
        row
    }
}

pub(crate) fn kisi_window(window: Window) -> kisi_client::model::Window {
    kisi_client::model::Window {
        valid_from: window.from.map(instant),
        valid_until: window.until.map(instant),
    }
}

/// A window as Kisi tells it.
pub(crate) fn found_window(found: &RoleAssignment) -> Window {
    Window {
        from: found.valid_from.map(micros),
        until: found.valid_until.map(micros),
    }
}
