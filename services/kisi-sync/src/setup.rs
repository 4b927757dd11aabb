//! From a key to a gym that is kept in sync: the calls of staff, in the order they are made.
//!
//! Each names the step that is missing before it. Before the first sync nothing is written to Kisi.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contracts::integration::v1 as api;
use contracts::wire;
use kisi_client::model::{Group, GroupFilter, GroupScope};
use kisi_client::{HttpKisi, KisiRead, Lane};
use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter,
    TransactionTrait,
};
use secrecy::SecretString;
use tonic::Status;

use crate::key_check::{self, CheckedKey};
use crate::ownership::Leases;
use crate::reconcile::{self, View};
use crate::sealing::Purpose;
use crate::shared::Shared;
use crate::store::{applied_grants, held_plans, instant, integrations, members, syncs};
use crate::{doors, held, integration_state as state, refusal};

/// Requests that a member who is new at Kisi takes: find, make, grant.
const REQUESTS_OF_A_NEW_MEMBER: u64 = 3;

/// The calls of staff.
#[derive(Clone)]
pub struct Setup {
    pub shared: Arc<Shared>,
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
        edit: impl FnOnce(&mut integrations::Model) -> Result<(), sea_orm::DbErr> + Send,
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
        row.version += 1;
        row.changed_at = now;
        self.take_key(&mut row, &secret, key)?;
        let txn = self.shared.db.begin().await.map_err(refusal::store)?;
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
        key: CheckedKey,
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
        row.organization_name = key.organization_name;
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

