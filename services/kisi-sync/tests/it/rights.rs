//! Rights that others gave and that open the same doors: read once a day, for previews and on demand,
//! shown, and never claimed closed.

use contracts::integration::v1 as api;
use sea_orm::ConnectionTrait;
use serde_json::json;

use crate::harness::{GYM, On, PLAN, Running, SOON, Stage};
use crate::kisi::{ELSEWHERE, Fault, GATE_ONLY, GROUP, ORGANIZATION, PLACE};

async fn rights(replica: &mut Running, refresh: bool) -> Vec<api::OtherRight> {
    let mut found = Vec::new();
    let mut request = api::ListOtherRightsRequest {
        gym_id: GYM.to_owned(),
        refresh,
        page_size: 2,
        page_token: String::new(),
    };
    loop {
        let page = replica.client.list_other_rights(request.clone()).await;
        let page = page.unwrap().into_inner();
        assert!(page.read_at.is_some());
        found.extend(page.rights);
        if page.next_page_token.is_empty() {
            return found;
        }
        request.refresh = false;
        request.page_token = page.next_page_token;
    }
}

/// `holder on target: member` of each.
fn shown(rights: &[api::OtherRight]) -> Vec<String> {
    let mut shown: Vec<String> = rights
        .iter()
        .map(|right| {
            let member = right.member_id.as_deref().unwrap_or("-");
            format!(
                "{} on {} {}: {member}",
                right.holder, right.target, right.target_id
            )
        })
        .collect();
    shown.sort();
    shown
}

/// A team, a guest, two links of which one is off, a manager of the place, and a second group with the
/// same door; and what opens no door of these groups.
async fn others_give(stage: &Stage) {
    stage.kisi.share_front_door(GATE_ONLY);
    stage.kisi.add_by_hand("m1@example.com", GATE_ONLY).await;
    stage.kisi.add_by_hand("m3@example.com", ELSEWHERE).await;
    for change in [
        json!({ "action": "give_right", "team": "Coaches", "group_id": GROUP }),
        json!({ "action": "give_right", "team": "Coaches", "group_id": ELSEWHERE }),
        json!({ "action": "give_right", "guest": "Guest", "guest_email": "M2@example.com",
                "group_id": GROUP }),
        json!({ "action": "add_link", "group_id": GATE_ONLY, "name": "Cleaners",
                "email": "cleaner@example.com" }),
        json!({ "action": "add_link", "group_id": GROUP, "name": "Off", "enabled": false }),
        json!({ "action": "give_right", "email": "nobody@example.com", "place_id": PLACE }),
        json!({ "action": "give_right", "email": "nobody@example.com", "organization_id": ORGANIZATION,
                "role_id": "organization_basic" }),
    ] {
        stage.kisi.by_hand(change).await;
    }
}

const FOUND: [&str; 7] = [
    "guest on group 10: m2",
    "link on group 13: -",
    "team on group 10: -",
    "user on group 13: m1",
    "user on organization 3289: -",
    "user on organization 3289: -",
    "user on place 812: -",
];

