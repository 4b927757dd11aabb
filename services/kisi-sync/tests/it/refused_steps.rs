//! One thing that Kisi forbids while the key works: it is shown, not asked again and again, and
//! everything else goes on.

use contracts::integration::v1 as api;
use kisi_simulator::faults::{Fault as SimulatorFault, FaultKind};
use serde_json::json;

use crate::harness::{GYM, OTHER_PLAN, On, PLAN, Running, SOON, Stage};
use crate::kisi::{Fault, GROUP, OTHER_GROUP};

const FORBIDDEN: Fault = Fault::Status(403);
const GRANT: (&str, &str) = ("POST", "/role_assignments");
const REVOKE: (&str, &str) = ("DELETE", "/role_assignments/{id}");

async fn forbid(stage: &Stage, (method, route): (&str, &str), count: u64) {
    stage.kisi.fail(method, route, count, FORBIDDEN).await;
}

async fn is_active(replica: &mut Running) {
    let shown = replica.integration().await;
    assert_eq!(shown.state, "active", "{:?}", shown.attention);
    assert_eq!(shown.key.unwrap().status, "ok");
}

async fn sent(stage: &Stage, request: &str) -> usize {
    let requests = stage.kisi.requests().await;
    requests.iter().filter(|sent| **sent == request).count()
}

async fn a_forbidden_grant_is_refused_and_others_doors_close(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    forbid(&stage, GRANT, 1).await;
    stage.directory.decide(GYM, "c1", 1, &[OTHER_PLAN]).await;
    let told = stage.answer("c1", |told| told.version == 1).await;
    assert_eq!(
        (told.outcome.as_str(), told.failure.as_deref()),
        ("failed", Some("kisi_refused"))
    );
    assert_eq!(told.groups_missing, [OTHER_GROUP]);
    is_active(&mut replica).await;
    // The step that is forbidden does not keep the same person's revoke back either.
    forbid(&stage, GRANT, 1).await;
    stage.directory.decide(GYM, "m1", 2, &[OTHER_PLAN]).await;
    stage.answer("m1", |told| told.version == 2).await;
    stage.directory.decide(GYM, "m2", 2, &[]).await;
    let told = stage.answer("m2", |told| told.version == 2).await;
    assert_eq!(told.outcome, "revoked");
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    is_active(&mut replica).await;
    // What was forbidden is tried again with the next pass.
    let sync = replica.sync().await;
    assert!(sync.in_sync, "{sync:?}");
    assert_eq!(stage.kisi.group_rows(OTHER_GROUP).await.len(), 2);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_grant_is_refused_and_others_doors_close_on_sqlite() {
    a_forbidden_grant_is_refused_and_others_doors_close(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_grant_is_refused_and_others_doors_close_on_postgres() {
    a_forbidden_grant_is_refused_and_others_doors_close(On::Postgres).await;
}

/// A group that the key may not give: some members of a pass ask for all, once it is asked whether the
/// key still may, and staff are told.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_may_not_be_given_is_not_asked_for_by_all_in_a_pass() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    for i in 1..=12 {
        let member = format!("m{i}");
        stage.directory.decide(GYM, &member, 1, &[PLAN]).await;
    }
    stage.set_up(&mut replica).await;
    forbid(&stage, GRANT, u64::MAX).await;
    let mut looked = 0;
    for shown in [&[][..], &["grants_failing"][..]] {
        stage.kisi.forget_requests().await;
        let sync = replica.sync().await;
        assert_eq!(
            (sync.state.as_str(), sync.in_sync),
            ("done_with_failures", false),
            "{sync:?}"
        );
        assert_eq!(sync.report.unwrap().refused, 12);
        // One more may be on its way by then.
        let asked = sent(&stage, "POST /role_assignments").await;
        assert!((3..=4).contains(&asked), "{asked}");
        let owner = stage.kisi.user_of("owner@example.com");
        looked += stage.kisi.looks_at(owner);
        let attention = replica.integration().await.attention;
        let what: Vec<&str> = attention.iter().map(|it| it.what.as_str()).collect();
        assert_eq!(what, shown);
        for matter in attention {
            assert_eq!(matter.who, "staff");
            assert!(matter.message.contains("Kisi plan"), "{matter:?}");
        }
    }
    // Each pass looks at the owner's rights when it begins.
    assert_eq!(looked, 3);
    stage.kisi.clear_faults();
    assert!(replica.sync().await.in_sync);
    is_active(&mut replica).await;
    replica.stop().await;
}

/// Whether the key still may cannot be asked: then nobody knows of what the refusal is.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_not_forbidden_before_it_is_known_of_what_the_refusal_is() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    for right in stage.kisi.group_rows(GROUP).await {
        stage
            .kisi
            .remove_by_hand(right["id"].as_i64().unwrap())
            .await;
    }
    forbid(&stage, GRANT, 3).await;
    // The pass lists the owner's rights and two groups; a read is repeated twice.
    let (get, route) = ("GET", "/role_assignments");
    let fault = Fault::Status(500);
    stage.kisi.fail_after(3, get, route, 9, fault).await;
    let sync = replica.sync().await;
    assert_eq!(sync.report.unwrap().failed, 3);
    testkit::eventually("all are let in again", SOON, async || {
        stage.kisi.group_rows(GROUP).await.len() == 3
    })
    .await;
    is_active(&mut replica).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_revoke_is_shown_and_others_go_on() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    forbid(&stage, REVOKE, 1).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let told = stage.answer("m1", |told| told.version == 2).await;
    assert_eq!(
        (told.outcome.as_str(), told.failure.as_deref()),
        ("failed", Some("kisi_refused"))
    );
    assert_eq!(told.grants.len(), 1, "what stands is told");
    stage.directory.decide(GYM, "m2", 2, &[]).await;
    let told = stage.answer("m2", |told| told.version == 2).await;
    assert_eq!(told.outcome, "revoked");
    is_active(&mut replica).await;
    assert!(replica.sync().await.in_sync);
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    replica.stop().await;
}

