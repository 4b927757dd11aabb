//! People, memberships and billing facts, many in one statement: of writes that wait together, and
//! of a page of an import. All are of one gym.

mod claimable;

use std::collections::BTreeSet;

use access_domain::ids::{GymId, MemberId, MembershipId};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Statement, Value};

use super::entity::memberships;
use super::keys::{MemberKey, MembershipKey};
use super::members::set_each;
use super::{Step, StoreError, columns, in_list, placeholders, portions};

pub use claimable::{Wanted, list_claimable};

/// A person, without what was decided.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct Person {
    /// The id.
    pub member_id: MemberKey,
    /// E-mail.
    pub email: String,
    /// Name.
    pub name: String,
    /// The caller's number.
    pub source_version: i64,
    /// The person was erased.
    pub erased: bool,
}

/// These people, as far as they are known; locked by id until the transaction ends where asked.
pub async fn list_people(
    db: &impl ConnectionTrait,
    gym: &GymId,
    ids: &BTreeSet<MemberId>,
    locked: bool,
) -> Result<Vec<Person>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let (list, values) = in_list(2, ids.iter().map(MemberId::as_str));
    let sql = format!(
        "select member_id, email, name, source_version, erased from members
         where gym_id = $1 and member_id in ({list}) order by member_id {}",
        lock(db, locked)
    );
    Person::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        of_gym(gym, values),
    ))
    .all(db)
    .await
    .step("reading members")
}

fn of_gym(gym: &GymId, values: Vec<Value>) -> impl Iterator<Item = Value> {
    std::iter::once(gym.as_str().into()).chain(values)
}

fn lock(db: &impl ConnectionTrait, locked: bool) -> &'static str {
    match db.get_database_backend() {
        DbBackend::Postgres if locked => "for update",
        _ => "",
    }
}

/// Creates people, or replaces e-mail, name and source version. They must be locked.
pub async fn put_people(
    db: &impl ConnectionTrait,
    gym: &GymId,
    people: &[Person],
) -> Result<(), StoreError> {
    let rows: Vec<_> = people
        .iter()
        .map(|row| {
            [
                Value::from(gym.as_str()),
                row.member_id.clone().into(),
                row.email.as_str().into(),
                row.name.as_str().into(),
                row.source_version.into(),
                0_i64.into(),
                "[]".into(),
                false.into(),
            ]
        })
        .collect();
    for some in portions(db.get_database_backend(), rows) {
        let rows = some.inserted();
        let sql = format!(
            "insert into members (gym_id, member_id, email, name, source_version, version,
                 overrides, erased)
             {rows}
             on conflict (gym_id, member_id) do update set email = excluded.email,
                 name = excluded.name, source_version = excluded.source_version"
        );
        run(db, sql, some.values, "writing members").await?;
    }
    Ok(())
}

async fn run(
    db: &impl ConnectionTrait,
    sql: String,
    values: impl IntoIterator<Item = Value>,
    step: &'static str,
) -> Result<(), StoreError> {
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    db.execute_raw(statement).await.step(step).map(drop)
}

/// Replaces lists of overrides (JSON).
pub async fn put_overrides(
    db: &impl ConnectionTrait,
    gym: &GymId,
    overrides: &[(MemberId, String)],
) -> Result<(), StoreError> {
    let rows: Vec<_> = overrides
        .iter()
        .map(|(member, json)| [Value::from(member.as_str()), json.as_str().into()])
        .collect();
    for mut some in portions(db.get_database_backend(), rows) {
        let sql = set_each(db, gym, &mut some, &["overrides"]);
        run(db, sql, some.values, "writing overrides").await?;
    }
    Ok(())
}

/// These memberships, as far as they are known; locked by id where asked.
pub async fn list_memberships(
    db: &impl ConnectionTrait,
    gym: &GymId,
    ids: &BTreeSet<MembershipId>,
    locked: bool,
) -> Result<Vec<memberships::Model>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let (list, values) = in_list(2, ids.iter().map(MembershipId::as_str));
    let sql = format!(
        "select {} from memberships m where m.gym_id = $1 and m.membership_id in ({list})
         order by m.membership_id {}",
        columns::<memberships::Entity>("m"),
        lock(db, locked)
    );
    memberships::Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        of_gym(gym, values),
    ))
    .all(db)
    .await
    .step("reading memberships")
}

