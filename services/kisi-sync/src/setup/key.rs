//! Saving a key and replacing it. It is checked first, sealed at once, and never answered.

use contracts::integration::v1 as api;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter,
    TransactionTrait,
};
use secrecy::SecretString;
use tonic::Status;

use super::{NewPass, Setup};
use crate::key_check::{self, CheckedKey};
use crate::ownership::Leases;
use crate::sealing::Purpose;
use crate::store::{integrations, members};
use crate::{integration_state as state, refusal};

impl Setup {
    pub async fn enable(&self, gym: &str, api_key: &str) -> Result<api::Integration, Status> {
        let held = integrations::find(&self.shared.db, gym)
            .await
            .map_err(refusal::store)?;
        if held.as_ref().is_some_and(|row| row.enabled) {
            return Err(Status::already_exists("the integration is enabled already"));
        }
        let (secret, key) = self.checked(api_key).await?;
        let now = self.shared.now();
        let mut row = held.clone().unwrap_or_else(|| unset(gym));
        if row.organization() != key.organization {
            self.forget_people(gym).await?;
        }
        row.enabled = true;
        row.activated = false;
        row.synced = false;
        row.place_id = None;
        row.associations = "{}".to_owned();
        row.groups = "[]".to_owned();
        row.attention = "[]".to_owned();
        row.doors_looked_at = None;
        row.version = state::next_version(&row, now);
        row.changed_at = now;
        self.take_key(&mut row, &secret, &key)?;
        let txn = self.shared.db.begin().await.map_err(refusal::store)?;
        key_check::keep_saved(&txn, gym, None, &key, now)
            .await
            .map_err(refusal::store)?;
        let message = state::changed(&row).map_err(refusal::store)?;
        let active = row.into_active_model().reset_all();
        let done = match held {
            Some(_) => active.update(&txn).await.map(drop),
            None => integrations::Entity::insert(active)
                .exec_without_returning(&txn)
                .await
                .map(drop),
        };
        done.map_err(|error| match error.sql_err() {
            Some(sea_orm::SqlErr::UniqueConstraintViolation(_)) => {
                Status::already_exists("the integration is enabled already")
            }
            _ => refusal::store(error),
        })?;
        crate::record::put(&txn, "integration", &message, None, now)
            .await
            .map_err(refusal::store)?;
        txn.commit().await.map_err(refusal::store)?;
        self.shared.outbox.notify_one();
        crate::worker::keep_in_step(&self.shared)
            .await
            .map_err(refusal::store)?;
        self.show(gym).await
    }

    async fn checked(&self, api_key: &str) -> Result<(SecretString, CheckedKey), Status> {
        let api_key = api_key.trim();
        if api_key.is_empty() {
            return Err(refusal::invalid("api_key", "it is empty"));
        }
        let secret = SecretString::from(api_key);
        let key = key_check::check(&self.shared, &secret).await?;
        Ok((secret, key))
    }

    fn take_key(
        &self,
        row: &mut integrations::Model,
        secret: &SecretString,
        key: &CheckedKey,
    ) -> Result<(), Status> {
        let gym = row.gym_id.clone();
        let sealed = self
            .shared
            .sealer
            .seal(Purpose::ApiKey, &gym, &gym, secret, rand::random())
            .map_err(|error| refusal::internal(&error))?;
        row.sealed_key = sealed.bytes;
        row.sealing_key_id = sealed.key_id;
        row.key_version += 1;
        row.key_status = "ok".to_owned();
        row.key_checked_at = Some(self.shared.now());
        row.organization_id = Some(key.organization);
        row.organization_name.clone_from(&key.organization_name);
        row.owner_user_id = Some(key.owner);
        row.owner_is_owner = key.owner_is_owner;
        row.lease_key = Leases::key_of_user(key.owner);
        Ok(())
    }

    /// Another organization knows none of the people we knew.
    async fn forget_people(&self, gym: &str) -> Result<(), Status> {
        let nobody = members::ActiveModel {
            kisi_user_id: ActiveValue::Set(None),
            kisi_user_ours: ActiveValue::Set(false),
            sign_up_needed: ActiveValue::Set(false),
            opened_elsewhere: ActiveValue::Set(None),
            looked: ActiveValue::Set(false),
            opened_by_others: ActiveValue::Set("[]".to_owned()),
            conflict: ActiveValue::Set(None),
            ..Default::default()
        };
        members::Entity::update_many()
            .set(nobody)
            .filter(members::Column::GymId.eq(gym))
            .exec(&self.shared.db)
            .await
            .map(drop)
            .map_err(refusal::store)
    }

    pub async fn rotate(
        &self,
        gym: &str,
        api_key: &str,
        actor: &str,
    ) -> Result<api::Integration, Status> {
        let held = self.enabled(gym).await?;
        let (secret, key) = self.checked(api_key).await?;
        let moves = held.organization() != key.organization;
        if moves && held.associations != "{}" {
            return Err(refusal::missing_step(
                "the key is another Kisi organization's: take the associations away first",
            ));
        }
        if moves {
            self.end_events(gym, &held, actor).await;
            self.forget_people(gym).await?;
        }
        let mut new = held.clone();
        self.take_key(&mut new, &secret, &key)?;
        let now = self.shared.now();
        key_check::keep_saved(&self.shared.db, gym, Some(&held), &key, now)
            .await
            .map_err(refusal::store)?;
        let pass = NewPass {
            activation: "key",
            digest: None,
            actor,
        };
        self.changed_with_pass(gym, pass, |row| {
            let (version, associations) = (row.version, row.associations.clone());
            let (attention, groups) = (row.attention.clone(), row.groups.clone());
            *row = integrations::Model {
                version,
                associations,
                attention,
                groups,
                ..new
            };
            if moves {
                row.place_id = None;
                row.activated = false;
                row.synced = false;
            }
            state::settle_attention(row, |matter| matter.what.starts_with("key_"))?;
            Ok(row.activated)
        })
        .await?;
        crate::worker::keep_in_step(&self.shared)
            .await
            .map_err(refusal::store)?;
        self.shared.workers.reload(gym);
        // With another owner's key the lease is another, and held from now on.
        crate::schedule::start(&self.shared, gym);
        self.show(gym).await
    }
}

pub(super) fn unset(gym: &str) -> integrations::Model {
    integrations::Model {
        gym_id: gym.to_owned(),
        version: 0,
        enabled: false,
        activated: false,
        synced: false,
        key_version: 0,
        sealed_key: Vec::new(),
        sealing_key_id: String::new(),
        key_status: "none".to_owned(),
        key_checked_at: None,
        organization_id: None,
        organization_name: String::new(),
        owner_user_id: None,
        owner_is_owner: false,
        lease_key: String::new(),
        place_id: None,
        associations: "{}".to_owned(),
        groups: "[]".to_owned(),
        attention: "[]".to_owned(),
        unmanaged_policy: "leave".to_owned(),
        member_resume: "request".to_owned(),
        user_mode: "managed".to_owned(),
        unmanaged: 0,
        last_reconciled_at: None,
        doors_looked_at: None,
        changed_at: 0,
    }
}
