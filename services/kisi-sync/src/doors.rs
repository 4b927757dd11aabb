//! The doors behind the associated groups, for pages that show them.

use std::collections::{BTreeMap, BTreeSet};

use kisi_client::model::Lock;
use kisi_client::{HttpKisi, KisiError, KisiRead, Lane};
use sea_orm::{ConnectionTrait, DbErr};

use crate::error::is_of_one_request;
use crate::integration_state as state;
use crate::store::integrations::{self, Door, GroupDoors};

/// The attention for a group that opens nothing.
const BARE: &str = "group_without_doors";

/// What was seen of them.
#[derive(Debug, Default)]
pub struct Looked {
    /// The groups there are, each with its doors.
    pub groups: Vec<GroupDoors>,
    /// Groups of the associations that Kisi does not know.
    pub missing: BTreeSet<i64>,
    /// Groups that could not be looked at.
    pub failed: Vec<(i64, KisiError)>,
    pub requests: i64,
}

/// Lists them. What of one group Kisi does not show leaves the others.
pub async fn list(
    kisi: &HttpKisi,
    lane: Lane,
    integration: &integrations::Model,
) -> Result<Looked, KisiError> {
    let groups: BTreeSet<i64> = integration
        .associations()
        .unwrap_or_default()
        .into_values()
        .collect();
    let mut looked = Looked {
        requests: 1,
        ..Looked::default()
    };
    let locks = kisi.list_locks(lane, None).await?;
    let locks: BTreeMap<i64, Lock> = locks
        .items
        .into_iter()
        .map(|lock| (lock.id, lock))
        .collect();
    for group in groups {
        looked.requests += 2;
        match look_at(kisi, lane, group, &locks).await {
            Ok(Some(found)) => looked.groups.push(found),
            Ok(None) => {
                looked.missing.insert(group);
            }
            Err(error) if is_of_one_request(&error) => looked.failed.push((group, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(looked)
}

/// One group with its doors; None where there is none.
async fn look_at(
    kisi: &HttpKisi,
    lane: Lane,
    group: i64,
    locks: &BTreeMap<i64, Lock>,
) -> Result<Option<GroupDoors>, KisiError> {
    let Some(known) = kisi.find_group(lane, group).await? else {
        return Ok(None);
    };
    let held = kisi.list_group_locks(lane, group).await?;
    let doors = held
        .items
        .iter()
        .filter_map(|held| locks.get(&held.lock_id))
        .map(|lock| Door {
            lock_id: lock.id,
            name: lock.name.clone(),
            online: lock.online.unwrap_or(true),
        })
        .collect();
    Ok(Some(GroupDoors {
        group_id: group,
        name: known.name,
        doors,
        elevator_stops: known.elevator_stops_count.unwrap_or_default(),
    }))
}

/// Keeps them, and tells where they changed.
pub async fn save<C: ConnectionTrait>(
    txn: &C,
    gym: &str,
    looked: &Looked,
    now: i64,
) -> Result<(), DbErr> {
    let failed: BTreeSet<i64> = looked.failed.iter().map(|(group, _)| *group).collect();
    let opens_nothing = |group: &&GroupDoors| group.doors.is_empty() && group.elevator_stops == 0;
    let bare: Vec<String> = looked
        .groups
        .iter()
        .filter(opens_nothing)
        .map(|group| group.group_id.to_string())
        .collect();
    state::change(txn, gym, now, |row| {
        // What could not be looked at is shown as it was, and looked at again with the next pass.
        let mut groups = looked.groups.clone();
        let before = row.groups()?.into_iter();
        groups.extend(before.filter(|group| failed.contains(&group.group_id)));
        groups.sort_by_key(|group| group.group_id);
        row.groups = serde_json::to_string(&groups).unwrap_or_else(|_| "[]".to_owned());
        if failed.is_empty() {
            row.doors_looked_at = Some(now);
        }
        let is_unseen = |subject: &str| failed.iter().any(|group| group.to_string() == subject);
        state::settle_attention(row, |matter| {
            matter.what == BARE && !bare.contains(&matter.subject) && !is_unseen(&matter.subject)
        })
    })
    .await?;
    for group in &bare {
        let message = "The group opens no door at Kisi: its plans give access to nothing.";
        state::attend(txn, gym, BARE, group, message, "staff", now).await?;
    }
    Ok(())
}
