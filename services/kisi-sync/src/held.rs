//! Plans held for a person: what lies past the brake's line waits here, whole and by name.
//!
//! A held set is sealed when it is first shown; what comes later opens another. Its digest is of
//! the exact set. A member who is entitled again drops out by the way of all things: the next look
//! finds nothing to revoke.

use std::collections::HashSet;

use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, ConnectionTrait, DatabaseConnection, DbBackend,
    DbErr, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect, TransactionTrait,
    sea_query::LockType,
};
use sha2::{Digest, Sha256};

use crate::apply::{Attempt, Engine};
use crate::audit::prune::kept_since;
use crate::error::Trouble;
use crate::integration_state as state;
use crate::store::{held_plans, instant, members, micros};

/// A plan that nobody decided on expires; what it held is then looked at anew.
const EXPIRES_AFTER: i64 = 3 * 24 * 3_600 * 1_000_000;

/// Held for less than this from its end: shown once more.
const REMINDER: i64 = 24 * 3_600 * 1_000_000;

/// What the id of a plan of grants begins with.
const GRANTS: &str = "hg_";

/// The digest of a set: of its class and its members, sorted.
pub fn digest(gym: &str, class: &str, members: &[String]) -> String {
    let mut sorted = members.to_vec();
    sorted.sort();
    let text = format!("{gym}\n{class}\n{}", sorted.join("\n"));
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// Adds members to the gym's open plan of this class, or opens one. Answers its id.
pub async fn hold<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    class: &str,
    cause: &str,
    held: &[String],
    now: i64,
) -> Result<String, DbErr> {
    // One at a time: the set that is read here is written back, and two would open two plans.
    state::change(db, gym, now, |_| Ok(())).await?;
    let mut open = held_plans::Entity::find()
        .filter(held_plans::Column::GymId.eq(gym))
        .filter(held_plans::Column::Class.eq(class))
        .filter(held_plans::Column::State.eq("held"))
        .filter(held_plans::Column::Sealed.eq(false));
    if db.get_database_backend() == DbBackend::Postgres {
        // Who shows it meanwhile seals it before or after, and not in between.
        open = open.lock(LockType::Update);
    }
    let open = open.one(db).await?;
    let id = match open {
        Some(plan) => {
            let mut members: Vec<String> = serde_json::from_str(&plan.members)
                .map_err(|_| crate::store::senseless("held_plans", "members", &plan.id))?;
            let mut causes: Vec<String> = serde_json::from_str(&plan.causes).unwrap_or_default();
            members.extend(held.iter().cloned());
            members.sort();
            members.dedup();
            if !causes.iter().any(|known| known == cause) {
                causes.push(cause.to_owned());
            }
            let id = plan.id.clone();
            let mut row = plan.into_active_model();
            row.digest = ActiveValue::Set(digest(gym, class, &members));
            row.revokes = ActiveValue::Set(revokes(class, &members));
            row.grants = ActiveValue::Set(count(members.len()) - revokes(class, &members));
            row.members = ActiveValue::Set(json(&members));
            row.causes = ActiveValue::Set(json(&causes));
            row.update(db).await?;
            id
        }
        None => {
            let mark = match class {
                "grants" => GRANTS,
                _ => "hp_",
            };
            let id = format!("{mark}{}", uuid::Uuid::now_v7().simple());
            let row = held_plans::ActiveModel {
                id: ActiveValue::Set(id.clone()),
                gym_id: ActiveValue::Set(gym.to_owned()),
                digest: ActiveValue::Set(digest(gym, class, held)),
                class: ActiveValue::Set(class.to_owned()),
                causes: ActiveValue::Set(json(&[cause.to_owned()])),
                members: ActiveValue::Set(json(held)),
                revokes: ActiveValue::Set(revokes(class, held)),
                grants: ActiveValue::Set(count(held.len()) - revokes(class, held)),
                state: ActiveValue::Set("held".to_owned()),
                sealed: ActiveValue::Set(false),
                held_at: ActiveValue::Set(now),
                expires_at: ActiveValue::Set(now + EXPIRES_AFTER),
                decided_by: ActiveValue::Set(None),
            };
            held_plans::Entity::insert(row)
                .exec_without_returning(db)
                .await?;
            id
        }
    };
    mark(db, gym, held, &id).await?;
    state::attend(
        db,
        gym,
        "plan_held",
        &id,
        match class {
            "grants" => "The changed mapping would let in more members at once than is usual; approve or discard the plan.",
            _ => "More members would lose access at once than is usual; approve or discard the plan.",
        },
        "staff",
        now,
    )
    .await?;
    Ok(id)
}

