//! What Kisi's event webhooks say: that a right was changed by hand, that a door was opened.
//!
//! An event is only ever a reason to look again; what it says is not taken on trust. Our own writes
//! come back as events too, often before their answer is written down, so what is not known yet is
//! given a moment to become known. What is lost here is found by the next reconcile.

use std::time::Duration;

use contracts::kisi::v1::PassKisiEventRequest;
use hmac::{Hmac, KeyInit, Mac};
use kisi_client::model::{Event, RoleAssignment};
use kisi_client::{KisiRead, Lane};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, TransactionTrait};
use secrecy::ExposeSecret;
use sha2::Sha256;
use tonic::Status;

use crate::audit::{self, Entry};
use crate::shared::Shared;
use crate::store::members::{self, Cause};
use crate::store::{applied_grants, devices, integrations, kisi_events, micros};
use crate::worker::{Job, Urgency};
use crate::{event_webhook, refusal, store, unlock_words};

/// Older events, and repeats after that, are recordings.
pub const KEPT: i64 = 7 * 24 * 3_600 * 1_000_000;
/// How long an answer of Kisi's may take to be written down.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(75);
/// An event of our own request comes within this, in microseconds.
const OWN_WITHIN: i64 = 10_000_000;

/// Whether Kisi signed it: HMAC-SHA256 of the body's bytes, in hex of either case, with or without
/// `sha256=` before it.
pub async fn verify(shared: &Shared, request: &PassKisiEventRequest) -> Result<(), Status> {
    let refused = || Status::permission_denied("the signature is not right");
    let key = event_webhook::signature_key(shared, &request.gym_id)
        .await
        .map_err(|error| refusal::internal(&error))?
        .ok_or_else(refused)?;
    let signature = request.signature.trim();
    let signature = signature.strip_prefix("sha256=").unwrap_or(signature);
    let signature = hex::decode(signature).map_err(|_| refused())?;
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()).map_err(|_| refused())?;
    mac.update(&request.body);
    mac.verify_slice(&signature).map_err(|_| refused())
}

/// Acts upon a verified event. True when a member is looked at again by it.
pub async fn take(shared: &Shared, gym: &str, body: &[u8]) -> Result<bool, Status> {
    let Ok(event) = serde_json::from_slice::<Event>(body) else {
        tracing::warn!(gym.id = %gym, "An event of Kisi's cannot be read");
        return Ok(false);
    };
    let integration = integrations::find(&shared.db, gym)
        .await
        .map_err(refusal::store)?;
    let Some(integration) = integration.filter(integrations::Model::is_live) else {
        return Ok(false);
    };
    let elsewhere =
        event.organization_id.is_some() && event.organization_id != integration.organization_id;
    let now = shared.now();
    let old = event.created_at.is_some_and(|at| micros(at) < now - KEPT);
    let (Some(object), false) = (event.object_id, elsewhere || old) else {
        return Ok(false);
    };
    let inbound = Inbound {
        shared,
        gym,
        integration: &integration,
        event: &event,
        object,
    };
    let member = match event.kind.as_str() {
        "role_assignment.create" => inbound.right_given().await?,
        "role_assignment.update" => inbound.right_changed().await.map_err(refusal::store)?,
        "role_assignment.destroy" => inbound.right_gone().await.map_err(refusal::store)?,
        "user.destroy" => members::find_by_kisi_user(&shared.db, gym, object)
            .await
            .map_err(refusal::store)?,
        "login.destroy" => {
            devices::remove(&shared.db, gym, object)
                .await
                .map_err(refusal::store)?;
            None
        }
        "lock.unlock" => {
            inbound.door_tried().await.map_err(refusal::store)?;
            None
        }
        _ => None,
    };
    match member {
        Some(member) => inbound.look_again(&member).await.map_err(refusal::store),
        None => Ok(false),
    }
}

fn is_user(kind: &str) -> bool {
    kind == "User"
}

struct Inbound<'a> {
    shared: &'a Shared,
    gym: &'a str,
    integration: &'a integrations::Model,
    event: &'a Event,
    object: i64,
}

