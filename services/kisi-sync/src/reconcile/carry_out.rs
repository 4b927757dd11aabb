//! The third part of a pass: the plan past the brake, the members marked, and what came of each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use access_domain::ids::MemberId;
use access_domain::plan::{Plan, Step};
use contracts::integration::v1::{StepFailure, SyncReport};
use kisi_client::{HttpKisi, Lane};
use sea_orm::{DbErr, TransactionTrait};
use tokio::sync::mpsc;

use super::{NAMED, Pass, ReconcileError, View, count};
use crate::apply::Everybody;
use crate::held;
use crate::record::Outcome;
use crate::store::{integrations, members};
use crate::worker::{Job, Settled};

impl Pass {
    /// Losses that no fact about the very members explains are looked at a second time, at Kisi and
    /// in the tables, and only what both looks say is done.
    pub(super) async fn second_look(
        &mut self,
        kisi: &HttpKisi,
        view: &View,
        plan: Plan,
    ) -> Result<Plan, ReconcileError> {
        let ended = view.ended(self.shared.now());
        let is_loss = |step: &&Step| matches!(step, Step::Revoke { assignment, .. } if !ended.contains(assignment));
        let groups: BTreeSet<i64> = plan
            .steps
            .iter()
            .filter(is_loss)
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
        let mut again = View::read(&self.shared, view.integration.clone()).await?;
        again.groups = self.groups.clone();
        let observed = again
            .observe_groups(kisi, Lane::Reconcile, &groups, now)
            .await?;
        self.report.requests += observed.requests;
        self.note_unseen(&observed);
        // Kisi took its time, and meanwhile more was decided.
        let newest = View::read(&self.shared, again.integration).await?;
        let second = newest.plan(&observed, newest.associations()?, now)?;
        let said = |step: &Step| match step {
            Step::Revoke { assignment, .. } => Some(*assignment),
            _ => None,
        };
        let second = second.steps.iter();
        let second: HashMap<i64, &Step> = second
            .filter_map(|step| Some((said(step)?, step)))
            .collect();
        let is_said_again = |step: &Step| said(step).and_then(|id| second.get(&id)) == Some(&step);
        let steps = plan.steps.into_iter();
        Ok(Plan {
            steps: steps
                .filter(|step| !is_loss(&step) || is_said_again(step))
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
        let is_first = self.sync.activation == "first";
        self.report.members = count(view.members.len());
        let confirmed = self.sync.digest.as_deref() == Some(plan.digest().as_str());
        let losses: Vec<String> = names(losses(view, plan, now).difference(&plan.gains()));
        let gains: Vec<String> = names(plan.gains().iter());
        if confirmed {
            held::end_all(&self.shared.db, &self.gym, now).await?;
            let planned: Vec<String> = affected(plan).into_iter().collect();
            held::release_from_all(&self.shared.db, &self.gym, &planned).await?;
        }
        // What a person has to decide on, or has decided to leave, is not asked again.
        let standing = held::standing(&self.shared.db, &self.gym).await?;
        let marked = || {
            let held = view.members.iter();
            held.filter_map(|row| Some((row.member_id.as_str(), row.held_by.as_deref()?)))
        };
        let held_by: BTreeMap<&str, &str> = marked()
            .filter(|(_, plan)| standing.contains(*plan))
            .collect();
        // What a plan held that is over is asked about as before, and stays held until it was.
        let held_before: BTreeMap<&str, &str> = marked()
            .filter(|(_, plan)| !standing.contains(*plan))
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
        let Some(brake) = self.shared.workers.brake(&self.gym) else {
            // Whoever works on the gym now asks about them together.
            return Err(ReconcileError::NotOwner);
        };
        brake.recount(&self.shared.db, &self.gym).await?;
        if !confirmed && !brake.room(&losses, "unexplained", now) {
            self.hold("unexplained", &losses).await?;
            skipped.extend(losses.iter().cloned());
        }
        // A first sync asks for no leave to let in.
        let of_mapping = |member: &&String| {
            let before = held_before.get(member.as_str()).copied();
            self.is_mapping || (!is_first && held::holds_grants(before))
        };
        let let_in: Vec<String> = gains.iter().filter(of_mapping).cloned().collect();
        if !confirmed && !brake.may_let_in(let_in.len() as u64) {
            self.hold("grants", &let_in).await?;
            skipped.extend(let_in);
        }
        self.free(view, &held_before).await?;
        let mut work: BTreeSet<String> = affected(plan);
        // Work that was waiting already is part of being in sync.
        work.extend(
            view.members
                .iter()
                // And what is shown of others' doing is part of the answer.
                .filter(|member| member.pending || member.others_changed())
                .map(|member| member.member_id.clone()),
        );
        if is_first || self.is_mapping {
            // Others are told too where their answer reads otherwise now, without a request.
            // Whom that closes a door to waits for a pass that sees it, and is held to the brake with
            // all the others.
            let losing = view.losing_in(&self.unseen, now)?;
            let others = view.members.iter().map(|member| &member.member_id);
            work.extend(others.filter(|id| !losing.contains(*id)).cloned());
        }
        work.retain(|member| !skipped.contains(member));
        self.leave_conflicts(view, plan, &mut work);
        self.report.unchanged = count(view.members.len().saturating_sub(work.len()));
        self.save().await?;
        let (reply, settled) = mpsc::unbounded_channel();
        // Whoever only loses waits for no search.
        let losses: BTreeSet<String> = losses.into_iter().collect();
        let (first, others): (Vec<String>, Vec<String>) =
            work.iter().cloned().partition(|id| losses.contains(id));
        self.begin(&first, confirmed, &reply).await?;
        let everybody = self.shared.workers.everybody(&self.gym);
        let everybody = everybody.unwrap_or_default();
        let _until_applied = everybody.until_dropped();
        let learned = self
            .learn_everybody(&everybody, kisi, view, plan, &work)
            .await;
        // Without it they are looked for one by one.
        self.go_on("users", learned)?;
        self.begin(&others, confirmed, &reply).await?;
        drop(reply);
        self.wait_for(work.len(), settled).await
    }

    /// Marks these members and gives them to the worker.
    async fn begin(
        &self,
        members: &[String],
        confirmed: bool,
        reply: &mpsc::UnboundedSender<Settled>,
    ) -> Result<(), ReconcileError> {
        let (db, gym, cause) = (&self.shared.db, &self.gym, self.cause());
        let now = self.shared.now();
        // Reading who is there took its time: what was decided since was not confirmed.
        let moved = match confirmed {
            true => members::moved_since(db, gym, self.began).await?,
            false => BTreeSet::new(),
        };
        let (moved, still): (Vec<String>, Vec<String>) =
            members.iter().cloned().partition(|id| moved.contains(id));
        members::mark_pending(db, gym, &still, &cause, confirmed, now).await?;
        members::mark_pending(db, gym, &moved, &cause, false, now).await?;
        for member in members {
            let job = Job::of_sync(member, reply.clone());
            if !self.shared.workers.wake(gym, job) {
                return Err(ReconcileError::NotOwner);
            }
        }
        Ok(())
    }

    /// Frees whom a plan held that is over, now that they were asked about. Whoever could not be planned
    /// for stays as she is until the next pass: for want of news, or of a look at her groups.
    async fn free(
        &self,
        view: &View,
        held_before: &BTreeMap<&str, &str>,
    ) -> Result<(), ReconcileError> {
        if held_before.is_empty() || !self.heard {
            return Ok(());
        }
        let busy = view.busy(self.began);
        let unasked = view.undecided_in(&self.unasked, self.shared.now())?;
        let plans: BTreeSet<&str> = held_before.values().copied().collect();
        let plans: Vec<String> = plans.into_iter().map(str::to_owned).collect();
        let members = held_before.keys();
        let members = members.filter(|id| !busy.contains(*id) && !unasked.contains(**id));
        let members: Vec<String> = members.map(|member| (*member).to_owned()).collect();
        Ok(held::release(&self.shared.db, &self.gym, &members, &plans).await?)
    }

    /// Who is let in and not known at Kisi has to be looked for: one by one, or all at once.
    async fn learn_everybody(
        &mut self,
        everybody: &Everybody,
        kisi: &HttpKisi,
        view: &View,
        plan: &Plan,
        work: &BTreeSet<String>,
    ) -> Result<(), ReconcileError> {
        let let_in: BTreeSet<String> = names(plan.gains().iter()).into_iter().collect();
        let is_wanted = |member: &str| work.contains(member) && let_in.contains(member);
        let (known, unknown): (Vec<_>, Vec<_>) = view
            .members
            .iter()
            .partition(|member| member.kisi_user_id.is_some());
        let unknown = unknown.iter().filter(|row| is_wanted(&row.member_id));
        let requests = everybody
            .learn(kisi, unknown.count() as u64, known.len() as u64)
            .await?;
        self.report.requests += i64::try_from(requests).unwrap_or(0);
        Ok(())
    }

    /// Who has somebody else's e-mail is a matter for a person: shown each time, and tried again
    /// only when somebody asks, or there is a right to take back.
    fn leave_conflicts(&mut self, view: &View, plan: &Plan, work: &mut BTreeSet<String>) {
        if self.sync.activation != "schedule" {
            return;
        }
        let steps = plan.steps.iter();
        let losing: BTreeSet<String> = steps
            .filter_map(|step| match step {
                Step::Revoke { member, .. } => member.as_ref().map(ToString::to_string),
                _ => None,
            })
            .collect();
        // What waits may be a right that Kisi has refused to take back.
        let left = |member: &&members::Model| {
            member.conflict.is_some() && !member.pending && !losing.contains(&member.member_id)
        };
        for member in view.members.iter().filter(left) {
            if work.remove(&member.member_id) {
                self.report.refused += 1;
                let member = member.member_id.clone();
                name_failure(&mut self.report, member, "grant", "identity_conflict");
            }
        }
    }

    /// Of whom something was decided since the look began, that goes its own way.
    pub(super) async fn hold(&mut self, class: &str, ids: &[String]) -> Result<(), ReconcileError> {
        let now = self.shared.now();
        let cause = match self.is_mapping {
            true => "associations_changed",
            false => "drift",
        };
        let txn = self.shared.db.begin().await?;
        let still = held::undecided_since(self.began);
        let held = held::hold(&txn, &self.gym, class, cause, (ids, still), now).await?;
        txn.commit().await?;
        if let Some((_, held)) = held {
            self.shared.outbox.notify_one();
            self.is_held = true;
            self.report.held += count(held);
        }
        Ok(())
    }

    async fn wait_for(
        &mut self,
        mut left: usize,
        mut settled: mpsc::UnboundedReceiver<Settled>,
    ) -> Result<(), ReconcileError> {
        let mut saved = tokio::time::Instant::now();
        while left > 0 {
            let next = tokio::select! {
                next = settled.recv() => next,
                () = self.lease.lost().cancelled() => return Err(ReconcileError::NotOwner),
            };
            let Some((member, outcome)) = next else {
                return Err(self.why_unanswered().await?);
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

    /// The worker is gone, or it waits for another key, and nobody else for it.
    async fn why_unanswered(&self) -> Result<ReconcileError, DbErr> {
        let row = integrations::find(&self.shared.db, &self.gym).await?;
        let waits = row.is_some_and(|row| !row.is_live()) && self.lease.is_held();
        Ok(match waits {
            true => ReconcileError::KeyDied,
            false => ReconcileError::NotOwner,
        })
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

/// Who would lose access by the plan. What has ended by its window is taken back and no loss.
fn losses(view: &View, plan: &Plan, now: i64) -> BTreeSet<MemberId> {
    let ended = view.ended(now);
    let steps = plan.steps.iter();
    let lost = steps.filter_map(|step| match step {
        Step::Revoke {
            assignment, member, ..
        } if !ended.contains(assignment) => member.clone(),
        _ => None,
    });
    lost.collect()
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
