//! Granting: the row is written before the request leaves and completed by its answer. Every
//! answer is expected: done, lost, there already, gone, refused.

use kisi_client::model::NewGroupAssignment;
use kisi_client::{KisiError, KisiRead, KisiWrite, Lane};
use sea_orm::DbErr;

use super::window::kisi_window;
use super::{Attempt, Engine};
use crate::audit::Entry;
use crate::error::Trouble;
use crate::record::Change;
use crate::snapshot::Snapshot;
use crate::steps::Window;
use crate::store::applied_grants::{self, INTENDED, UNKNOWN};
use crate::store::members::CHANGED;

impl Engine {
    /// POST for a row that was written down before.
    pub(super) async fn grant(
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
        // It may have ended since the step was decided, and without a window it would be for ever.
        let Some(window) = wanted.get(&group).copied() else {
            return Ok(());
        };
        let request = NewGroupAssignment::basic(group, model.kisi_user_id, kisi_window(window));
        let turn = self.turn(attempt, lane).await?;
        if let Some(code) = self.key.is_forbidden(attempt, group) {
            attempt.refuse(row, group, "kisi_refused", code);
            return Ok(());
        }
        attempt.sends(self.shared.now());
        self.bursts.wrote(&attempt.snapshot.member.member_id);
        match self
            .kisi
            .create_role_assignment(turn.into(), &request)
            .await
        {
            Ok(made) => {
                attempt.complete(row, &made, window);
                let entry = granting("granted", group, window).object(made.id);
                attempt.did(entry, self.shared.now());
                attempt.outcome.granted += 1;
                self.brake.gained();
                self.brake.wrote(group);
                self.key.allow(group);
                self.note_given(attempt, group, made.id, window).await
            }
            Err(KisiError::RateLimited { .. }) => Ok(()),
            Err(error) => self.grant_failed(attempt, row, group, error).await,
        }
    }

    pub(super) async fn grant_failed(
        &self,
        attempt: &mut Attempt,
        row: i64,
        group: i64,
        error: KisiError,
    ) -> Result<(), Trouble> {
        let code = error.code().map(str::to_owned);
        if error.is_outcome_unknown() {
            attempt.set_state(row, UNKNOWN);
            let entry = Entry::new("unanswered").request(GRANT, &[]).group(group);
            attempt.may_have_done(entry);
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
            return self.try_beside_others(attempt).await;
        }
        let is_forbidden = error.status() == Some(403);
        match self.trouble(error).await {
            Trouble::Refused { failure, code } => {
                if is_forbidden {
                    self.key.forbid(attempt, group, code.clone());
                }
                attempt.refuse(row, group, failure, code);
                Ok(())
            }
            trouble => Err(trouble),
        }
    }

    /// A grant answered 404: the group is gone, or the person is, or neither yet.
    pub(super) async fn why_not_found(
        &self,
        attempt: &mut Attempt,
        group: i64,
    ) -> Result<Option<&'static str>, Trouble> {
        attempt.outcome.requests += 1;
        let found = self.ask(self.kisi.find_group(Lane::Grant, group));
        if found.await?.is_none() {
            return Ok(Some("group_missing"));
        }
        let Some(user) = attempt.snapshot.member.kisi_user_id else {
            return Ok(None);
        };
        attempt.outcome.requests += 1;
        let found = self.ask(self.kisi.find_user(Lane::Grant, user));
        if found.await?.is_none() {
            // The rights went with the person; both are made anew.
            let rows = attempt.snapshot.rows.iter();
            let hers = rows.filter(|row| row.kisi_user_id == user);
            let gone: Vec<i64> = hers.map(|row| row.id).collect();
            for row in gone {
                attempt.remove_row(row);
            }
            // Those of a former user stand, and move once more from there.
            let former = attempt.snapshot.rows.first().map(|row| row.kisi_user_id);
            let member = &mut attempt.snapshot.member;
            member.kisi_user_id = former;
            member.kisi_user_ours = former.is_some() && former == member.former_user_id;
            member.looked = false;
            if former.is_some() {
                member.person_digest = Some(CHANGED.to_owned());
            }
            attempt.changes.push(Change::Person);
        }
        Ok(None)
    }

    pub(super) async fn intend(
        &self,
        attempt: &mut Attempt,
        groups: &[(i64, Window)],
    ) -> Result<(), DbErr> {
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
    pub(super) async fn insert(
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
        let row = applied_grants::Model {
            state: state.to_owned(),
            assignment_id: assignment,
            ..row
        };
        let row = applied_grants::insert(&self.shared.db, row).await?;
        let id = row.id;
        attempt.snapshot.rows.push(row);
        if assignment.is_some() {
            // Others may hold it too.
            attempt.snapshot.read_at = 0;
        }
        Ok(id)
    }
}

pub(super) const GRANT: &str = "POST /role_assignments";

/// What the audit log says of a grant.
pub(super) fn granting(action: &str, group: i64, window: Window) -> Entry {
    let mut fields = vec![
        "applies_to_type",
        "applies_to_id",
        "assignee_type",
        "assignee_id",
        "role_id",
        "notify",
    ];
    fields.extend(window.from.map(|_| "valid_from"));
    fields.extend(window.until.map(|_| "valid_until"));
    Entry::new(action).request(GRANT, &fields).group(group)
}

/// A row about to be granted under this epoch.
pub fn new_row(
    snapshot: &Snapshot,
    group: i64,
    window: Window,
    user: i64,
    epoch: i64,
    now: i64,
) -> applied_grants::Model {
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
}
