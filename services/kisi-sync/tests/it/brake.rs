//! Single events run up to the line; what lies past it is held by name until a person decides.

use std::collections::BTreeSet;

use contracts::integration::v1 as api;
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

use crate::harness::{GYM, OTHER_PLAN, On, PLAN, Running, SOON, Stage};
use crate::kisi::{Fault, GROUP, OTHER_GROUP};
use crate::refusals::erase;

#[tokio::test(flavor = "multi_thread")]
async fn events_past_the_line_are_held_and_survive_a_restart() {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [
        ("brake-explained-min", "2"),
        ("brake-explained-hour-percent", "0"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 6).await;
    for member in ["m1", "m2"] {
        stage.directory.decide(GYM, member, 2, &[]).await;
        let told = stage.answer(member, |answer| answer.version == 2).await;
        assert_eq!(told.outcome, "revoked");
    }
    for member in ["m3", "m4"] {
        stage.directory.decide(GYM, member, 2, &[]).await;
        let told = stage.answer(member, |answer| answer.version == 2).await;
        assert_eq!(told.outcome, "held", "{told:?}");
        assert_eq!(told.failure.as_deref(), Some("brake"));
        assert_eq!(told.grants.len(), 1);
    }
    erase(&stage, "m5", 2).await;
    let told = stage.answer("m5", |answer| answer.version == 2).await;
    assert_eq!(told.outcome, "held", "{told:?}");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 4);

    // The counts and the plan are the tables': a restart changes neither.
    replica.stop().await;
    let mut replica = stage.start_with(&flags).await;
    let gym = api::GymRequest {
        gym_id: GYM.to_owned(),
    };
    let plans = replica.client.list_held_plans(gym.clone()).await.unwrap();
    let plan = plans.into_inner().held_plans.remove(0);
    assert_eq!((plan.class.as_str(), plan.revokes), ("explained", 3));
    // A sync leaves them as they are, and asks no second time.
    let sync = replica.sync().await;
    assert_eq!((sync.state.as_str(), sync.in_sync), ("held", false));
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 4);
    let plans = replica.client.list_held_plans(gym).await.unwrap();
    assert_eq!(plans.into_inner().held_plans.len(), 1);

    // Entitled again: m3 drops out without spoiling the set.
    stage.directory.decide(GYM, "m3", 3, &[PLAN]).await;
    let told = stage.answer("m3", |answer| answer.version == 3).await;
    assert_eq!(told.outcome, "unchanged");
    let approve = api::DecidePlanRequest {
        gym_id: GYM.to_owned(),
        id: plan.id,
        digest: plan.digest,
    };
    replica.client.approve_plan(approve).await.unwrap();
    stage
        .answer("m4", |answer| {
            answer.version == 2 && answer.outcome == "revoked"
        })
        .await;
    // Who waits for it hears that she is forgotten, though the sync told her news in between.
    stage.answer("m5", |told| told.outcome == "erased").await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    testkit::eventually("nothing needs attention", SOON, async || {
        replica.integration().await.state == "active"
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_roster_or_new_rules_take_is_unexplained_unless_a_person_confirmed_it() {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [
        ("brake-unexplained-min", "2"),
        ("brake-unexplained-hour-percent", "0"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 8).await;
    let out = async |member: &str, kind: &str, id: &str| {
        let mut state = stage.directory.put(GYM, member, 2, &[]).state.unwrap();
        let cause = state.cause.as_mut().unwrap();
        (cause.kind, cause.id) = (kind.to_owned(), id.to_owned());
        stage.directory.publish(&state).await;
        let told = stage.answer(member, |answer| answer.version == 2).await;
        told.outcome
    };
    // A gym's new grace is no fact about one of them either.
    let (roster, rules) = (("import", "roster"), ("call", "PutGym"));
    for (member, (kind, id), outcome) in [
        ("m1", roster, "revoked"),
        ("m2", rules, "revoked"),
        ("m3", roster, "held"),
        ("m4", rules, "held"),
    ] {
        assert_eq!(out(member, kind, id).await, outcome, "{member}");
    }
    // Facts about the very member, and what was confirmed where it was shown, wait for nobody.
    for (member, kind) in [
        ("m5", "billing_event"),
        ("m6", "confirmed_import"),
        ("m7", "confirmed_import"),
        ("m8", "call"),
    ] {
        assert_eq!(out(member, kind, "it").await, "revoked", "{member}");
    }
    let plan = replica.plan_held().await;
    assert_eq!((plan.class.as_str(), plan.revokes), ("unexplained", 2));
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    replica.approve(&plan.id, &plan.digest).await.unwrap();
    for member in ["m3", "m4"] {
        stage
            .answer(member, |answer| answer.outcome == "revoked")
            .await;
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_lets_in_too_many_waits_until_it_is_approved_and_for_no_later_pass() {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [("brake-grants-min", "2"), ("brake-grants-percent", "0")];
    let mut replica = stage.start_with(&flags).await;
    for i in 1..=4 {
        let member = format!("c{i}");
        stage.directory.decide(GYM, &member, 1, &["pool"]).await;
    }
    stage.in_sync(&mut replica, 2).await;
    let mapping = [(PLAN, GROUP), ("pool", OTHER_GROUP)];
    replica.associate(&mapping).await.unwrap();
    let gym = api::GymRequest {
        gym_id: GYM.to_owned(),
    };
    let held = async |replica: &mut Running| {
        testkit::eventually_some("the plan is held", SOON, async || {
            let plans = replica.client.list_held_plans(gym.clone()).await.unwrap();
            plans.into_inner().held_plans.pop()
        })
        .await
    };
    let plan = held(&mut replica).await;
    assert_eq!(
        (plan.class.as_str(), plan.revokes, plan.grants),
        ("grants", 0, 4)
    );
    let sync = replica.sync().await;
    assert_eq!((sync.state.as_str(), sync.in_sync), ("held", false));
    assert!(stage.kisi.group_rows(OTHER_GROUP).await.is_empty());
    // Whom a fact of her own lets in waits for nobody.
    stage.directory.decide(GYM, "c1", 2, &["pool"]).await;
    let told = stage.answer("c1", |answer| answer.version == 2).await;
    assert_eq!(told.outcome, "granted");
    // Another mapping is another question; the same one again is asked anew.
    replica.associate(&[(PLAN, GROUP)]).await.unwrap();
    stage
        .answer("c1", |answer| answer.outcome == "revoked")
        .await;
    replica.associate(&mapping).await.unwrap();
    let again = held(&mut replica).await;
    assert!(again.id != plan.id && again.grants == 4, "{again:?}");
    let decide = |plan: &api::HeldPlan| api::DecidePlanRequest {
        gym_id: GYM.to_owned(),
        id: plan.id.clone(),
        digest: plan.digest.clone(),
    };
    let late = replica
        .client
        .approve_plan(decide(&plan))
        .await
        .unwrap_err();
    assert_eq!(late.code(), tonic::Code::FailedPrecondition);
    replica.client.approve_plan(decide(&again)).await.unwrap();
    testkit::eventually("the doors are open", SOON, async || {
        stage.kisi.group_rows(OTHER_GROUP).await.len() == 4
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecided_plan_is_shown_once_more_and_then_planned_anew() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&[("reconcile-every", "2s")]).await;
    stage.in_sync(&mut replica, 12).await;
    replica.associate(&[]).await.unwrap();
    let attention = async |replica: &mut Running, words: &str| {
        testkit::eventually_some("it is shown", SOON, async || {
            let shown = replica.integration().await.attention;
            let held = shown.into_iter().find(|a| a.what == "plan_held");
            held.filter(|a| a.message.contains(words))
        })
        .await
        .subject
    };
    let first = attention(&mut replica, "approve").await;
    let db = tables(&stage).await;
    passes_end(&db).await;
    // The time passes.
    let hour = 3_600_000_000_i64;
    for (by, words) in [(60 * hour, "within a day"), (80 * hour, "lose access")] {
        let sql = format!(
            "update held_plans set expires_at = held_at + {} where id = '{first}'",
            72 * hour - by
        );
        db.execute_unprepared(&sql).await.unwrap();
        let shown = attention(&mut replica, words).await;
        assert_eq!(shown == first, by == 60 * hour);
    }
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 12);
    replica.stop().await;
}

/// A request that a test holds back is waited for.
const PATIENT: [(&str, &str); 2] = [("kisi-request-timeout", "15s"), ("lease-ttl", "60s")];

/// Until every pass that was asked for has ended.
pub(crate) async fn passes_end(db: &DatabaseConnection) {
    testkit::eventually("no pass is under way", SOON, async || {
        let sql = "select sync_id from syncs where state in ('queued', 'running')";
        rows(db, sql).await == 0
    })
    .await;
}

pub(crate) async fn rows(db: &DatabaseConnection, sql: &str) -> usize {
    let statement = Statement::from_string(db.get_database_backend(), sql);
    db.query_all_raw(statement).await.unwrap().len()
}

async fn reports(db: &DatabaseConnection) -> Vec<String> {
    let sql = "select state || ' ' || activation || ' ' || report as report from syncs";
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let rows = db.query_all_raw(statement).await.unwrap();
    rows.iter()
        .map(|row| row.try_get("", "report").unwrap())
        .collect()
}

pub(crate) async fn tables(stage: &Stage) -> DatabaseConnection {
    let url = secrecy::SecretString::from(stage.database_url());
    kisi_sync::store::connect(&url).await.unwrap()
}

/// A pass has read that they are held, and before it has done anything the plan is over: nobody of them
/// loses access before a person, or a pass that counts them all, says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_expires_in_the_middle_of_a_pass_lets_nobody_lose_access() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 12).await;
    let db = tables(&stage).await;
    replica.associate(&[]).await.unwrap();
    let first = replica.plan_held().await;
    passes_end(&db).await;
    replica.stop().await;
    stage.kisi.forget_requests().await;
    // Its key and its first look at the group go through, and the second waits.
    stage.kisi.hold_listings_back(2);
    let mut replica = stage
        .start_with(&[&[("reconcile-every", "2s")], &PATIENT[..]].concat())
        .await;
    stage.kisi.one_is_held_back(0).await;
    let sql = format!(
        "update held_plans set expires_at = 1 where id = '{}'",
        first.id
    );
    db.execute_unprepared(&sql).await.unwrap();
    testkit::eventually("the plan is over", SOON, async || {
        let sql = "select id from held_plans where state = 'expired'";
        rows(&db, sql).await == 1
    })
    .await;
    stage.kisi.clear_faults();
    let again = replica.plan_held().await;
    assert_ne!(again.id, first.id);
    assert_eq!((again.class.as_str(), again.revokes), ("unexplained", 12));
    passes_end(&db).await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 12);
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");
    replica.stop().await;
}

/// Between the end of a plan and the pass that plans anew somebody looks at single members.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_at_single_members_after_a_plan_expired_lets_nobody_lose_access() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 12).await;
    let db = tables(&stage).await;
    replica.associate(&[]).await.unwrap();
    replica.plan_held().await;
    passes_end(&db).await;
    db.execute_unprepared("update held_plans set expires_at = 1")
        .await
        .unwrap();
    testkit::eventually("the plan is over", SOON, async || {
        // Where the service writes at the same moment, it is tried again.
        kisi_sync::held::expire(&db, 2).await.is_ok()
    })
    .await;
    stage.kisi.forget_requests().await;
    let before = stage.answer("m1", |_| true).await;
    let request = api::SyncMemberRequest {
        gym_id: GYM.to_owned(),
        member_id: "m1".to_owned(),
    };
    replica.client.sync_member(request).await.unwrap();
    testkit::eventually("nothing is to be done", SOON, async || {
        rows(&db, "select member_id from members where pending").await == 0
    })
    .await;
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");
    let after = stage.answer("m1", |_| true).await;
    assert_eq!(before.grants, after.grants);
    // The next pass asks again.
    assert_eq!(replica.sync().await.state, "held");
    assert_eq!(replica.plan_held().await.revokes, 12);
    // And a mapping that opens as before leaves nobody held.
    replica.associate(&[(PLAN, GROUP)]).await.unwrap();
    testkit::eventually("nothing is held", SOON, async || {
        replica.held_plans().await.is_empty()
            && rows(&db, "select 1 from members where held_by is not null").await == 0
    })
    .await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 12);
    replica.stop().await;
}

/// Whoever dropped out of the set and is held by a later one is part of the later one alone.
#[tokio::test(flavor = "multi_thread")]
async fn approving_applies_the_set_as_shown_and_nobody_who_came_later() {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [
        ("brake-explained-min", "1"),
        ("brake-explained-hour-percent", "0"),
    ];
    let mut replica = stage.start_with(&flags).await;
    stage.in_sync(&mut replica, 6).await;
    let lose = async |member: &str, version: i64, outcome: &str| {
        stage.directory.decide(GYM, member, version, &[]).await;
        let told = stage
            .answer(member, |answer| answer.version == version)
            .await;
        assert_eq!(told.outcome, outcome, "{told:?}");
    };
    lose("m1", 2, "revoked").await;
    lose("m2", 2, "held").await;
    lose("m3", 2, "held").await;
    let shown = replica.plan_held().await;
    assert_eq!(shown.revokes, 2);
    // m2 pays and fails again; m4 fails for the first time.
    stage.directory.decide(GYM, "m2", 3, &[PLAN]).await;
    stage.answer("m2", |answer| answer.version == 3).await;
    lose("m2", 4, "held").await;
    lose("m4", 2, "held").await;
    let plans = replica.held_plans().await;
    assert_eq!(plans.len(), 2);
    let later = plans.into_iter().find(|plan| plan.id != shown.id).unwrap();
    assert_eq!(later.revokes, 2);

    for (id, digest) in [(&shown.id, &later.digest), (&later.id, &shown.digest)] {
        let refused = replica.approve(id, digest).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    }
    replica.approve(&shown.id, &shown.digest).await.unwrap();
    stage
        .answer("m3", |answer| answer.outcome == "revoked")
        .await;
    let db = tables(&stage).await;
    testkit::eventually("nothing is to be done", SOON, async || {
        rows(&db, "select member_id from members where pending").await == 0
    })
    .await;
    let users = ["m2", "m4", "m5", "m6"].map(|m| stage.kisi.user_of(&format!("{m}@example.com")));
    let standing = stage.kisi.group_rows(GROUP).await;
    let standing = standing
        .iter()
        .map(|row| row["assignee_id"].as_i64().unwrap());
    let standing: BTreeSet<i64> = standing.collect();
    assert_eq!(standing, BTreeSet::from(users));
    let again = replica.approve(&shown.id, &shown.digest).await.unwrap_err();
    assert!(again.message().contains("decided"), "{again:?}");
    replica.approve(&later.id, &later.digest).await.unwrap();
    testkit::eventually("the later set is applied", SOON, async || {
        stage.kisi.group_rows(GROUP).await.len() == 2
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn approving_what_a_newer_mapping_has_overtaken_says_that_it_no_longer_fits() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 12).await;
    replica.associate(&[]).await.unwrap();
    let shown = replica.plan_held().await;
    replica
        .associate(&[(PLAN, GROUP), ("pool", OTHER_GROUP)])
        .await
        .unwrap();
    testkit::eventually("nothing is held", SOON, async || {
        replica.held_plans().await.is_empty()
    })
    .await;
    stage.kisi.forget_requests().await;
    let refused = replica.approve(&shown.id, &shown.digest).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains("no longer fits"), "{refused:?}");
    assert!(replica.sync().await.in_sync);
    assert!(stage.kisi.writes().await.is_empty());
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 12);
    // Whom it had held is held by nothing.
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let told = stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(told.outcome, "revoked");
    replica.stop().await;
}

