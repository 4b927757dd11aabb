//! The table of what is ours, lost or set back to a backup: rebuilt from what was told on `ACCESS`, whose
//! last message of each member names every right of ours.
//!
//! A row that comes of it is believed like any other: the next listing finds it at Kisi, or it is
//! fetched by its id and forgotten.
//!
//! An answer's number is committed with the rows it tells of before it is told. So where the last answer
//! on the bus has a higher one than the table, the table is the older of the two. That is looked for at
//! start, before anything else is decided, since every answer after it has a higher number still.

use std::collections::HashMap;
use std::time::Duration;

use contracts::access::v1::AccessApplied;
use contracts::{subjects, wire};
use futures_util::{TryStreamExt, stream};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DatabaseConnection, DatabaseTransaction, DbErr, EntityTrait,
    IntoActiveModel, PaginatorTrait, QueryFilter, TransactionTrait,
};
use tokio_util::sync::CancellationToken;

use crate::integration_state as state;
use crate::shared::Shared;
use crate::store::{applied_grants, integrations, members, micros, outbox};

/// Longer than any gym's answers take to be read.
const WITHIN: Duration = Duration::from_secs(60);
/// Gyms looked at together.
const AT_ONCE: usize = 16;
/// Before the bus is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Brings the gyms whose tables are of yesterday up to what was told since; before anything else is
/// decided or sent.
pub async fn catch_up(shared: &Shared, shutdown: &CancellationToken) -> Result<(), DbErr> {
    let gyms = integrations::list_enabled(&shared.db).await?;
    stream::iter(gyms.into_iter().map(Ok::<_, DbErr>))
        .try_for_each_concurrent(AT_ONCE, |(gym, _)| async move {
            let Some(last) = ask_last(shared, &gym, shutdown).await else {
                return Ok(());
            };
            if !is_newer(shared, &last).await? {
                return Ok(());
            }
            let (integration, told) = (
                integrations::find(&shared.db, &gym).await?,
                last_told(shared, &gym).await,
            );
            let (Some(integration), Some(told)) = (integration, told) else {
                return Err(DbErr::Custom(format!(
                    "the tables of gym {gym} are older than what was told, and ACCESS cannot be read"
                )));
            };
            let (db, at) = (&shared.db, (0, shared.now()));
            let whose = (integration.organization(), gym.as_str());
            let rows = take_over(db, whose, &told, at, false).await?;
            tracing::warn!(gym.id = %gym, grants.rebuilt = rows,
                "The tables of gym {gym} are of a backup: {rows} rows are what ACCESS told since");
            Ok(())
        })
        .await
}

/// The gym's last answer; asked until the bus says which it is.
async fn ask_last(
    shared: &Shared,
    gym: &str,
    shutdown: &CancellationToken,
) -> Option<AccessApplied> {
    let subject = subjects::access(gym, "*");
    loop {
        match shared.bus.last("ACCESS", &subject).await {
            Ok(last) => return serde_json::from_slice(&last?).ok(),
            Err(error) => {
                tracing::warn!(gym.id = %gym, error = %error, "The last answer of gym {gym} cannot be read");
                let pause = tokio::time::sleep(ASK_AGAIN);
                shutdown.run_until_cancelled(pause).await?;
            }
        }
    }
}

async fn is_newer(shared: &Shared, last: &AccessApplied) -> Result<bool, DbErr> {
    let held = members::find(&shared.db, &last.gym_id, &last.member_id).await?;
    Ok(held.map_or(0, |held| held.applied_seq) < last.applied_seq)
}

/// Fills the table where it holds nothing of the gym, in any organization; answers how many rows came
/// of it.
pub async fn rebuild(
    shared: &Shared,
    integration: &integrations::Model,
    epoch: i64,
) -> Result<u64, DbErr> {
    let gym = &integration.gym_id;
    let held = applied_grants::Entity::find()
        .filter(applied_grants::Column::GymId.eq(gym))
        .count(&shared.db)
        .await?;
    if held > 0 {
        return Ok(0);
    }
    let Some(told) = last_told(shared, gym).await else {
        return Ok(0);
    };
    let (db, at) = (&shared.db, (epoch, shared.now()));
    let rows = take_over(db, (integration.organization(), gym), &told, at, true).await?;
    if rows > 0 {
        tracing::warn!(gym.id = %gym, grants.rebuilt = rows,
            "The table of what is ours held nothing of gym {gym}: {rows} rows are rebuilt from ACCESS");
    }
    Ok(rows)
}

