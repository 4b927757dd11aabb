//! What Kisi does not show in a pass: the rest is repaired all the same, the step that failed is named,
//! and nobody loses anything by what was not seen.

use contracts::integration::v1 as api;

use crate::harness::{GYM, OTHER_PLAN, On, PLAN, Running, SOON, Stage};
use crate::kisi::{Fault, GROUP, OTHER_GROUP};

/// As often as a read is repeated.
const TRIES: u64 = 3;

/// Members `m1` to `m3` in one group and `c1` in the other, and each group lacks one of them.
async fn with_drift(stage: &Stage, replica: &mut Running) {
    stage.directory.decide(GYM, "c1", 1, &[OTHER_PLAN]).await;
    stage.in_sync(replica, 3).await;
    for member in ["m1", "c1"] {
        let told = stage.answer(member, |told| told.grants.len() == 1).await;
        let right = told.grants[0].assignment_id;
        stage.kisi.remove_by_hand(right).await;
    }
}

async fn sizes(stage: &Stage) -> (usize, usize) {
    let rows = stage.kisi.group_rows(GROUP).await;
    let others = stage.kisi.group_rows(OTHER_GROUP).await;
    (rows.len(), others.len())
}

/// The step, the group, and whether the reason has this in it.
fn named(sync: &api::Sync, reason: &str) -> Vec<(String, i64, bool)> {
    let failures = &sync.report.as_ref().unwrap().failures;
    let named = failures.iter();
    named
        .map(|one| {
            let is_why = one.failure.contains(reason);
            (one.step.clone(), one.group_id, is_why)
        })
        .collect()
}

fn step(step: &str, group: i64) -> (String, i64, bool) {
    (step.to_owned(), group, true)
}

