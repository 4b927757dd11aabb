//! People, memberships and billing facts, many in one statement.
//!
//! What one write does to one row is in `store::{members, memberships, billing}`; these do the
//! same to a page of an import.

use std::collections::BTreeSet;

use access_domain::ids::{GymId, MemberId, MembershipId};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, IdenStatic,
    Iterable, QueryFilter, QueryOrder, Statement, Value,
};

use super::texts;
use crate::store::entity::{billing_events, memberships};
use crate::store::keys::{MemberKey, MembershipKey};
use crate::store::{Step, StoreError, columns, placeholders, tuples};

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
    let sql = format!(
        "select member_id, email, name, source_version, erased from members
         where gym_id = $1 and member_id in ({}) order by member_id {}",
        placeholders(2, ids.len()),
        lock(db, locked)
    );
    let values =
        texts(std::iter::once(gym.as_str())).chain(texts(ids.iter().map(MemberId::as_str)));
    Person::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading members")
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
    if people.is_empty() {
        return Ok(());
    }
    let rows: Vec<String> = (0..people.len())
        .map(|n| {
            let first = n * 4 + 2;
            format!(
                "($1, {}, 0, null, null, '[]', false)",
                placeholders(first, 4)
            )
        })
        .collect();
    let sql = format!(
        "insert into members (gym_id, member_id, email, name, source_version, version, state,
             changes_at, overrides, erased)
         values {}
         on conflict (gym_id, member_id) do update set email = excluded.email,
             name = excluded.name, source_version = excluded.source_version",
        rows.join(", ")
    );
    let values = std::iter::once(Value::from(gym.as_str())).chain(people.iter().flat_map(|row| {
        [
            Value::from(row.member_id.clone()),
            row.email.as_str().into(),
            row.name.as_str().into(),
            row.source_version.into(),
        ]
    }));
    db.execute_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .await
    .step("writing members")
    .map(drop)
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
    let sql = format!(
        "select {} from memberships m where m.gym_id = $1 and m.membership_id in ({})
         order by m.membership_id {}",
        columns::<memberships::Entity>("m"),
        placeholders(2, ids.len()),
        lock(db, locked)
    );
    let values =
        texts(std::iter::once(gym.as_str())).chain(texts(ids.iter().map(MembershipId::as_str)));
    memberships::Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
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
    use sea_orm::sea_query::OnConflict;
    use sea_orm::{ActiveModelTrait, IntoActiveModel};
    if rows.is_empty() {
        return Ok(());
    }
    let keys = [
        memberships::Column::GymId,
        memberships::Column::MembershipId,
    ];
    let others = memberships::Column::iter()
        .filter(|column| !keys.iter().any(|key| key.as_str() == column.as_str()));
    memberships::Entity::insert_many(
        rows.iter()
            .map(|row| row.clone().into_active_model().reset_all()),
    )
    .on_conflict(OnConflict::columns(keys).update_columns(others).to_owned())
    .exec_without_returning(db)
    .await
    .step("writing memberships")
    .map(drop)
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
    let sql = format!(
        "select membership_id, member_id from membership_people
         where gym_id = $1 and membership_id in ({})",
        placeholders(2, memberships.len())
    );
    let values = texts(std::iter::once(gym.as_str()))
        .chain(texts(memberships.iter().map(MembershipId::as_str)));
    let pairs = Pair::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading the people of memberships")?;
    Ok(pairs
        .into_iter()
        .map(|pair| (pair.membership_id, pair.member_id))
        .collect())
}

