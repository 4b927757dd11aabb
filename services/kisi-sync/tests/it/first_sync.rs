//! What a first sync costs: a page tells of a hundred people, a search of one.

use contracts::integration::v1 as api;

use crate::brake::{passes_end, rows, tables};
use crate::harness::{GYM, On, PLAN, SOON, Stage};
use crate::kisi::{Fault, GROUP, OTHER_GROUP, PLACE};

const MEMBERS: usize = 30;
/// What a first sync lists besides: the key's owner's rights, and those of others for the same doors, on
/// two groups, the place and the organization.
const OF_OTHERS: usize = 1 + 4;

/// Of each request how often it was made, ids left out.
async fn counted(stage: &Stage) -> Vec<(String, usize)> {
    let requests = stage.kisi.requests().await;
    let wanted = [
        "GET /users",
        "POST /users",
        "GET /role_assignments",
        "POST /role_assignments",
    ];
    wanted
        .iter()
        .map(|wanted| {
            let same = requests.iter().filter(|request| request == wanted);
            ((*wanted).to_owned(), same.count())
        })
        .collect()
}

fn counts(users: usize, made: usize, looks: usize, grants: usize) -> Vec<(String, usize)> {
    [
        ("GET /users", users),
        ("POST /users", made),
        ("GET /role_assignments", looks),
        ("POST /role_assignments", grants),
    ]
    .map(|(request, count)| (request.to_owned(), count))
    .to_vec()
}

async fn who_is_new_at_kisi_costs_two_requests_and_one_page_for_a_hundred(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    for i in 1..=MEMBERS {
        let member = format!("m{i}");
        stage.directory.decide(GYM, &member, 1, &[PLAN]).await;
    }
    // Two are at Kisi already, one of them in the group.
    stage.kisi.add_user_by_hand("M7@example.com").await;
    stage.kisi.add_by_hand("m8@example.com", GROUP).await;
    stage.set_up(&mut replica).await;
    stage.kisi.forget_requests().await;

    let sync = replica.sync().await;
    assert_eq!(sync.state, "done", "{sync:?}");
    assert!(sync.in_sync);
    // Two groups are listed, and the rights of the two who were there before.
    let expected = counts(1, MEMBERS - 2, 2 + 2 + OF_OTHERS, MEMBERS - 1);
    assert_eq!(counted(&stage).await, expected);
    let report = sync.report.unwrap();
    assert_eq!(
        report.requests,
        i64::try_from(stage.kisi.requests().await.len()).unwrap()
    );
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), MEMBERS);
    stage.kisi.assert_nothing_was_refused().await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_new_at_kisi_costs_two_requests_and_one_page_for_a_hundred_on_sqlite() {
    who_is_new_at_kisi_costs_two_requests_and_one_page_for_a_hundred(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_new_at_kisi_costs_two_requests_and_one_page_for_a_hundred_on_postgres() {
    who_is_new_at_kisi_costs_two_requests_and_one_page_for_a_hundred(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_new_member_is_searched_for_and_nobody_else() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    stage.directory.decide(GYM, "m3", 1, &[PLAN]).await;
    stage.answer("m3", |answer| answer.version == 1).await;
    assert_eq!(counted(&stage).await, counts(1, 1, 0, 1));
    replica.stop().await;
}

/// Somebody else makes a user of whom the page did not tell.
async fn a_user_made_after_the_page_was_read_is_found_all_the_same(refusal: &str) {
    let stage = Stage::set(On::Sqlite).await;
    let answer = serde_json::from_value(refusal.into()).unwrap();
    stage.kisi.set(|settings| settings.duplicate_users = answer);
    let mut replica = stage
        .start_with(&[("kisi-requests-per-second", "20")])
        .await;
    for i in 10..10 + MEMBERS {
        let member = format!("m{i}");
        stage.directory.decide(GYM, &member, 1, &[PLAN]).await;
    }
    stage.set_up(&mut replica).await;
    stage.kisi.forget_requests().await;
    let request = api::StartSyncRequest {
        gym_id: GYM.to_owned(),
        digest: None,
    };
    let started = replica.client.start_sync(request).await.unwrap();
    testkit::eventually("the page was read", SOON, async || {
        let requests = stage.kisi.requests().await;
        requests.contains(&"GET /users".to_owned())
    })
    .await;
    // The last of them, who is seconds away.
    let last = format!("m{}", 9 + MEMBERS);
    let user = stage
        .kisi
        .add_user_by_hand(&format!("{last}@example.com"))
        .await;
    let ended = replica.ended(&started.into_inner().sync_id).await;
    assert!(ended.in_sync, "{ended:?}");
    let told = stage.answer(&last, |answer| answer.version == 1).await;
    assert_eq!(told.kisi_user_id, Some(user));
    assert!(!told.kisi_user_ours);
    // Refused once, searched for once, looked at once.
    let expected = counts(1 + 1, MEMBERS, 2 + 1 + OF_OTHERS, MEMBERS);
    assert_eq!(counted(&stage).await, expected);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), MEMBERS);
    stage.kisi.overlook_refusals();
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_made_after_the_page_was_read_is_found_all_the_same_where_kisi_answers_409() {
    a_user_made_after_the_page_was_read_is_found_all_the_same("409").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_made_after_the_page_was_read_is_found_all_the_same_where_kisi_answers_422() {
    a_user_made_after_the_page_was_read_is_found_all_the_same("422").await;
}

/// A pass for a changed mapping failed, and then the integration was begun anew: whom the first sync lets
/// in was asked about by its preview, and waits for no leave, not even where it fails at first.
async fn a_first_sync_owes_nothing_to_a_mapping_of_before(fails: bool) {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [("brake-grants-min", "2"), ("brake-grants-percent", "0")];
    let mut replica = stage.start_with(&flags).await;
    for i in 1..=4 {
        let member = format!("c{i}");
        stage.directory.decide(GYM, &member, 1, &["pool"]).await;
    }
    stage.in_sync(&mut replica, 2).await;
    let mapping = [(PLAN, GROUP), ("pool", OTHER_GROUP)];
    let (get, route, fault) = ("GET", "/role_assignments", Fault::Status(500));
    let failing = || stage.kisi.fail(get, route, u64::MAX, fault);
    failing().await;
    replica.associate(&mapping).await.unwrap();
    let db = tables(&stage).await;
    passes_end(&db).await;
    assert_eq!(
        rows(&db, "select 1 from syncs where state = 'failed'").await,
        1
    );
    stage.kisi.clear_faults();
    let gym_id = || GYM.to_owned();
    let end = api::DisableIntegrationRequest {
        gym_id: gym_id(),
        access: "keep".to_owned(),
        digest: None,
    };
    replica.client.disable_integration(end).await.unwrap();
    replica.enable(&stage.kisi.api_key()).await.unwrap();
    let place = api::SelectPlaceRequest {
        gym_id: gym_id(),
        place_id: PLACE,
    };
    replica.client.select_place(place).await.unwrap();
    replica.associate(&mapping).await.unwrap();
    if fails {
        failing().await;
        assert_eq!(replica.sync().await.state, "failed");
        stage.kisi.clear_faults();
    }
    let sync = replica.sync().await;
    assert_eq!(sync.state, "done", "{sync:?}");
    assert_eq!(stage.kisi.group_rows(OTHER_GROUP).await.len(), 4);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_owes_nothing_to_a_mapping_that_failed_before() {
    a_first_sync_owes_nothing_to_a_mapping_of_before(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_that_fails_leaves_no_debt_of_a_mapping_before_it() {
    a_first_sync_owes_nothing_to_a_mapping_of_before(true).await;
}
