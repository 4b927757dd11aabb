//! Saving a key and replacing it. It is checked first, sealed at once, and never answered.

use contracts::integration::v1 as api;
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, ConnectionTrait, DbErr, EntityTrait,
    IntoActiveModel, QueryFilter, TransactionTrait,
};
use secrecy::SecretString;
use tonic::Status;

use super::Setup;
use crate::key_check::{self, CheckedKey, Login};
use crate::ownership::Leases;
use crate::sealing::{Purpose, Sealed};
use crate::store::{event_webhooks, integrations, members};
use crate::{integration_state as state, reconcile, refusal};

/// What a key is before it is saved: who it speaks for, and what else Kisi says of it.
struct NewKey {
    sealed: Sealed,
    checked: CheckedKey,
}

impl NewKey {
    /// Into the row, and nothing else of it: others may have changed the rest while Kisi was asked.
    fn put_into(&self, row: &mut integrations::Model, now: i64) {
        let key = &self.checked;
        row.sealed_key.clone_from(&self.sealed.bytes);
        row.sealing_key_id.clone_from(&self.sealed.key_id);
        row.key_version += 1;
        row.key_status = "ok".to_owned();
        row.key_checked_at = Some(now);
        row.organization_id = Some(key.organization);
        row.organization_name.clone_from(&key.organization_name);
        row.owner_user_id = Some(key.owner);
        row.owner_is_owner = key.owner_is_owner;
        row.lease_key = Leases::key_of_user(key.owner);
    }
}

impl Setup {
    /// Whose key it is that is to be saved.
    pub async fn log_in(&self, gym: &str, api_key: &str) -> Result<Login, Status> {
        let held = integrations::find(&self.shared.db, gym).await;
        not_enabled(held.map_err(refusal::store)?.as_ref())?;
        self.logged_in(api_key).await
    }

    /// The same of one that is to take another's place.
    pub async fn log_in_anew(&self, gym: &str, api_key: &str) -> Result<Login, Status> {
        self.enabled(gym).await?;
        self.logged_in(api_key).await
    }

    async fn logged_in(&self, api_key: &str) -> Result<Login, Status> {
        let api_key = api_key.trim();
        if api_key.is_empty() {
            return Err(refusal::invalid("api_key", "it is empty"));
        }
        key_check::log_in(&self.shared, SecretString::from(api_key)).await
    }

    pub async fn enable(&self, gym: &str, login: Login) -> Result<api::Integration, Status> {
        let new = self.checked(gym, login).await?;
        let now = self.shared.now();
        let txn = self.shared.db.begin().await.map_err(refusal::store)?;
        let held = state::locked(&txn, gym).await.map_err(refusal::store)?;
        not_enabled(held.as_ref())?;
        let mut row = held.clone().unwrap_or_else(|| unset(gym));
        if row.organization() != new.checked.organization {
            forget_people(&txn, gym).await.map_err(refusal::store)?;
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
        new.put_into(&mut row, now);
        key_check::keep_saved(&txn, gym, None, &new.checked, now)
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
            Some(sea_orm::SqlErr::UniqueConstraintViolation(_)) => is_enabled(),
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

    async fn checked(&self, gym: &str, login: Login) -> Result<NewKey, Status> {
        let checked = key_check::check(&self.shared, &login).await?;
        let sealed = self
            .shared
            .sealer
            .seal(Purpose::ApiKey, gym, gym, &login.secret, rand::random())
            .map_err(|error| refusal::internal(&error))?;
        Ok(NewKey { sealed, checked })
    }

    pub async fn rotate(
        &self,
        gym: &str,
        login: Login,
        actor: &str,
    ) -> Result<api::Integration, Status> {
        let held = self.enabled(gym).await?;
        let new = self.checked(gym, login).await?;
        if may_move(&held, &new.checked)? {
            self.end_events(gym, &held, actor).await;
        }
        let now = self.shared.now();
        let txn = self.shared.db.begin().await.map_err(refusal::store)?;
        // First, as whoever writes what checks found does.
        let held = state::locked(&txn, gym).await.map_err(refusal::store)?;
        let held = held
            .filter(|row| row.enabled)
            .ok_or_else(|| refusal::missing_step("no Kisi key is saved (EnableIntegration)"))?;
        let moves = may_move(&held, &new.checked)?;
        key_check::keep_saved(&txn, gym, Some(&held), &new.checked, now)
            .await
            .map_err(refusal::store)?;
        if moves {
            forget_people(&txn, gym).await.map_err(refusal::store)?;
        }
        event_webhooks::ask_again(&txn, gym)
            .await
            .map_err(refusal::store)?;
        let row = state::change(&txn, gym, now, |row| {
            new.put_into(row, now);
            if moves {
                row.place_id = None;
                row.activated = false;
                row.synced = false;
            }
            state::settle_attention(row, |matter| matter.what.starts_with("key_"))
        });
        let row = row.await.map_err(refusal::store)?;
        if row.is_some_and(|row| row.activated) {
            let actor = Some(actor.to_owned());
            reconcile::queue(&txn, gym, "key", None, actor, now)
                .await
                .map_err(refusal::store)?;
        }
        txn.commit().await.map_err(refusal::store)?;
        self.shared.outbox.notify_one();
        self.shared.workers.reload(gym);
        crate::worker::keep_in_step(&self.shared)
            .await
            .map_err(refusal::store)?;
        self.shared.workers.reload(gym);
        // With another owner's key the lease is another, and held from now on; who worked on the gym
        // before lets it go.
        if let Err(error) = self.shared.leases.tell_others().await {
            tracing::warn!(gym.id = %gym, error = %error, "The other replicas see the new key later");
        }
        crate::schedule::start(&self.shared, gym);
        self.show(gym).await
    }
}

/// Whether the key is of another organization than the one before; refused where rights stand in that.
fn may_move(held: &integrations::Model, key: &CheckedKey) -> Result<bool, Status> {
    let moves = held.organization() != key.organization;
    if moves && held.associations != "{}" {
        return Err(refusal::missing_step(
            "the key is another Kisi organization's: take the associations away first",
        ));
    }
    Ok(moves)
}

fn not_enabled(held: Option<&integrations::Model>) -> Result<(), Status> {
    match held.is_some_and(|row| row.enabled) {
        true => Err(is_enabled()),
        false => Ok(()),
    }
}

fn is_enabled() -> Status {
    Status::already_exists("the integration is enabled already")
}

/// Another organization knows none of the people we knew.
async fn forget_people<C: ConnectionTrait>(txn: &C, gym: &str) -> Result<(), DbErr> {
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
        .exec(txn)
        .await
        .map(drop)
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
