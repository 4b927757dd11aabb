//! Rights of one person that no row of ours accounts for: those of another gym of the organization are
//! shared; what people or other programs gave is left, or adopted where the gym wants that.

use std::collections::BTreeSet;

use kisi_client::Lane;
use kisi_client::model::{NewGroupAssignment, RoleAssignment};

use super::look::known_assignments;
use super::window::found_window;
use super::{Attempt, Engine};
use crate::error::Trouble;
use crate::sharing::Elsewhere;
use crate::store::applied_grants::{INTENDED, STANDING};
use crate::store::integrations;

/// When what Kisi refused beside another gym's rights is tried again. Microseconds.
const AGAIN_BESIDE_OTHERS: i64 = 15_000_000;
/// And for so long after it was decided: another gym comes and goes as quickly. Microseconds.
const WHILE_NEW: i64 = 60_000_000;

impl Engine {
    /// What was in the way may have been another gym's, which comes and goes. What is refused later than
    /// that waits for the next pass: there may be many, and Kisi may mean it.
    pub(super) async fn try_beside_others(&self, attempt: &mut Attempt) -> Result<(), Trouble> {
        let (member, now) = (&attempt.snapshot.member, self.shared.now());
        let is_told = member.answered_version >= member.version;
        let was_refused = is_told && member.failure.as_deref() == Some("kisi_refused");
        if was_refused && now - member.updated_at > WHILE_NEW {
            return Ok(());
        }
        let organization = attempt.snapshot.integration.organization();
        let gyms = integrations::list_owners(&self.shared.db, organization).await?;
        if gyms.iter().any(|(gym, _)| *gym != self.gym) {
            let again = now + AGAIN_BESIDE_OTHERS;
            attempt.outcome.stays_pending_until(again);
        }
        Ok(())
    }

    /// Rights on groups that no row of ours accounts for.
    pub(super) async fn note_others(
        &self,
        attempt: &mut Attempt,
        lane: Lane,
        user: i64,
        rights: &[RoleAssignment],
    ) -> Result<(), Trouble> {
        let wanted = attempt.snapshot.wanted(self.shared.now())?;
        let known = known_assignments(&attempt.snapshot.rows);
        let unknown: Vec<&RoleAssignment> = rights
            .iter()
            .filter(|right| right.user_on_group(right.applies_to_id).is_some())
            .filter(|right| !known.contains(&right.id))
            .collect();
        let elsewhere = match unknown.is_empty() {
            true => Elsewhere::default(),
            false => {
                let member = &attempt.snapshot.member.member_id;
                let organization = attempt.snapshot.integration.organization();
                let db = &self.shared.db;
                Elsewhere::of_user(db, organization, (&self.gym, member), user).await?
            }
        };
        let adopts = attempt.snapshot.integration.unmanaged_policy == "adopt";
        let (mut others, mut taken) = (BTreeSet::new(), BTreeSet::new());
        let mut gone = BTreeSet::new();
        for right in unknown {
            let group = right.applies_to_id;
            let shared = elsewhere.has(right);
            let basic = right.role_id == NewGroupAssignment::BASIC_ROLE;
            let window = found_window(right);
            let has_ended = window.has_ended(self.shared.now());
            let missing =
                wanted.contains_key(&group) && !attempt.snapshot.open_groups().contains(&group);
            if missing && basic && (adopts || shared) && !(shared && has_ended) {
                // Another gym's row is shared, never taken over; a hand-made one is adopted.
                let row = self
                    .insert(attempt, group, window, user, STANDING, Some(right.id))
                    .await?;
                // Its other holder may have taken it away since it was listed. Who does so from now on
                // finds this row, and tells.
                let may_be_gone = shared || elsewhere.may_have_had(right);
                if may_be_gone && self.is_gone(attempt, lane, right.id).await? {
                    attempt.remove_row(row);
                    gone.insert(group);
                    continue;
                }
                taken.insert(group);
            } else if !shared && !has_ended {
                // Since it was listed another gym may have taken it away, and its row with it.
                if elsewhere.may_have_had(right) && self.is_gone(attempt, lane, right.id).await? {
                    gone.insert(group);
                    continue;
                }
                others.insert(group);
            }
        }
        if !taken.is_empty() {
            let now = self.shared.now();
            attempt.snapshot.renew_shared(&self.shared.db, now).await?;
        }
        let in_the_way: Vec<i64> = attempt
            .snapshot
            .rows
            .iter()
            .filter(|row| row.state == INTENDED && others.contains(&row.group_id))
            .map(|row| row.id)
            .collect();
        for row in in_the_way {
            attempt.remove_row(row);
        }
        // What is opened by others, or was there and is ours from now on, was not refused; nor what stood
        // in the way and has gone: it is asked for again, once.
        gone.retain(|group| attempt.conflicted.contains(group) && attempt.made_way.insert(*group));
        attempt.conflicted.retain(|group| !gone.contains(group));
        let was_not = [&others, &taken, &gone];
        let was_not = |group: &i64| was_not.iter().any(|groups| groups.contains(group));
        attempt.refused.groups.retain(|group| !was_not(group));
        if attempt.refused.is_empty() && attempt.outcome.failure == Some("kisi_refused") {
            let outcome = &mut attempt.outcome;
            (outcome.failure, outcome.kisi_code) = (None, None);
            (outcome.stays_pending, outcome.retry_at) = (false, None);
        }
        let others: Vec<i64> = others.into_iter().collect();
        attempt.snapshot.member.opened_by_others =
            serde_json::to_string(&others).unwrap_or_else(|_| "[]".to_owned());
        Ok(())
    }
}
