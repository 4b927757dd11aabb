//! What people change by hand at Kisi: their rights are left and shown, ours come back.

use kisi_simulator::rows::Assignment;
use sea_orm::ConnectionTrait;

use crate::harness::{GYM, OTHER_PLAN, On, PLAN, SOON, Stage};
use crate::kisi::{Fault, GROUP};

async fn drift_by_hand_is_left_or_repaired(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 4).await;

    // Added by hand, for somebody who is no member: left, and shown.
    let added = stage.kisi.add_by_hand("stranger@example.com", GROUP).await;
    // Removed by hand: granted back.
    let ours = stage.answer("m3", |answer| answer.version == 1).await;
    stage
        .kisi
        .remove_by_hand(ours.grants[0].assignment_id)
        .await;

    let sync = replica.sync().await;
    assert_eq!(sync.state, "done", "{sync:?}");
    let report = sync.report.unwrap();
    assert_eq!(
        (report.granted, report.revoked, report.unmanaged),
        (1, 0, 1)
    );
    assert_eq!(report.unmanaged_grants[0].assignment_id, added);
    assert_eq!(replica.integration().await.unmanaged, 1);
    let back = stage
        .answer("m3", |answer| answer.applied_seq > ours.applied_seq)
        .await;
    assert_eq!(back.outcome, "granted");
    assert_ne!(back.grants[0].assignment_id, ours.grants[0].assignment_id);
    let rows = stage.kisi.group_rows(GROUP).await;
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().any(|row| row["id"].as_i64() == Some(added)));
    stage.kisi.assert_nothing_was_refused().await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_by_hand_is_left_or_repaired_on_sqlite() {
    drift_by_hand_is_left_or_repaired(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_by_hand_is_left_or_repaired_on_postgres() {
    drift_by_hand_is_left_or_repaired(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_others_gave_is_never_claimed_closed() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let added = stage.kisi.add_by_hand("m7@example.com", GROUP).await;
    stage.directory.decide(GYM, "m7", 1, &[PLAN]).await;
    let told = stage.answer("m7", |answer| answer.version == 1).await;
    assert_eq!(told.outcome, "unchanged");
    assert_eq!(told.groups_opened_by_others, [GROUP]);
    assert!(told.grants.is_empty() && told.groups_missing.is_empty());

    stage.directory.decide(GYM, "m7", 2, &[]).await;
    let told = stage.answer("m7", |answer| answer.version == 2).await;
    assert_eq!(told.outcome, "unchanged");
    assert_eq!(told.groups_opened_by_others, [GROUP]);
    let rows = stage.kisi.group_rows(GROUP).await;
    assert!(rows.iter().any(|row| row["id"].as_i64() == Some(added)));

    // Gone by hand while the member is entitled again: ours takes its place.
    stage.directory.decide(GYM, "m7", 3, &[PLAN]).await;
    stage.answer("m7", |answer| answer.version == 3).await;
    stage.kisi.remove_by_hand(added).await;
    assert!(replica.sync().await.in_sync);
    stage
        .answer("m7", |answer| {
            answer.grants.len() == 1 && answer.groups_opened_by_others.is_empty()
        })
        .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_message_is_found_by_the_reconcile() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    // Decided, and never heard of here.
    stage.directory.put(GYM, "m1", 2, &[]);
    let sync = replica.sync().await;
    assert_eq!(sync.state, "done", "{sync:?}");
    stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_lacks_most_of_ours_removes_and_grants_nothing() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 14).await;
    for row in stage.kisi.group_rows(GROUP).await.iter().take(12) {
        stage.kisi.remove_by_hand(row["id"].as_i64().unwrap()).await;
    }
    let sync = replica.sync().await;
    assert_eq!(sync.state, "done_with_failures");
    assert_eq!(sync.report.unwrap().granted, 0);
    let shown = replica.integration().await;
    assert!(
        shown
            .attention
            .iter()
            .any(|a| a.what == "listing_distrusted")
    );
    replica.stop().await;
}

/// Others take two rights of the first page while the second is on its way, and two of ours move past the
/// edge between them: they are in no page, and nobody took them.
#[tokio::test(flavor = "multi_thread")]
async fn rights_that_move_past_the_edge_of_a_page_are_not_given_again() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    let first = stage.kisi.add_by_hand("stranger@example.com", GROUP).await;
    let mut theirs = vec![first];
    {
        let mut state = stage.kisi.shared().lock();
        let like = state.world.assignments[&first].clone();
        for _ in 1..250 {
            let id = state.world.next_id();
            let row = Assignment { id, ..like.clone() };
            state.world.insert_assignment(row);
            theirs.push(id);
        }
    }
    stage.in_sync(&mut replica, 4).await;
    let told = stage.answer("m1", |answer| answer.version == 1).await;
    // After the rights of the key's owner and the group's first page.
    let before = stage.kisi.held_back();
    let wait = Fault::Wait;
    stage
        .kisi
        .fail_after(2, "GET", "/role_assignments", 1, wait)
        .await;
    let hands = async {
        stage.kisi.one_is_held_back(before).await;
        for right in &theirs[..2] {
            stage.kisi.remove_by_hand(*right).await;
        }
        stage.kisi.clear_faults();
    };
    let (sync, ()) = tokio::join!(replica.sync(), hands);
    assert_eq!(
        (sync.state.as_str(), sync.in_sync),
        ("done", true),
        "{sync:?}"
    );
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");
    // Each of the two was asked for by its id.
    let requests = stage.kisi.requests().await;
    let asked = requests
        .iter()
        .filter(|it| it.starts_with("GET /role_assignments/"));
    assert_eq!(asked.count(), 2, "{requests:?}");
    let now = stage.answer("m1", |_| true).await;
    assert_eq!(now.applied_seq, told.applied_seq);
    replica.stop().await;
}

/// Somebody leaves between two pages: the second lacks her right, which the pass had counted on.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_we_take_while_a_pass_looks_was_not_taken_by_others() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.directory.decide(GYM, "c1", 1, &[OTHER_PLAN]).await;
    stage.in_sync(&mut replica, 1).await;
    replica.stop().await;
    let slow = [("kisi-requests-per-second", "2")];
    let mut replica = stage.start_with(&slow).await;
    stage.kisi.forget_requests().await;
    let page = |request: &String| request == "GET /role_assignments";
    let leaves = async {
        // After the rights of the key's owner and the first group.
        testkit::eventually("the first group is listed", SOON, async || {
            stage
                .kisi
                .requests()
                .await
                .iter()
                .filter(|it| page(it))
                .count()
                == 2
        })
        .await;
        stage.directory.decide(GYM, "c1", 2, &[]).await;
    };
    let (sync, ()) = tokio::join!(replica.sync(), leaves);
    assert_eq!(sync.state, "done", "{sync:?}");
    let told = stage.answer("c1", |answer| answer.version == 2).await;
    assert_eq!((told.outcome.as_str(), told.grants.len()), ("revoked", 0));
    let requests = stage.kisi.requests().await;
    let taken = requests.iter().position(|it| it.starts_with("DELETE"));
    let listed = requests.iter().rposition(page);
    assert!(taken < listed, "{requests:?}");
    let timeline = contracts::access::v1::GetTimelineRequest {
        gym_id: GYM.to_owned(),
        member_id: "c1".to_owned(),
        ..Default::default()
    };
    let shown = replica.client.get_timeline(timeline).await.unwrap();
    let mut entries = shown.get_ref().entries.iter();
    assert!(
        !entries.any(|entry| entry.kind == "removed_by_others"),
        "{shown:?}"
    );
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheduled_reconcile_repairs_by_itself_and_finishes_a_first_sync_that_failed() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&[("reconcile-every", "2s")]).await;
    stage.directory.decide(GYM, "m1", 1, &[PLAN]).await;
    stage.set_up(&mut replica).await;
    // Nothing is concluded by a key whose owner's rights cannot be looked at.
    stage
        .kisi
        .fail("GET", "/role_assignments", 3, Fault::Status(500))
        .await;
    let failed = replica.sync().await;
    assert_eq!((failed.state.as_str(), failed.in_sync), ("failed", false));
    assert_eq!(replica.integration().await.state, "syncing");
    let granted = stage
        .answer("m1", |answer| answer.outcome == "granted")
        .await;
    testkit::eventually("the integration is active", SOON, async || {
        replica.integration().await.state == "active"
    })
    .await;

    stage
        .kisi
        .remove_by_hand(granted.grants[0].assignment_id)
        .await;
    stage
        .answer("m1", |answer| {
            answer.outcome == "granted" && answer.applied_seq > granted.applied_seq
        })
        .await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);

    // Two more passes change nothing: pages, and no more.
    stage.kisi.forget_requests().await;
    let before = replica.integration().await.last_reconciled_at;
    let mut seen = std::collections::BTreeSet::new();
    testkit::eventually("two more passes", SOON, async || {
        let at = replica.integration().await.last_reconciled_at;
        if at != before {
            seen.insert(at.map(|at| (at.seconds, at.nanos)));
        }
        seen.len() == 2
    })
    .await;
    // What is asked about the key, and one page for each group.
    let requests = stage.kisi.requests().await;
    let about_the_key = ["GET /user", "GET /logins", "GET /integrations"];
    let (about, pages): (Vec<_>, Vec<_>) = requests
        .iter()
        .partition(|it| about_the_key.contains(&it.as_str()));
    assert!(
        pages.iter().all(|it| *it == "GET /role_assignments"),
        "{requests:?}"
    );
    assert!((3..=9).contains(&pages.len()), "{requests:?}");
    assert!((3..=9).contains(&about.len()), "{requests:?}");
    replica.stop().await;
}

