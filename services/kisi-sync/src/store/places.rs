//! Rows read by the places of their columns, in the order of [`super::columns`], and some at a time.
//!
//! Of a large gym that is what makes a pass short: looking for each column by its name takes longer
//! than all else, and whoever closes a door waits meanwhile for the one connection.

use sea_orm::{DbErr, QueryResult, TryGetable};

/// Rows of one statement.
pub const AT_ONCE: u32 = 1_000;

/// A row's values, from the first to the last.
pub struct Places<'a> {
    row: &'a QueryResult,
    next: usize,
}

impl<'a> Places<'a> {
    pub fn of(row: &'a QueryResult) -> Self {
        Self { row, next: 0 }
    }

    /// The value in the next place.
    pub fn next<T: TryGetable>(&mut self) -> Result<T, DbErr> {
        let value = self.row.try_get_by_index(self.next)?;
        self.next += 1;
        Ok(value)
    }
}

/// Reads a model whose fields are named in the order of its columns.
macro_rules! model_in_places {
    ($model:ident { $($field:ident),+ $(,)? }) => {
        impl $model {
            fn in_places(row: &sea_orm::QueryResult) -> Result<Self, sea_orm::DbErr> {
                let mut places = $crate::store::places::Places::of(row);
                Ok(Self { $($field: places.next()?),+ })
            }
        }
    };
}
pub(crate) use model_in_places;

#[cfg(test)]
mod tests {
    use sea_orm::{ActiveModelTrait, Database, EntityTrait, IntoActiveModel};
    use sea_orm_migration::MigratorTrait;

    use super::super::{applied_grants, members, migrations::Migrator};
    use super::*;

    /// A value for each column, unlike any other's of its kind.
    fn member(id: &str) -> members::Model {
        let text = |column: &str| Some(format!("{id} {column}"));
        members::Model {
            version: 1,
            plans: "plans".to_owned(),
            erased: true,
            cause_kind: "kind".to_owned(),
            cause_id: "cause".to_owned(),
            cause_actor: text("actor"),
            received_at: Some(2),
            decided_at: Some(3),
            traceparent: text("traceparent"),
            background: true,
            look_cause: text("look"),
            retry_at: Some(4),
            answered_version: 5,
            applied_seq: 6,
            failure: text("failure"),
            kisi_code: text("code"),
            kisi_user_id: Some(7),
            person_digest: text("digest"),
            sign_up_needed: true,
            former_user_id: Some(8),
            former_users: text("former"),
            looked: true,
            opened_by_others: "others".to_owned(),
            opened_elsewhere: text("elsewhere"),
            others_told: text("told"),
            conflict: text("conflict"),
            held_by: text("held"),
            updated_at: 9,
            ..members::Model::unheard_of("g", id)
        }
    }

    fn grant(member: &str, n: i64) -> applied_grants::Model {
        applied_grants::Model {
            id: 0,
            organization_id: 1,
            gym_id: "g".to_owned(),
            member_id: member.to_owned(),
            group_id: n,
            kisi_user_id: 3,
            assignment_id: (n % 2 == 0).then_some(4),
            state: "standing".to_owned(),
            epoch: 5,
            valid_from: Some(6),
            valid_until: Some(7),
            intended_at: 8,
            updated_at: 9,
        }
    }

    #[tokio::test]
    async fn every_value_is_in_its_place_and_no_row_is_left_between_two_statements() {
        let db = Database::connect("sqlite::memory:").await.unwrap();
        Migrator::up(&db, None).await.unwrap();
        let count = AT_ONCE + 1;
        let mut given = Vec::new();
        for n in 0..count {
            let row = member(&format!("m{n:05}"));
            let active = row.clone().into_active_model().reset_all();
            members::Entity::insert(active)
                .exec_without_returning(&db)
                .await
                .unwrap();
            // Members with several rows each, and a gym's edge between two of them.
            let grant = grant(&format!("m{:05}", n / 3), i64::from(n));
            given.push(applied_grants::insert(&db, grant).await.unwrap());
        }
        let listed = members::list(&db, "g").await.unwrap();
        assert_eq!(listed.len(), count as usize);
        for n in [0, AT_ONCE - 1, AT_ONCE] {
            let id = format!("m{n:05}");
            let found = members::find(&db, "g", &id).await.unwrap().unwrap();
            assert_eq!(found, member(&id));
            assert_eq!(listed[n as usize], found);
        }
        assert_eq!(applied_grants::of_gym(&db, 1, "g").await.unwrap(), given);
        assert!(
            applied_grants::of_gym(&db, 2, "g")
                .await
                .unwrap()
                .is_empty()
        );
        assert!(members::list(&db, "h").await.unwrap().is_empty());
    }
}
