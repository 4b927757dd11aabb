//! Memberships that the roster lacks end as of its instant.
//!
//! As if they had been cancelled then, with what the cancellation was before kept aside: a later
//! roster that has the membership again takes it back.

use std::collections::BTreeSet;

use access_domain::ids::MembershipId;

use super::{Work, advanced, cause_of_ends, kept};
use crate::decide::with_billing;
use crate::error::Error;
use crate::roster::Stop;
use crate::roster::claim::Claimed;
use crate::rows;
use crate::store;
use crate::store::bulk;
use crate::store::roster::imports::Import;
use crate::store::roster::missing::{self, Ending};
use crate::store::roster::staged::Staged;

pub(super) async fn apply(claimed: &Claimed, page: &[Staged]) -> Result<Work, Stop> {
    let decisions = &claimed.importer.decisions;
    let row = decisions.retrying(|| apply_once(claimed, page)).await?;
    kept(row)
}

async fn apply_once(claimed: &Claimed, page: &[Staged]) -> Result<Option<Import>, Error> {
    let (gym, as_of) = (&claimed.row.gym_id, claimed.row.as_of);
    let mut unit = claimed
        .importer
        .decisions
        .begin(cause_of_ends(claimed))
        .await?;
    let ids: BTreeSet<MembershipId> = page
        .iter()
        .filter_map(|row| row.row_id.parse().ok())
        .collect();
    let mut rows = bulk::list_memberships(unit.db(), gym, &ids, true).await?;
    // Whoever wrote one since knows better.
    rows.retain(|row| row.written_at <= as_of);
    let its_gym = store::gyms::find(unit.db(), gym)
        .await?
        .ok_or(Error::Unknown("gym"))?;
    let rules = rows::rules(&its_gym)?;
    let now = unit.now();
    let running: BTreeSet<MembershipId> = with_billing(unit.db(), gym, &rows)
        .await?
        .into_iter()
        .filter(|held| {
            let end = held.membership.end(&held.billing, &rules);
            end.is_none_or(|end| end > now)
        })
        .map(|held| held.membership.id)
        .collect();
    rows.retain(|row| running.contains(&row.membership_id.0));
    let endings: Vec<Ending> = rows
        .iter()
        .map(|row| Ending {
            gym_id: row.gym_id.clone(),
            membership_id: row.membership_id.clone(),
            ended_at: as_of,
            cancelled_at: row.cancelled_at,
            cancel_ends_on: row.cancel_ends_on.clone(),
        })
        .collect();
    for row in &mut rows {
        row.cancelled_at = Some(as_of);
        row.cancel_ends_on = None;
        row.written_at = as_of;
    }
    bulk::put_memberships(unit.db(), &rows).await?;
    missing::put_endings(unit.db(), &endings).await?;
    if !running.is_empty() {
        unit.decide_people_of(gym, &running).await?;
    }
    let row = advanced(claimed, unit.db(), page, running.len()).await?;
    if row.is_some() {
        unit.commit().await?;
    }
    Ok(row)
}