async fn the_table_of_what_is_ours_is_rebuilt_from_what_was_told(on: On, also: &str) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    let before = stage.answer("m1", |answer| answer.version == 1).await;
    let db = kisi_sync::store::connect(&secrecy::SecretString::from(stage.database_url()))
        .await
        .unwrap();
    for lost in ["delete from applied_grants", also] {
        db.execute_unprepared(lost).await.unwrap();
    }
    let sync = replica.sync().await;
    assert_eq!(
        (sync.state.as_str(), sync.in_sync),
        ("done", true),
        "{sync:?}"
    );
    assert!(stage.kisi.writes().await.is_empty());
    stage.kisi.forget_requests().await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let revoked = stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(revoked.outcome, "revoked");
    assert!(revoked.applied_seq > before.applied_seq);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_what_is_ours_is_rebuilt_from_what_was_told_on_sqlite() {
    the_table_of_what_is_ours_is_rebuilt_from_what_was_told(On::Sqlite, "select 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_what_is_ours_is_rebuilt_with_its_members_on_postgres() {
    the_table_of_what_is_ours_is_rebuilt_from_what_was_told(On::Postgres, "delete from members")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_fail_twice_and_groups_that_open_nothing_are_shown_until_they_do() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let shown = async |replica: &mut crate::harness::Running| {
        let attention = replica.integration().await.attention;
        let what = attention
            .into_iter()
            .map(|matter| [matter.what, matter.who].join(" for "));
        what.collect::<Vec<_>>()
    };
    // Kisi refuses a member whom its rules do not like.
    let mut person = stage.directory.put(GYM, "m2", 1, &[PLAN]);
    person.email = "no e-mail".to_owned();
    stage.directory.insert(person.clone());
    stage.directory.publish(&person.state.unwrap()).await;
    stage
        .answer("m2", |answer| answer.outcome == "failed")
        .await;
    replica.sync().await;
    assert!(shown(&mut replica).await.is_empty());
    replica.sync().await;
    assert_eq!(shown(&mut replica).await, ["grants_failing for staff"]);
    stage.kisi.overlook_refusals();

    stage.directory.decide(GYM, "m2", 2, &[PLAN]).await;
    stage
        .answer("m2", |answer| answer.outcome == "granted")
        .await;
    stage.kisi.take_doors_away(GROUP);
    let rows = stage.kisi.group_rows(GROUP).await;
    assert_eq!(rows.len(), 2);
    stage.kisi.forget_requests().await;
    let told = [
        stage.answer("m1", |_| true).await,
        stage.answer("m2", |_| true).await,
    ];
    for _ in 0..2 {
        let sync = replica.sync().await;
        assert_eq!((sync.state.as_str(), sync.in_sync), ("done", true));
        assert_eq!(shown(&mut replica).await, ["group_without_doors for staff"]);
    }
    // It is no matter of the members': nobody loses the right, and nothing is tried again.
    assert_eq!(stage.kisi.group_rows(GROUP).await, rows);
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");
    for before in told {
        let now = stage.answer(&before.member_id, |_| true).await;
        assert_eq!(now, before);
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_writer_who_undoes_what_we_gave_is_shown() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    for round in 1..=2 {
        let last = stage
            .answer("m1", |answer| answer.outcome == "granted")
            .await;
        stage
            .kisi
            .remove_by_hand(last.grants[0].assignment_id)
            .await;
        replica.sync().await;
        stage
            .answer("m1", |answer| answer.applied_seq > last.applied_seq)
            .await;
        let attention = replica.integration().await.attention;
        let shown = attention
            .iter()
            .any(|a| a.what == "another_writer" && a.who == "staff");
        // Once may be a slip of somebody's hand.
        assert_eq!(shown, round == 2, "{attention:?}");
    }
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 3);
    let timeline = contracts::access::v1::GetTimelineRequest {
        gym_id: GYM.to_owned(),
        member_id: "m1".to_owned(),
        ..Default::default()
    };
    let told = replica
        .client
        .get_timeline(timeline)
        .await
        .unwrap()
        .into_inner();
    let kinds: Vec<&str> = told
        .entries
        .iter()
        .map(|entry| entry.kind.as_str())
        .collect();
    let undone = ["granted", "removed_by_others"];
    assert_eq!(kinds[..4], [undone, undone].concat());
    replica.stop().await;
}
