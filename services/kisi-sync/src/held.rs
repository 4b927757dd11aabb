//! Plans held for a person: what lies past the brake's line waits here, whole and by name.
//!
//! Until it is shown, a plan is of whoever is marked with its id. Showing it seals it: its set is written
//! down with its digest, and what comes later opens another plan. A member who is entitled again drops
//! out by the way of all things: the next look finds nothing to revoke.

use std::collections::HashSet;

use sea_orm::{
    ActiveModelTrait, ActiveValue, ColumnTrait, Condition, ConnectionTrait, DatabaseConnection,
    DbBackend, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
    TransactionTrait,
    sea_query::{ExprTrait, LockType, SimpleExpr},
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

/// The digest of a set: of its class and its members, which are sorted.
fn digest(gym: &str, class: &str, members: &[String]) -> String {
    let text = format!("{gym}\n{class}\n{}", members.join("\n"));
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// Adds these members to the gym's open plan of this class, or opens one; those of them of whom what they
/// are held for is still so. Answers its id and how many they are; None where it is so of nobody.
pub async fn hold<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    class: &str,
    cause: &str,
    (held, still): (&[String], SimpleExpr),
    now: i64,
) -> Result<Option<(String, usize)>, DbErr> {
    // One at a time, or two would open two plans; and whoever shows one meanwhile seals it before or
    // after, and not in between.
    state::change(db, gym, now, |_| Ok(())).await?;
    let held = &of_whom(db, gym, held, still).await?;
    if held.is_empty() {
        return Ok(None);
    }
    let open = held_plans::Entity::find()
        .filter(held_plans::Column::GymId.eq(gym))
        .filter(held_plans::Column::Class.eq(class))
        .filter(held_plans::Column::State.eq("held"))
        .filter(held_plans::Column::Sealed.eq(false));
    let id = match open.one(db).await? {
        Some(plan) => {
            let mut causes: Vec<String> = serde_json::from_str(&plan.causes).unwrap_or_default();
            let id = plan.id.clone();
            if !causes.iter().any(|known| known == cause) {
                causes.push(cause.to_owned());
                let mut row = plan.into_active_model();
                row.causes = ActiveValue::Set(json(&causes));
                row.update(db).await?;
            }
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
                digest: ActiveValue::Set(String::new()),
                class: ActiveValue::Set(class.to_owned()),
                causes: ActiveValue::Set(json(&[cause.to_owned()])),
                members: ActiveValue::Set(json(&[])),
                revokes: ActiveValue::Set(0),
                grants: ActiveValue::Set(0),
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
    set(db, gym, held, Condition::all(), Some(&id)).await?;
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
    Ok(Some((id, held.len())))
}

/// Of whom nothing was decided since then that goes its own way: work that others have found in the
/// background, such as a right that opens the same doors, decides nothing.
pub fn undecided_since(then: i64) -> SimpleExpr {
    let is_touched_before = members::Column::UpdatedAt.lt(then);
    is_touched_before.or(members::Column::Background.eq(true))
}

/// Those of these members of whom it is so, kept from other writers until the transaction ends.
async fn of_whom<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    ids: &[String],
    is_so: SimpleExpr,
) -> Result<Vec<String>, DbErr> {
    let mut found = Vec::new();
    for part in ids.chunks(500) {
        let mut rows = members::Entity::find()
            .select_only()
            .column(members::Column::MemberId)
            .filter(members::Column::GymId.eq(gym))
            .filter(members::Column::MemberId.is_in(part.iter().cloned()))
            .filter(is_so.clone())
            .order_by_asc(members::Column::MemberId);
        if db.get_database_backend() == DbBackend::Postgres {
            rows = rows.lock(LockType::Update);
        }
        found.extend(rows.into_tuple::<String>().all(db).await?);
    }
    Ok(found)
}

/// Whether what holds the member keeps new rights from being given, and not old ones from being
/// taken.
pub fn holds_grants(plan: Option<&str>) -> bool {
    plan.is_some_and(|plan| plan.starts_with(GRANTS))
}

/// Sets what holds these members, those of them of whom this is so.
async fn set<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    ids: &[String],
    is_so: Condition,
    plan: Option<&str>,
) -> Result<(), DbErr> {
    for part in ids.chunks(500) {
        let set = members::ActiveModel {
            held_by: ActiveValue::Set(plan.map(str::to_owned)),
            ..Default::default()
        };
        members::Entity::update_many()
            .set(set)
            .filter(members::Column::GymId.eq(gym))
            .filter(members::Column::MemberId.is_in(part.iter().cloned()))
            .filter(is_so.clone())
            .exec(db)
            .await?;
    }
    Ok(())
}

/// Whom this plan holds, and no other, sorted.
pub async fn held_by<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    plan: &str,
) -> Result<Vec<String>, DbErr> {
    members::Entity::find()
        .select_only()
        .column(members::Column::MemberId)
        .filter(members::Column::GymId.eq(gym))
        .filter(members::Column::HeldBy.eq(plan))
        .order_by_asc(members::Column::MemberId)
        .into_tuple()
        .all(db)
        .await
}

/// Frees these members of these plans, and of no other.
pub async fn release<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    ids: &[String],
    plans: &[String],
) -> Result<(), DbErr> {
    let of_these = members::Column::HeldBy.is_in(plans.iter().cloned());
    set(db, gym, ids, Condition::all().add(of_these), None).await
}

