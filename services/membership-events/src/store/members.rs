//! People, and the decision last made about each.

use std::collections::BTreeSet;

use access_domain::ids::{GymId, MemberId, MembershipId};
use jiff::Timestamp;
use sea_orm::sea_query::{Expr, ExprTrait, Func, LikeExpr};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, QueryFilter,
    QueryOrder, QuerySelect, Statement, Value,
};

use super::entity::members;
use super::keys::{GymKey, MemberKey};
use super::{Portion, Step, StoreError, columns, in_list, micros, paired, portions};

/// The person's row.
pub async fn find(
    db: &impl ConnectionTrait,
    gym: &GymId,
    member: &MemberId,
) -> Result<Option<members::Model>, StoreError> {
    members::Entity::find_by_id((GymKey::from(gym), MemberKey::from(member)))
        .one(db)
        .await
        .step("reading a member")
}

/// The rows of those who are known, by id, locked until the transaction ends.
pub async fn lock(
    db: &impl ConnectionTrait,
    gym: &GymId,
    ids: &BTreeSet<MemberId>,
) -> Result<Vec<members::Model>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let lock = match db.get_database_backend() {
        DbBackend::Postgres => "for update",
        _ => "",
    };
    let (list, ids) = in_list(2, ids.iter().map(MemberId::as_str));
    let sql = format!(
        "select {} from members where gym_id = $1 and member_id in ({list})
         order by member_id {lock}",
        columns::<members::Entity>("members"),
    );
    let values = std::iter::once(gym.as_str().into()).chain(ids);
    members::Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("locking members")
}

/// The rows of the holders and payers of these memberships, by id, locked until the transaction
/// ends.
///
/// On PostgreSQL the memberships are locked first: otherwise a writer that is just adding a holder
/// could miss what we wrote, while we miss the holder.
pub async fn lock_people_of(
    db: &impl ConnectionTrait,
    gym: &GymId,
    memberships: &BTreeSet<MembershipId>,
) -> Result<Vec<members::Model>, StoreError> {
    let lock = match db.get_database_backend() {
        DbBackend::Postgres => "for update",
        _ => "",
    };
    let (list, ids) = in_list(2, memberships.iter().map(MembershipId::as_str));
    let values = || std::iter::once(gym.as_str().into()).chain(ids.iter().cloned());
    if db.get_database_backend() == DbBackend::Postgres {
        let sql = format!(
            "select 1 from memberships where gym_id = $1 and membership_id in ({list})
             order by membership_id {lock}"
        );
        db.execute_raw(Statement::from_sql_and_values(
            DbBackend::Postgres,
            sql,
            values(),
        ))
        .await
        .step("locking memberships")?;
    }
    let sql = format!(
        "select {} from members
         where gym_id = $1 and member_id {}
         order by member_id {lock}",
        columns::<members::Entity>("members"),
        paired(
            db.get_database_backend(),
            "member_id",
            "membership_id",
            &ids
        ),
    );
    members::Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values(),
    ))
    .all(db)
    .await
    .step("locking members")
}

/// Marks a person as erased: nothing is decided any more. Name and e-mail are there until
/// [`forget`], because whoever removes the person at the doors may have to know them.
pub async fn erase(
    db: &impl ConnectionTrait,
    gym: &GymId,
    member: &MemberId,
) -> Result<(), StoreError> {
    update(gym, member)
        .col_expr(members::Column::Overrides, Expr::value("[]"))
        .col_expr(members::Column::Erased, Expr::value(true))
        .exec(db)
        .await
        .step("erasing a member")
        .map(drop)
}

/// Takes an erased person's name and e-mail away for good.
pub async fn forget(
    db: &impl ConnectionTrait,
    gym: &GymId,
    member: &MemberId,
) -> Result<(), StoreError> {
    update(gym, member)
        .col_expr(members::Column::Email, Expr::value(""))
        .col_expr(members::Column::Name, Expr::value(""))
        .exec(db)
        .await
        .step("forgetting a member")
        .map(drop)
}

/// A decision to keep.
#[derive(Debug, Clone)]
pub struct NewDecision {
    /// About whom.
    pub member: MemberId,
    /// The new version.
    pub version: i64,
    /// The new state, canonical proto3 JSON.
    pub state: String,
    /// The member's next timer.
    pub changes_at: Option<Timestamp>,
}

/// Keeps new decisions, one a member.
pub async fn put_decisions(
    db: &impl ConnectionTrait,
    gym: &GymId,
    decisions: &[NewDecision],
) -> Result<(), StoreError> {
    let rows: Vec<_> = decisions
        .iter()
        .map(|one| {
            [
                Value::from(one.member.as_str()),
                one.version.into(),
                one.state.as_str().into(),
                one.changes_at.map(micros).into(),
            ]
        })
        .collect();
    for mut some in portions(db.get_database_backend(), rows) {
        let sql = set_each(db, gym, &mut some, &["version", "state", "changes_at"]);
        db.execute_raw(Statement::from_sql_and_values(
            db.get_database_backend(),
            sql,
            some.values,
        ))
        .await
        .step("keeping decisions")?;
    }
    Ok(())
}