/// Whether what holds the member keeps new rights from being given, and not old ones from being
/// taken.
pub fn holds_grants(plan: Option<&str>) -> bool {
    plan.is_some_and(|plan| plan.starts_with(GRANTS))
}

fn revokes(class: &str, members: &[String]) -> i64 {
    match class {
        "grants" => 0,
        _ => count(members.len()),
    }
}

/// Sets what holds these members.
async fn mark<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    ids: &[String],
    plan: &str,
) -> Result<(), DbErr> {
    for part in ids.chunks(500) {
        let set = members::ActiveModel {
            held_by: ActiveValue::Set(Some(plan.to_owned())),
            ..Default::default()
        };
        members::Entity::update_many()
            .set(set)
            .filter(members::Column::GymId.eq(gym))
            .filter(members::Column::MemberId.is_in(part.iter().cloned()))
            .exec(db)
            .await?;
    }
    Ok(())
}

/// Those of these members whom this plan holds, and no other.
pub async fn held_by<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    ids: &[String],
    plan: &str,
) -> Result<Vec<String>, DbErr> {
    let held: Vec<String> = members::Entity::find()
        .select_only()
        .column(members::Column::MemberId)
        .filter(members::Column::GymId.eq(gym))
        .filter(members::Column::HeldBy.eq(plan))
        .into_tuple()
        .all(db)
        .await?;
    let ids: HashSet<&String> = ids.iter().collect();
    Ok(held.into_iter().filter(|id| ids.contains(id)).collect())
}

/// Frees these members of these plans, and of no other.
pub async fn release<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    ids: &[String],
    plans: &[String],
) -> Result<(), DbErr> {
    for part in ids.chunks(500) {
        let set = members::ActiveModel {
            held_by: ActiveValue::Set(None),
            ..Default::default()
        };
        members::Entity::update_many()
            .set(set)
            .filter(members::Column::GymId.eq(gym))
            .filter(members::Column::HeldBy.is_in(plans.iter().cloned()))
            .filter(members::Column::MemberId.is_in(part.iter().cloned()))
            .exec(db)
            .await?;
    }
    Ok(())
}

/// The gym's plans that wait for a person, or that a person has discarded: what they hold is not asked
/// about again.
pub async fn standing<C: ConnectionTrait>(db: &C, gym: &str) -> Result<HashSet<String>, DbErr> {
    let ids: Vec<String> = held_plans::Entity::find()
        .select_only()
        .column(held_plans::Column::Id)
        .filter(held_plans::Column::GymId.eq(gym))
        .filter(held_plans::Column::State.is_in(["held", "discarded"]))
        .into_tuple()
        .all(db)
        .await?;
    Ok(ids.into_iter().collect())
}

/// Frees these members, whatever plan held them.
pub async fn release_from_all<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    ids: &[String],
) -> Result<(), DbErr> {
    for part in ids.chunks(500) {
        let set = members::ActiveModel {
            held_by: ActiveValue::Set(None),
            ..Default::default()
        };
        members::Entity::update_many()
            .set(set)
            .filter(members::Column::GymId.eq(gym))
            .filter(members::Column::HeldBy.is_not_null())
            .filter(members::Column::MemberId.is_in(part.iter().cloned()))
            .exec(db)
            .await?;
    }
    Ok(())
}