/// Frees these members, whatever plan held them.
pub async fn release_from_all<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    ids: &[String],
) -> Result<(), DbErr> {
    let held = Condition::all().add(members::Column::HeldBy.is_not_null());
    set(db, gym, ids, held, None).await
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

/// The gym's plans that wait for a person, newest first. Showing them seals them.
pub async fn show(
    db: &DatabaseConnection,
    gym: &str,
    now: i64,
) -> Result<Vec<held_plans::Model>, DbErr> {
    let waiting = || {
        held_plans::Entity::find()
            .filter(held_plans::Column::GymId.eq(gym))
            .filter(held_plans::Column::State.eq("held"))
    };
    let open = || waiting().filter(held_plans::Column::Sealed.eq(false));
    if open().one(db).await?.is_some() {
        let txn = db.begin().await?;
        // First, as whoever holds more does: nothing comes between the set that is read and its seal.
        state::change(&txn, gym, now, |_| Ok(())).await?;
        for plan in open().all(&txn).await? {
            seal(&txn, plan, now).await?;
        }
        txn.commit().await?;
    }
    waiting()
        .filter(held_plans::Column::Sealed.eq(true))
        .order_by_desc(held_plans::Column::HeldAt)
        .all(db)
        .await
}

/// From now on the plan is of exactly the members whom it holds at this moment.
async fn seal<C: ConnectionTrait>(txn: &C, plan: held_plans::Model, now: i64) -> Result<(), DbErr> {
    let held = held_by(txn, &plan.gym_id, &plan.id).await?;
    if held.is_empty() {
        // All of them are entitled again: there is nothing to decide.
        decide(txn, &plan, "expired", None, now).await?;
        return Ok(());
    }
    let number = i64::try_from(held.len()).unwrap_or(i64::MAX);
    let (revokes, grants) = match plan.class.as_str() {
        "grants" => (0, number),
        _ => (number, 0),
    };
    let mut row = plan.clone().into_active_model();
    row.digest = ActiveValue::Set(digest(&plan.gym_id, &plan.class, &held));
    row.members = ActiveValue::Set(json(&held));
    row.revokes = ActiveValue::Set(revokes);
    row.grants = ActiveValue::Set(grants);
    row.sealed = ActiveValue::Set(true);
    row.update(txn).await?;
    Ok(())
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
    /// The member keeps what Kisi holds until a person has decided, unless something newer was decided
    /// about her by now.
    pub(crate) async fn hold(&self, attempt: &mut Attempt, class: &str) -> Result<(), Trouble> {
        self.write(attempt).await?;
        let now = self.shared.now();
        let member = &mut attempt.snapshot.member;
        let who = std::slice::from_ref(&member.member_id);
        let still = members::Column::Version.eq(member.version);
        let txn = self.shared.db.begin().await?;
        let cause = member.cause_kind.as_str();
        let held = hold(&txn, &self.gym, class, cause, (who, still), now).await?;
        let (id, _) = held.ok_or(Trouble::Superseded)?;
        txn.commit().await?;
        self.shared.outbox.notify_one();
        member.held_by = Some(id);
        attempt.outcome.failure = Some("brake");
        Ok(())
    }
}

fn json(list: &[String]) -> String {
    serde_json::to_string(list).unwrap_or_else(|_| "[]".to_owned())
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

    async fn open() -> (tempfile::TempDir, DatabaseConnection) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("kisi.db").display());
        let db = crate::store::open(&url.into()).await.unwrap();
        (folder, db)
    }

    async fn insert(db: &DatabaseConnection, member: members::Model) {
        let row = members::Entity::insert(member.into_active_model().reset_all());
        row.exec_without_returning(db).await.unwrap();
    }

    /// Others found the one in the background something to do; of the other somebody has decided.
    #[tokio::test]
    async fn who_was_only_marked_meanwhile_is_held_and_of_whom_was_decided_is_not() {
        let (_folder, db) = open().await;
        for (id, updated_at, background) in [
            ("before", 9, false),
            ("marked", 10, true),
            ("decided", 10, false),
        ] {
            let member = members::Model {
                updated_at,
                background,
                ..members::Model::unheard_of("iron", id)
            };
            insert(&db, member).await;
        }
        let all = ["before", "marked", "decided"].map(str::to_owned);
        let who = (&all[..], undecided_since(10));
        let held = hold(&db, "iron", "grants", "drift", who, 20).await;
        assert_eq!(held.unwrap().unwrap().1, 2);
        let left = members::find(&db, "iron", "decided").await.unwrap();
        assert_eq!(left.unwrap().held_by, None);
    }

    /// Whoever a discarded one keeps is still kept by it.
    #[tokio::test]
    async fn plans_that_are_over_go_with_the_audit_log_and_discarded_ones_stand() {
        let (_folder, db) = open().await;
        let began = 40 * YEAR;
        for decision in ["approved", "discarded", "expired", "held"] {
            insert(&db, members::Model::unheard_of("iron", decision)).await;
            let who = (&[decision.to_owned()][..], members::Column::Version.eq(0));
            let held = hold(&db, "iron", "explained", "call", who, began).await;
            let (id, _) = held.unwrap().unwrap();
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
