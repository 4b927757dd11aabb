//! Memberships, the people of each, and the references under which providers know them. What
//! writes them is in [`super::bulk`].

use std::collections::BTreeSet;

use access_domain::ids::{GymId, MemberId, MembershipId};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Statement};

use super::entity::{gyms, memberships};
use super::keys::MembershipKey;
use super::{Step, StoreError, columns, in_list, paired};

/// The row, locked until the transaction ends.
pub async fn lock(
    db: &impl ConnectionTrait,
    gym: &GymId,
    membership: &MembershipId,
) -> Result<Option<memberships::Model>, StoreError> {
    let lock = match db.get_database_backend() {
        DbBackend::Postgres => "for update",
        _ => "",
    };
    let sql = format!(
        "select {} from memberships where gym_id = $1 and membership_id = $2 {lock}",
        columns::<memberships::Entity>("memberships")
    );
    memberships::Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        [gym.as_str().into(), membership.as_str().into()],
    ))
    .one(db)
    .await
    .step("locking a membership")
}

/// All memberships of which any of `people` is a holder or the payer.
pub async fn list_of_people(
    db: &impl ConnectionTrait,
    gym: &GymId,
    people: &BTreeSet<MemberId>,
) -> Result<Vec<memberships::Model>, StoreError> {
    list_held(db, gym, people)
        .await
        .map(|held| held.memberships)
}

/// What people hold or pay for, all from the same moment.
#[derive(Debug, Default)]
pub struct HeldByPeople {
    /// The gym's row; none where there is no membership.
    pub gym: Option<gyms::Model>,
    /// The memberships.
    pub memberships: Vec<memberships::Model>,
    /// Subscriptions of former billing references, of memberships that have none now.
    pub former_subscriptions: Vec<(MembershipKey, String)>,
    /// The billing events of each membership, JSON.
    pub events: Vec<(MembershipKey, String)>,
}

/// A membership with its gym's row and what billing knows of it.
#[derive(FromQueryResult)]
struct WithAll {
    #[sea_orm(nested)]
    membership: memberships::Model,
    gym_name: String,
    time_zone: String,
    overdue_grace: i64,
    overdue_scope: String,
    gym_source_version: i64,
    former: Option<String>,
    events: Option<String>,
}

/// What decides about people, in one statement: a door may be waiting.
pub async fn list_held(
    db: &impl ConnectionTrait,
    gym: &GymId,
    people: &BTreeSet<MemberId>,
) -> Result<HeldByPeople, StoreError> {
    let (_, ids) = in_list(2, people.iter().map(MemberId::as_str));
    let (list_of, as_text) = match db.get_database_backend() {
        DbBackend::Postgres => ("json_agg", "::text"),
        _ => ("json_group_array", ""),
    };
    let sql = format!(
        "select {}, g.name as gym_name, g.time_zone, g.overdue_grace, g.overdue_scope,
                g.source_version as gym_source_version,
                case when m.billing_subscription is null then (
                    select {list_of}(r.reference){as_text} from billing_references r
                    where r.gym_id = m.gym_id and r.membership_id = m.membership_id
                      and r.kind = 'subscription' and not r.is_current) end as former,
                (select {list_of}(e.event){as_text} from billing_links l
                 join billing_events e
                   on e.provider = l.provider and e.account = l.account
                      and e.event_id = l.event_id
                 where l.gym_id = m.gym_id and l.membership_id = m.membership_id) as events
         from memberships m join gyms g on g.gym_id = m.gym_id
         where m.gym_id = $1 and m.membership_id {}
         order by m.membership_id",
        columns::<memberships::Entity>("m"),
        paired(
            db.get_database_backend(),
            "membership_id",
            "member_id",
            &ids
        ),
    );
    let values = std::iter::once(gym.as_str().into()).chain(ids);
    let rows = WithAll::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading memberships")?;
    let mut held = HeldByPeople::default();
    for row in rows {
        let id = &row.membership.membership_id;
        for (list, texts) in [
            (&mut held.former_subscriptions, &row.former),
            (&mut held.events, &row.events),
        ] {
            let texts = texts_of(texts.as_deref()).map_err(|_| StoreError::Nonsense {
                table: "billing_events",
                column: "event",
                row: format!("linked to {id}"),
            })?;
            list.extend(texts.into_iter().map(|text| (id.clone(), text)));
        }
        held.gym.get_or_insert_with(|| gyms::Model {
            gym_id: row.membership.gym_id.clone(),
            name: row.gym_name,
            time_zone: row.time_zone,
            overdue_grace: row.overdue_grace,
            overdue_scope: row.overdue_scope,
            source_version: row.gym_source_version,
        });
        held.memberships.push(row.membership);
    }
    Ok(held)
}

/// A list that the database made; none is empty.
fn texts_of(json: Option<&str>) -> Result<Vec<String>, serde_json::Error> {
    json.map(serde_json::from_str)
        .transpose()
        .map(Option::unwrap_or_default)
}

/// Subscriptions of former billing references, as (membership, subscription id).
pub async fn list_former_subscriptions(
    db: &impl ConnectionTrait,
    gym: &GymId,
    memberships: &BTreeSet<MembershipId>,
) -> Result<Vec<(MembershipKey, String)>, StoreError> {
    if memberships.is_empty() {
        return Ok(Vec::new());
    }
    #[derive(FromQueryResult)]
    struct Former {
        membership_id: MembershipKey,
        reference: String,
    }
    let (list, ids) = in_list(2, memberships.iter().map(MembershipId::as_str));
    let sql = format!(
        "select membership_id, reference from billing_references
         where gym_id = $1 and membership_id in ({list}) and kind = 'subscription'
           and not is_current"
    );
    let values = std::iter::once(gym.as_str().into()).chain(ids);
    let former = Former::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading former billing references")?;
    Ok(former
        .into_iter()
        .map(|row| (row.membership_id, row.reference))
        .collect())
}
