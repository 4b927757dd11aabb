//! One pass over a gym: compare versions, observe, plan, apply, report.
//!
//! Applying is the same path that an event takes: the members whose rights differ are marked and
//! settled by the gym's worker, each with its own outcome. The plan is a value that was looked at
//! first: past the brake's line it is held whole, and nothing of it is marked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use access_domain::grant::{DesiredGrants, Holder, ObservedGrant, Window};
use access_domain::ids::{GroupId, MemberId};
use access_domain::plan::{self, Plan, Policy, Step, Unmanaged};
use contracts::integration::v1::{StepFailure, SyncReport, UnmanagedGrant};
use kisi_client::{HttpKisi, KisiError, Lane};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, TransactionTrait,
};
use tokio::sync::mpsc;

use crate::observe::{self, Known, Observed};
use crate::ownership::LeaseProof;
use crate::record::Outcome;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::steps;
use crate::store::{applied_grants, instant, integrations, members, syncs};
use crate::worker::{self, Job};
use crate::{doors, held, integration_state as state};

/// How long newer versions may take to arrive after they were asked for.
const VERSIONS_WITHIN: Duration = Duration::from_secs(15);
/// Failures and strange rights that a report names.
const NAMED: usize = 100;
/// Doors are looked at again after this.
const DOORS_EVERY: i64 = 3_600 * 1_000_000;

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("the database failed")]
    Store(#[from] DbErr),
    #[error("Kisi cannot be looked at")]
    Kisi(#[from] KisiError),
    #[error(transparent)]
    Sealing(#[from] crate::sealing::SealingError),
    #[error("the gym has no integration to reconcile")]
    NotSetUp,
    #[error("the lease is not ours any more")]
    NotOwner,
}

/// Puts a pass in the queue; answers its row. Whoever owns the gym runs it.
pub async fn queue(
    shared: &Shared,
    gym: &str,
    activation: &str,
    digest: Option<String>,
) -> Result<syncs::Model, DbErr> {
    let row = syncs::Model {
        sync_id: format!("sync_{}", uuid::Uuid::now_v7().simple()),
        gym_id: gym.to_owned(),
        state: "queued".to_owned(),
        activation: activation.to_owned(),
        digest,
        created_at: shared.now(),
        started_at: None,
        ended_at: None,
        report: "{}".to_owned(),
        in_sync: false,
    };
    syncs::Entity::insert(row.clone().into_active_model().reset_all())
        .exec_without_returning(&shared.db)
        .await?;
    Ok(row)
}

/// The gym's passes that have not ended, oldest first.
pub async fn unfinished(shared: &Shared, gym: &str) -> Result<Vec<syncs::Model>, DbErr> {
    syncs::Entity::find()
        .filter(syncs::Column::GymId.eq(gym))
        .filter(syncs::Column::State.is_in(["queued", "running"]))
        .order_by_asc(syncs::Column::CreatedAt)
        .all(&shared.db)
        .await
}

/// Runs one pass to its end and writes down what came of it.
pub async fn run(shared: &Arc<Shared>, lease: &LeaseProof, sync: syncs::Model) -> syncs::Model {
    let mut pass = Pass {
        shared: Arc::clone(shared),
        gym: sync.gym_id.clone(),
        lease: lease.clone(),
        report: SyncReport::default(),
        sync,
        whole: true,
        is_held: false,
    };
    let ended = pass.run().await;
    match ended {
        // Somebody else goes on with it.
        Err(ReconcileError::NotOwner) => return pass.sync,
        Err(error) => {
            tracing::warn!(gym.id = %pass.gym, sync.id = %pass.sync.sync_id, error = %error,
                "The reconcile of gym {} ended early: {error}", pass.gym);
            if let ReconcileError::Kisi(error) = &error
                && error.is_key_dead()
            {
                let rights = error.status() == Some(403);
                if let Err(error) = worker::key_died(shared, &pass.gym, rights).await {
                    tracing::error!(error = %error, "The dead key cannot be recorded");
                }
                shared.workers.reload(&pass.gym);
            }
            pass.report.failures.push(StepFailure {
                step: "observe".to_owned(),
                failure: error.to_string(),
                ..StepFailure::default()
            });
            pass.sync.state = "failed".to_owned();
        }
        Ok(()) => {
            let failed = pass.report.failed + pass.report.refused > 0 || !pass.whole;
            pass.sync.in_sync = !failed && !pass.is_held;
            let state = if pass.is_held {
                "held"
            } else if failed {
                "done_with_failures"
            } else {
                "done"
            };
            pass.sync.state = state.to_owned();
        }
    }
    pass.sync.ended_at = Some(shared.now());
    if let Err(error) = pass.save().await {
        tracing::error!(error = %error, "A reconcile's report could not be kept");
    }
    tracing::info!(gym.id = %pass.gym, sync.id = %pass.sync.sync_id, sync.state = %pass.sync.state,
        grants.granted = pass.report.granted, grants.revoked = pass.report.revoked,
        "Reconciled gym {}: {}", pass.gym, pass.sync.state);
    pass.sync
}

struct Pass {
    shared: Arc<Shared>,
    gym: String,
    lease: LeaseProof,
    sync: syncs::Model,
    report: SyncReport,
    /// Everything could be looked at.
    whole: bool,
    is_held: bool,
}

impl Pass {
    async fn run(&mut self) -> Result<(), ReconcileError> {
        self.sync.state = "running".to_owned();
        self.sync.started_at = Some(self.shared.now());
        self.save().await?;
        let integration = integrations::find(&self.shared.db, &self.gym)
            .await?
            .filter(integrations::Model::is_live)
            .ok_or(ReconcileError::NotSetUp)?;
        self.compare_versions().await;
        let kisi = self.shared.kisi_of(&integration)?;
        self.look_at_doors(&kisi, &integration).await?;
        let began = self.shared.now();
        let view = View::read(&self.shared, integration).await?;
        let observed = view.observe(&kisi, Lane::Reconcile, began).await?;
        self.report.requests += observed.requests;
        self.correct(&view, &observed).await?;
        let view = View::read(&self.shared, view.integration).await?;
        let plan = view.plan(&observed, view.associations()?, began)?;
        self.report_unmanaged(&observed);
        self.apply(&view, &plan).await?;
        self.conclude(&observed).await
    }

    /// A lost message is found here: newer versions are asked for, and a short answer removes
    /// nobody.
    async fn compare_versions(&mut self) {
        let theirs = match self.shared.directory.list_versions(&self.gym).await {
            Ok(theirs) => theirs,
            Err(status) => {
                self.note_directory(&status);
                return;
            }
        };
        let behind = |held: Vec<(String, i64)>| -> Vec<String> {
            let held: BTreeMap<String, i64> = held.into_iter().collect();
            theirs
                .iter()
                .filter(|(member, version)| held.get(*member) < Some(version))
                .map(|(member, _)| member.clone())
                .collect()
        };
        let deadline = tokio::time::Instant::now() + VERSIONS_WITHIN;
        let mut asked = false;
        loop {
            let Ok(held) = members::versions(&self.shared.db, &self.gym).await else {
                return;
            };
            let missing = behind(held);
            if missing.is_empty() {
                return;
            }
            if !asked {
                asked = true;
                if let Err(status) = self.shared.directory.republish(&self.gym, &missing).await {
                    self.note_directory(&status);
                    return;
                }
            }
            if tokio::time::Instant::now() > deadline {
                tracing::warn!(gym.id = %self.gym, members = missing.len(),
                    "Newer versions of members did not arrive in time");
                self.whole = false;
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn note_directory(&mut self, status: &tonic::Status) {
        tracing::warn!(gym.id = %self.gym, grpc.code = ?status.code(),
            "Versions cannot be compared with membership-events");
        self.whole = false;
        self.report.failures.push(StepFailure {
            step: "compare_versions".to_owned(),
            failure: "membership-events did not answer".to_owned(),
            ..StepFailure::default()
        });
    }

    async fn look_at_doors(
        &mut self,
        kisi: &HttpKisi,
        integration: &integrations::Model,
    ) -> Result<(), ReconcileError> {
        let now = self.shared.now();
        let recent = |at: i64| now - at < DOORS_EVERY;
        if integration.doors_looked_at.is_some_and(recent) && self.sync.activation == "schedule" {
            return Ok(());
        }
        let (groups, requests) = doors::list(kisi, Lane::Reconcile, integration).await?;
        self.report.requests += requests;
        let txn = self.shared.db.begin().await?;
        doors::save(&txn, &self.gym, &groups, now).await?;
        txn.commit().await?;
        self.shared.outbox.notify_one();
        Ok(())
    }

    /// Brings our tables in line with what was seen.
    async fn correct(&mut self, view: &View, observed: &Observed) -> Result<(), ReconcileError> {
        let txn = self.shared.db.begin().await?;
        for row in &observed.gone {
            applied_grants::Entity::delete_by_id(row.id)
                .exec(&txn)
                .await?;
        }
        for row in &observed.moved {
            row.clone()
                .into_active_model()
                .reset_all()
                .update(&txn)
                .await?;
        }
        let nothing = BTreeSet::new();
        for member in &view.members {
            let seen = observed.opened_by_others.get(&member.member_id);
            let seen = seen.unwrap_or(&nothing);
            let mut groups: BTreeSet<i64> = member.opened_by_others()?.into_iter().collect();
            groups.retain(|group| !observed.grants.groups.contains(&GroupId(*group)));
            groups.extend(seen);
            let text = serde_json::to_string(&groups).unwrap_or_else(|_| "[]".to_owned());
            if text != member.opened_by_others {
                let set = members::ActiveModel {
                    opened_by_others: ActiveValue::Set(text),
                    ..Default::default()
                };
                members::Entity::update_many()
                    .set(set)
                    .filter(members::Column::GymId.eq(&self.gym))
                    .filter(members::Column::MemberId.eq(&member.member_id))
                    .exec(&txn)
                    .await?;
            }
        }
        if view.integration.unmanaged_policy == "adopt" {
            self.adopt(&txn, view, observed).await?;
        }
        txn.commit().await?;
        Ok(())
    }

    /// Rights that others gave to our members become ours, where the gym wants that.
    async fn adopt<C: sea_orm::ConnectionTrait>(
        &self,
        txn: &C,
        view: &View,
        observed: &Observed,
    ) -> Result<(), ReconcileError> {
        let now = self.shared.now();
        let plan = view.plan(observed, view.associations()?, now)?;
        for step in &plan.steps {
            let Step::Adopt {
                assignment,
                member,
                group,
            } = step
            else {
                continue;
            };
            let Some(held) = view.members.iter().find(|m| m.member_id == member.as_str()) else {
                continue;
            };
            let window = observed
                .grants
                .grants
                .iter()
                .find(|row| row.assignment == *assignment)
                .map_or(Window::ALWAYS, |row| row.window);
            let snapshot = Snapshot {
                integration: Arc::new(view.integration.clone()),
                member: held.clone(),
                rows: Vec::new(),
            };
            let window = steps::Window {
                from: window.from.map(crate::store::micros),
                until: window.until.map(crate::store::micros),
            };
            let user = held.kisi_user_id.unwrap_or_default();
            let epoch = self.lease.epoch();
            let mut row = crate::apply::new_row(&snapshot, group.0, window, user, epoch, now);
            row.assignment_id = ActiveValue::Set(Some(*assignment));
            row.state = ActiveValue::Set(applied_grants::STANDING.to_owned());
            row.insert(txn).await?;
        }
        Ok(())
    }

    /// Marks the members that differ and waits for what comes of each.
    async fn apply(&mut self, view: &View, plan: &Plan) -> Result<(), ReconcileError> {
        let now = self.shared.now();
        self.report.members = count(view.members.len());
        let confirmed = self.sync.digest.as_deref() == Some(plan.digest().as_str());
        let held: BTreeSet<String> = view
            .members
            .iter()
            .filter(|member| member.held_by.is_some())
            .map(|member| member.member_id.clone())
            .collect();
        let mut losses: Vec<String> = names(plan.losses().difference(&plan.gains()));
        // What a person has to decide on, or has decided to leave, is not asked again.
        let asked = losses.len();
        losses.retain(|member| !held.contains(member));
        self.is_held = losses.len() < asked;
        self.report.held = count(asked - losses.len());
        let gains: Vec<String> = names(plan.gains().iter());
        let mut skipped = BTreeSet::new();
        if let Some(brake) = self.shared.workers.brake(&self.gym) {
            brake.recount(&self.shared.db, &self.gym).await?;
            if !confirmed && !brake.room(&losses, "unexplained", now) {
                self.hold("unexplained", &losses).await?;
                self.report.held += count(losses.len());
                skipped.extend(losses.iter().cloned());
            }
            let mapped = self.sync.activation == "associations";
            if mapped && !confirmed && !brake.may_let_in(gains.len() as u64) {
                self.hold("grants", &gains).await?;
                self.report.held += count(gains.len());
                skipped.extend(gains.iter().cloned());
            }
        }
        let mut work: BTreeSet<String> = affected(plan);
        // Work that was waiting already is part of being in sync.
        work.extend(
            view.members
                .iter()
                .filter(|member| member.pending)
                .map(|member| member.member_id.clone()),
        );
        work.retain(|member| !skipped.contains(member));
        let work: Vec<String> = work.into_iter().collect();
        members::mark_pending(&self.shared.db, &self.gym, &work, confirmed, now).await?;
        self.report.unchanged = count(view.members.len().saturating_sub(work.len()));
        self.save().await?;
        self.wait_for(work).await
    }

    async fn hold(&mut self, class: &str, members: &[String]) -> Result<(), ReconcileError> {
        let now = self.shared.now();
        let cause = match self.sync.activation.as_str() {
            "associations" => "associations_changed",
            _ => "drift",
        };
        let txn = self.shared.db.begin().await?;
        held::hold(&txn, &self.gym, class, cause, members, now).await?;
        txn.commit().await?;
        self.shared.outbox.notify_one();
        self.is_held = true;
        Ok(())
    }

    async fn wait_for(&mut self, work: Vec<String>) -> Result<(), ReconcileError> {
        let (reply, mut settled) = mpsc::unbounded_channel();
        for member in &work {
            let job = Job::of_sync(member, reply.clone());
            if !self.shared.workers.wake(&self.gym, job) {
                return Err(ReconcileError::NotOwner);
            }
        }
        drop(reply);
        let mut left = work.len();
        let mut saved = tokio::time::Instant::now();
        while left > 0 {
            let next = tokio::select! {
                next = settled.recv() => next,
                () = self.lease.lost().cancelled() => return Err(ReconcileError::NotOwner),
            };
            let Some((member, outcome)) = next else {
                return Err(ReconcileError::NotOwner);
            };
            left -= 1;
            self.count_in(member, outcome);
            if saved.elapsed() > Duration::from_millis(500) {
                saved = tokio::time::Instant::now();
                self.save().await?;
            }
        }
        Ok(())
    }

    fn count_in(&mut self, member: String, outcome: Option<Outcome>) {
        let report = &mut self.report;
        let Some(outcome) = outcome else {
            report.failed += 1;
            name_failure(report, member, "settle", "it is tried again by itself");
            return;
        };
        report.granted += i64::from(outcome.granted);
        report.revoked += i64::from(outcome.revoked);
        report.windows_changed += i64::from(outcome.windows);
        report.duplicates_removed += i64::from(outcome.duplicates);
        report.requests += i64::from(outcome.requests);
        match outcome.failure {
            Some("brake") => {
                report.held += 1;
                self.is_held = true;
            }
            Some("no_association" | "not_set_up") | None => {
                if outcome.granted + outcome.revoked + outcome.windows + outcome.duplicates == 0 {
                    report.unchanged += 1;
                }
            }
            Some(failure) => {
                report.refused += 1;
                name_failure(report, member, "grant", failure);
            }
        }
    }

    fn report_unmanaged(&mut self, observed: &Observed) {
        self.report.unmanaged = count(observed.unmanaged.len());
        self.report.unmanaged_grants = observed
            .unmanaged
            .iter()
            .take(NAMED)
            .map(|right| UnmanagedGrant {
                assignment_id: right.assignment,
                group_id: right.group,
                kisi_user_id: right.user,
                member_id: right.member.clone(),
            })
            .collect();
    }

    /// The integration after the pass: when it was reconciled, and what needs somebody.
    async fn conclude(&mut self, observed: &Observed) -> Result<(), ReconcileError> {
        if !observed.groups_missing.is_empty() || !observed.distrusted.is_empty() {
            self.whole = false;
        }
        let now = self.shared.now();
        let unmanaged = count(observed.unmanaged.len());
        let seen = |matter: &integrations::Attention| match matter.what.as_str() {
            "group_missing" => !observed
                .groups_missing
                .iter()
                .any(|g| g.to_string() == matter.subject),
            "listing_distrusted" => !observed
                .distrusted
                .iter()
                .any(|g| g.to_string() == matter.subject),
            "kisi_unreachable" => true,
            _ => false,
        };
        let txn = self.shared.db.begin().await?;
        state::change(&txn, &self.gym, now, |row| {
            row.synced = true;
            row.last_reconciled_at = Some(now);
            row.unmanaged = unmanaged;
            state::settle_attention(row, seen)
        })
        .await?;
        for group in &observed.groups_missing {
            let message = "The group is gone at Kisi: choose another one for its plans.";
            let subject = group.to_string();
            state::attend(
                &txn,
                &self.gym,
                "group_missing",
                &subject,
                message,
                "staff",
                now,
            )
            .await?;
        }
        for group in &observed.distrusted {
            let message = "Kisi's list of this group lacks many rights that we gave: nothing was removed by it.";
            let subject = group.to_string();
            state::attend(
                &txn,
                &self.gym,
                "listing_distrusted",
                &subject,
                message,
                "staff",
                now,
            )
            .await?;
        }
        txn.commit().await?;
        self.shared.outbox.notify_one();
        Ok(())
    }

    async fn save(&mut self) -> Result<(), DbErr> {
        self.sync.report = serde_json::to_string(&self.report).unwrap_or_else(|_| "{}".to_owned());
        let row = self.sync.clone().into_active_model().reset_all();
        syncs::Entity::update(row).exec(&self.shared.db).await?;
        Ok(())
    }
}

/// The gym as the tables have it.
pub struct View {
    pub integration: integrations::Model,
    pub members: Vec<members::Model>,
    pub rows: Vec<applied_grants::Model>,
    /// Assignments of other gyms in the same organization.
    elsewhere: BTreeSet<i64>,
}

impl View {
    pub async fn read(shared: &Shared, integration: integrations::Model) -> Result<Self, DbErr> {
        let gym = integration.gym_id.clone();
        let integration = integrations::find(&shared.db, &gym)
            .await?
            .unwrap_or(integration);
        let organization = integration.organization();
        let members = members::list(&shared.db, &gym).await?;
        let rows = applied_grants::of_gym(&shared.db, organization, &gym).await?;
        let elsewhere = applied_grants::Entity::find()
            .filter(applied_grants::Column::OrganizationId.eq(organization))
            .filter(applied_grants::Column::GymId.ne(&gym))
            .all(&shared.db)
            .await?
            .into_iter()
            .filter_map(|row| row.assignment_id)
            .collect();
        Ok(Self {
            integration,
            members,
            rows,
            elsewhere,
        })
    }

    pub fn associations(&self) -> Result<BTreeMap<String, i64>, DbErr> {
        self.integration.associations()
    }

    /// Lists the groups of the associations, and those where rows of ours stand.
    pub async fn observe(
        &self,
        kisi: &HttpKisi,
        lane: Lane,
        now: i64,
    ) -> Result<Observed, ReconcileError> {
        let mut groups: BTreeSet<i64> = self.associations()?.into_values().collect();
        groups.extend(self.rows.iter().map(|row| row.group_id));
        self.observe_groups(kisi, lane, &groups, now).await
    }

    /// Lists these groups.
    pub async fn observe_groups(
        &self,
        kisi: &HttpKisi,
        lane: Lane,
        groups: &BTreeSet<i64>,
        now: i64,
    ) -> Result<Observed, ReconcileError> {
        let known = Known {
            rows: &self.rows,
            members: &self.members,
            elsewhere: &self.elsewhere,
            now,
        };
        Ok(observe::observe(kisi, lane, groups, &known).await?)
    }

    /// What would make Kisi agree. Members with work of their own under way are left out, and so
    /// is whoever was touched since `began`.
    pub fn plan(
        &self,
        observed: &Observed,
        associations: BTreeMap<String, i64>,
        began: i64,
    ) -> Result<Plan, DbErr> {
        let busy: BTreeSet<&str> = self
            .members
            .iter()
            .filter(|member| member.pending && self.integration.synced)
            .map(|member| member.member_id.as_str())
            .chain(
                self.rows
                    .iter()
                    .filter(|row| row.updated_at >= began || row.state != applied_grants::STANDING)
                    .map(|row| row.member_id.as_str()),
            )
            .collect();
        let mut desired = DesiredGrants::default();
        for member in &self.members {
            if member.erased || busy.contains(member.member_id.as_str()) {
                continue;
            }
            let Ok(id) = MemberId::parse(&member.member_id) else {
                continue;
            };
            for (group, window) in steps::wanted(&member.plans()?, &associations, began) {
                let window = Window {
                    from: window.from.map(instant),
                    until: window.until.map(instant),
                };
                desired.insert(id.clone(), GroupId(group), window);
            }
        }
        let gone: BTreeSet<i64> = observed
            .gone
            .iter()
            .filter_map(|row| row.assignment_id)
            .collect();
        let adopted: BTreeSet<i64> = self
            .rows
            .iter()
            .filter_map(|row| row.assignment_id)
            .collect();
        let mut grants = observed.grants.clone();
        grants.grants.retain(|row| match &row.holder {
            Holder::Member(member) => {
                !busy.contains(member.as_str()) && !gone.contains(&row.assignment)
            }
            Holder::Stranger(_) => true,
        });
        for row in &mut grants.grants {
            mark_ours(row, &adopted);
        }
        let unmanaged = match self.integration.unmanaged_policy.as_str() {
            "adopt" => Unmanaged::Adopt,
            _ => Unmanaged::Leave,
        };
        Ok(plan::plan(
            &desired,
            &grants,
            Policy { unmanaged },
            instant(began),
        ))
    }
}

fn mark_ours(row: &mut ObservedGrant, adopted: &BTreeSet<i64>) {
    row.ours = row.ours || adopted.contains(&row.assignment);
}

fn affected(plan: &Plan) -> BTreeSet<String> {
    plan.steps
        .iter()
        .filter_map(|step| match step {
            Step::Grant { member, .. }
            | Step::ChangeWindow { member, .. }
            | Step::RemoveDuplicate { member, .. } => Some(member.to_string()),
            Step::Revoke { member, .. } => member.as_ref().map(ToString::to_string),
            Step::Adopt { .. } | Step::LeaveUnmanaged { .. } => None,
        })
        .collect()
}

fn names<'a>(members: impl Iterator<Item = &'a MemberId>) -> Vec<String> {
    members.map(ToString::to_string).collect()
}

fn name_failure(report: &mut SyncReport, member: String, step: &str, failure: &str) {
    if report.failures.len() < NAMED {
        report.failures.push(StepFailure {
            member_id: member,
            group_id: 0,
            step: step.to_owned(),
            failure: failure.to_owned(),
        });
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