async fn rights_of_others_are_shown_and_never_claimed_closed(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    others_give(&stage).await;
    // The first sync has read the two who run the organization; a pass on demand reads no more.
    replica.sync().await;
    let requests = stage.kisi.requests().await;
    assert!(
        !requests.contains(&"GET /group_links".to_owned()),
        "{requests:?}"
    );
    assert_eq!(shown(&rights(&mut replica, false).await), FOUND[4..6]);

    stage.kisi.forget_requests().await;
    let found = rights(&mut replica, true).await;
    assert_eq!(shown(&found), FOUND);
    assert!(stage.kisi.writes().await.is_empty());
    let team = found.iter().find(|right| right.holder == "team").unwrap();
    assert_eq!(
        (team.team_name.as_str(), team.groups.as_slice()),
        ("Coaches", &[GROUP][..])
    );
    let summary = replica.integration().await.other_rights.unwrap();
    let kinds = (
        summary.people,
        summary.teams,
        summary.guests,
        summary.links,
        summary.staff,
    );
    assert_eq!(kinds, (1, 1, 1, 1, 3));
    assert_eq!(summary.member_ids, ["m1", "m2"]);
    assert!(summary.complete);

    // It is told of the members, who keep what we gave, and without a request.
    for member in ["m1", "m2"] {
        let told = stage
            .answer(member, |answer| answer.groups_opened_elsewhere == [GROUP])
            .await;
        assert_eq!((told.outcome.as_str(), told.grants.len()), ("unchanged", 1));
    }
    stage.kisi.forget_requests().await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let closed = stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(closed.outcome, "revoked");
    assert_eq!(closed.groups_opened_elsewhere, [GROUP]);
    assert_eq!(stage.kisi.requests().await.len(), 1);

    // And another process knows it.
    replica.stop().await;
    let mut replica = stage.start().await;
    stage.kisi.forget_requests().await;
    assert_eq!(shown(&rights(&mut replica, false).await), FOUND);
    assert!(stage.kisi.requests().await.is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_of_others_are_shown_and_never_claimed_closed_on_sqlite() {
    rights_of_others_are_shown_and_never_claimed_closed(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_of_others_are_shown_and_never_claimed_closed_on_postgres() {
    rights_of_others_are_shown_and_never_claimed_closed(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_of_others_are_read_once_a_day_and_their_end_is_seen() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&[("reconcile-every", "4s")]).await;
    stage.in_sync(&mut replica, 3).await;
    others_give(&stage).await;
    let db = kisi_sync::store::connect(&secrecy::SecretString::from(stage.database_url()))
        .await
        .unwrap();
    let a_day_ago = async || {
        let old = "update rights_readings set read_at = read_at - 90000000000";
        db.execute_unprepared(old).await.unwrap();
    };
    a_day_ago().await;
    stage
        .answer("m1", |answer| answer.groups_opened_elsewhere == [GROUP])
        .await;
    // Two more passes read it no second time.
    let read = |requests: Vec<String>| requests.iter().filter(|r| *r == "GET /group_links").count();
    assert_eq!(read(stage.kisi.requests().await), 1);
    let mut passes = std::collections::BTreeSet::new();
    testkit::eventually("two more passes", SOON, async || {
        let at = replica.integration().await.last_reconciled_at;
        passes.insert(at.map(|at| (at.seconds, at.nanos)));
        passes.len() == 3
    })
    .await;
    assert_eq!(read(stage.kisi.requests().await), 1);

    stage
        .kisi
        .by_hand(json!({ "action": "delete_group", "group_id": GATE_ONLY }))
        .await;
    a_day_ago().await;
    let gone = stage
        .answer("m1", |answer| answer.groups_opened_elsewhere.is_empty())
        .await;
    assert_eq!(gone.grants.len(), 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_groups_are_looked_for_only_where_a_door_is_in_more_groups_than_are_known() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    stage.kisi.forget_requests().await;
    rights(&mut replica, true).await;
    let of_groups =
        |requests: &[String], route: &str| requests.iter().filter(|r| *r == route).count();
    let requests = stage.kisi.requests().await;
    assert_eq!(of_groups(&requests, "GET /groups"), 0, "{requests:?}");
    assert_eq!(of_groups(&requests, "GET /group_locks"), 2);

    stage.kisi.share_front_door(GATE_ONLY);
    stage.kisi.forget_requests().await;
    rights(&mut replica, true).await;
    let requests = stage.kisi.requests().await;
    assert_eq!(of_groups(&requests, "GET /groups"), 1, "{requests:?}");
    assert_eq!(of_groups(&requests, "GET /group_locks"), 3);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_key_may_not_see_is_left_out_and_said() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    stage
        .kisi
        .by_hand(json!({ "action": "give_right", "team": "Coaches", "group_id": GROUP }))
        .await;
    stage
        .kisi
        .fail("GET", "/group_links", 1, Fault::Status(403))
        .await;
    let found = rights(&mut replica, true).await;
    assert!(found.iter().any(|right| right.holder == "team"));
    let summary = replica.integration().await.other_rights.unwrap();
    assert!(!summary.complete);
    assert_eq!(replica.integration().await.state, "active");
    rights(&mut replica, true).await;
    assert!(replica.integration().await.other_rights.unwrap().complete);
    stage.directory.decide(GYM, "m1", 2, &[PLAN]).await;
    stage.answer("m1", |answer| answer.version == 2).await;
    replica.stop().await;
}