/// The gym's plans that wait for a person, newest first. Showing them seals them.
pub async fn show<C: ConnectionTrait>(db: &C, gym: &str) -> Result<Vec<held_plans::Model>, DbErr> {
    let seal = held_plans::ActiveModel {
        sealed: ActiveValue::Set(true),
        ..Default::default()
    };
    held_plans::Entity::update_many()
        .set(seal)
        .filter(held_plans::Column::GymId.eq(gym))
        .filter(held_plans::Column::State.eq("held"))
        .exec(db)
        .await?;
    held_plans::Entity::find()
        .filter(held_plans::Column::GymId.eq(gym))
        .filter(held_plans::Column::State.eq("held"))
        .order_by_desc(held_plans::Column::HeldAt)
        .all(db)
        .await
}

/// Plans that nobody decided on in time. What such a plan held is planned anew by the next pass, and
/// stays held until that pass holds it again or finds that it fits.
pub async fn expire(db: &DatabaseConnection, now: i64) -> Result<(), DbErr> {
    let late = held_plans::Entity::find()
        .filter(held_plans::Column::State.eq("held"))
        .filter(held_plans::Column::ExpiresAt.lte(now))
        .all(db)
        .await?;
    for plan in late {
        end(db, plan, now).await?;
    }
    // What is over is kept for as long as the audit log, and one that was discarded while it stands.
    held_plans::Entity::delete_many()
        .filter(held_plans::Column::State.is_in(["approved", "expired"]))
        .filter(held_plans::Column::HeldAt.lt(micros(kept_since(instant(now)))))
        .exec(db)
        .await?;
    Ok(())
}

/// The mapping has changed: what a pass by a former one would have let in or shut out is not asked about
/// any more, but planned anew by the pass that this one begins.
pub async fn supersede(db: &DatabaseConnection, gym: &str, now: i64) -> Result<(), DbErr> {
    end_standing(db, gym, &["grants", "unexplained"], now).await
}

/// A person has confirmed all that is to be done, or the integration has begun anew: nothing that was
/// held or discarded before stands.
pub async fn end_all(db: &DatabaseConnection, gym: &str, now: i64) -> Result<(), DbErr> {
    end_standing(db, gym, &["grants", "unexplained", "explained"], now).await
}

async fn end_standing(
    db: &DatabaseConnection,
    gym: &str,
    classes: &[&str],
    now: i64,
) -> Result<(), DbErr> {
    let plans = held_plans::Entity::find()
        .filter(held_plans::Column::GymId.eq(gym))
        .filter(held_plans::Column::Class.is_in(classes.iter().copied()))
        .filter(held_plans::Column::State.is_in(["held", "discarded"]))
        .all(db)
        .await?;
    for plan in plans {
        end(db, plan, now).await?;
    }
    Ok(())
}

/// The plan is over, unless it was decided on meanwhile. Its members are free of it by the next pass.
async fn end(db: &DatabaseConnection, plan: held_plans::Model, now: i64) -> Result<(), DbErr> {
    let txn = db.begin().await?;
    if decide(&txn, &plan, "expired", None, now).await? {
        txn.commit().await?;
    }
    Ok(())
}

