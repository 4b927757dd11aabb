//! The last part of a pass: what was strange, what needs somebody, and when it was.

use contracts::integration::v1::UnmanagedGrant;
use sea_orm::TransactionTrait;

use super::{NAMED, Pass, ReconcileError, count};
use crate::integration_state as state;
use crate::observe::Observed;
use crate::store::integrations;

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

    /// The integration after the pass: when it was reconciled, and what needs somebody.
    pub(super) async fn conclude(&mut self, observed: &Observed) -> Result<(), ReconcileError> {
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
}
