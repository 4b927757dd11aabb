//! By what providers may speak of people who pay for a membership no more.
//!
//! Kept when another begins to pay, as nobody could tell afterwards who was meant: the events that
//! were linked by then, and the ids under which the membership was known. What is somebody's stays
//! his, also when payers follow one another.

use std::collections::BTreeSet;

use access_domain::ids::{GymId, MemberId, MembershipId};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, Statement, Value,
};

use super::billing::Keys;
use super::entity::{billing_references, former_payers};
use super::links::Pair;
use super::{Step, StoreError, in_list, portions};

/// Keeps what was said, and by what, while these paid, as (membership, former payer). Before the
/// references of these memberships change.
pub async fn insert(
    db: &impl ConnectionTrait,
    gym: &GymId,
    former: &[(MembershipId, MemberId)],
) -> Result<(), StoreError> {
    let rows: Vec<_> = former
        .iter()
        .map(|(membership, member)| {
            [
                Value::from(gym.as_str()),
                membership.as_str().into(),
                member.as_str().into(),
            ]
        })
        .collect();
    let of_event = |kind: &str, id: &str| {
        format!(
            "select v.gym_id, v.membership_id, v.member_id, e.provider, e.account,
                    '{kind}' as kind, e.{id} as reference
             from v
             join billing_links l on l.gym_id = v.gym_id and l.membership_id = v.membership_id
             join billing_events e
               on e.provider = l.provider and e.account = l.account and e.event_id = l.event_id
             where e.{id} is not null"
        )
    };
    for some in portions(db.get_database_backend(), rows) {
        let sql = format!(
            "with v (gym_id, membership_id, member_id) as (values {}),
                  said (gym_id, membership_id, member_id, provider, account, kind, reference) as (
                      {} union {} union {} union
                      select v.gym_id, v.membership_id, v.member_id, r.provider, r.account, r.kind,
                             r.reference
                      from v join billing_references r
                        on r.gym_id = v.gym_id and r.membership_id = v.membership_id)
             insert into former_payers (gym_id, member_id, membership_id, provider, account, kind,
                                        reference)
             select s.gym_id, s.member_id, s.membership_id, s.provider, s.account, s.kind, s.reference
             from said s
             where not exists (
                 select 1 from former_payers f
                 where f.gym_id = s.gym_id and f.membership_id = s.membership_id
                   and f.provider = s.provider and f.account = s.account and f.kind = s.kind
                   and f.reference = s.reference)",
            some.tuples,
            of_event("event", "event_id"),
            of_event("invoice", "invoice_id"),
            of_event("payment", "payment_id"),
        );
        let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, some.values);
        db.execute_raw(statement).await.step("keeping who paid")?;
    }
    Ok(())
}

/// What was said while this member paid for what is another's to pay now.
pub async fn list(
    db: &impl ConnectionTrait,
    gym: &GymId,
    member: &MemberId,
) -> Result<Vec<former_payers::Model>, StoreError> {
    former_payers::Entity::find()
        .filter(former_payers::Column::GymId.eq(gym.as_str()))
        .filter(former_payers::Column::MemberId.eq(member.as_str()))
        .all(db)
        .await
        .step("reading what a member paid for")
}

/// The references, present and former, of memberships, but for those of former payers.
pub async fn list_references(
    db: &impl ConnectionTrait,
    gym: &GymId,
    memberships: &BTreeSet<MembershipId>,
) -> Result<Vec<billing_references::Model>, StoreError> {
    let (list, ids) = in_list(2, memberships.iter().map(MembershipId::as_str));
    let sql = format!(
        "select r.provider, r.account, r.kind, r.reference, r.gym_id, r.membership_id, r.is_current
         from billing_references r
         where r.gym_id = $1 and r.membership_id in ({list}) and (r.is_current or not exists (
             select 1 from former_payers f
             where f.gym_id = r.gym_id and f.membership_id = r.membership_id
               and f.provider = r.provider and f.account = r.account and f.kind = r.kind
               and f.reference = r.reference))"
    );
    let values = std::iter::once(gym.as_str().into()).chain(ids);
    billing_references::Model::find_by_statement(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .all(db)
    .await
    .step("reading billing references")
}

/// Opens the erasures again, where they were done, of everybody of whom an event may speak that no
/// payer's present reference names; and of the people of the memberships it is linked to.
pub async fn reopen_erasures(
    db: &impl ConnectionTrait,
    keys: &Keys<'_>,
    pairs: &BTreeSet<Pair>,
) -> Result<(), StoreError> {
    let mut sql = String::from(
        "update erasures set purged_at = null
         where purged_at is not null and (gym_id, member_id) in (
             select f.gym_id, f.member_id from former_payers f
             where (f.provider, f.account, f.kind, f.reference) in (values
                 ($1, $2, 'invoice', $3), ($1, $2, 'payment', $4), ($1, $2, 'subscription', $5),
                 ($1, $2, 'customer', $6), ($1, $2, 'mandate', $7))
             union
             select p.gym_id, p.member_id from billing_references r
             join membership_people p on p.gym_id = r.gym_id and p.membership_id = r.membership_id
             where (r.provider, r.account, r.kind, r.reference) in (values
                 ($1, $2, 'subscription', $5), ($1, $2, 'customer', $6), ($1, $2, 'mandate', $7))
             union
             select p.gym_id, p.member_id from gym_accounts a
             join membership_people p on p.gym_id = a.gym_id
             where a.provider = $1 and a.account = $2 and p.membership_id = $8",
    );
    let mut values: Vec<Value> = vec![
        keys.provider.into(),
        keys.account.into(),
        keys.invoice.into(),
        keys.payment.into(),
        keys.subscription.into(),
        keys.customer.into(),
        keys.mandate.into(),
        keys.named_membership.into(),
    ];
    for (gym, membership) in pairs {
        let n = values.len();
        sql.push_str(&format!(
            " union select p.gym_id, p.member_id from membership_people p
              where p.gym_id = ${} and p.membership_id = ${}",
            n + 1,
            n + 2
        ));
        values.extend([gym.clone().into(), membership.clone().into()]);
    }
    sql.push(')');
    db.execute_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .await
    .step("opening erasures again")
    .map(drop)
}