    pub async fn rotate(&self, gym: &str, api_key: &str) -> Result<api::Integration, Status> {
        let held = self.enabled(gym).await?;
        let (secret, key) = self.checked(api_key).await?;
        let moves = held.organization() != key.organization;
        if moves && held.associations != "{}" {
            return Err(refusal::missing_step(
                "the key is another Kisi organization's: take the associations away first",
            ));
        }
        if moves {
            self.forget_people(gym).await?;
        }
        let mut new = held.clone();
        self.take_key(&mut new, &secret, key)?;
        self.changed(gym, |row| {
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
            state::settle_attention(row, |matter| matter.what.starts_with("key_"))
        })
        .await?;
        crate::worker::keep_in_step(&self.shared)
            .await
            .map_err(refusal::store)?;
        self.shared.workers.reload(gym);
        if held.activated && !moves {
            self.start(gym, "key", None).await?;
        }
        self.show(gym).await
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

    /// Reads a set: a plan once, whole ids.
    fn parse(associations: &[api::Association]) -> Result<BTreeMap<String, i64>, Status> {
        let mut set = BTreeMap::new();
        for association in associations {
            if !crate::desired::is_id(&association.plan_id) {
                return Err(refusal::invalid("associations.plan_id", "it is no id"));
            }
            let group = association.group_id;
            if set.insert(association.plan_id.clone(), group).is_some() {
                return Err(refusal::invalid(
                    "associations.plan_id",
                    "a plan stands twice, and has one group",
                ));
            }
        }
        Ok(set)
    }

    async fn require_groups(
        &self,
        kisi: &HttpKisi,
        set: &BTreeMap<String, i64>,
    ) -> Result<(), Status> {
        let groups: BTreeSet<i64> = set.values().copied().collect();
        for group in groups {
            let found = kisi.find_group(Lane::SetUp, group).await;
            if found.map_err(refusal::kisi)?.is_none() {
                return Err(refusal::invalid(
                    "associations.group_id",
                    "Kisi has no such group",
                ));
            }
        }
        Ok(())
    }

    pub async fn set_associations(
        &self,
        gym: &str,
        associations: &[api::Association],
        digest: Option<String>,
    ) -> Result<api::Integration, Status> {
        let row = self.enabled(gym).await?;
        if row.place_id.is_none() {
            return Err(refusal::missing_step("no place is selected (SelectPlace)"));
        }
        let set = Self::parse(associations)?;
        let kisi = self.kisi(&row)?;
        self.require_groups(&kisi, &set).await?;
        let text = serde_json::to_string(&set).map_err(|error| refusal::internal(&error))?;
        let before = row.associations.clone();
        let row = self
            .changed(gym, |row| {
                row.associations = text;
                state::settle_attention(row, |matter| {
                    matter.what == "group_missing"
                        && !set
                            .values()
                            .any(|group| group.to_string() == matter.subject)
                })
            })
            .await?;
        let (found, _) = doors::list(&kisi, Lane::SetUp, &row)
            .await
            .map_err(refusal::kisi)?;
        let txn = self.shared.db.begin().await.map_err(refusal::store)?;
        doors::save(&txn, gym, &found, self.shared.now())
            .await
            .map_err(refusal::store)?;
        txn.commit().await.map_err(refusal::store)?;
        self.shared.outbox.notify_one();
        if row.activated && row.associations != before {
            self.start(gym, "associations", digest).await?;
        }
        self.show(gym).await
    }

    pub async fn preview(
        &self,
        gym: &str,
        associations: Option<&[api::Association]>,
    ) -> Result<api::Preview, Status> {
        let row = self.enabled(gym).await?;
        let set = match associations {
            Some(set) => Self::parse(set)?,
            None => row.associations().map_err(refusal::store)?,
        };
        let kisi = self.kisi(&row)?;
        if associations.is_some() {
            self.require_groups(&kisi, &set).await?;
        }
        let now = self.shared.now();
        let view = View::read(&self.shared, row)
            .await
            .map_err(refusal::store)?;
        let mut groups: BTreeSet<i64> = set.values().copied().collect();
        groups.extend(view.rows.iter().map(|row| row.group_id));
        let observed = view
            .observe_groups(&kisi, Lane::SetUp, &groups, now)
            .await
            .map_err(refusal::reconcile)?;
        let plan = view
            .plan(&observed, set.clone(), now)
            .map_err(refusal::store)?;
        let mut grants = 0_u64;
        let mut revokes = 0_u64;
        let mut requests = 0_u64;
        for step in &plan.steps {
            match step {
                access_domain::plan::Step::Grant { member, .. } => {
                    grants += 1;
                    let known = view.members.iter().any(|held| {
                        held.member_id == member.as_str() && held.kisi_user_id.is_some()
                    });
                    requests += if known { 1 } else { REQUESTS_OF_A_NEW_MEMBER };
                }
                access_domain::plan::Step::Revoke { .. } => {
                    revokes += 1;
                    requests += 1;
                }
                step if step.writes() => requests += 1,
                _ => {}
            }
        }
        let seconds = (requests as f64 / self.shared.pacers.rate()).ceil() as i64;
        Ok(api::Preview {
            digest: plan.digest(),
            grants: signed(grants),
            revokes: signed(revokes),
            unmanaged: signed(observed.unmanaged.len() as u64),
            conflicts: conflicts(&view.members),
            plans_without_group: plans_without_group(&view.members, &set)
                .map_err(refusal::store)?,
            seconds,
        })
    }

    /// Puts a pass in the queue and starts it.
    pub async fn start(
        &self,
        gym: &str,
        activation: &str,
        digest: Option<String>,
    ) -> Result<syncs::Model, Status> {
        let sync = reconcile::queue(&self.shared, gym, activation, digest)
            .await
            .map_err(refusal::store)?;
        crate::schedule::start(&self.shared, gym);
        Ok(sync)
    }

    pub async fn start_sync(&self, gym: &str, digest: Option<String>) -> Result<api::Sync, Status> {
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
        let activation = if row.activated { "staff" } else { "first" };
        if !row.activated {
            self.changed(gym, |row| {
                row.activated = true;
                Ok(())
            })
            .await?;
        }
        let sync = self.start(gym, activation, digest).await?;
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

    pub async fn set_policies(
        &self,
        gym: &str,
        policies: Option<api::Policies>,
    ) -> Result<api::Integration, Status> {
        self.enabled(gym).await?;
        let policies = policies.ok_or_else(|| refusal::invalid("policies", "they are missing"))?;
        let word = |field: &str, word: &str, allowed: &[&str]| match word {
            "" => Ok(None),
            word if allowed.contains(&word) => Ok(Some(word.to_owned())),
            _ => Err(refusal::invalid(
                field,
                &format!("one of {} is expected", allowed.join(", ")),
            )),
        };
        let unmanaged = word(
            "policies.unmanaged",
            &policies.unmanaged,
            &["leave", "adopt"],
        )?;
        let resume = word(
            "policies.member_resume",
            &policies.member_resume,
            &["request", "immediate", "off"],
        )?;
        let user_mode = word(
            "policies.user_mode",
            &policies.user_mode,
            &["managed", "regular"],
        )?;
        self.changed(gym, |row| {
            if let Some(word) = unmanaged {
                row.unmanaged_policy = word;
            }
            if let Some(word) = resume {
                row.member_resume = word;
            }
            if let Some(word) = user_mode {
                row.user_mode = word;
            }
            Ok(())
        })
        .await?;
        self.show(gym).await
    }

    /// `keep` leaves what Kisi holds; `revoke` takes ours back first.
    pub async fn disable(
        &self,
        gym: &str,
        access: &str,
        digest: Option<String>,
    ) -> Result<api::Integration, Status> {
        let row = self.enabled(gym).await?;
        match access {
            "keep" => {}
            "revoke" => {
                let expected = self.preview(gym, Some(&[])).await?.digest;
                if digest.as_deref() != Some(expected.as_str()) {
                    return Err(refusal::missing_step(
                        "revoking is confirmed by the digest of a preview without associations (PreviewSync)",
                    ));
                }
                self.revoke_all(gym, &row).await?;
            }
            _ => {
                return Err(refusal::invalid(
                    "access",
                    "one of keep, revoke is expected",
                ));
            }
        }
        self.changed(gym, |row| {
            row.enabled = false;
            row.activated = false;
            row.synced = false;
            row.key_status = "none".to_owned();
            row.sealed_key = Vec::new();
            row.associations = "{}".to_owned();
            row.attention = "[]".to_owned();
            row.place_id = None;
            Ok(())
        })
        .await?;
        crate::worker::keep_in_step(&self.shared)
            .await
            .map_err(refusal::store)?;
        self.show(gym).await
    }

    /// The associations go, and with them every right of ours, each by the path of all others.
    async fn revoke_all(&self, gym: &str, row: &integrations::Model) -> Result<(), Status> {
        self.changed(gym, |row| {
            row.associations = "{}".to_owned();
            Ok(())
        })
        .await?;
        let rows = applied_grants::of_gym(&self.shared.db, row.organization(), gym)
            .await
            .map_err(refusal::store)?;
        let holders: BTreeSet<String> = rows.into_iter().map(|row| row.member_id).collect();
        let holders: Vec<String> = holders.into_iter().collect();
        let now = self.shared.now();
        members::mark_pending(&self.shared.db, gym, &holders, true, now)
            .await
            .map_err(refusal::store)?;
        let (reply, mut settled) = tokio::sync::mpsc::unbounded_channel();
        for member in &holders {
            let job = crate::worker::Job::of_sync(member, reply.clone());
            self.shared.workers.wake(gym, job);
        }
        drop(reply);
        while settled.recv().await.is_some() {}
        let left = applied_grants::of_gym(&self.shared.db, row.organization(), gym)
            .await
            .map_err(refusal::store)?;
        if left.is_empty() {
            Ok(())
        } else {
            Err(Status::unavailable(
                "not every right could be taken back yet; try again",
            ))
        }
    }

    pub async fn held_plans(&self, gym: &str) -> Result<api::ListHeldPlansResponse, Status> {
        let plans = held::show(&self.shared.db, gym)
            .await
            .map_err(refusal::store)?;
        Ok(api::ListHeldPlansResponse {
            held_plans: plans
                .iter()
                .filter(|plan| plan.state == "held")
                .map(held_shown)
                .collect(),
        })
    }

    /// Approves or discards exactly the set of this digest.
    pub async fn decide(
        &self,
        request: &api::DecidePlanRequest,
        approve: bool,
        actor: String,
    ) -> Result<api::HeldPlan, Status> {
        let gym = &request.gym_id;
        let plan = held_plans::Entity::find_by_id(request.id.clone())
            .one(&self.shared.db)
            .await
            .map_err(refusal::store)?
            .filter(|plan| plan.gym_id == *gym)
            .ok_or_else(|| Status::not_found("there is no such held plan"))?;
        if plan.state != "held" {
            return Err(refusal::missing_step("the plan was decided on already"));
        }
        if plan.digest != request.digest {
            return Err(refusal::missing_step(
                "the plan is not the one that was shown: list the held plans again",
            ));
        }
        let members: Vec<String> = serde_json::from_str(&plan.members).unwrap_or_default();
        let now = self.shared.now();
        let txn = self.shared.db.begin().await.map_err(refusal::store)?;
        let mut row = plan.into_active_model();
        row.state = ActiveValue::Set(if approve { "approved" } else { "discarded" }.to_owned());
        row.decided_by = ActiveValue::Set(Some(actor));
        let plan = row.update(&txn).await.map_err(refusal::store)?;
        if approve {
            held::mark(&txn, gym, &members, None)
                .await
                .map_err(refusal::store)?;
            members::mark_pending(&txn, gym, &members, true, now)
                .await
                .map_err(refusal::store)?;
        }
        let id = plan.id.clone();
        state::change(&txn, gym, now, |row| {
            state::settle_attention(row, |matter| {
                matter.what == "plan_held" && matter.subject == id
            })
        })
        .await
        .map_err(refusal::store)?;
        txn.commit().await.map_err(refusal::store)?;
        self.shared.outbox.notify_one();
        self.shared.workers.reload(gym);
        Ok(held_shown(&plan))
    }

    /// The integration as pages show it; `disabled` where there is none.
    pub async fn show(&self, gym: &str) -> Result<api::Integration, Status> {
        let found = integrations::find(&self.shared.db, gym)
            .await
            .map_err(refusal::store)?;
        let row = found.unwrap_or_else(|| unset(gym));
        let held = members::list(&self.shared.db, gym)
            .await
            .map_err(refusal::store)?;
        let shown = || -> Result<api::Integration, sea_orm::DbErr> {
            let set = row.associations()?;
            Ok(api::Integration {
                gym_id: gym.to_owned(),
                state: row.state().to_owned(),
                key: Some(key_health(&row)),
                place_id: row.place_id,
                associations: state::associations(&row)?,
                plans_without_group: plans_without_group(&held, &set)?,
                conflicts: conflicts(&held),
                attention: state::attention(&row)?,
                policies: Some(state::policies(&row)),
                unmanaged: row.unmanaged,
                last_reconciled_at: row
                    .last_reconciled_at
                    .map(|at| wire::timestamp(instant(at))),
                next_reconcile_at: row.synced.then(|| {
                    let next =
                        crate::schedule::next(self.shared.now(), self.shared.reconcile_every);
                    wire::timestamp(instant(next))
                }),
                groups: state::groups(&row)?,
                version: row.version,
            })
        };
        shown().map_err(refusal::store)
    }
}

fn unset(gym: &str) -> integrations::Model {
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

fn key_health(row: &integrations::Model) -> api::KeyHealth {
    let mut advice = Vec::new();
    if row.enabled && row.key_status == "ok" {
        advice.push(
            "Use a Kisi account of its own for this key: it has its own rate limit, and what it grants can be told apart from what people grant by hand."
                .to_owned(),
        );
        if !row.owner_is_owner {
            advice.push(
                "The key dies when the account that made it loses its administrator rights."
                    .to_owned(),
            );
        }
    }
    api::KeyHealth {
        status: row.key_status.clone(),
        organization_id: row.organization_id,
        organization_name: row.organization_name.clone(),
        owner_user_id: row.owner_user_id,
        checked_at: row.key_checked_at.map(|at| wire::timestamp(instant(at))),
        advice,
    }
}

fn plans_without_group(
    members: &[members::Model],
    set: &BTreeMap<String, i64>,
) -> Result<Vec<api::PlanWithoutGroup>, sea_orm::DbErr> {
    let mut heads: BTreeMap<String, i64> = BTreeMap::new();
    for member in members {
        let plans: BTreeSet<String> = member.plans()?.into_iter().map(|p| p.plan_id).collect();
        for plan in plans {
            if !set.contains_key(&plan) {
                *heads.entry(plan).or_default() += 1;
            }
        }
    }
    Ok(heads
        .into_iter()
        .map(|(plan_id, members)| api::PlanWithoutGroup { plan_id, members })
        .collect())
}

fn conflicts(members: &[members::Model]) -> Vec<api::Conflict> {
    members
        .iter()
        .filter_map(|member| {
            let conflict = member.conflict.as_deref()?;
            let (what, twin) = conflict
                .split_once(':')
                .map_or((conflict, None), |(what, twin)| (what, Some(twin)));
            let mut member_ids = vec![member.member_id.clone()];
            member_ids.extend(twin.map(str::to_owned));
            Some(api::Conflict {
                member_ids,
                what: what.to_owned(),
            })
        })
        .collect()
}

fn held_shown(plan: &held_plans::Model) -> api::HeldPlan {
    api::HeldPlan {
        id: plan.id.clone(),
        digest: plan.digest.clone(),
        class: plan.class.clone(),
        causes: serde_json::from_str(&plan.causes).unwrap_or_default(),
        revokes: plan.revokes,
        grants: plan.grants,
        held_at: Some(wire::timestamp(instant(plan.held_at))),
        expires_at: Some(wire::timestamp(instant(plan.expires_at))),
        state: plan.state.clone(),
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

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