/// Creates or replaces whole rows.
pub async fn put_memberships(
    db: &impl ConnectionTrait,
    rows: &[memberships::Model],
) -> Result<(), StoreError> {
    let rows: Vec<_> = rows.iter().cloned().map(values_of).collect();
    for some in portions(db.get_database_backend(), rows) {
        let rows = some.inserted();
        let sql = format!(
            "insert into memberships (gym_id, membership_id, plan_id, holders, payer_member_id,
                 starts_on, ends_on, next_plan_id, next_plan_from, cancelled_at, cancel_ends_on,
                 pauses, provider_pauses_ended_at, resumed_source_version, resumed_unnumbered_at,
                 billing_provider, billing_account, billing_subscription, billing_customer, billing_mandate,
                 source_version, written_at)
             {rows}
             on conflict (gym_id, membership_id) do update set plan_id = excluded.plan_id,
                 holders = excluded.holders, payer_member_id = excluded.payer_member_id,
                 starts_on = excluded.starts_on, ends_on = excluded.ends_on,
                 next_plan_id = excluded.next_plan_id, next_plan_from = excluded.next_plan_from,
                 cancelled_at = excluded.cancelled_at, cancel_ends_on = excluded.cancel_ends_on,
                 pauses = excluded.pauses,
                 provider_pauses_ended_at = excluded.provider_pauses_ended_at,
                 resumed_source_version = excluded.resumed_source_version,
                 resumed_unnumbered_at = excluded.resumed_unnumbered_at,
                 billing_provider = excluded.billing_provider,
                 billing_account = excluded.billing_account,
                 billing_subscription = excluded.billing_subscription,
                 billing_customer = excluded.billing_customer,
                 billing_mandate = excluded.billing_mandate,
                 source_version = excluded.source_version, written_at = excluded.written_at"
        );
        run(db, sql, some.values, "writing memberships").await?;
    }
    Ok(())
}

fn values_of(row: memberships::Model) -> [Value; 22] {
    [
        row.gym_id.into(),
        row.membership_id.into(),
        row.plan_id.into(),
        row.holders.into(),
        row.payer_member_id.into(),
        row.starts_on.into(),
        row.ends_on.into(),
        row.next_plan_id.into(),
        row.next_plan_from.into(),
        row.cancelled_at.into(),
        row.cancel_ends_on.into(),
        row.pauses.into(),
        row.provider_pauses_ended_at.into(),
        row.resumed_source_version.into(),
        row.resumed_unnumbered_at.into(),
        row.billing_provider.into(),
        row.billing_account.into(),
        row.billing_subscription.into(),
        row.billing_customer.into(),
        row.billing_mandate.into(),
        row.source_version.into(),
        row.written_at.into(),
    ]
}

/// One person of one membership.
#[derive(Debug, FromQueryResult)]
struct Pair {
    membership_id: MembershipKey,
    member_id: MemberKey,
}

/// Holders and payers of these memberships, as (membership, member).
pub async fn list_people_of(
    db: &impl ConnectionTrait,
    gym: &GymId,
    memberships: &BTreeSet<MembershipId>,
) -> Result<Vec<(MembershipKey, MemberKey)>, StoreError> {
    if memberships.is_empty() {
        return Ok(Vec::new());
    }
    let (list, values) = in_list(2, memberships.iter().map(MembershipId::as_str));
    let sql = format!(
        "select membership_id, member_id from membership_people
         where gym_id = $1 and membership_id in ({list})"
    );
    let pairs = Pair::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        of_gym(gym, values),
    ))
    .all(db)
    .await
    .step("reading the people of memberships")?;
    Ok(pairs
        .into_iter()
        .map(|pair| (pair.membership_id, pair.member_id))
        .collect())
}

