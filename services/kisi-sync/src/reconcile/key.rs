//! The key, looked at with each pass: a key whose owner lost her rights still answers for a while, and
//! must not be found out by lists that lack what she may not see any more.

use kisi_client::{HttpKisi, KisiRead, Lane};
use sea_orm::{ActiveValue, ColumnTrait, EntityTrait, QueryFilter, TransactionTrait};

use super::{Pass, ReconcileError};
use crate::key_check::{self, OwnerRole, Surroundings};
use crate::store::{integrations, key_checks, syncs};

/// Shorter than from one scheduled pass to the next, and longer than one bad moment of Kisi's.
const A_WHILE: i64 = 10 * 60 * 1_000_000;

impl Pass {
    /// Its owner's role, whose key it is, and what is around: four requests.
    pub(super) async fn look_at_key(
        &mut self,
        kisi: &HttpKisi,
        integration: &integrations::Model,
    ) -> Result<(), ReconcileError> {
        let Some(owner) = integration.owner_user_id else {
            return Ok(());
        };
        self.report.requests += 1;
        let role = key_check::owner_role(kisi, Lane::Reconcile, owner).await?;
        if role.id.is_empty() {
            self.do_without_role(kisi).await?;
        }
        let looked = self.look_around(kisi, integration, owner, &role).await;
        let surroundings = self.go_on("key", looked)?.flatten();
        let now = self.shared.now();
        let txn = self.shared.db.begin().await?;
        // No part of what others are told of the integration.
        let checked = integrations::ActiveModel {
            key_checked_at: ActiveValue::Set(Some(now)),
            owner_is_owner: ActiveValue::Set(role.is_owner),
            ..Default::default()
        };
        let done = integrations::Entity::update_many()
            .set(checked)
            .filter(integrations::Column::GymId.eq(&self.gym))
            .filter(integrations::Column::KeyVersion.eq(self.key_version))
            .exec(&txn)
            .await?;
        if done.rows_affected == 0 {
            // Another key was saved meanwhile: the pass is begun anew with that one.
            return Err(ReconcileError::NotOwner);
        }
        let surroundings = surroundings.as_ref();
        key_check::keep(&txn, &self.gym, &role.id, surroundings, now).await?;
        Ok(txn.commit().await?)
    }

    /// Whose key it is, and what is around it.
    async fn look_around(
        &mut self,
        kisi: &HttpKisi,
        integration: &integrations::Model,
        owner: i64,
        role: &OwnerRole,
    ) -> Result<Option<Surroundings>, ReconcileError> {
        self.report.requests += 3;
        let user = kisi.current_user(Lane::Reconcile).await?;
        let elsewhere = user.organization_id != integration.organization_id;
        if user.organization_id.is_some() && elsewhere {
            return Err(ReconcileError::KeyElsewhere);
        }
        Ok(key_check::look_around(kisi, Lane::Reconcile, owner, role).await?)
    }

    /// A list without any role of the owner's: she has lost it, or the list is short. What only
    /// administrators may see tells; and what passes have not found for a while is not there. One that
    /// was not seen either when the key was saved, because it comes by a team, is not lost.
    async fn do_without_role(&mut self, kisi: &HttpKisi) -> Result<(), ReconcileError> {
        self.report.requests += 1;
        match kisi.list_integrations(Lane::Reconcile).await {
            Ok(_) => {}
            Err(error) if error.status() == Some(403) => {
                return Err(ReconcileError::KeyWithoutRights);
            }
            Err(error) => return Err(error.into()),
        }
        let held = key_checks::find(&self.shared.db, &self.gym).await?;
        if held.is_some_and(|held| held.owner_role.is_empty()) {
            return Ok(());
        }
        let unseen = ReconcileError::RoleUnseen;
        let since = syncs::failing_since(&self.shared.db, &self.gym, &unseen.to_string()).await?;
        match since {
            Some(since) if self.shared.now() - since > A_WHILE => {
                Err(ReconcileError::KeyWithoutRights)
            }
            _ => Err(unseen),
        }
    }
}
