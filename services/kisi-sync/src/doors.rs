//! The doors behind the associated groups, for pages that show them.

use std::collections::{BTreeMap, BTreeSet};

use kisi_client::{HttpKisi, KisiError, KisiRead, Lane};
use sea_orm::{ConnectionTrait, DbErr};

use crate::integration_state as state;
use crate::store::integrations::{self, Door, GroupDoors};

/// The attention for a group that opens nothing.
const BARE: &str = "group_without_doors";

/// Lists them: the groups there are, each with its doors, and the requests it took.
pub async fn list(
    kisi: &HttpKisi,
    lane: Lane,
    integration: &integrations::Model,
) -> Result<(Vec<GroupDoors>, i64), KisiError> {
    let groups: BTreeSet<i64> = integration
        .associations()
        .unwrap_or_default()
        .into_values()
        .collect();
    let mut requests = 1;
    let locks = kisi.list_locks(lane, None).await?;
    let locks: BTreeMap<i64, _> = locks
        .items
        .into_iter()
        .map(|lock| (lock.id, lock))
        .collect();
    let mut found = Vec::new();
    for group in groups {
        requests += 2;
        let Some(known) = kisi.find_group(lane, group).await? else {
            continue;
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
        found.push(GroupDoors {
            group_id: group,
            name: known.name,
            doors,
            elevator_stops: known.elevator_stops_count.unwrap_or_default(),
        });
    }
    Ok((found, requests))
}

/// Keeps them, and tells where they changed.
pub async fn save<C: ConnectionTrait>(
    txn: &C,
    gym: &str,
    groups: &[GroupDoors],
    now: i64,
) -> Result<(), DbErr> {
    let opens_nothing = |group: &&GroupDoors| group.doors.is_empty() && group.elevator_stops == 0;
    let bare: Vec<String> = groups
        .iter()
        .filter(opens_nothing)
        .map(|group| group.group_id.to_string())
        .collect();
    let text = serde_json::to_string(groups).unwrap_or_else(|_| "[]".to_owned());
    state::change(txn, gym, now, |row| {
        row.groups = text;
        row.doors_looked_at = Some(now);
        state::settle_attention(row, |matter| {
            matter.what == BARE && !bare.contains(&matter.subject)
        })
    })
    .await?;
    for group in &bare {
        let message = "The group opens no door at Kisi: its plans give access to nothing.";
        state::attend(txn, gym, BARE, group, message, "staff", now).await?;
    }
    Ok(())
}
