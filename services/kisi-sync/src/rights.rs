//! Rights that others gave and that open the same doors as our groups: of teams, guests, staff, access
//! links, and in other groups with one of these doors.
//!
//! Our own groups are listed every quarter of an hour; all of this is read once a day, for a preview and
//! when somebody asks, as background work, and kept in a table. It is shown, and never decides
//! what is granted or revoked: a right of ours is given whatever else opens the door.

mod keep;
mod read;

pub use keep::{keep, settle_members};
pub use read::{Reader, Reading};

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kisi_client::{HttpKisi, KisiError, Lane};
use sea_orm::{DbErr, TransactionTrait};
use service_runtime::lifecycle::chain;

use crate::observe::Lists;
use crate::sealing::SealingError;
use crate::shared::Shared;
use crate::store::other_rights::readings;
use crate::store::{applied_grants, integrations, members};

/// Read again after this.
const DAILY: i64 = 24 * 3_600 * 1_000_000;
/// What was read for a preview is good enough for the pass that follows it.
const FRESH: i64 = 3_600 * 1_000_000;
/// A pass goes first, and is not waited for longer than this.
const PASS_WITHIN: Duration = Duration::from_secs(600);

/// Why they could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    #[error("the database failed")]
    Store(#[from] DbErr),
    #[error("Kisi cannot be asked for the rights of others")]
    Kisi(#[from] KisiError),
    #[error(transparent)]
    Sealing(#[from] SealingError),
    #[error("membership-events does not tell who has which e-mail")]
    Directory(#[source] Box<tonic::Status>),
}

/// Who somebody at Kisi is to us. E-mails stay in memory.
pub struct People {
    by_user: HashMap<i64, String>,
    by_email: BTreeMap<String, Vec<String>>,
}

impl People {
    /// From our table and from membership-events.
    pub async fn ask(shared: &Shared, gym: &str) -> Result<Self, RightsError> {
        let asked = shared.directory.list_emails(gym).await;
        let by_email = asked.map_err(|status| RightsError::Directory(Box::new(status)))?;
        let held = members::list(&shared.db, gym).await?.into_iter();
        Ok(Self {
            by_user: held
                .filter_map(|member| Some((member.kisi_user_id?, member.member_id)))
                .collect(),
            by_email,
        })
    }

    /// The member who is this user, or has this e-mail.
    fn member(&self, user: Option<i64>, email: Option<&str>) -> Option<String> {
        let known = user.and_then(|user| self.by_user.get(&user));
        let email = email.map(|email| email.trim().to_lowercase());
        let named = || self.by_email.get(&email?)?.first();
        known.or_else(named).cloned()
    }

    /// Members who have their e-mail in common.
    pub fn twins(&self) -> impl Iterator<Item = &Vec<String>> {
        self.by_email.values().filter(|members| members.len() > 1)
    }
}

/// For which groups' doors, and what is known already.
pub struct Scope<'a> {
    pub groups: &'a BTreeSet<i64>,
    /// Of the groups that were listed just now.
    pub lists: &'a Lists,
    pub people: &'a People,
}

/// Reads them at Kisi for the doors of these groups, and keeps them.
pub async fn refresh(
    shared: &Shared,
    kisi: &HttpKisi,
    lane: Lane,
    integration: &integrations::Model,
    scope: &Scope<'_>,
) -> Result<Reading, RightsError> {
    let organization = integration.organization();
    let ours = applied_grants::assignments(&shared.db, organization).await?;
    let reader = Reader {
        kisi,
        lane,
        gym: &integration.gym_id,
        organization,
        scope,
        ours: &ours,
        now: shared.now(),
    };
    let reading = reader.read().await?;
    keep(shared, integration, scope.groups, &reading).await?;
    Ok(reading)
}

/// The same for the gym's own associations, in the background. What was read a short while ago for all
/// of them is only brought in line with what is shown of each member.
pub async fn refresh_in_background(
    shared: &Shared,
    kisi: &HttpKisi,
    integration: &integrations::Model,
) -> Result<i64, RightsError> {
    let gym = &integration.gym_id;
    let groups: BTreeSet<i64> = integration.associations()?.into_values().collect();
    let last = readings::find(&shared.db, gym).await?;
    let fresh = match &last {
        Some(last) => last.read_at > shared.now() - FRESH && last.groups()?.is_superset(&groups),
        None => false,
    };
    if fresh {
        let txn = shared.db.begin().await?;
        settle_members(&txn, integration, shared.now()).await?;
        txn.commit().await?;
        return Ok(0);
    }
    let scope = Scope {
        groups: &groups,
        lists: &Lists::new(),
        people: &People::ask(shared, gym).await?,
    };
    let reading = refresh(shared, kisi, Lane::Reconcile, integration, &scope).await?;
    Ok(reading.requests)
}

/// Begins the daily reading of each of these gyms that is due. One of a gym at a time.
pub async fn begin_due(
    shared: &Arc<Shared>,
    gyms: &HashSet<String>,
    now: i64,
) -> Result<(), DbErr> {
    let read = readings::list_since(&shared.db, now - DAILY).await?;
    for gym in gyms.iter().filter(|gym| !read.contains(*gym)) {
        let (shared, gym) = (Arc::clone(shared), gym.clone());
        tokio::spawn(async move {
            let Some(_under_way) = shared.readings.begin(&gym) else {
                return;
            };
            if let Err(error) = read_daily(&shared, &gym).await {
                tracing::warn!(gym.id = %gym, error = %chain(&error),
                    "The rights that others gave in gym {gym} cannot be read; they are later");
            }
        });
    }
    Ok(())
}

async fn read_daily(shared: &Shared, gym: &str) -> Result<(), RightsError> {
    let patience = tokio::time::Instant::now() + PASS_WITHIN;
    while shared.passes.is_under_way(gym) && tokio::time::Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let found = integrations::find(&shared.db, gym).await?;
    let Some(integration) = found.filter(|row| row.is_live() && row.synced) else {
        return Ok(());
    };
    if shared.leases.held(&integration.lease_key).is_none() {
        return Ok(());
    }
    let kisi = shared.kisi_of(&integration)?;
    let requests = refresh_in_background(shared, &kisi, &integration).await?;
    tracing::info!(gym.id = %gym, kisi.requests = requests,
        "Read what others gave in gym {gym}");
    Ok(())
}
