//! From a key to a gym that is kept in sync: the calls of staff, in the order they are made.
//!
//! Each names the step that is missing before it. Before the first sync nothing is written to Kisi.

use std::sync::Arc;

use contracts::integration::v1 as api;
use kisi_client::model::{Group, GroupFilter, GroupScope};
use kisi_client::{HttpKisi, KisiRead, Lane};
use sea_orm::{DbErr, TransactionTrait};
use tonic::Status;

use crate::shared::Shared;
use crate::store::{self, integrations};
use crate::{integration_state as state, reconcile, refusal};

mod associations;
mod disable;
mod estimate;
mod held_plans;
mod key;
mod policies;
mod preview;
mod previewed;
mod rights;
mod show;
mod syncs;

/// The calls of staff.
#[derive(Clone)]
pub struct Setup {
    pub shared: Arc<Shared>,
}

/// A pass that somebody asks for.
struct NewPass<'a> {
    activation: &'a str,
    /// Of the preview that was confirmed.
    digest: Option<String>,
    actor: &'a str,
}

impl Setup {
    /// The gym's integration, enabled.
    pub async fn enabled(&self, gym: &str) -> Result<integrations::Model, Status> {
        integrations::find(&self.shared.db, gym)
            .await
            .map_err(refusal::store)?
            .filter(|row| row.enabled)
            .ok_or_else(|| refusal::missing_step("no Kisi key is saved (EnableIntegration)"))
    }

    fn kisi(&self, row: &integrations::Model) -> Result<HttpKisi, Status> {
        self.shared
            .kisi_of(row)
            .map_err(|error| refusal::internal(&error))
    }

    async fn changed(
        &self,
        gym: &str,
        edit: impl FnOnce(&mut integrations::Model) -> Result<(), DbErr> + Send,
    ) -> Result<integrations::Model, Status> {
        let txn = self.shared.db.begin().await.map_err(refusal::store)?;
        let row = state::change(&txn, gym, self.shared.now(), edit)
            .await
            .map_err(refusal::store)?
            .ok_or_else(|| refusal::missing_step("no Kisi key is saved (EnableIntegration)"))?;
        txn.commit().await.map_err(refusal::store)?;
        self.shared.outbox.notify_one();
        self.shared.workers.reload(gym);
        Ok(row)
    }

    /// The same with a pass after it, where `edit` says that one must follow: queued by the same commit,
    /// so that it runs whatever fails after that.
    async fn changed_with_pass(
        &self,
        gym: &str,
        pass: NewPass<'_>,
        edit: impl FnOnce(&mut integrations::Model) -> Result<bool, DbErr> + Send,
    ) -> Result<(integrations::Model, Option<store::syncs::Model>), Status> {
        let now = self.shared.now();
        let txn = self.shared.db.begin().await.map_err(refusal::store)?;
        let mut follows = false;
        let edit = |row: &mut integrations::Model| {
            follows = edit(row)?;
            Ok(())
        };
        let row = state::change(&txn, gym, now, edit)
            .await
            .map_err(refusal::store)?
            .ok_or_else(|| refusal::missing_step("no Kisi key is saved (EnableIntegration)"))?;
        let mut sync = None;
        if follows {
            let actor = Some(pass.actor.to_owned());
            let queued = reconcile::queue(&txn, gym, pass.activation, pass.digest, actor, now);
            sync = Some(queued.await.map_err(refusal::store)?);
        }
        txn.commit().await.map_err(refusal::store)?;
        self.shared.outbox.notify_one();
        self.shared.workers.reload(gym);
        if follows {
            crate::schedule::start(&self.shared, gym);
        }
        Ok((row, sync))
    }

    pub async fn places(&self, gym: &str) -> Result<api::ListPlacesResponse, Status> {
        let row = self.enabled(gym).await?;
        let places = self.kisi(&row)?.list_places(Lane::SetUp).await;
        let places = places.map_err(refusal::kisi)?;
        Ok(api::ListPlacesResponse {
            places: places
                .items
                .into_iter()
                .map(|place| api::Place {
                    place_id: place.id,
                    name: place.name,
                })
                .collect(),
        })
    }

    pub async fn select_place(&self, gym: &str, place: i64) -> Result<api::Integration, Status> {
        let row = self.enabled(gym).await?;
        let places = self.kisi(&row)?.list_places(Lane::SetUp).await;
        let places = places.map_err(refusal::kisi)?;
        if !places.items.iter().any(|known| known.id == place) {
            return Err(refusal::invalid("place_id", "Kisi has no such place"));
        }
        self.changed(gym, |row| {
            row.place_id = Some(place);
            Ok(())
        })
        .await?;
        self.show(gym).await
    }

    /// The place's groups, and organization groups that hold one of its doors.
    pub async fn groups(&self, gym: &str) -> Result<api::ListGroupsResponse, Status> {
        let row = self.enabled(gym).await?;
        let place = row
            .place_id
            .ok_or_else(|| refusal::missing_step("no place is selected (SelectPlace)"))?;
        let kisi = self.kisi(&row)?;
        let of_place = GroupFilter {
            place_id: Some(place),
            ..GroupFilter::default()
        };
        let of_place = kisi.list_groups(Lane::SetUp, &of_place).await;
        let mut groups: Vec<Group> = of_place.map_err(refusal::kisi)?.items;
        groups.retain(|group| group.scope() == GroupScope::Place);
        let of_organization = GroupFilter {
            scope: Some(GroupScope::Organization),
            ..GroupFilter::default()
        };
        let of_organization = kisi.list_groups(Lane::SetUp, &of_organization).await;
        for group in of_organization.map_err(refusal::kisi)?.items {
            if group.scope() != GroupScope::Organization {
                continue;
            }
            let held = kisi.list_group_locks(Lane::SetUp, group.id).await;
            let held = held.map_err(refusal::kisi)?;
            if held.items.iter().any(|held| held.place_id == Some(place)) {
                groups.push(group);
            }
        }
        groups.sort_by_key(|group| group.id);
        Ok(api::ListGroupsResponse {
            groups: groups
                .into_iter()
                .map(|group| api::Group {
                    group_id: group.id,
                    scope: group.scope().as_str().to_owned(),
                    users_count: group
                        .users_count
                        .and_then(|n| i64::try_from(n).ok())
                        .unwrap_or(0),
                    name: group.name,
                })
                .collect(),
        })
    }
}
