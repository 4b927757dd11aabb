//! The last part of a pass: what was strange, what needs somebody, and when it was.

use std::collections::{BTreeMap, BTreeSet};

use contracts::integration::v1::{SyncReport, UnmanagedGrant};
use kisi_client::KisiError;
use sea_orm::{
    ColumnTrait, Condition, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    TransactionTrait,
};

use super::view::GROUP_MISSING;
use super::{NAMED, Pass, ReconcileError, View, count};
use crate::audit::{Entry, MOVED, UNDONE};
use crate::integration_state as state;
use crate::observe::Observed;
use crate::store::{audit, integrations, syncs};

/// The attention for what Kisi does not show.
const NOT_SHOWN: &str = "listing_failing";

/// The attention for a Kisi that is not reached.
const UNREACHABLE: &str = "kisi_unreachable";

/// The attention for a key that does not work, and its subject where it does not open.
const KEY_INVALID: &str = "key_invalid";
const SEALING: &str = "sealing";

const DAY: i64 = 24 * 3_600 * 1_000_000;
/// Enough of the log to see it by.
const MOST_READ: i64 = 5_000;

impl Pass {
    pub(super) fn report_unmanaged(&mut self, observed: &Observed) {
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

    /// What came of the pass before.
    async fn report_before(&self) -> Result<SyncReport, ReconcileError> {
        let before = syncs::Entity::find()
            .filter(syncs::Column::GymId.eq(&self.gym))
            .filter(syncs::Column::SyncId.ne(&self.sync.sync_id))
            .filter(syncs::Column::EndedAt.is_not_null())
            .order_by_desc(syncs::Column::CreatedAt)
            .one(&self.shared.db)
            .await?;
        Ok(before
            .and_then(|sync| serde_json::from_str(&sync.report).ok())
            .unwrap_or_default())
    }

    /// Whether what we gave somebody was taken away by others, or changed, more than once within a day.
    async fn is_undone_again(&self, now: i64) -> Result<bool, ReconcileError> {
        let head = audit::find_head(&self.shared.db, &self.gym).await?;
        let newest = head.map_or(0, |head| head.seq);
        let rows = audit::Entity::find()
            .select_only()
            .columns([audit::Column::MemberId, audit::Column::Entry])
            .filter(audit::Column::GymId.eq(&self.gym))
            // The log is long, and only its end is looked at.
            .filter(audit::Column::Seq.gt(newest - MOST_READ))
            .filter(audit::Column::At.gte(now - DAY))
            .filter(any_of([UNDONE, MOVED]))
            .order_by_desc(audit::Column::Seq)
            .into_tuple::<(Option<String>, String)>()
            .all(&self.shared.db)
            .await?;
        let mut once = BTreeSet::new();
        Ok(rows.into_iter().any(|(member, entry)| {
            let entry: Entry = serde_json::from_str(&entry).unwrap_or_default();
            let is_undone = [UNDONE, MOVED].contains(&entry.action.as_str());
            is_undone && !once.insert((member, entry.group))
        }))
    }

    /// A pass that ended early is shown where it repeats, or cannot pass by itself. A key that does not
    /// work is shown as that.
    pub(super) async fn show_failure(&self, error: &ReconcileError) -> Result<(), DbErr> {
        let (db, gym, now) = (&self.shared.db, &self.gym, self.shared.now());
        let (what, subject, message, who) = match error {
            ReconcileError::Sealing(_) => (
                KEY_INVALID,
                SEALING,
                "The Kisi key cannot be opened: SEALING_KEYS lacks what it was sealed with. Put that back, or save the key again.",
                "platform",
            ),
            ReconcileError::Kisi(error)
                if !error.is_key_dead() && syncs::has_failed_last(db, gym).await? =>
            {
                let message = "Kisi did not answer in two reconciles running: what others change there is not seen.";
                (UNREACHABLE, "", message, "kisi")
            }
            _ => return Ok(()),
        };
        let txn = db.begin().await?;
        state::attend(&txn, gym, what, subject, message, who, now).await?;
        txn.commit().await?;
        self.shared.outbox.notify_one();
        Ok(())
    }

    /// The integration after the pass: when it was reconciled, and what needs somebody.
    pub(super) async fn conclude(
        &mut self,
        view: &View,
        observed: &Observed,
    ) -> Result<(), ReconcileError> {
        let now = self.shared.now();
        let before = self.report_before().await?;
        let failing = &failing_grants(&before) & &failing_grants(&self.report);
        // A group that no plan has any more is nobody's to replace.
        let mapped: BTreeSet<i64> = view.associations()?.into_values().collect();
        let unseen = unseen_again(&before, &self.report, observed);
        let writer = observed.by_integration || self.is_undone_again(now).await?;
        let unmanaged = count(observed.unmanaged.len());
        let seen = |matter: &integrations::Attention| match matter.what.as_str() {
            GROUP_MISSING => {
                let about = |group: &i64| group.to_string() == matter.subject;
                let is_found = observed.groups_found.iter().any(about);
                is_found || !mapped.iter().any(about)
            }
            NOT_SHOWN => !unseen.contains_key(&matter.subject),
            "listing_distrusted" => !observed
                .distrusted
                .iter()
                .any(|g| g.to_string() == matter.subject),
            UNREACHABLE => true,
            // It was opened.
            KEY_INVALID => matter.subject == SEALING,
            "grants_failing" => failing.is_empty(),
            "another_writer" => !writer,
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
        let missing = observed.groups_missing.iter();
        for group in missing.filter(|group| mapped.contains(group)) {
            let (gym, subject) = (&self.gym, group.to_string());
            let name = self.named.get(group).filter(|name| !name.is_empty());
            let name = name.unwrap_or(&subject);
            let message =
                format!("The group {name} is gone at Kisi: choose another one for its plans.");
            state::attend(&txn, gym, GROUP_MISSING, &subject, &message, "staff", now).await?;
        }
        for (subject, (message, who)) in &unseen {
            state::attend(&txn, &self.gym, NOT_SHOWN, subject, message, who, now).await?;
        }
        if !failing.is_empty() {
            let message = "Rights of the same members could not be given or taken in two reconciles running: the last sync's failures name them. Where Kisi refuses them, look at the rights of the key's owner and at the Kisi plan.";
            state::attend(&txn, &self.gym, "grants_failing", "", message, "staff", now).await?;
        }
        if writer {
            let message = "Somebody else gives, takes or changes rights in these groups: switch the other integration off, or keep people from changing what we gave.";
            state::attend(&txn, &self.gym, "another_writer", "", message, "staff", now).await?;
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
}

/// Rows of the log whose text has one of these.
fn any_of(words: [&str; 2]) -> Condition {
    let words = words.map(|word| audit::Column::Entry.contains(word));
    words.into_iter().fold(Condition::any(), Condition::add)
}

/// Members whose rights could not be given or taken. Who has somebody else's e-mail is shown as that.
fn failing_grants(report: &SyncReport) -> BTreeSet<String> {
    let failures = report.failures.iter();
    failures
        .filter(|one| matches!(one.step.as_str(), "grant" | "settle"))
        .filter(|one| one.failure != "identity_conflict")
        .map(|one| one.member_id.clone())
        .collect()
}

/// Steps of the look that failed in this pass, each with its group.
fn failing_looks(report: &SyncReport) -> BTreeSet<(&str, i64)> {
    let failures = report.failures.iter();
    failures
        .filter(|one| matches!(one.step.as_str(), "observe" | "doors" | "sign_ups" | "key"))
        .map(|one| (one.step.as_str(), one.group_id))
        .collect()
}

/// What Kisi did not show in two reconciles running, by group, with the words for it and who must act;
/// a list that is too long at once, because that does not pass.
fn unseen_again(
    before: &SyncReport,
    report: &SyncReport,
    observed: &Observed,
) -> BTreeMap<String, (&'static str, &'static str)> {
    let again = &failing_looks(before) & &failing_looks(report);
    let mut unseen = BTreeMap::new();
    for (group, error) in &observed.failed {
        let words = match error {
            KisiError::BeyondOffsetLimit { .. } => (
                "More people have a right in this group than Kisi lets anyone list: what others change there by hand is not seen, and nothing is removed by it. Spread its plans over several groups.",
                "staff",
            ),
            _ if !again.contains(&("observe", *group)) => continue,
            error if error.is_key_dead() => (
                "Kisi does not let the key see who has a right in this group, because of its owner's rights or the Kisi plan: give the owner the rights, look at the Kisi plan, or choose another group for its plans.",
                "staff",
            ),
            _ => (
                "Kisi fails to list who has a right in this group: what others change there by hand is not seen, and nothing is removed by it.",
                "kisi",
            ),
        };
        unseen.insert(group.to_string(), words);
    }
    let of_others = |(step, _): &&(&str, i64)| *step != "observe";
    if again.iter().any(|one| of_others(&one)) {
        let words = (
            "Kisi did not show doors, sign-ups or the key's surroundings in two reconciles running: the last sync's failures name what.",
            "kisi",
        );
        unseen.insert(String::new(), words);
    }
    unseen
}
