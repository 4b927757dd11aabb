//! One pass over a gym: compare versions, observe, plan, apply, report.
//!
//! Applying is the same path that an event takes: the members whose rights differ are marked and
//! settled by the gym's worker, each with its own outcome. The plan is a value that was looked at
//! first: past the brake's line it is held whole, and nothing of it is marked.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use contracts::integration::v1::{StepFailure, SyncReport};
use kisi_client::{HttpKisi, KisiError, Lane};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel,
    QueryFilter, QueryOrder, Statement, TransactionTrait,
};

use service_runtime::lifecycle::chain;

use crate::error::is_of_one_request;
use crate::event_webhook::Webhook;
use crate::observe::{GroupsSeen, Observed};
use crate::ownership::LeaseProof;
use crate::shared::Shared;
use crate::store::{integrations, members, syncs};
use crate::worker::{self, DeadKey};
use crate::{doors, held, rebuild, rights};

mod carry_out;
mod conclude;
mod correct;
mod gone_users;
mod key;
mod people;
mod sign_up;
mod versions;
mod view;

pub use gone_users::AskedFor;
pub use view::View;

/// Failures and strange rights that a report names.
const NAMED: usize = 100;
/// Rows of one statement.
const QUEUED_AT_ONCE: usize = 500;
/// Doors and people are looked at again after this.
const HOURLY: i64 = 3_600 * 1_000_000;

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("the database failed")]
    Store(#[from] DbErr),
    #[error("Kisi cannot be looked at")]
    Kisi(#[from] KisiError),
    #[error(transparent)]
    Sealing(#[from] crate::sealing::SealingError),
    #[error("the key's owner has no role at Kisi any more")]
    KeyWithoutRights,
    #[error("the list of its owner's rights shows no role, and the key does what needs one")]
    RoleUnseen,
    #[error("the key is of another organization than before")]
    KeyElsewhere,
    #[error("the key does not work any more")]
    KeyDied,
    #[error("the gym has no integration to reconcile")]
    NotSetUp,
    #[error("the lease is not ours any more")]
    NotOwner,
}

impl ReconcileError {
    /// Why the key does not work, where it is the key.
    fn is_of_key(&self) -> Option<DeadKey> {
        match self {
            Self::KeyWithoutRights => Some(DeadKey::WithoutRights),
            Self::KeyElsewhere => Some(DeadKey::Elsewhere),
            Self::Kisi(error) if error.is_key_dead() => Some(DeadKey::of(error)),
            _ => None,
        }
    }
}

/// Puts a pass in the queue; answers its row. Whoever owns the gym runs it.
pub async fn queue<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    activation: &str,
    digest: Option<String>,
    actor: Option<String>,
    now: i64,
) -> Result<syncs::Model, DbErr> {
    let row = syncs::Model {
        digest,
        actor,
        ..queued(gym, activation, now)
    };
    syncs::Entity::insert(row.clone().into_active_model().reset_all())
        .exec_without_returning(db)
        .await?;
    Ok(row)
}

/// Puts the scheduled pass of each of these gyms in the queue.
pub async fn queue_scheduled(shared: &Shared, gyms: &[&String]) -> Result<(), DbErr> {
    let now = shared.now();
    let txn = shared.db.begin().await?;
    for part in gyms.chunks(QUEUED_AT_ONCE) {
        let rows = part.iter().map(|gym| queued(gym, "schedule", now));
        let rows = rows.map(|row| row.into_active_model().reset_all());
        syncs::Entity::insert_many(rows)
            .exec_without_returning(&txn)
            .await?;
    }
    txn.commit().await
}

fn queued(gym: &str, activation: &str, now: i64) -> syncs::Model {
    syncs::Model {
        sync_id: format!("sync_{}", uuid::Uuid::now_v7().simple()),
        gym_id: gym.to_owned(),
        state: "queued".to_owned(),
        activation: activation.to_owned(),
        digest: None,
        created_at: now,
        started_at: None,
        ended_at: None,
        report: "{}".to_owned(),
        in_sync: false,
        actor: None,
    }
}

/// The gyms with passes that have not ended.
pub async fn gyms_unfinished(shared: &Shared) -> Result<HashSet<String>, DbErr> {
    // As the index of these rows alone is defined.
    let sql = "select distinct gym_id from syncs where state in ('queued', 'running')";
    let backend = shared.db.get_database_backend();
    let rows = shared
        .db
        .query_all_raw(Statement::from_string(backend, sql))
        .await?;
    rows.iter().map(|row| row.try_get("", "gym_id")).collect()
}

/// The gym's passes that have not ended, oldest first.
pub async fn unfinished(shared: &Shared, gym: &str) -> Result<Vec<syncs::Model>, DbErr> {
    syncs::Entity::find()
        .filter(syncs::Column::GymId.eq(gym))
        .filter(syncs::Column::State.is_in(["queued", "running"]))
        .order_by_asc(syncs::Column::CreatedAt)
        .all(&shared.db)
        .await
}

/// Runs one pass to its end and writes down what came of it.
pub async fn run(shared: &Arc<Shared>, lease: &LeaseProof, sync: syncs::Model) -> syncs::Model {
    let mut pass = Pass {
        shared: Arc::clone(shared),
        gym: sync.gym_id.clone(),
        lease: lease.clone(),
        report: SyncReport::default(),
        sync,
        whole: true,
        heard: true,
        is_held: false,
        unseen: BTreeSet::new(),
        unasked: BTreeSet::new(),
        groups: GroupsSeen::default(),
        named: BTreeMap::new(),
        began: i64::MAX,
        is_mapping: false,
        key_version: 0,
    };
    let ended = pass.run().await;
    match ended {
        // Somebody else goes on with it.
        Err(ReconcileError::NotOwner) => return pass.sync,
        Err(error) => {
            tracing::warn!(gym.id = %pass.gym, sync.id = %pass.sync.sync_id, error = %chain(&error),
                "The reconcile of gym {} ended early: {error}", pass.gym);
            if let Some(why) = error.is_of_key() {
                if let Err(error) = worker::key_died(shared, &pass.gym, pass.key_version, why).await
                {
                    tracing::error!(error = %error, "The dead key cannot be recorded");
                }
                shared.workers.reload(&pass.gym);
            }
            if let Err(error) = pass.show_failure(&error).await {
                tracing::error!(error = %error, "A reconcile's failure cannot be shown");
            }
            pass.report.failures.push(StepFailure {
                step: "observe".to_owned(),
                failure: error.to_string(),
                ..StepFailure::default()
            });
            pass.sync.state = "failed".to_owned();
        }
        Ok(()) => {
            let differs = pass.report.failed + pass.report.refused > 0 || !pass.whole;
            pass.sync.in_sync = !differs && !pass.is_held;
            let state = if pass.is_held {
                "held"
            } else if differs || !pass.report.failures.is_empty() {
                "done_with_failures"
            } else {
                "done"
            };
            pass.sync.state = state.to_owned();
        }
    }
    pass.sync.ended_at = Some(shared.now());
    if let Err(error) = pass.save().await {
        tracing::error!(error = %error, "A reconcile's report could not be kept");
    }
    crate::measures::reconciled(&pass.sync.state);
    tracing::info!(gym.id = %pass.gym, sync.id = %pass.sync.sync_id, sync.state = %pass.sync.state,
        grants.granted = pass.report.granted, grants.revoked = pass.report.revoked,
        "Reconciled gym {}: {}", pass.gym, pass.sync.state);
    pass.sync
}

struct Pass {
    shared: Arc<Shared>,
    gym: String,
    lease: LeaseProof,
    sync: syncs::Model,
    report: SyncReport,
    /// All rights could be looked at.
    whole: bool,
    /// Nothing that was decided is missing here.
    heard: bool,
    is_held: bool,
    /// Groups of which it is not known who has a right there.
    unseen: BTreeSet<i64>,
    /// Those, and the ones that are gone: nobody was planned for there.
    unasked: BTreeSet<i64>,
    /// The mapped groups, where the doors were looked at.
    groups: GroupsSeen,
    /// What groups were called when they were last seen.
    named: BTreeMap<i64, String>,
    /// When Kisi began to be looked at.
    began: i64,
    /// It is the first one by a changed mapping that gets so far.
    is_mapping: bool,
    /// Of the key that it asks with.
    key_version: i64,
}

impl Pass {
    async fn run(&mut self) -> Result<(), ReconcileError> {
        self.sync.state = "running".to_owned();
        self.sync.started_at = Some(self.shared.now());
        self.save().await?;
        let integration = integrations::find(&self.shared.db, &self.gym)
            .await?
            .filter(|row| row.enabled && row.activated)
            .ok_or(ReconcileError::NotSetUp)?;
        if !integration.is_live() {
            return Err(ReconcileError::KeyDied);
        }
        self.key_version = integration.key_version;
        let groups = integration.groups()?.into_iter();
        self.named = groups.map(|group| (group.group_id, group.name)).collect();
        rebuild::rebuild(&self.shared, &integration, self.lease.epoch()).await?;
        // A first one owes nothing to a mapping of before.
        self.is_mapping = match self.sync.activation.as_str() {
            "associations" => true,
            "first" => false,
            _ => syncs::owe_mapping(&self.shared.db, &self.gym).await?,
        };
        let now = self.shared.now();
        if self.sync.activation == "first" {
            held::end_all(&self.shared.db, &self.gym, now).await?;
        } else if self.is_mapping {
            // What was held of a former mapping is not this one's.
            held::supersede(&self.shared.db, &self.gym, now).await?;
        }
        if self.is_hourly(&integration) {
            self.compare_people().await?;
        }
        let kisi = self.shared.kisi_of(&integration)?;
        self.look_at_key(&kisi, &integration).await?;
        let looked = self.look_at_doors(&kisi, &integration).await;
        self.go_on("doors", looked)?;
        let looked = self.look_for_sign_ups(&kisi).await;
        self.go_on("sign_ups", looked)?;
        let began = self.shared.now();
        self.began = began;
        let mut view = View::read(&self.shared, integration).await?;
        view.groups = self.groups.clone();
        // Kisi is looked at while versions are compared; what arrives meanwhile is work of its own.
        let (versions, observed) = tokio::join!(
            self.compare_versions(),
            view.observe(&kisi, Lane::Reconcile, began)
        );
        self.note_versions(versions);
        let observed = observed?;
        self.report.requests += observed.requests;
        self.note_unseen(&observed);
        self.correct(&view, &observed).await?;
        let looked = self.look_for_gone_users(&kisi, &view, &observed).await;
        self.go_on("users", looked)?;
        let view = View::read(&self.shared, view.integration).await?;
        let plan = view.plan(&observed, view.associations()?, began)?;
        let plan = self.second_look(&kisi, &view, plan).await?;
        self.report_unmanaged(&observed);
        self.apply(&kisi, &view, &plan).await?;
        self.read_rights(&kisi, &view.integration).await;
        self.look_after_webhook(&kisi).await;
        self.conclude(&view, &observed).await
    }

    /// Doors and people are looked at once an hour, and whenever somebody asks for a pass.
    fn is_hourly(&self, integration: &integrations::Model) -> bool {
        let now = self.shared.now();
        let recent = |at: i64| now - at < HOURLY;
        self.sync.activation != "schedule" || !integration.doors_looked_at.is_some_and(recent)
    }

    async fn look_at_doors(
        &mut self,
        kisi: &HttpKisi,
        integration: &integrations::Model,
    ) -> Result<(), ReconcileError> {
        if !self.is_hourly(integration) {
            return Ok(());
        }
        let now = self.shared.now();
        let looked = doors::list(kisi, Lane::Reconcile, integration).await?;
        self.report.requests += looked.requests;
        for (group, error) in &looked.failed {
            self.note_failure("doors", *group, error);
        }
        let found = looked.groups.iter().map(|group| group.group_id);
        self.groups.found = found.collect();
        self.groups.missing.clone_from(&looked.missing);
        let txn = self.shared.db.begin().await?;
        doors::save(&txn, &self.gym, &looked, now).await?;
        txn.commit().await?;
        self.shared.outbox.notify_one();
        Ok(())
    }

    /// What Kisi refuses to show, and what is not needed to see who should be where, is named in the
    /// report, and the pass goes on.
    fn go_on<T>(
        &mut self,
        step: &str,
        looked: Result<T, ReconcileError>,
    ) -> Result<Option<T>, ReconcileError> {
        match looked {
            Ok(found) => Ok(Some(found)),
            Err(ReconcileError::Kisi(error)) if is_of_one_request(&error) => {
                self.note_failure(step, 0, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Groups that were not seen whole are named, and by what was not seen nobody gets or loses anything.
    fn note_unseen(&mut self, observed: &Observed) {
        // There our own table was planned by.
        let too_long = observed.too_long();
        let failed = observed.failed.iter().map(|(group, _)| *group);
        self.unseen.extend(&observed.distrusted);
        self.unseen
            .extend(failed.filter(|group| !too_long.contains(group)));
        for (group, why) in observed.unseen() {
            self.whole = false;
            if !too_long.contains(&group) {
                self.unasked.insert(group);
            }
            self.note_failure("observe", group, &why);
        }
    }

    fn note_failure(&mut self, step: &str, group: i64, why: &impl ToString) {
        let failure = StepFailure {
            member_id: String::new(),
            group_id: group,
            step: step.to_owned(),
            failure: why.to_string(),
        };
        tracing::warn!(gym.id = %self.gym, kisi.group = group, error = %failure.failure,
            "A part of gym {}'s reconcile failed, and it goes on: {step}", self.gym);
        // Looked at twice, it is one failure.
        if self.report.failures.len() < NAMED && !self.report.failures.contains(&failure) {
            self.report.failures.push(failure);
        }
    }

    /// What else opens these doors, when they are new to us; from then on once a day, apart from passes.
    async fn read_rights(&mut self, kisi: &HttpKisi, integration: &integrations::Model) {
        if self.sync.activation != "first" && !self.is_mapping {
            return;
        }
        match rights::refresh_in_background(&self.shared, kisi, integration).await {
            Ok(requests) => self.report.requests += requests,
            Err(error) => {
                tracing::warn!(gym.id = %self.gym, error = %chain(&error),
                    "The rights that others gave in gym {} cannot be read; they are later", self.gym);
            }
        }
    }

    /// Last, so that our own grants do not come back as events.
    async fn look_after_webhook(&mut self, kisi: &HttpKisi) {
        let mut webhook = Webhook {
            shared: &self.shared,
            gym: &self.gym,
            kisi,
            cause: self.cause(),
            requests: 0,
        };
        if let Err(error) = webhook.look_after().await {
            tracing::warn!(gym.id = %self.gym, error = %chain(&error),
                "The event webhook of gym {} cannot be looked after", self.gym);
        }
        self.report.requests += webhook.requests;
    }

    fn cause(&self) -> members::Cause {
        let actor = self.sync.actor.as_deref().unwrap_or(&self.sync.activation);
        members::Cause::new("reconcile", &self.sync.sync_id, Some(actor))
    }

    async fn save(&mut self) -> Result<(), DbErr> {
        self.sync.report = serde_json::to_string(&self.report).unwrap_or_else(|_| "{}".to_owned());
        let row = self.sync.clone().into_active_model().reset_all();
        syncs::Entity::update(row).exec(&self.shared.db).await?;
        Ok(())
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
