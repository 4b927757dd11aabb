//! Syncs on demand; the first one opens the integration.

use contracts::integration::v1 as api;
use contracts::wire;
use sea_orm::EntityTrait;
use tonic::Status;

use super::{NewPass, Setup};
use crate::refusal;
use crate::store::{instant, syncs};

impl Setup {
    pub async fn start_sync(
        &self,
        gym: &str,
        digest: Option<String>,
        actor: &str,
    ) -> Result<api::Sync, Status> {
        let row = self.enabled(gym).await?;
        if row.place_id.is_none() {
            return Err(refusal::missing_step("no place is selected (SelectPlace)"));
        }
        if row.associations == "{}" && !row.activated {
            return Err(refusal::missing_step(
                "no plan has a group (SetAssociations)",
            ));
        }
        if row.key_status != "ok" {
            return Err(refusal::missing_step(
                "the Kisi key does not work any more: save another one (RotateApiKey)",
            ));
        }
        let set = row.associations().map_err(refusal::store)?;
        let digest = self.confirmed(gym, digest, &set).await?;
        let pass = NewPass {
            activation: if row.activated { "staff" } else { "first" },
            digest,
            actor,
        };
        let (_, sync) = self
            .changed_with_pass(gym, pass, |row| {
                row.activated = true;
                Ok(true)
            })
            .await?;
        let sync = sync.ok_or_else(|| Status::internal("no sync was queued"))?;
        Ok(sync_shown(&sync))
    }

    pub async fn find_sync(&self, gym: &str, id: &str) -> Result<api::Sync, Status> {
        let row = syncs::Entity::find_by_id(id.to_owned())
            .one(&self.shared.db)
            .await
            .map_err(refusal::store)?
            .filter(|row| row.gym_id == gym)
            .ok_or_else(|| Status::not_found("there is no such sync"))?;
        Ok(sync_shown(&row))
    }
}

fn sync_shown(row: &syncs::Model) -> api::Sync {
    let at = |micros: i64| wire::timestamp(instant(micros));
    api::Sync {
        sync_id: row.sync_id.clone(),
        gym_id: row.gym_id.clone(),
        state: row.state.clone(),
        activation: row.activation.clone(),
        started_at: row.started_at.map(at),
        ended_at: row.ended_at.map(at),
        report: serde_json::from_str(&row.report).ok(),
        in_sync: row.in_sync,
    }
}