impl Inbound<'_> {
    /// The rows of ours, in whichever gym of the organization.
    fn rows(&self) -> sea_orm::Select<applied_grants::Entity> {
        applied_grants::Entity::find()
            .filter(applied_grants::Column::OrganizationId.eq(self.integration.organization()))
            .filter(applied_grants::Column::AssignmentId.eq(self.object))
    }

    /// The gym's own row; of a right that gyms share each has one.
    async fn own_row(&self) -> Result<Option<applied_grants::Model>, DbErr> {
        let own = applied_grants::Column::GymId.eq(self.gym);
        self.rows().filter(own).one(&self.shared.db).await
    }

    /// A right that is no row of ours after a moment: by hand, and of interest where it is a
    /// member's right for one of our groups.
    async fn right_given(&self) -> Result<Option<String>, Status> {
        for _ in 0..LOOKS {
            let known = self.rows().one(&self.shared.db).await;
            if known.map_err(refusal::store)?.is_some() {
                return Ok(None);
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        // Kisi repeats what was answered late, and anybody may play a recording.
        let known = kisi_events::is_known(&self.shared.db, self.gym, &self.event.uuid).await;
        if known.map_err(refusal::store)? {
            return Ok(None);
        }
        let kisi = self
            .shared
            .kisi_of(self.integration)
            .map_err(|error| refusal::internal(&error))?;
        // Whoever waits at a door is let in first.
        let found = kisi.find_role_assignment(Lane::SetUp, self.object).await;
        let found = found.map_err(refusal::kisi)?;
        let member = match found {
            Some(right) => self.member_of(&right).await,
            None => Ok(None),
        };
        let member = member.map_err(refusal::store)?;
        if member.is_none() {
            let now = self.shared.now();
            let noted = kisi_events::is_new(&self.shared.db, self.gym, &self.event.uuid, now);
            noted.await.map_err(refusal::store)?;
        }
        Ok(member)
    }

    /// Whose right it is, where it is a member's for one of our groups.
    async fn member_of(&self, right: &RoleAssignment) -> Result<Option<String>, DbErr> {
        let groups = self.integration.associations()?;
        let Some(user) = right.user_on_group(right.applies_to_id) else {
            return Ok(None);
        };
        if !groups.values().any(|group| *group == right.applies_to_id) {
            return Ok(None);
        }
        members::find_by_kisi_user(&self.shared.db, self.gym, user).await
    }

    /// A row of ours whose right is gone, and not by us.
    async fn right_gone(&self) -> Result<Option<String>, DbErr> {
        let mut gone = None;
        for _ in 0..LOOKS {
            gone = self.own_row().await?;
            if gone.is_none() {
                break;
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Ok(gone.map(|row| row.member_id))
    }

    /// A row of ours whose window was changed, and not by us.
    async fn right_changed(&self) -> Result<Option<String>, DbErr> {
        let Some(row) = self.own_row().await? else {
            return Ok(None);
        };
        match self.is_our_own(&row.member_id, &["window_changed"]).await? {
            true => Ok(None),
            false => Ok(Some(row.member_id)),
        }
    }

    /// An unlock, by phone or card or by us, goes onto the member's timeline once.
    async fn door_tried(&self) -> Result<(), DbErr> {
        // A device or a link may have the same number as somebody.
        let kind = self.event.actor_type.as_deref();
        let Some(user) = self.event.actor_id.filter(|_| kind.is_none_or(is_user)) else {
            return Ok(());
        };
        let db = &self.shared.db;
        let Some(member) = members::find_by_kisi_user(db, self.gym, user).await? else {
            return Ok(());
        };
        let ours = ["unlocked", "unlock_refused"];
        if self.is_our_own(&member, &ours).await? {
            return Ok(());
        }
        let refused = self.event.success == Some(false);
        let mut entry = Entry::new(if refused {
            "unlock_refused"
        } else {
            "unlocked"
        })
        .about(&member)
        .object(self.object)
        .caused_by(self.cause());
        if refused {
            let code = self.event.error_code.as_deref().unwrap_or_default();
            entry.detail = unlock_words::of(code).0.to_owned();
        }
        entry.answered_at = self.event.created_at.map(micros);
        let now = self.shared.now();
        let txn = db.begin().await?;
        if kisi_events::is_new(&txn, self.gym, &self.event.uuid, now).await? {
            audit::append(&txn, self.gym, &[entry], now).await?;
        }
        txn.commit().await
    }

    /// Whether a request of ours just now did one of these to the same object.
    async fn is_our_own(&self, member: &str, actions: &[&str]) -> Result<bool, DbErr> {
        for _ in 0..LOOKS {
            let since = self.shared.now() - OWN_WITHIN;
            let last =
                store::audit::list_of_member(&self.shared.db, self.gym, member, i64::MAX, 10);
            for row in last.await?.iter().filter(|row| row.at >= since) {
                let entry: Entry = serde_json::from_str(&row.entry).unwrap_or_default();
                if entry.object == Some(self.object)
                    && !entry.request.is_empty()
                    && actions.contains(&entry.action.as_str())
                {
                    return Ok(true);
                }
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Ok(false)
    }

    /// Marks the member once per event, durably, and wakes the worker.
    async fn look_again(&self, member: &str) -> Result<bool, DbErr> {
        let txn = self.shared.db.begin().await?;
        let now = self.shared.now();
        if !kisi_events::is_new(&txn, self.gym, &self.event.uuid, now).await? {
            txn.commit().await?;
            return Ok(false);
        }
        members::look_again(&txn, self.gym, member, &self.cause(), now).await?;
        txn.commit().await?;
        let job = Job::look(member, Urgency::Grant);
        self.shared.workers.wake(self.gym, job);
        tracing::info!(gym.id = %self.gym, member.id = %member, kisi.event = %self.event.kind,
            "Member {member} is looked at again: a right was changed by others");
        Ok(true)
    }

    fn cause(&self) -> Cause {
        let actor = self.event.actor_id.map(|id| format!("kisi_user:{id}"));
        Cause::new("kisi_event", &self.event.uuid, actor.as_deref())
    }
}