/// Eleven would lose their right by a changed mapping, one more than goes by itself. Between the two looks
/// one of them is in good standing again, and is neither counted nor held.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_look_spares_whoever_is_in_good_standing_again() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&PATIENT).await;
    stage.in_sync(&mut replica, 11).await;
    // Its key and its first look at the group go through, and the second waits.
    stage.kisi.hold_listings_back(2);
    replica.associate(&[(OTHER_PLAN, GROUP)]).await.unwrap();
    stage.kisi.one_is_held_back(0).await;
    stage.directory.decide(GYM, "m1", 2, &[OTHER_PLAN]).await;
    let spared = stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(
        (spared.outcome.as_str(), spared.grants.len()),
        ("unchanged", 1)
    );
    stage.kisi.clear_faults();
    let db = tables(&stage).await;
    passes_end(&db).await;
    assert!(replica.held_plans().await.is_empty());
    let rows = stage.kisi.group_rows(GROUP).await;
    assert_eq!(rows.len(), 1, "{:?}", reports(&db).await);
    assert_eq!(rows[0]["id"].as_i64(), Some(spared.grants[0].assignment_id));
    let told = stage.answer("m1", |_| true).await;
    assert_eq!(told, spared);
    replica.stop().await;
}

/// Kisi fails in the middle of the pass that a changed mapping began: the one after it asks as that one
/// would have.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_a_mapping_lets_in_is_counted_though_its_first_pass_failed() {
    let stage = Stage::set(On::Sqlite).await;
    let flags = [("brake-grants-min", "2"), ("brake-grants-percent", "0")];
    let mut replica = stage.start_with(&flags).await;
    for i in 1..=4 {
        let member = format!("c{i}");
        stage.directory.decide(GYM, &member, 1, &["pool"]).await;
    }
    stage.in_sync(&mut replica, 2).await;
    // The rights of the key's owner cannot be looked at.
    let (get, route, fault) = ("GET", "/role_assignments", Fault::Status(500));
    stage.kisi.fail(get, route, u64::MAX, fault).await;
    replica
        .associate(&[(PLAN, GROUP), ("pool", OTHER_GROUP)])
        .await
        .unwrap();
    let db = tables(&stage).await;
    passes_end(&db).await;
    assert_eq!(
        rows(&db, "select 1 from syncs where state = 'failed'").await,
        1
    );
    stage.kisi.clear_faults();
    assert!(stage.kisi.group_rows(OTHER_GROUP).await.is_empty());
    assert_eq!(replica.sync().await.state, "held");
    let plan = replica.plan_held().await;
    assert_eq!((plan.class.as_str(), plan.grants), ("grants", 4));
    assert_eq!(plan.causes, ["associations_changed"]);
    assert!(stage.kisi.group_rows(OTHER_GROUP).await.is_empty());
    // From then on it is the mapping there is.
    assert_eq!(replica.sync().await.state, "held");
    assert_eq!(replica.plan_held().await.id, plan.id);
    replica.stop().await;
}
