//! One row per gym and member: what is wanted, what was answered, and who it is at Kisi.
//!
//! A row with `pending` is the intent: it survives a kill between the commit and the request, and
//! whoever owns the gym finds it again. Rows exist for gyms without an integration too, so that a
//! first sync needs no replay.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Expr;
use sea_orm::{Condition, DbBackend, FromQueryResult, QuerySelect, Statement, Value};
use serde::{Deserialize, Serialize};

use super::columns;
use super::places::model_in_places;

mod cause;
mod of_gym;

pub use cause::*;
pub use of_gym::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "members")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub gym_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub member_id: String,
    /// The newest version heard of.
    pub version: i64,
    /// JSON of [`WantedPlan`]s.
    #[sea_orm(column_type = "Text")]
    pub plans: String,
    pub erased: bool,
    pub cause_kind: String,
    #[sea_orm(column_type = "Text")]
    pub cause_id: String,
    /// Who stands behind the cause, such as `staff:u_1`.
    pub cause_actor: Option<String>,
    /// The cause reached us (a webhook's arrival).
    pub received_at: Option<i64>,
    pub decided_at: Option<i64>,
    pub traceparent: Option<String>,
    /// There may be something to do at Kisi.
    pub pending: bool,
    /// The work came from a sync or a changed mapping, not from an event: it goes last.
    pub background: bool,
    /// A person confirmed this change: the brake does not count it.
    pub approved: bool,
    /// JSON of the [`Cause`] of a look that no new version asked for.
    #[sea_orm(column_type = "Text", nullable)]
    pub look_cause: Option<String>,
    /// Not to be tried before this.
    pub retry_at: Option<i64>,
    /// The newest version that was answered with an outcome.
    pub answered_version: i64,
    /// Number of the last answer; only grows, see [`Model::next_seq`].
    pub applied_seq: i64,
    /// The failure last told.
    pub failure: Option<String>,
    pub kisi_code: Option<String>,
    pub kisi_user_id: Option<i64>,
    /// The user was made by us.
    pub kisi_user_ours: bool,
    /// Of the name and e-mail that Kisi has, by [`digest_of_person`]; [`CHANGED`] when they are not
    /// the member's any more.
    pub person_digest: Option<String>,
    /// A regular user who was not seen to have signed up with Kisi yet.
    pub sign_up_needed: bool,
    /// A user of ours whom a changed e-mail left behind, until it is gone at Kisi.
    pub former_user_id: Option<i64>,
    /// JSON list of those whom earlier changes left behind.
    #[sea_orm(column_type = "Text", nullable)]
    pub former_users: Option<String>,
    /// The user's rights were looked at since the user is known.
    pub looked: bool,
    /// JSON list of groups that others opened for this person.
    #[sea_orm(column_type = "Text")]
    pub opened_by_others: String,
    /// JSON list of groups of whose doors others open some for this person by another way, as last
    /// read; none is as an empty list.
    #[sea_orm(column_type = "Text", nullable)]
    pub opened_elsewhere: Option<String>,
    /// What the last answer told besides the member's rights, as [`Model::told`] gives it.
    #[sea_orm(column_type = "Text", nullable)]
    pub others_told: Option<String>,
    /// `kisi_staff`, or the member who has the same e-mail.
    pub conflict: Option<String>,
    /// A held plan keeps this member's rights as they are.
    pub held_by: Option<String>,
    pub updated_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// A plan that gives access; instants are microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedPlan {
    pub plan_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

/// What [`Model::plans`] says.
pub fn plans(stored: &str, member: &str) -> Result<Vec<WantedPlan>, DbErr> {
    serde_json::from_str(stored).map_err(|_| super::senseless("members", "plans", member))
}

/// What `person_digest` is when name or e-mail have changed.
pub const CHANGED: &str = "changed";

/// Tells whether a person's name or e-mail changed, without keeping either.
pub fn digest_of_person(gym: &str, member: &str, email: &str, name: Option<&str>) -> String {
    use sha2::{Digest, Sha256};
    let text = format!("{gym}\n{member}\n{email}\n{}", name.unwrap_or_default());
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// Keeps the digest of a person, or that it does not hold any more.
pub async fn set_person_digest<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    member: &str,
    digest: &str,
) -> Result<(), DbErr> {
    Entity::update_many()
        .col_expr(Column::PersonDigest, Expr::value(digest))
        .filter(Column::GymId.eq(gym))
        .filter(Column::MemberId.eq(member))
        .exec(db)
        .await
        .map(drop)
}