/// Sets columns of people who are there and locked. The first value of a row is the member's id, the
/// others are those of the columns.
pub(super) fn set_each(
    db: &impl ConnectionTrait,
    gym: &GymId,
    rows: &mut Portion,
    columns: &[&str],
) -> String {
    let listed = |each: &dyn Fn(&str, usize) -> String| {
        let each: Vec<String> = columns.iter().zip(2..).map(|(of, n)| each(of, n)).collect();
        each.join(", ")
    };
    let is_one = rows.values.len() == columns.len() + 1;
    let its_gym = rows.add(gym.as_str());
    if is_one {
        let set = listed(&|column, n| format!("{column} = ${n}"));
        let last = rows.values.len();
        return format!("update members set {set} where gym_id = ${last} and member_id = $1");
    }
    let tuples = &rows.tuples;
    if db.get_database_backend() != DbBackend::Postgres {
        let set = listed(&|column, n| format!("{column} = v.column{n}"));
        return format!(
            "update members set {set} from (values {tuples}) as v
             where gym_id = {its_gym} and member_id = v.column1"
        );
    }
    // As an update PostgreSQL may read everybody in the gym, as long as it has not counted them. A
    // conflict it finds by the index, whatever it knows of the table, and each of these is one.
    let others = NEW.iter().filter(|(column, _)| !columns.contains(column));
    let (others, nothing): (Vec<&str>, Vec<&str>) = others.copied().unzip();
    format!(
        "insert into members (gym_id, member_id, {}, {})
         select {its_gym}, v.column1, {}, {} from (values {tuples}) as v
         where v.column1 is not null
         on conflict (gym_id, member_id) do update set {}",
        columns.join(", "),
        others.join(", "),
        listed(&|_, n| format!("v.column{n}")),
        nothing.join(", "),
        listed(&|column, _| format!("{column} = excluded.{column}"))
    )
}

/// What stands for the columns that are never null.
const NEW: [(&str, &str); 6] = [
    ("email", "''"),
    ("name", "''"),
    ("source_version", "0"),
    ("version", "0"),
    ("overrides", "'[]'"),
    ("erased", "false"),
];

fn update(gym: &GymId, member: &MemberId) -> sea_orm::UpdateMany<members::Entity> {
    members::Entity::update_many()
        .filter(members::Column::GymId.eq(gym.as_str()))
        .filter(members::Column::MemberId.eq(member.as_str()))
}

/// Which members of a page are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Part of a name or an e-mail, any case. What is found may be more than wanted: the databases
    /// know no case but that of A to Z.
    pub query: Option<String>,
    /// Only those about whom something was decided.
    pub decided: bool,
    /// Only ids greater than this.
    pub after: Option<String>,
}

/// Members of a gym by id, at most `limit`.
pub async fn list(
    db: &impl ConnectionTrait,
    gym: &GymId,
    wanted: &Wanted,
    limit: u64,
) -> Result<Vec<members::Model>, StoreError> {
    let mut select = members::Entity::find().filter(members::Column::GymId.eq(gym.as_str()));
    if wanted.decided {
        select = select.filter(members::Column::Version.gt(0));
    }
    if let Some(after) = &wanted.after {
        select = select.filter(members::Column::MemberId.gt(after));
    }
    if let Some(query) = &wanted.query {
        let pattern = format!("%{}%", like_pattern(&query.to_lowercase()));
        let like = |column: members::Column| {
            Expr::expr(Func::lower(Expr::col(column))).like(LikeExpr::new(&pattern).escape('\\'))
        };
        select = select.filter(members::Column::Erased.eq(false)).filter(
            Condition::any()
                .add(like(members::Column::Email))
                .add(like(members::Column::Name)),
        );
    }
    select
        .order_by_asc(members::Column::MemberId)
        .limit(limit)
        .all(db)
        .await
        .step("listing members")
}

/// (member, version) of everybody about whom something was decided, at most `limit`.
pub async fn list_versions(
    db: &impl ConnectionTrait,
    gym: &GymId,
    after: &str,
    limit: u64,
) -> Result<Vec<(MemberKey, i64)>, StoreError> {
    members::Entity::find()
        .select_only()
        .column(members::Column::MemberId)
        .column(members::Column::Version)
        .filter(members::Column::GymId.eq(gym.as_str()))
        .filter(members::Column::Version.gt(0))
        .filter(members::Column::MemberId.gt(after))
        .order_by_asc(members::Column::MemberId)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await
        .step("listing versions")
}

/// The ids of all members of a gym after `after`, at most `limit`.
pub async fn list_ids(
    db: &impl ConnectionTrait,
    gym: &GymId,
    after: &str,
    limit: u64,
) -> Result<Vec<MemberKey>, StoreError> {
    members::Entity::find()
        .select_only()
        .column(members::Column::MemberId)
        .filter(members::Column::GymId.eq(gym.as_str()))
        .filter(members::Column::MemberId.gt(after))
        .order_by_asc(members::Column::MemberId)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await
        .step("listing members")
}

/// Letters beyond A to Z stand for anything.
fn like_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for letter in text.chars() {
        if !letter.is_ascii() {
            pattern.push('%');
            continue;
        }
        if matches!(letter, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}