/// Makes these the holders and payers: of `known` memberships, whose former ones go, and of new ones.
pub async fn replace_people(
    db: &impl ConnectionTrait,
    gym: &GymId,
    known: &BTreeSet<MembershipId>,
    people: &[(MembershipId, MemberId)],
) -> Result<(), StoreError> {
    const STEP: &str = "writing the people of memberships";
    if !known.is_empty() {
        let (list, values) = in_list(2, known.iter().map(MembershipId::as_str));
        let sql = format!(
            "delete from membership_people where gym_id = $1 and membership_id in ({list})"
        );
        run(db, sql, of_gym(gym, values), STEP).await?;
    }
    let rows: Vec<_> = people
        .iter()
        .map(|(membership, member)| {
            [
                Value::from(gym.as_str()),
                membership.as_str().into(),
                member.as_str().into(),
            ]
        })
        .collect();
    for some in portions(db.get_database_backend(), rows) {
        let rows = some.inserted();
        let sql =
            format!("insert into membership_people (gym_id, membership_id, member_id) {rows}");
        run(db, sql, some.values, STEP).await?;
    }
    Ok(())
}

/// One id under which a provider knows a membership.
#[derive(Debug, Clone)]
pub struct NewReference {
    /// The membership.
    pub membership: MembershipId,
    /// Payment provider.
    pub provider: String,
    /// Its account.
    pub account: String,
    /// `subscription`, `customer` or `mandate`.
    pub kind: &'static str,
    /// The id.
    pub reference: String,
}

/// Makes these the current references; all others of the `known` memberships become former.
pub async fn replace_references(
    db: &impl ConnectionTrait,
    gym: &GymId,
    known: &BTreeSet<MembershipId>,
    references: &[NewReference],
) -> Result<(), StoreError> {
    const STEP: &str = "writing billing references";
    if !known.is_empty() {
        let (list, values) = in_list(2, known.iter().map(MembershipId::as_str));
        let sql = format!(
            "update billing_references set is_current = false
             where gym_id = $1 and membership_id in ({list})"
        );
        run(db, sql, of_gym(gym, values), STEP).await?;
    }
    let rows: Vec<_> = references
        .iter()
        .map(|row| {
            [
                Value::from(gym.as_str()),
                row.provider.as_str().into(),
                row.account.as_str().into(),
                row.kind.into(),
                row.reference.as_str().into(),
                row.membership.as_str().into(),
                true.into(),
            ]
        })
        .collect();
    for some in portions(db.get_database_backend(), rows) {
        let rows = some.inserted();
        let sql = format!(
            "insert into billing_references (gym_id, provider, account, kind, reference,
                 membership_id, is_current)
             {rows}
             on conflict (provider, account, kind, reference, gym_id, membership_id)
                 do update set is_current = true"
        );
        run(db, sql, some.values, STEP).await?;
    }
    Ok(())
}

/// Facts of an account about any of these invoices and payments, as event JSON.
pub async fn list_facts(
    db: &impl ConnectionTrait,
    provider: &str,
    account: &str,
    invoices: &[&str],
    payments: &[&str],
) -> Result<Vec<String>, StoreError> {
    #[derive(FromQueryResult)]
    struct Fact {
        event: String,
    }
    // The account is named in each branch: only then does SQLite use the index of each.
    let mut branches = Vec::new();
    let mut first = 3;
    for (column, ids) in [("invoice_id", invoices), ("payment_id", payments)] {
        if !ids.is_empty() {
            branches.push(format!(
                "(provider = $1 and account = $2 and {column} in ({}))",
                placeholders(first, ids.len())
            ));
            first += ids.len();
        }
    }
    if branches.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "select event from billing_events where {}",
        branches.join(" or ")
    );
    let values = [provider, account]
        .into_iter()
        .chain(invoices.iter().copied())
        .chain(payments.iter().copied())
        .map(Value::from);
    let facts = Fact::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading billing facts")?;
    Ok(facts.into_iter().map(|fact| fact.event).collect())
}

/// Which of these events are held.
pub async fn list_held_events(
    db: &impl ConnectionTrait,
    provider: &str,
    account: &str,
    ids: &[&str],
) -> Result<BTreeSet<String>, StoreError> {
    #[derive(FromQueryResult)]
    struct Held {
        event_id: String,
    }
    if ids.is_empty() {
        return Ok(BTreeSet::new());
    }
    let (list, ids) = in_list(3, ids.iter().copied());
    let sql = format!(
        "select event_id from billing_events
         where provider = $1 and account = $2 and event_id in ({list})"
    );
    let values = [provider.into(), account.into()].into_iter().chain(ids);
    let held = Held::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading billing events")?;
    Ok(held.into_iter().map(|held| held.event_id).collect())
}