/// Makes these the holders and payers of these memberships.
pub async fn replace_people(
    db: &impl ConnectionTrait,
    gym: &GymId,
    memberships: &BTreeSet<MembershipId>,
    people: &[(MembershipId, MemberId)],
) -> Result<(), StoreError> {
    if memberships.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "delete from membership_people where gym_id = $1 and membership_id in ({})",
        placeholders(2, memberships.len())
    );
    let values = texts(std::iter::once(gym.as_str()))
        .chain(texts(memberships.iter().map(MembershipId::as_str)));
    let backend = db.get_database_backend();
    db.execute_raw(Statement::from_sql_and_values(backend, sql, values))
        .await
        .step("writing the people of memberships")?;
    // A membership can have a hundred holders.
    for some in people.chunks(1_000) {
        let sql = format!(
            "insert into membership_people (gym_id, membership_id, member_id) values {}",
            tuples(1, 3, some.len())
        );
        let values = some.iter().flat_map(|(membership, member)| {
            [
                Value::from(gym.as_str()),
                membership.as_str().into(),
                member.as_str().into(),
            ]
        });
        db.execute_raw(Statement::from_sql_and_values(backend, sql, values))
            .await
            .step("writing the people of memberships")?;
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

/// Makes these the current references; all others of these memberships become former.
pub async fn replace_references(
    db: &impl ConnectionTrait,
    gym: &GymId,
    memberships: &BTreeSet<MembershipId>,
    references: &[NewReference],
) -> Result<(), StoreError> {
    if memberships.is_empty() {
        return Ok(());
    }
    let backend = db.get_database_backend();
    let sql = format!(
        "update billing_references set is_current = false
         where gym_id = $1 and membership_id in ({})",
        placeholders(2, memberships.len())
    );
    let values = texts(std::iter::once(gym.as_str()))
        .chain(texts(memberships.iter().map(MembershipId::as_str)));
    db.execute_raw(Statement::from_sql_and_values(backend, sql, values))
        .await
        .step("writing billing references")?;
    if references.is_empty() {
        return Ok(());
    }
    let rows: Vec<String> = (0..references.len())
        .map(|n| format!("($1, {}, true)", placeholders(n * 5 + 2, 5)))
        .collect();
    let sql = format!(
        "insert into billing_references (gym_id, provider, account, kind, reference, membership_id,
             is_current)
         values {}
         on conflict (provider, account, kind, reference, gym_id, membership_id)
             do update set is_current = true",
        rows.join(", ")
    );
    let values =
        std::iter::once(Value::from(gym.as_str())).chain(references.iter().flat_map(|row| {
            [
                Value::from(row.provider.as_str()),
                row.account.as_str().into(),
                row.kind.into(),
                row.reference.as_str().into(),
                row.membership.as_str().into(),
            ]
        }));
    db.execute_raw(Statement::from_sql_and_values(backend, sql, values))
        .await
        .step("writing billing references")
        .map(drop)
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
    let values = texts([provider, account])
        .chain(texts(invoices.iter().copied()))
        .chain(texts(payments.iter().copied()));
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
    let sql = format!(
        "select event_id from billing_events
         where provider = $1 and account = $2 and event_id in ({})",
        placeholders(3, ids.len())
    );
    let values = texts([provider, account]).chain(texts(ids.iter().copied()));
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

/// What events may call memberships.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Subscriptions.
    pub subscriptions: Vec<String>,
    /// Customers.
    pub customers: Vec<String>,
    /// Mandates.
    pub mandates: Vec<String>,
    /// The memberships' own ids.
    pub names: Vec<String>,
}

/// Events of an account that could be claimed by somebody who is called like that: parked ones, and
/// those linked by less than a subscription or a name.
pub async fn list_claimable(
    db: &impl ConnectionTrait,
    provider: &str,
    account: &str,
    wanted: &Wanted,
) -> Result<Vec<billing_events::Model>, StoreError> {
    use billing_events::Column;
    if wanted.names.is_empty() {
        return Ok(Vec::new());
    }
    let any = [
        (Column::SubscriptionId, &wanted.subscriptions),
        (Column::NamedMembership, &wanted.names),
        (Column::CustomerId, &wanted.customers),
        (Column::MandateId, &wanted.mandates),
    ]
    .into_iter()
    .filter(|(_, ids)| !ids.is_empty())
    .fold(Condition::any(), |any, (column, ids)| {
        any.add(column.is_in(ids.iter().map(String::as_str)))
    });
    // Read by the index of what is parked: one look for a page of memberships.
    let mut found = billing_events::Entity::find()
        .filter(Column::Provider.eq(provider))
        .filter(Column::Account.eq(account))
        .filter(Column::ParkedAt.is_not_null())
        .filter(any)
        .order_by_asc(Column::ParkedAt)
        .order_by_asc(Column::EventId)
        .all(db)
        .await
        .step("reading parked billing events")?;
    for (column, ids) in [
        ("subscription_id", &wanted.subscriptions),
        ("named_membership", &wanted.names),
    ] {
        found.extend(list_weakly_linked(db, provider, account, column, ids).await?);
    }
    Ok(found)
}

async fn list_weakly_linked(
    db: &impl ConnectionTrait,
    provider: &str,
    account: &str,
    column: &str,
    ids: &[String],
) -> Result<Vec<billing_events::Model>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: Vec<String> = (0..ids.len()).map(|n| format!("(${})", n + 3)).collect();
    // From the ids to the events: asked for `in` them, SQLite reads every event of the account.
    let sql = format!(
        "with wanted (id) as (values {}) select {} from wanted cross join billing_events e
         where e.provider = $1 and e.account = $2 and e.{column} = wanted.id
           and e.{column} is not null and e.is_weakly_linked",
        wanted.join(", "),
        columns::<billing_events::Entity>("e")
    );
    let values = texts([provider, account]).chain(texts(ids.iter().map(String::as_str)));
    billing_events::Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading weakly linked billing events")
}
