use sea_orm::{ConnectionTrait, Database};
use sea_orm_migration::MigratorTrait;

use super::Migrator;
use crate::store::{members, syncs};

/// Each migration is applied over data of the version before.
#[tokio::test]
async fn rows_of_every_version_before_are_read_after_the_last() {
    for version in 2..Migrator::migrations().len() as u32 {
        let db = Database::connect("sqlite::memory:").await.unwrap();
        Migrator::up(&db, Some(version)).await.unwrap();
        for row in [
            "insert into members (gym_id, member_id, version, plans, erased, cause_kind, cause_id,
                pending, background, approved, answered_version, applied_seq, kisi_user_ours,
                looked, opened_by_others, updated_at)
             values ('iron', 'm1', 7, '[]', false, 'timer', 't', true, false, false, 6, 3, false,
                false, '[]', 1)",
            "insert into syncs (sync_id, gym_id, state, activation, created_at, report, in_sync)
             values ('sync_1', 'iron', 'done', 'schedule', 1, '{}', true)",
        ] {
            db.execute_unprepared(row).await.unwrap();
        }
        Migrator::up(&db, None).await.unwrap();
        let member = members::find(&db, "iron", "m1").await.unwrap().unwrap();
        assert_eq!((member.version, member.applied_seq), (7, 3));
        assert_eq!(member.cause().kind, "timer");
        use sea_orm::EntityTrait;
        let sync = syncs::Entity::find().one(&db).await.unwrap().unwrap();
        assert_eq!(sync.actor, None);
    }
}
