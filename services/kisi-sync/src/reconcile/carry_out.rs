//! The third part of a pass: the plan past the brake, the members marked, and what came of each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use access_domain::ids::MemberId;
use access_domain::plan::{Plan, Step};
use contracts::integration::v1::{StepFailure, SyncReport};
use kisi_client::{HttpKisi, Lane};
use sea_orm::TransactionTrait;
use tokio::sync::mpsc;

use super::{NAMED, Pass, ReconcileError, View, count};
use crate::apply::{Everybody, Forgets};
use crate::held;
use crate::record::Outcome;
use crate::store::members;
use crate::worker::Job;

impl Pass {
    /// Losses that no fact about the very members explains are looked at a second time, at Kisi and
    /// in the tables, and only what both looks say is done.
    pub(super) async fn second_look(
        &mut self,
        kisi: &HttpKisi,
        view: &View,
        plan: Plan,
    ) -> Result<Plan, ReconcileError> {
        let is_loss = |step: &Step| matches!(step, Step::Revoke { .. });
        let groups: BTreeSet<i64> = plan
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Revoke { group, .. } => Some(group.0),
                _ => None,
            })
            .collect();
        let confirmed = self.sync.digest.as_deref() == Some(plan.digest().as_str());
        if groups.is_empty() || confirmed {
            return Ok(plan);
        }
        let now = self.shared.now();
        let again = View::read(&self.shared, view.integration.clone()).await?;
        let observed = again
            .observe_groups(kisi, Lane::Reconcile, &groups, now)
            .await?;
        self.report.requests += observed.requests;
        let second = again.plan(&observed, again.associations()?, now)?;
        let steps = plan.steps.into_iter();
        Ok(Plan {
            steps: steps
                .filter(|step| !is_loss(step) || second.steps.contains(step))
                .collect(),
        })
    }

    /// Marks the members that differ and waits for what comes of each.
    pub(super) async fn apply(
        &mut self,
        kisi: &HttpKisi,
        view: &View,
        plan: &Plan,
    ) -> Result<(), ReconcileError> {
        let now = self.shared.now();
        self.report.members = count(view.members.len());
        let confirmed = self.sync.digest.as_deref() == Some(plan.digest().as_str());
        let losses: Vec<String> = names(plan.losses().difference(&plan.gains()));
        let gains: Vec<String> = names(plan.gains().iter());
        // What a person has to decide on, or has decided to leave, is not asked again.
        let held_by: BTreeMap<&str, &str> = view
            .members
            .iter()
            .filter_map(|row| Some((row.member_id.as_str(), row.held_by.as_deref()?)))
            .collect();
        let decided = |member: &String, grants: bool| {
            let plan = held_by.get(member.as_str()).copied();
            plan.is_some() && held::holds_grants(plan) == grants
        };
        let (held, losses): (Vec<_>, Vec<_>) = losses
            .into_iter()
            .partition(|member| decided(member, false));
        let (kept_out, gains): (Vec<_>, Vec<_>) =
            gains.into_iter().partition(|member| decided(member, true));
        self.is_held = held.len() + kept_out.len() > 0;
        self.report.held = count(held.len() + kept_out.len());
        let mut skipped: BTreeSet<String> = kept_out.into_iter().collect();
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
                // And what is shown of others' doing is part of the answer.
                .filter(|member| member.pending || member.others_changed())
                .map(|member| member.member_id.clone()),
        );
        if matches!(self.sync.activation.as_str(), "first" | "associations") {
            // Others are told too where their answer reads otherwise now, without a request.
            work.extend(view.members.iter().map(|member| member.member_id.clone()));
        }
        work.retain(|member| !skipped.contains(member));
        self.leave_conflicts(view, &mut work);
        let everybody = self.shared.workers.everybody(&self.gym);
        let everybody = everybody.unwrap_or_default();
        let _until_applied = self
            .learn_everybody(&everybody, kisi, view, plan, &work)
            .await?;
        let work: Vec<String> = work.into_iter().collect();
        let cause = self.cause();
        members::mark_pending(&self.shared.db, &self.gym, &work, &cause, confirmed, now).await?;
        self.report.unchanged = count(view.members.len().saturating_sub(work.len()));
        self.save().await?;
        self.wait_for(work).await
    }

    /// Who is let in and not known at Kisi has to be looked for: one by one, or all at once.
    async fn learn_everybody<'a>(
        &mut self,
        everybody: &'a Everybody,
        kisi: &HttpKisi,
        view: &View,
        plan: &Plan,
        work: &BTreeSet<String>,
    ) -> Result<Forgets<'a>, ReconcileError> {
        let let_in: BTreeSet<String> = names(plan.gains().iter()).into_iter().collect();
        let is_wanted = |member: &str| work.contains(member) && let_in.contains(member);
        let (known, unknown): (Vec<_>, Vec<_>) = view
            .members
            .iter()
            .partition(|member| member.kisi_user_id.is_some());
        let unknown = unknown.iter().filter(|row| is_wanted(&row.member_id));
        let (requests, forgets) = everybody
            .learn(kisi, unknown.count() as u64, known.len() as u64)
            .await?;
        self.report.requests += i64::try_from(requests).unwrap_or(0);
        Ok(forgets)
    }

    /// Who has somebody else's e-mail is a matter for a person: shown each time, and tried again
    /// only when somebody asks.
    fn leave_conflicts(&mut self, view: &View, work: &mut BTreeSet<String>) {
        if self.sync.activation != "schedule" {
            return;
        }
        for member in view
            .members
            .iter()
            .filter(|member| member.conflict.is_some())
        {
            if work.remove(&member.member_id) {
                self.report.refused += 1;
                let member = member.member_id.clone();
                name_failure(&mut self.report, member, "grant", "identity_conflict");
            }
        }
    }

    pub(super) async fn hold(
        &mut self,
        class: &str,
        members: &[String],
    ) -> Result<(), ReconcileError> {
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

    pub(super) async fn wait_for(&mut self, work: Vec<String>) -> Result<(), ReconcileError> {
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

    pub(super) fn count_in(&mut self, member: String, outcome: Option<Outcome>) {
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