/// Writes what was told in the place of what the tables have, of members of whom they know less; with
/// `lost`, of all. Answers how many rows that made.
async fn take_over(
    db: &DatabaseConnection,
    (organization, gym): (i64, &str),
    told: &HashMap<String, AccessApplied>,
    (epoch, now): (i64, i64),
    lost: bool,
) -> Result<u64, DbErr> {
    let mut rows = 0;
    let txn = db.begin().await?;
    // One replica at a time; the next finds it done.
    state::change(&txn, gym, now, |_| Ok(())).await?;
    for answer in told.values() {
        let is_newer = keep_member(&txn, answer).await?;
        // What was given since it was told is in the table by now, lost or not.
        let takes_over = is_newer || (lost && is_bare(&txn, answer).await?);
        if !takes_over {
            continue;
        }
        // Who has none may have one by now, which is hers.
        if is_newer {
            applied_grants::Entity::delete_many()
                .filter(applied_grants::Column::OrganizationId.eq(organization))
                .filter(applied_grants::Column::GymId.eq(gym))
                .filter(applied_grants::Column::MemberId.eq(&answer.member_id))
                .exec(&txn)
                .await?;
        }
        let Some(user) = answer.kisi_user_id else {
            continue;
        };
        for grant in &answer.grants {
            let at = |at: &Option<pbjson_types::Timestamp>| {
                at.as_ref().and_then(wire::instant).map(micros)
            };
            let row = applied_grants::Model {
                id: 0,
                organization_id: organization,
                gym_id: gym.to_owned(),
                member_id: answer.member_id.clone(),
                group_id: grant.group_id,
                kisi_user_id: user,
                assignment_id: Some(grant.assignment_id),
                state: applied_grants::STANDING.to_owned(),
                epoch,
                valid_from: at(&grant.valid_from),
                valid_until: at(&grant.valid_until),
                intended_at: now,
                updated_at: now,
            };
            applied_grants::insert(&txn, row).await?;
            rows += 1;
        }
    }
    forget_overtaken(&txn, told).await?;
    txn.commit().await?;
    Ok(rows)
}

/// Whether the table holds no row of the member, and has answered nothing since.
async fn is_bare(txn: &DatabaseTransaction, answer: &AccessApplied) -> Result<bool, DbErr> {
    let (gym, member) = (&answer.gym_id, &answer.member_id);
    let held = members::find(txn, gym, member).await?;
    let rows = applied_grants::Entity::find()
        .filter(applied_grants::Column::GymId.eq(gym))
        .filter(applied_grants::Column::MemberId.eq(member))
        .count(txn)
        .await?;
    Ok(rows == 0 && held.is_some_and(|held| held.applied_seq == answer.applied_seq))
}

/// Who the member is at Kisi, and the number of the last answer, where the tables know less; whether
/// they do.
async fn keep_member(txn: &DatabaseTransaction, answer: &AccessApplied) -> Result<bool, DbErr> {
    let held = members::find_for_update(txn, &answer.gym_id, &answer.member_id).await?;
    let is_known = held.is_some();
    let mut member =
        held.unwrap_or_else(|| members::Model::unheard_of(&answer.gym_id, &answer.member_id));
    let is_newer = member.applied_seq < answer.applied_seq;
    if is_newer {
        member.applied_seq = answer.applied_seq;
        // Until that version is heard of again, nobody knows here what the member should have.
        member.answered_version = member.answered_version.max(answer.version);
        if member.kisi_user_id != answer.kisi_user_id {
            member.person_digest = None;
        }
        member.kisi_user_id = answer.kisi_user_id;
        member.kisi_user_ours = answer.kisi_user_ours;
        member.looked = false;
    } else if member.kisi_user_id.is_none() && member.applied_seq == answer.applied_seq {
        member.kisi_user_id = answer.kisi_user_id;
        member.kisi_user_ours = answer.kisi_user_ours;
    } else {
        return Ok(false);
    }
    let row = member.into_active_model().reset_all();
    if is_known {
        row.update(txn).await?;
    } else {
        members::Entity::insert(row)
            .exec_without_returning(txn)
            .await?;
    }
    Ok(is_newer)
}

