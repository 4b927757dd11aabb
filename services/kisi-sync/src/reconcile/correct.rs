//! The second part of a pass: our tables brought in line with what was seen.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use access_domain::grant::Window;
use access_domain::ids::GroupId;
use access_domain::plan::Step;
use sea_orm::{
    ActiveValue, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, TransactionTrait,
};

use super::{Pass, ReconcileError, View};
use crate::audit::{self, Entry, UNDONE};
use crate::observe::Observed;
use crate::snapshot::Snapshot;
use crate::store::{applied_grants, members};
use crate::{steps, undone};

impl Pass {
    /// Brings our tables in line with what was seen. Who has changed since the look began is left for
    /// the next pass: what we gave or took meanwhile looks like others' doing.
    pub(super) async fn correct(
        &mut self,
        view: &View,
        observed: &Observed,
    ) -> Result<(), ReconcileError> {
        let txn = self.shared.db.begin().await?;
        if !self.lease.keep(&txn).await? {
            return Err(ReconcileError::NotOwner);
        }
        let now = self.shared.now();
        let mut moving = members::moved_since(&txn, &self.gym, self.began).await?;
        if view.integration.synced {
            moving.extend(members::list_pending(&txn, &self.gym).await?);
            let waited = view.members.iter().filter(|member| member.pending);
            moving.extend(waited.map(|member| member.member_id.clone()));
        }
        let is_still = |row: &&applied_grants::Model| !moving.contains(&row.member_id);
        let mut undone = Vec::new();
        for row in observed.gone.iter().filter(is_still) {
            // Another gym that holds it too may have moved it to another right meanwhile.
            let removed = applied_grants::Entity::delete_many()
                .filter(applied_grants::Column::Id.eq(row.id))
                .filter(applied_grants::Column::UpdatedAt.eq(row.updated_at))
                .exec(&txn)
                .await?;
            if removed.rows_affected == 0 {
                continue;
            }
            let entry = Entry::new(UNDONE).about(&row.member_id).group(row.group_id);
            let entry = entry.object(row.assignment_id.unwrap_or_default());
            undone.push(entry.caused_by(self.cause()));
        }
        // The last answers named them, and nothing else may be left to do.
        let gone = observed.gone.iter().filter(is_still);
        let named: Vec<String> = gone.map(|row| row.member_id.clone()).collect();
        members::tell_again(&txn, &self.gym, &named).await?;
        let wanted = view.wanted_of(observed.moved.iter().map(|moved| &moved.row), now)?;
        let moved = observed.moved.iter();
        for moved in moved.filter(|moved| is_still(&&moved.row)) {
            let (row, found) = (&moved.row, moved.window);
            if !applied_grants::correct_window(&txn, row, found).await? {
                continue;
            }
            let wanted = wanted.get(&(row.member_id.as_str(), row.group_id));
            let entry = undone::window(row, found, wanted.copied(), now);
            undone.extend(entry.map(|it| it.about(&row.member_id).caused_by(self.cause())));
        }
        let adopted = match view.integration.unmanaged_policy.as_str() {
            "adopt" => self.adopt(&txn, view, observed, &moving).await?,
            _ => BTreeSet::new(),
        };
        let still = view.members.iter();
        for member in still.filter(|member| !moving.contains(&member.member_id)) {
            let seen = observed.opened_by_others.get(&member.member_id);
            let seen = seen.into_iter().flatten();
            let seen = seen.filter(|(_, right)| !adopted.contains(right));
            let mut groups: BTreeSet<i64> = member.opened_by_others()?.into_iter().collect();
            groups.retain(|group| !observed.grants.groups.contains(&GroupId(*group)));
            groups.extend(seen.map(|(group, _)| group));
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
        audit::append(&txn, &self.gym, &undone, now).await?;
        txn.commit().await?;
        Ok(())
    }

    /// Rights that others gave to our members become ours, where the gym wants that. Answers which.
    pub(super) async fn adopt<C: ConnectionTrait>(
        &self,
        txn: &C,
        view: &View,
        observed: &Observed,
        moving: &BTreeSet<String>,
    ) -> Result<BTreeSet<i64>, ReconcileError> {
        let mut adopted = BTreeSet::new();
        let now = self.shared.now();
        let plan = view.plan(observed, view.associations()?, now)?;
        let still = view.members.iter();
        let still = still.filter(|member| !moving.contains(&member.member_id));
        let still: HashMap<&str, &members::Model> = still
            .map(|member| (member.member_id.as_str(), member))
            .collect();
        let seen = observed.grants.grants.iter();
        let seen: HashMap<i64, Window> = seen.map(|row| (row.assignment, row.window)).collect();
        for step in &plan.steps {
            let Step::Adopt {
                assignment,
                member,
                group,
            } = step
            else {
                continue;
            };
            let Some(held) = still.get(member.as_str()).copied() else {
                continue;
            };
            let window = seen.get(assignment).copied().unwrap_or(Window::ALWAYS);
            let snapshot = Snapshot {
                integration: Arc::new(view.integration.clone()),
                member: held.clone(),
                rows: Vec::new(),
                shared: Default::default(),
                keeps_former: false,
                read_at: 0,
            };
            let window = steps::Window {
                from: window.from.map(crate::store::micros),
                until: window.until.map(crate::store::micros),
            };
            let user = held.kisi_user_id.unwrap_or_default();
            let epoch = self.lease.epoch();
            let mut row = crate::apply::new_row(&snapshot, group.0, window, user, epoch, now);
            row.assignment_id = Some(*assignment);
            row.state = applied_grants::STANDING.to_owned();
            applied_grants::insert(txn, row).await?;
            adopted.insert(*assignment);
        }
        Ok(adopted)
    }
}
