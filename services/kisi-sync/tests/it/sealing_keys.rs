//! Sealing keys are rotated while the service runs: what an older one sealed is sealed anew, and then
//! the older one may go.

use contracts::access::v1::UnlockRequest;
use kisi_sync::store;
use sea_orm::{ConnectionTrait, Statement};
use secrecy::SecretString;
use testkit::eventually;

use crate::harness::{GYM, On, Running, SOON, Stage};

const OLD: &str = "k1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const NEW: &str = "k2:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

async fn opens(replica: &mut Running) -> bool {
    let door = replica.integration().await.groups[0].doors[0].lock_id;
    let unlock = UnlockRequest {
        gym_id: GYM.to_owned(),
        member_id: "m1".to_owned(),
        lock_id: door,
        location: None,
        proximity_proof: None,
    };
    let answer = replica.client.unlock(unlock).await.unwrap();
    answer.into_inner().unlocked
}

async fn an_older_sealing_key_may_go_once_everything_is_sealed_anew(on: On) {
    let stage = Stage::set(on).await;
    let events = [("kisi-events-url", "http://127.0.0.1:9")];
    let mut replica = stage.start_with(&events).await;
    stage.in_sync(&mut replica, 1).await;
    assert!(opens(&mut replica).await);
    replica.stop().await;

    let both = format!("{NEW},{OLD}");
    let replica = stage.start_with(&[("sealing-keys", both.as_str())]).await;
    let db = store::connect(&SecretString::from(stage.database_url()))
        .await
        .unwrap();
    eventually("everything is sealed anew", SOON, async || {
        let sql = "select sealing_key_id from integrations union all
            select sealing_key_id from member_logins union all
            select sealing_key_id from event_webhooks";
        let rows = db
            .query_all_raw(Statement::from_string(db.get_database_backend(), sql))
            .await
            .unwrap();
        let ids = rows
            .iter()
            .map(|row| row.try_get::<String>("", "sealing_key_id").unwrap());
        ids.collect::<Vec<_>>() == ["k2", "k2", "k2"]
    })
    .await;
    replica.stop().await;

    // The login is the same one, and the key still speaks to Kisi.
    stage.kisi.forget_requests().await;
    let mut replica = stage.start_with(&[("sealing-keys", NEW)]).await;
    assert!(opens(&mut replica).await);
    assert_eq!(replica.sync().await.state, "done");
    assert!(
        !stage
            .kisi
            .writes()
            .await
            .contains(&"POST /logins".to_owned())
    );
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_sealing_key_may_go_once_everything_is_sealed_anew_on_sqlite() {
    an_older_sealing_key_may_go_once_everything_is_sealed_anew(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_sealing_key_may_go_once_everything_is_sealed_anew_on_postgres() {
    an_older_sealing_key_may_go_once_everything_is_sealed_anew(On::Postgres).await;
}

/// Whoever can write to the tables copies one gym's sealed key over another's.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_key_opens_for_no_other_gym() {
    const OTHER: &str = "steel";
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let key = stage.kisi.second_key();
    crate::two_gyms::in_sync(&mut replica, OTHER, &key).await;
    let db = store::connect(&SecretString::from(stage.database_url()))
        .await
        .unwrap();
    let sql = format!(
        "update integrations set sealed_key =
         (select sealed_key from integrations where gym_id = '{OTHER}') where gym_id = '{GYM}'"
    );
    db.execute_unprepared(&sql).await.unwrap();
    stage.kisi.forget_requests().await;
    assert_eq!(replica.sync().await.state, "failed");
    let shown = replica.integration().await.attention;
    assert_eq!((shown.len(), shown[0].what.as_str()), (1, "key_invalid"));
    let requests = stage.kisi.requests().await;
    assert!(requests.is_empty(), "{requests:?}");
    replica.stop().await;
}