impl Model {
    /// A row for a member never heard of.
    pub fn unheard_of(gym: &str, member: &str) -> Self {
        Self {
            gym_id: gym.to_owned(),
            member_id: member.to_owned(),
            version: 0,
            plans: "[]".to_owned(),
            erased: false,
            cause_kind: String::new(),
            cause_id: String::new(),
            cause_actor: None,
            received_at: None,
            decided_at: None,
            traceparent: None,
            pending: false,
            background: false,
            approved: false,
            look_cause: None,
            retry_at: None,
            answered_version: 0,
            applied_seq: 0,
            failure: None,
            kisi_code: None,
            kisi_user_id: None,
            kisi_user_ours: false,
            person_digest: None,
            sign_up_needed: false,
            former_user_id: None,
            former_users: None,
            looked: false,
            opened_by_others: "[]".to_owned(),
            opened_elsewhere: None,
            others_told: None,
            conflict: None,
            held_by: None,
            updated_at: 0,
        }
    }

    /// The number of the next answer. By the clock, as membership-events numbers its versions: so it
    /// lies above every answer that was told before these tables were restored from a backup.
    pub fn next_seq(&self, now: i64) -> i64 {
        Ord::max(now, self.applied_seq + 1)
    }

    pub fn plans(&self) -> Result<Vec<WantedPlan>, DbErr> {
        plans(&self.plans, &self.member_id)
    }

    /// A changed e-mail leaves this user of ours behind.
    pub fn leave_behind(&mut self, user: i64) {
        let older = self.former_user_id.replace(user);
        let mut former = self.former_users();
        former.extend(older);
        self.set_former_users(former);
    }

    /// The former user is gone, or stays for good: the one before is next.
    pub fn forget_former(&mut self) {
        let mut former = self.former_users();
        self.former_user_id = former.pop();
        self.set_former_users(former);
    }

    fn former_users(&self) -> Vec<i64> {
        let former = self.former_users.as_deref();
        let former: Option<Vec<i64>> = former.and_then(|text| serde_json::from_str(text).ok());
        let mut former = former.unwrap_or_default();
        // Who has come back to an e-mail is no former one.
        former.retain(|user| Some(*user) != self.kisi_user_id);
        former
    }

    fn set_former_users(&mut self, mut former: Vec<i64>) {
        former.retain(|user| Some(*user) != self.former_user_id);
        let text = serde_json::to_string(&former).ok();
        self.former_users = text.filter(|_| !former.is_empty());
    }

    /// A later version than the one that is held was answered: tables of a backup do not know yet what
    /// the member should have.
    pub fn is_behind(&self) -> bool {
        self.version < self.answered_version
    }

    /// What an answer tells besides the member's rights.
    pub fn told(&self) -> String {
        let sign_up = if self.sign_up_needed { " sign_up" } else { "" };
        let elsewhere = self
            .opened_elsewhere
            .as_deref()
            .filter(|text| *text != "[]");
        let elsewhere = elsewhere.map_or_else(String::new, |text| format!(" elsewhere {text}"));
        format!("{}{sign_up}{elsewhere}", self.opened_by_others)
    }

    /// What others opened, or what Kisi asks of the person, is not what was told of it.
    pub fn others_changed(&self) -> bool {
        self.others_told.as_deref().unwrap_or("[]") != self.told()
    }

    /// What was told is not so any more, though the member has what is wanted.
    pub fn tell_again(&mut self) {
        self.others_told = Some(String::new());
    }

    pub fn opened_elsewhere(&self) -> Result<Vec<i64>, DbErr> {
        serde_json::from_str(self.opened_elsewhere.as_deref().unwrap_or("[]"))
            .map_err(|_| super::senseless("members", "opened_elsewhere", &self.member_id))
    }

    pub fn opened_by_others(&self) -> Result<Vec<i64>, DbErr> {
        serde_json::from_str(&self.opened_by_others)
            .map_err(|_| super::senseless("members", "opened_by_others", &self.member_id))
    }
}

/// One member's row.
pub async fn find<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    member: &str,
) -> Result<Option<Model>, DbErr> {
    find_locked(db, gym, member, "").await
}

/// A door waits for this one: written out, it costs no building of a query each time.
async fn find_locked<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    member: &str,
    lock: &str,
) -> Result<Option<Model>, DbErr> {
    let columns = columns::<Entity>();
    let sql = format!("select {columns} from members where gym_id = $1 and member_id = $2{lock}");
    let values = [gym.into(), member.into()];
    Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .one(db)
    .await
}

