//! The key: looked at when it is saved and with each reconcile, and every change of it shown once.

use std::sync::Arc;

use contracts::integration::v1 as api;
use kisi_simulator::faults::{Fault, FaultKind};
use kisi_simulator::rows::{Assignee, Target};
use serde_json::json;

use crate::brake_days::Later;
use crate::harness::{GYM, On, Running, SOON, Stage};
use crate::kisi::{GROUP, ORGANIZATION};

/// An organization beside the gym's.
const ANOTHER: i64 = 4711;

async fn key(replica: &mut Running) -> api::KeyHealth {
    replica.integration().await.key.unwrap()
}

/// What changed, oldest first: `what: from -> to`.
fn changes(key: &api::KeyHealth) -> Vec<String> {
    let changes = key.changes.iter().rev();
    changes
        .map(|change| format!("{}: {} -> {}", change.what, change.from, change.to))
        .collect()
}

async fn add_integration(stage: &Stage, kind: &str) -> i64 {
    let change = json!({
        "action": "add_integration", "organization_id": ORGANIZATION, "kind": kind,
        "name": "People of ours",
    });
    stage.kisi.by_hand(change).await["integration_id"]
        .as_i64()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_key_is_shown_with_its_owner_s_role_and_what_else_works_there() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    let import = add_integration(&stage, "jumpcloud_user_import").await;
    replica.enable(&stage.kisi.api_key()).await.unwrap();
    let saved = key(&mut replica).await;
    assert_eq!(saved.status, "ok");
    assert_eq!(saved.organization_id, Some(ORGANIZATION));
    assert_eq!(saved.owner_role, "organization_owner");
    assert!(saved.owner_is_owner && !saved.dedicated_account);
    let others: Vec<(i64, &str, bool)> = saved
        .other_integrations
        .iter()
        .map(|other| (other.id, other.r#type.as_str(), other.enabled))
        .collect();
    assert_eq!(others, [(import, "jumpcloud_user_import", true)]);
    let advises = |word: &str| saved.advice.iter().any(|advice| advice.contains(word));
    assert!(advises("account of its own") && advises("Other integrations"));
    assert_eq!(changes(&saved), [""; 0]);

    // An account that is only ours, and not the owner's: it may lose its rights.
    let request = api::EnableIntegrationRequest {
        gym_id: GYM.to_owned(),
        api_key: stage.kisi.second_key(),
    };
    let rotated = replica.client.rotate_api_key(request).await.unwrap();
    let rotated = rotated.into_inner().key.unwrap();
    assert!(rotated.dedicated_account && !rotated.owner_is_owner);
    let advises = |word: &str| rotated.advice.iter().any(|advice| advice.contains(word));
    assert!(advises("administrator rights") && !advises("account of its own"));
    let owners = [saved.owner_user_id, rotated.owner_user_id].map(Option::unwrap);
    assert_eq!(
        changes(&rotated),
        [
            format!("owner: {} -> {}", owners[0], owners[1]),
            "owner_role: organization_owner -> organization_administrator".to_owned(),
            "dedicated_account: false -> true".to_owned(),
        ]
    );
    replica.stop().await;
}

async fn changes_of_the_key_show_once(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let before = key(&mut replica).await;
    assert_eq!(
        changes(&before),
        [""; 0],
        "what a first look finds is no change"
    );
    let import = add_integration(&stage, "active_directory_user_import").await;
    for _ in 0..2 {
        assert!(replica.sync().await.in_sync);
        let found = key(&mut replica).await;
        let added = format!("integration_added:  -> active_directory_user_import {import}");
        assert_eq!(changes(&found), [added]);
        let seconds = |key: &api::KeyHealth| key.checked_at.as_ref().map(|at| at.seconds);
        assert!(seconds(&found) >= seconds(&before));
    }

    // A key that dies needs attention, and its work waits for another one.
    let other = stage.kisi.revoke_key().await;
    assert_eq!(replica.sync().await.state, "failed");
    let dead = replica.integration().await;
    assert_eq!(dead.state, "needs_attention");
    let what: Vec<&str> = dead.attention.iter().map(|m| m.what.as_str()).collect();
    assert_eq!(what, ["key_invalid"]);
    let dead = dead.key.unwrap();
    assert_eq!(dead.status, "invalid");
    assert_eq!(changes(&dead)[1..], ["status: ok -> invalid"]);
    assert!(dead.advice.is_empty());
    let request = api::EnableIntegrationRequest {
        gym_id: GYM.to_owned(),
        api_key: other,
    };
    replica.client.rotate_api_key(request).await.unwrap();
    let back = replica.integration().await;
    assert_ne!(back.state, "needs_attention");
    let back = changes(&back.key.unwrap());
    assert_eq!(back[2], "status: invalid -> ok");
    assert_eq!(
        back[4],
        "owner_role: organization_owner -> organization_administrator"
    );
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_key_show_once_on_sqlite() {
    changes_of_the_key_show_once(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_key_show_once_on_postgres() {
    changes_of_the_key_show_once(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_owner_lost_her_rights_closes_no_door_and_needs_attention() {
    let stage = Stage::set(On::Sqlite).await;
    stage.kisi.set(|settings| settings.demoted_owner = 403);
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    let owner = key(&mut replica).await.owner_user_id.unwrap();
    stage
        .kisi
        .by_hand(json!({ "action": "demote", "user_id": owner }))
        .await;
    stage.kisi.forget_requests().await;
    assert_eq!(replica.sync().await.state, "failed");
    // The first request finds it: no list was read, and nothing was changed.
    assert_eq!(stage.kisi.requests().await, ["GET /role_assignments"]);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 3);
    let shown = replica.integration().await;
    assert_eq!(shown.state, "needs_attention");
    assert_eq!(shown.attention[0].what, "key_rights");
    assert_eq!(shown.attention[0].who, "staff");
    assert_eq!(shown.key.unwrap().status, "insufficient");
    replica.stop().await;
}

/// Another organization beside the gym's, with a key of its own.
async fn another_organization(stage: &Stage, key: &str) {
    let seed = json!({ "organizations": [{
        "id": ANOTHER, "name": "Steel House",
        "owner": { "email": "steel@example.com", "name": "Stella Steel", "api_key": key },
        "places": [{ "name": "Steel street", "locks": [{ "name": "Steel door" }] }],
    }] });
    stage.kisi.control("seed", &seed).await;
}

/// The gym's rights are in another organization than the one that a key opens: it is not taken, and
/// nothing is removed by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_organization_is_not_taken_while_plans_have_groups() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let other = "steel-key-00000000000000000000000009";
    another_organization(&stage, other).await;
    let before = replica.integration().await;
    let request = || api::EnableIntegrationRequest {
        gym_id: GYM.to_owned(),
        api_key: other.to_owned(),
    };
    let refused = replica.client.rotate_api_key(request()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(
        refused.message().contains("another Kisi organization"),
        "{refused:?}"
    );
    assert_eq!(replica.integration().await, before);
    assert!(replica.sync().await.in_sync);
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    replica.stop().await;
}

/// The account that the key belongs to was moved to another organization.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_opens_another_organization_than_before_needs_attention_and_removes_nothing() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let owner = key(&mut replica).await.owner_user_id.unwrap();
    another_organization(&stage, "steel-key-00000000000000000000000009").await;
    {
        let mut state = stage.kisi.shared().lock();
        let user = state.world.users.get_mut(&owner).unwrap();
        user.organization_id = ANOTHER;
        let roles: Vec<i64> = state
            .world
            .assignments_of(Assignee::User(owner))
            .map(|row| row.id)
            .collect();
        for role in roles {
            let mut row = state.world.remove_assignment(role).unwrap();
            (row.organization_id, row.applies_to) = (ANOTHER, Target::Organization(ANOTHER));
            state.world.insert_assignment(row);
        }
    }
    stage.kisi.forget_requests().await;
    let sync = replica.sync().await;
    assert_eq!(sync.state, "failed");
    let why = &sync.report.unwrap().failures[0].failure;
    assert!(why.contains("another organization"), "{why}");
    let shown = replica.integration().await;
    assert_eq!(shown.state, "needs_attention");
    assert_eq!(shown.attention.len(), 1, "{:?}", shown.attention);
    let matter = &shown.attention[0];
    assert_eq!(
        (matter.what.as_str(), matter.who.as_str()),
        ("key_invalid", "staff")
    );
    assert!(matter.message.contains("another Kisi organization"));
    assert_eq!(shown.key.unwrap().status, "invalid");
    // What was decided waits, and nobody's right is taken for gone.
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.consumed().await;
    assert!(stage.kisi.writes().await.is_empty());
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);

    let request = api::EnableIntegrationRequest {
        gym_id: GYM.to_owned(),
        api_key: stage.kisi.second_key(),
    };
    replica.client.rotate_api_key(request).await.unwrap();
    stage
        .answer("m1", |answer| answer.outcome == "revoked")
        .await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;
}

/// Kisi still answers, and the owner's role is none that gives rights: found before a list that lacks what
/// she may not see any more is believed.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_without_the_needed_role_needs_attention_before_kisi_refuses_the_key() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let owner = key(&mut replica).await.owner_user_id.unwrap();
    stage.kisi.set(|settings| settings.demoted_owner = 200);
    stage
        .kisi
        .by_hand(json!({ "action": "demote", "user_id": owner }))
        .await;
    stage.kisi.forget_requests().await;
    assert_eq!(replica.sync().await.state, "failed");
    // No group was read by it.
    let requests = stage.kisi.requests().await;
    assert_eq!(requests, ["GET /role_assignments", "GET /integrations"]);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    let shown = replica.integration().await;
    assert_eq!(shown.state, "needs_attention");
    let matter = &shown.attention[0];
    assert_eq!(
        (matter.what.as_str(), matter.who.as_str()),
        ("key_rights", "staff")
    );
    assert!(matter.message.contains("administrator"), "{matter:?}");
    assert_eq!(shown.key.unwrap().status, "insufficient");
    replica.stop().await;
}

/// The list of the owner's rights is short, and nothing betrays it: the key is no dead one, and the next
/// pass finds that.
/// Nobody has to ask for it, and no hour has to pass.
#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_reconcile_finds_what_is_new_around_the_key() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start_with(&[("reconcile-every", "2s")]).await;
    stage.in_sync(&mut replica, 1).await;
    let import = add_integration(&stage, "active_directory_user_import").await;
    let added = format!("integration_added:  -> active_directory_user_import {import}");
    testkit::eventually("it shows", SOON, async || {
        changes(&key(&mut replica).await) == [added.clone()]
    })
    .await;
    let found = key(&mut replica).await;
    assert!(
        found
            .advice
            .iter()
            .any(|it| it.contains("Other integrations"))
    );
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_lacks_the_owner_s_role_once_does_not_end_the_key() {
    let stage = Stage::set(On::Sqlite).await;
    let clock = Later::default();
    let flags = [("reconcile-every", "96h")];
    let mut replica = stage.start_at(Arc::new(clock.clone()), &flags).await;
    stage.in_sync(&mut replica, 2).await;
    let short = Fault {
        method: Some("GET".to_owned()),
        route: Some("/role_assignments".to_owned()),
        kind: FaultKind::ShortList,
        count: Some(1),
        skip: 0,
    };
    stage.kisi.shared().lock().faults.add(short.clone());
    assert_eq!(replica.sync().await.state, "failed");
    assert_eq!(replica.integration().await.state, "active");
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    let told = stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(told.outcome, "revoked");
    assert!(replica.sync().await.in_sync);
    // What is not found for a while is not there.
    for state in ["active", "active", "needs_attention"] {
        if state == "needs_attention" {
            clock.by_an_hour();
        }
        stage.kisi.shared().lock().faults.add(short.clone());
        assert_eq!(replica.sync().await.state, "failed");
        assert_eq!(replica.integration().await.state, state);
    }
    let shown = replica.integration().await;
    assert_eq!(shown.attention[0].what, "key_rights");
    replica.stop().await;
}

/// Asks for a new key, and holds back what Kisi is asked of it.
async fn held_back<T: Send + 'static>(
    stage: &Stage,
    asks: impl Future<Output = Result<T, tonic::Status>> + Send + 'static,
) -> tokio::task::JoinHandle<Result<T, tonic::Status>> {
    let before = stage.kisi.held_back();
    let wait = crate::kisi::Fault::Wait;
    stage.kisi.fail("GET", "/organization", 1, wait).await;
    let asking = tokio::spawn(asks);
    stage.kisi.one_is_held_back(before).await;
    asking
}

async fn what_is_changed_while_a_new_key_is_checked_stays_changed(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let request = api::EnableIntegrationRequest {
        gym_id: GYM.to_owned(),
        api_key: stage.kisi.second_key(),
    };
    let mut client = replica.client.clone();
    let caller = client.clone();
    let rotate = || {
        let (mut client, request) = (caller.clone(), request.clone());
        async move { client.rotate_api_key(request).await }
    };
    let enable = |key: String| {
        let mut client = caller.clone();
        let gym_id = GYM.to_owned();
        let request = api::EnableIntegrationRequest {
            gym_id,
            api_key: key,
        };
        async move { client.enable_integration(request).await }
    };

    let rotating = held_back(&stage, rotate()).await;
    let policies = api::Policies {
        unmanaged: "adopt".to_owned(),
        ..replica.integration().await.policies.unwrap()
    };
    let set = api::SetPoliciesRequest {
        gym_id: GYM.to_owned(),
        policies: Some(policies.clone()),
    };
    client.set_policies(set).await.unwrap();
    stage.kisi.clear_faults();
    rotating.await.unwrap().unwrap();
    assert_eq!(replica.integration().await.policies.unwrap(), policies);

    let rotating = held_back(&stage, rotate()).await;
    let disable = api::DisableIntegrationRequest {
        gym_id: GYM.to_owned(),
        access: "keep".to_owned(),
        digest: None,
    };
    client.disable_integration(disable).await.unwrap();
    stage.kisi.clear_faults();
    let refused = rotating.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    let disabled = replica.integration().await;
    assert_eq!(disabled.state, "disabled");
    assert_eq!(disabled.key.unwrap().status, "none");

    // Two save a key: whoever comes first.
    let late = held_back(&stage, enable(stage.kisi.second_key())).await;
    enable(stage.kisi.api_key()).await.unwrap();
    let saved = key(&mut replica).await;
    stage.kisi.clear_faults();
    let refused = late.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::AlreadyExists, "{refused}");
    assert_eq!(key(&mut replica).await, saved);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_while_a_new_key_is_checked_stays_changed_on_sqlite() {
    what_is_changed_while_a_new_key_is_checked_stays_changed(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_while_a_new_key_is_checked_stays_changed_on_postgres() {
    what_is_changed_while_a_new_key_is_checked_stays_changed(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_kisi_refused_to_one_key_is_asked_for_by_the_next() {
    let stage = Stage::set(On::Sqlite).await;
    let url = crate::kisi_events::Inlet::default().open().await;
    let mut replica = stage.start_with(&[("kisi-events-url", &url)]).await;
    let fault = crate::kisi::Fault::Status(403);
    stage.kisi.fail("POST", "/integrations", 1, fault).await;
    stage.in_sync(&mut replica, 1).await;
    assert!(stage.kisi.webhooks().is_empty());
    let request = api::EnableIntegrationRequest {
        gym_id: GYM.to_owned(),
        api_key: stage.kisi.second_key(),
    };
    replica.client.rotate_api_key(request).await.unwrap();
    assert_eq!(replica.sync().await.state, "done");
    assert_eq!(stage.kisi.webhooks().len(), 1);
    replica.stop().await;
}