/// Answers that a backup holds as not told yet, and that were told long ago: told again now, they would
/// be the last of their subject.
async fn forget_overtaken(
    txn: &DatabaseTransaction,
    told: &HashMap<String, AccessApplied>,
) -> Result<(), DbErr> {
    let waiting = outbox::Entity::find()
        .filter(outbox::Column::Kind.eq("access"))
        .all(txn)
        .await?;
    for row in waiting {
        let Ok(answer) = serde_json::from_str::<AccessApplied>(&row.body) else {
            continue;
        };
        let is_overtaken = told.get(&answer.member_id).is_some_and(|told| {
            told.gym_id == answer.gym_id && told.applied_seq >= answer.applied_seq
        });
        if is_overtaken {
            outbox::Entity::delete_by_id(row.id).exec(txn).await?;
        }
    }
    Ok(())
}

/// The last answer of each member of the gym; None when the bus does not tell all of them.
async fn last_told(shared: &Shared, gym: &str) -> Option<HashMap<String, AccessApplied>> {
    let projection = shared.bus.projection("ACCESS", &subjects::access(gym, "*"));
    let mut status = projection.status();
    let stop = CancellationToken::new();
    let _stops = stop.clone().drop_guard();
    let mut told: HashMap<String, AccessApplied> = HashMap::new();
    let reading = projection.run(
        |entry| {
            if let Ok(answer) = entry.parse::<AccessApplied>() {
                let known = told.get(&answer.member_id);
                if known.is_none_or(|known| known.applied_seq <= answer.applied_seq) {
                    told.insert(answer.member_id.clone(), answer);
                }
            }
        },
        stop,
    );
    let caught_up = tokio::time::timeout(WITHIN, async {
        status.wait_for(|status| status.caught_up).await.is_ok()
    });
    let whole = tokio::select! {
        _ = reading => false,
        caught_up = caught_up => caught_up.unwrap_or(false),
    };
    whole.then_some(told)
}

#[cfg(test)]
mod tests {
    use contracts::access::v1::AppliedGrant;

    use super::*;

    const GYM: &str = "iron";

    async fn give(db: &DatabaseConnection, member: &str, answer: i64, right: Option<i64>) {
        let row = members::Model {
            applied_seq: answer,
            ..members::Model::unheard_of(GYM, member)
        };
        let row = row.into_active_model().reset_all();
        let inserted = members::Entity::insert(row).exec_without_returning(db);
        inserted.await.unwrap();
        let Some(right) = right else { return };
        let row = applied_grants::Model {
            id: 0,
            organization_id: 0,
            gym_id: GYM.to_owned(),
            member_id: member.to_owned(),
            group_id: 7,
            kisi_user_id: 1,
            assignment_id: Some(right),
            state: applied_grants::STANDING.to_owned(),
            epoch: 1,
            valid_from: None,
            valid_until: None,
            intended_at: 1,
            updated_at: 1,
        };
        applied_grants::insert(db, row).await.unwrap();
    }

    fn told(member: &str, answer: i64, rights: &[i64]) -> (String, AccessApplied) {
        let grants = rights.iter().map(|right| AppliedGrant {
            group_id: 7,
            assignment_id: *right,
            ..AppliedGrant::default()
        });
        let answer = AccessApplied {
            gym_id: GYM.to_owned(),
            member_id: member.to_owned(),
            applied_seq: answer,
            kisi_user_id: Some(1),
            grants: grants.collect(),
            ..AccessApplied::default()
        };
        (member.to_owned(), answer)
    }

    /// A gym in which nobody has a right looks like one whose table is lost, and reading what was told
    /// takes its time.
    #[tokio::test]
    async fn what_was_given_while_the_bus_was_asked_stays_ours() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("kisi.db").display());
        let db = crate::store::open(&url.into()).await.unwrap();
        give(&db, "given", 12, Some(71)).await;
        give(&db, "under_way", 10, Some(72)).await;
        give(&db, "taken", 12, None).await;
        give(&db, "lost", 10, None).await;
        let heard = HashMap::from([
            told("given", 10, &[]),
            told("under_way", 10, &[]),
            told("taken", 10, &[73]),
            told("lost", 10, &[74]),
            told("gone", 10, &[75]),
        ]);
        let rows = take_over(&db, (0, GYM), &heard, (1, 1), true).await;
        assert_eq!(rows.unwrap(), 2);
        let rows = applied_grants::Entity::find().all(&db).await.unwrap();
        let mut rows: Vec<(&str, Option<i64>)> = rows
            .iter()
            .map(|row| (row.member_id.as_str(), row.assignment_id))
            .collect();
        rows.sort_unstable();
        let ours = [
            ("given", Some(71)),
            ("gone", Some(75)),
            ("lost", Some(74)),
            ("under_way", Some(72)),
        ];
        assert_eq!(rows, ours);
    }
}