async fn a_group_that_kisi_fails_to_list_leaves_the_others_to_be_repaired(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    with_drift(&stage, &mut replica).await;
    let fail = async || {
        // The first listing is of the rights of the key's owner, the next of the first group.
        let fault = Fault::Status(500);
        stage
            .kisi
            .fail_after(1, "GET", "/role_assignments", TRIES, fault)
            .await;
    };
    fail().await;
    let sync = replica.sync().await;
    assert_eq!(
        (sync.state.as_str(), sync.in_sync),
        ("done_with_failures", false),
        "{sync:?}"
    );
    assert_eq!(named(&sync, "500"), [step("observe", GROUP)]);
    let report = sync.report.unwrap();
    assert_eq!((report.granted, report.revoked), (1, 0));
    assert_eq!(sizes(&stage).await, (2, 1));
    // Once is ordinary life; twice is shown, with who must act.
    assert!(replica.integration().await.attention.is_empty());
    fail().await;
    assert_eq!(replica.sync().await.state, "done_with_failures");
    let shown = replica.integration().await.attention;
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(
        [&shown[0].what, &shown[0].subject, &shown[0].who],
        ["listing_failing", &GROUP.to_string(), "kisi"]
    );
    assert_eq!(sizes(&stage).await, (2, 1));

    assert_eq!(replica.sync().await.state, "done");
    assert_eq!(sizes(&stage).await, (3, 1));
    assert_eq!(replica.integration().await.state, "active");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_kisi_fails_to_list_leaves_the_others_to_be_repaired_on_sqlite() {
    a_group_that_kisi_fails_to_list_leaves_the_others_to_be_repaired(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_kisi_fails_to_list_leaves_the_others_to_be_repaired_on_postgres() {
    a_group_that_kisi_fails_to_list_leaves_the_others_to_be_repaired(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_the_key_may_not_list_leaves_the_key_alive() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    with_drift(&stage, &mut replica).await;
    for shown in [0, 1] {
        let fault = Fault::Status(403);
        stage
            .kisi
            .fail_after(1, "GET", "/role_assignments", 1, fault)
            .await;
        let sync = replica.sync().await;
        assert_eq!(sync.state, "done_with_failures", "{sync:?}");
        assert_eq!(named(&sync, "403"), [step("observe", GROUP)]);
        let integration = replica.integration().await;
        let attention = integration.attention.iter();
        let attention: Vec<(&str, &str)> = attention
            .map(|it| (it.what.as_str(), it.who.as_str()))
            .collect();
        assert_eq!(attention, vec![("listing_failing", "staff"); shown]);
    }
    assert_eq!(sizes(&stage).await, (2, 1));
    // The key works: a revoke in that very group goes at once.
    stage.directory.decide(GYM, "m2", 2, &[]).await;
    let told = stage.answer("m2", |told| told.version == 2).await;
    assert_eq!(told.outcome, "revoked");
    replica.stop().await;
}

/// The owner's role is seen: it is no matter of the key, and what can be done without a list is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_list_no_group_is_no_dead_one() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    with_drift(&stage, &mut replica).await;
    for shown in [0, 2] {
        let fault = Fault::Status(403);
        stage
            .kisi
            .fail_after(1, "GET", "/role_assignments", 2, fault)
            .await;
        assert_eq!(replica.sync().await.state, "done_with_failures");
        let integration = replica.integration().await;
        assert_eq!(integration.key.unwrap().status, "ok");
        let attention = integration.attention;
        assert_eq!(attention.len(), shown, "{attention:?}");
        for matter in attention {
            assert_eq!([&matter.what, &matter.who], ["listing_failing", "staff"]);
            assert!(matter.message.contains("Kisi plan"), "{matter:?}");
        }
    }
    assert_eq!(sizes(&stage).await, (2, 0));
    stage.directory.decide(GYM, "m2", 2, &[]).await;
    let told = stage.answer("m2", |told| told.version == 2).await;
    assert_eq!(told.outcome, "revoked");
    replica.stop().await;
}

/// Her role is gone since the pass began, and with it every list.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_loses_its_rights_while_groups_are_listed_needs_attention() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    with_drift(&stage, &mut replica).await;
    let fault = Fault::Status(403);
    stage
        .kisi
        .fail_after(1, "GET", "/role_assignments", 3, fault)
        .await;
    assert_eq!(replica.sync().await.state, "failed");
    let shown = replica.integration().await.attention;
    assert!(shown.iter().any(|it| it.what == "key_rights"), "{shown:?}");
    assert_eq!(sizes(&stage).await, (2, 0));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doors_and_surroundings_that_kisi_fails_to_list_keep_nothing_from_being_repaired() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    with_drift(&stage, &mut replica).await;
    let before = replica.integration().await.groups;
    for route in ["/locks", "/integrations"] {
        let fault = Fault::Status(500);
        stage.kisi.fail("GET", route, TRIES, fault).await;
    }
    let sync = replica.sync().await;
    // Everything of ours stands as it should.
    assert_eq!(
        (sync.state.as_str(), sync.in_sync),
        ("done_with_failures", true),
        "{sync:?}"
    );
    assert_eq!(named(&sync, "500"), [step("key", 0), step("doors", 0)]);
    assert_eq!(sizes(&stage).await, (3, 1));

    // One group's doors: the other's are shown as they are, and these as they were.
    stage.kisi.take_doors_away(OTHER_GROUP);
    let fault = Fault::Status(500);
    stage.kisi.fail("GET", "/group_locks", TRIES, fault).await;
    let sync = replica.sync().await;
    assert_eq!(named(&sync, "500"), [step("doors", GROUP)]);
    let shown = replica.integration().await.groups;
    assert_eq!(shown[0], before[0]);
    assert!(shown[1].doors.is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_more_people_than_kisi_lists_is_shown_and_goes_on_by_single_events() {
    let stage = Stage::set(On::Sqlite).await;
    // A simulator with so many rights takes its time.
    let flags = [("kisi-request-timeout", "15s"), ("lease-ttl", "60s")];
    let mut replica = stage.start_with(&flags).await;
    with_drift(&stage, &mut replica).await;
    stage.kisi.overfill(GROUP);
    let sync = replica.sync().await;
    assert_eq!(
        (sync.state.as_str(), sync.in_sync),
        ("done_with_failures", false)
    );
    assert_eq!(named(&sync, "20253 rows"), [step("observe", GROUP)]);
    let report = sync.report.unwrap();
    assert_eq!((report.granted, report.revoked), (1, 0));
    let shown = replica.integration().await.attention;
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0].subject, GROUP.to_string());
    assert!(shown[0].message.contains("More people"), "{shown:?}");
    assert_eq!(shown[0].who, "staff");

    stage.directory.decide(GYM, "m2", 2, &[]).await;
    let told = stage.answer("m2", |told| told.version == 2).await;
    assert_eq!(told.outcome, "revoked");
    stage.directory.decide(GYM, "m4", 1, &[PLAN]).await;
    let told = stage.answer("m4", |told| told.version == 1).await;
    assert_eq!(told.outcome, "granted");
    replica.stop().await;
}

/// A mapping that is taken away while its group is not shown: the plan is held whole once it is seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_mapping_takes_nothing_in_a_group_that_was_not_seen() {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [
        ("brake-unexplained-min", "2"),
        ("brake-unexplained-hour-percent", "0"),
        ("brake-unexplained-day-percent", "0"),
    ];
    let mut replica = stage.start_with(&flags).await;
    for i in 1..=4 {
        let member = format!("c{i}");
        stage.directory.decide(GYM, &member, 1, &[OTHER_PLAN]).await;
    }
    stage.in_sync(&mut replica, 1).await;
    assert_eq!(sizes(&stage).await, (1, 4));
    // After the rights of the key's owner and the first group.
    let fault = Fault::Status(500);
    stage
        .kisi
        .fail_after(2, "GET", "/role_assignments", TRIES, fault)
        .await;
    let before = replica.integration().await.last_reconciled_at;
    replica.associate(&[(PLAN, GROUP)]).await.unwrap();
    testkit::eventually("the pass of the mapping has ended", SOON, async || {
        replica.integration().await.last_reconciled_at != before
    })
    .await;
    assert_eq!(sizes(&stage).await, (1, 4));
    assert!(replica.held_plans().await.is_empty());

    assert_eq!(replica.sync().await.state, "held");
    assert_eq!(sizes(&stage).await, (1, 4));
    let plan = replica.plan_held().await;
    assert_eq!((plan.class.as_str(), plan.revokes), ("unexplained", 4));
    replica.stop().await;
}