/// One member's row, kept from other writers until the transaction ends.
pub async fn find_for_update<C: ConnectionTrait>(
    txn: &C,
    gym: &str,
    member: &str,
) -> Result<Option<Model>, DbErr> {
    let lock = match txn.get_database_backend() {
        DbBackend::Postgres => " for update",
        _ => "",
    };
    find_locked(txn, gym, member, lock).await
}

/// The member who is this Kisi user, in one gym.
pub async fn find_by_kisi_user<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    user: i64,
) -> Result<Option<String>, DbErr> {
    Entity::find()
        .select_only()
        .column(Column::MemberId)
        .filter(Column::GymId.eq(gym))
        .filter(Column::KisiUserId.eq(user))
        .into_tuple()
        .one(db)
        .await
}

/// The member is looked at as if for the first time: what others did meanwhile counts. What waits because
/// of a version, such as a right that Kisi has refused to take back, keeps that for its cause.
pub async fn look_again<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    member: &str,
    cause: &Cause,
    now: i64,
) -> Result<(), DbErr> {
    let waits = Condition::all()
        .add(Column::Pending.eq(true))
        .add(Column::Background.eq(false))
        .add(
            Condition::any()
                .add(Column::LookCause.is_null())
                .add(Column::LookCause.contains(BESIDES)),
        );
    let look = Expr::case(waits, cause.stored_besides(now)).finally(cause.stored(now));
    Entity::update_many()
        .col_expr(Column::Pending, Expr::value(true))
        .col_expr(Column::LookCause, look.into())
        .col_expr(Column::RetryAt, Expr::value(Option::<i64>::None))
        .col_expr(Column::Looked, Expr::value(false))
        .col_expr(Column::OpenedByOthers, Expr::value("[]"))
        .filter(Column::GymId.eq(gym))
        .filter(Column::MemberId.eq(member))
        .exec(db)
        .await
        .map(drop)
}

/// Keeps what a new version says of the member; everything about Kisi stays as it is.
pub async fn put_version<C: ConnectionTrait>(db: &C, member: &Model) -> Result<(), DbErr> {
    let sql = "update members set version = $1, plans = $2, erased = $3, cause_kind = $4,
            cause_id = $5, received_at = $6, decided_at = $7, traceparent = $8, pending = $9,
            background = $10, retry_at = $11, answered_version = $12, applied_seq = $13,
            failure = $14, held_by = $15, updated_at = $16, cause_actor = $17, look_cause = $18,
            approved = $19
        where gym_id = $20 and member_id = $21";
    let values: [Value; 21] = [
        member.version.into(),
        member.plans.clone().into(),
        member.erased.into(),
        member.cause_kind.clone().into(),
        member.cause_id.clone().into(),
        member.received_at.into(),
        member.decided_at.into(),
        member.traceparent.clone().into(),
        member.pending.into(),
        member.background.into(),
        member.retry_at.into(),
        member.answered_version.into(),
        member.applied_seq.into(),
        member.failure.clone().into(),
        member.held_by.clone().into(),
        member.updated_at.into(),
        member.cause_actor.clone().into(),
        member.look_cause.clone().into(),
        member.approved.into(),
        member.gym_id.clone().into(),
        member.member_id.clone().into(),
    ];
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let done = db.execute_raw(statement).await?;
    if done.rows_affected() == 0 {
        return Err(DbErr::RecordNotUpdated);
    }
    Ok(())
}

model_in_places!(Model {
    gym_id,
    member_id,
    version,
    plans,
    erased,
    cause_kind,
    cause_id,
    cause_actor,
    received_at,
    decided_at,
    traceparent,
    pending,
    background,
    approved,
    look_cause,
    retry_at,
    answered_version,
    applied_seq,
    failure,
    kisi_code,
    kisi_user_id,
    kisi_user_ours,
    person_digest,
    sign_up_needed,
    former_user_id,
    former_users,
    looked,
    opened_by_others,
    opened_elsewhere,
    others_told,
    conflict,
    held_by,
    updated_at,
});

/// The version held now and the gym's mapping; asked again right before a request leaves.
pub async fn current<C: ConnectionTrait>(
    db: &C,
    gym: &str,
    member: &str,
) -> Result<Option<(i64, String)>, DbErr> {
    let sql = "select m.version, i.associations from members m
        join integrations i on i.gym_id = m.gym_id
        where m.gym_id = $1 and m.member_id = $2";
    let values = [gym.into(), member.into()];
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let found = db.query_one_raw(statement).await?;
    found
        .map(|row| {
            Ok((
                row.try_get("", "version")?,
                row.try_get("", "associations")?,
            ))
        })
        .transpose()
}