/// Gives the plan another state, if it still has the one that was read; what it asked for is settled.
pub async fn decide<C: ConnectionTrait>(
    txn: &C,
    plan: &held_plans::Model,
    decision: &str,
    actor: Option<String>,
    now: i64,
) -> Result<bool, DbErr> {
    // First, as whoever holds more does.
    state::change(txn, &plan.gym_id, now, |_| Ok(())).await?;
    let set = held_plans::ActiveModel {
        state: ActiveValue::Set(decision.to_owned()),
        decided_by: ActiveValue::Set(actor),
        ..Default::default()
    };
    let done = held_plans::Entity::update_many()
        .set(set)
        .filter(held_plans::Column::Id.eq(&plan.id))
        .filter(held_plans::Column::State.eq(&plan.state))
        .filter(held_plans::Column::Digest.eq(&plan.digest))
        .exec(txn)
        .await?;
    if done.rows_affected == 0 {
        return Ok(false);
    }
    state::change(txn, &plan.gym_id, now, |row| {
        state::settle_attention(row, |matter| {
            matter.what == "plan_held" && matter.subject == plan.id
        })
    })
    .await?;
    Ok(true)
}

/// Says once more, a day before, that a plan waits for a decision.
pub async fn remind(db: &DatabaseConnection, now: i64) -> Result<(), DbErr> {
    let soon = held_plans::Entity::find()
        .filter(held_plans::Column::State.eq("held"))
        .filter(held_plans::Column::ExpiresAt.lte(now + REMINDER))
        .filter(held_plans::Column::ExpiresAt.gt(now))
        .all(db)
        .await?;
    for plan in soon {
        let message =
            "A held plan expires within a day, and is then planned anew: approve or discard it.";
        let txn = db.begin().await?;
        state::change(&txn, &plan.gym_id, now, |row| {
            let mut attention = row.attention()?;
            for matter in attention
                .iter_mut()
                .filter(|matter| matter.what == "plan_held" && matter.subject == plan.id)
            {
                message.clone_into(&mut matter.message);
            }
            state::set_attention(row, &attention);
            Ok(())
        })
        .await?;
        txn.commit().await?;
    }
    Ok(())
}

impl Engine {
    /// The member keeps what Kisi holds until a person has decided.
    pub(crate) async fn hold(&self, attempt: &mut Attempt, class: &str) -> Result<(), Trouble> {
        self.write(attempt).await?;
        let member = attempt.snapshot.member.member_id.clone();
        let now = self.shared.now();
        let txn = self.shared.db.begin().await?;
        let cause = attempt.snapshot.member.cause_kind.clone();
        let id = hold(&txn, &self.gym, class, &cause, &[member], now).await?;
        txn.commit().await?;
        self.shared.outbox.notify_one();
        attempt.snapshot.member.held_by = Some(id);
        attempt.outcome.failure = Some("brake");
        Ok(())
    }
}

fn json(list: &[String]) -> String {
    serde_json::to_string(list).unwrap_or_else(|_| "[]".to_owned())
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: i64 = 366 * 24 * 3_600 * 1_000_000;

    async fn states(db: &DatabaseConnection) -> Vec<String> {
        let plans = held_plans::Entity::find().all(db).await.unwrap();
        let mut states: Vec<String> = plans.into_iter().map(|plan| plan.state).collect();
        states.sort();
        states
    }

    /// Whoever a discarded one keeps is still kept by it.
    #[tokio::test]
    async fn plans_that_are_over_go_with_the_audit_log_and_discarded_ones_stand() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("kisi.db").display());
        let db = crate::store::open(&url.into()).await.unwrap();
        let began = 40 * YEAR;
        for decision in ["approved", "discarded", "expired", "held"] {
            let member = [decision.to_owned()];
            let id = hold(&db, "iron", "explained", "call", &member, began).await;
            let id = id.unwrap();
            show(&db, "iron").await.unwrap();
            let plan = held_plans::Entity::find_by_id(id).one(&db).await.unwrap();
            let decided = decide(&db, &plan.unwrap(), decision, None, began).await;
            assert!(decided.unwrap());
        }
        expire(&db, began + YEAR).await.unwrap();
        let all = ["approved", "discarded", "expired", "expired"];
        assert_eq!(states(&db).await, all);
        expire(&db, began + 2 * YEAR).await.unwrap();
        assert_eq!(states(&db).await, ["discarded"]);
    }
}