/// A place administrator may give rights and may not delete people.
#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_kisi_forbids_ends_no_key() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    forbid(&stage, ("DELETE", "/users/{id}"), u64::MAX).await;
    let mut state = stage.directory.put(GYM, "m1", 2, &[]).state.unwrap();
    state.erased = true;
    stage.directory.publish(&state).await;
    let told = stage.answer("m1", |told| told.version == 2).await;
    assert_eq!(
        (told.outcome.as_str(), told.failure.as_deref()),
        ("failed", Some("kisi_refused"))
    );
    is_active(&mut replica).await;
    stage.directory.decide(GYM, "m2", 2, &[]).await;
    let told = stage.answer("m2", |told| told.version == 2).await;
    assert_eq!(told.outcome, "revoked");
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    replica.stop().await;
}

/// Not only this one thing: whoever made the key lost her rights.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_owner_lost_her_rights_is_found_by_a_single_change() {
    for demoted in [403, 200] {
        let stage = Stage::set(On::Sqlite).await;
        stage.kisi.set(|settings| settings.demoted_owner = demoted);
        let mut replica = stage.start().await;
        stage.in_sync(&mut replica, 2).await;
        let owner = stage.kisi.user_of("owner@example.com");
        let demote = json!({ "action": "demote", "user_id": owner });
        stage.kisi.by_hand(demote).await;
        stage.directory.decide(GYM, "m1", 2, &[]).await;
        let told = stage.answer("m1", |told| told.version == 2).await;
        assert_eq!(told.failure.as_deref(), Some("key_invalid"));
        testkit::eventually("it is shown", SOON, async || {
            let attention = replica.integration().await.attention;
            attention.iter().any(|it| it.what == "key_rights")
        })
        .await;
        assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
        replica.stop().await;
    }
}

/// Looking for everybody at once only saves searches.
#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_looked_for_all_at_once_is_looked_for_one_by_one() {
    for fault in [Fault::Status(500), FORBIDDEN] {
        let stage = Stage::set(On::Sqlite).await;
        let mut replica = stage.start().await;
        for i in 1..=5 {
            let member = format!("m{i}");
            stage.directory.decide(GYM, &member, 1, &[PLAN]).await;
        }
        stage.set_up(&mut replica).await;
        // As often as a read is repeated; what is forbidden is asked once.
        let times = match fault {
            Fault::Status(403) => 1,
            _ => 3,
        };
        stage.kisi.fail("GET", "/users", times, fault).await;
        let sync = replica.sync().await;
        assert_eq!(
            (sync.state.as_str(), sync.in_sync),
            ("done_with_failures", true),
            "{sync:?}"
        );
        let failures = sync.report.unwrap().failures;
        let steps: Vec<&str> = failures.iter().map(|one| one.step.as_str()).collect();
        assert_eq!(steps, ["users"]);
        assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 5);
        is_active(&mut replica).await;
        replica.stop().await;
    }
}

/// Who loses a right does not wait until those are found who get one.
#[tokio::test(flavor = "multi_thread")]
async fn who_only_loses_does_not_wait_for_who_is_looked_for() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    replica.associate(&[(PLAN, GROUP)]).await.unwrap();
    assert!(replica.sync().await.in_sync);
    for i in 1..=3 {
        let member = format!("c{i}");
        stage.directory.decide(GYM, &member, 1, &[OTHER_PLAN]).await;
        let told = stage.answer(&member, |told| told.version == 1).await;
        assert_eq!(told.failure.as_deref(), Some("no_association"));
    }
    stage
        .kisi
        .fail("GET", "/users", u64::MAX, Fault::Hang)
        .await;
    let other = [(OTHER_PLAN, OTHER_GROUP)];
    replica.associate(&other).await.unwrap();
    stage
        .answer_within(std::time::Duration::from_secs(60), "m1", |told| {
            told.outcome == "revoked"
        })
        .await;
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    replica.stop().await;
}

/// A role that comes by a team is in no list of the owner's own rights. Whether such a key will do is
/// seen by what only administrators may ask, when it is saved and in each pass alike.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_owner_shows_no_role_is_saved_and_works_or_is_not_saved() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.directory.decide(GYM, "m1", 1, &[PLAN]).await;
    let unseen = || SimulatorFault {
        method: Some("GET".to_owned()),
        route: Some("/role_assignments".to_owned()),
        kind: FaultKind::ShortList,
        count: Some(1),
        skip: 0,
    };
    let add = |fault| stage.kisi.shared().lock().faults.add(fault);
    // What only administrators may ask is forbidden.
    add(unseen());
    forbid(&stage, ("GET", "/integrations"), 2).await;
    let refused = replica.enable(&stage.kisi.api_key()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("administrator"), "{refused:?}");

    stage.kisi.clear_faults();
    add(unseen());
    stage.set_up(&mut replica).await;
    for _ in 0..2 {
        add(unseen());
        let sync = replica.sync().await;
        assert_eq!(sync.state, "done", "{sync:?}");
        assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    }
    // Its rights can go all the same.
    add(unseen());
    forbid(&stage, ("GET", "/integrations"), 1).await;
    assert_eq!(replica.sync().await.state, "failed");
    let shown = replica.integration().await;
    let what = |matter: &api::Attention| matter.what.clone();
    let what: Vec<String> = shown.attention.iter().map(what).collect();
    assert_eq!(what, ["key_rights"]);
    replica.stop().await;
}
