//! The key, looked at with each pass: a key whose owner lost her rights still answers for a while, and
//! must not be found out by lists that lack what she may not see any more.

use kisi_client::{HttpKisi, KisiRead, Lane};
use sea_orm::{ActiveValue, ColumnTrait, EntityTrait, QueryFilter, TransactionTrait};

use super::{Pass, ReconcileError};
use crate::key_check;
use crate::store::integrations;

impl Pass {
    /// The owner's role each time, one request; the organization and what is around once an hour.
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
            return Err(ReconcileError::KeyWithoutRights);
        }
        let mut surroundings = None;
        if self.is_hourly(integration) {
            self.report.requests += 3;
            let user = kisi.current_user(Lane::Reconcile).await?;
            let elsewhere = user.organization_id != integration.organization_id;
            if user.organization_id.is_some() && elsewhere {
                return Err(ReconcileError::KeyElsewhere);
            }
            surroundings = key_check::look_around(kisi, Lane::Reconcile, owner, &role).await?;
        }
        let now = self.shared.now();
        let txn = self.shared.db.begin().await?;
        let surroundings = surroundings.as_ref();
        key_check::keep(&txn, &self.gym, &role.id, surroundings, now).await?;
        // No part of what others are told of the integration.
        let checked = integrations::ActiveModel {
            key_checked_at: ActiveValue::Set(Some(now)),
            owner_is_owner: ActiveValue::Set(role.is_owner),
            ..Default::default()
        };
        integrations::Entity::update_many()
            .set(checked)
            .filter(integrations::Column::GymId.eq(&self.gym))
            .exec(&txn)
            .await?;
        Ok(txn.commit().await?)
    }
}
