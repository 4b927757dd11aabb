//! People who run the place at Kisi: never changed nor removed, whatever becomes of them as members.

use serde_json::json;

use crate::harness::{GYM, On, PLAN, Stage};
use crate::kisi::{GROUP, ORGANIZATION, PLACE};

/// The directory has this e-mail for the member, who is in good standing.
async fn joins(stage: &Stage, member: &str, email: &str) {
    let mut person = stage.directory.put(GYM, member, 1, &[PLAN]);
    person.email = email.to_owned();
    stage.directory.insert(person.clone());
    stage.directory.publish(&person.state.unwrap()).await;
}

async fn is_erased(stage: &Stage, member: &str, version: i64) {
    let mut state = stage.directory.get(GYM, member).state.unwrap();
    state.version = version;
    state.erased = true;
    stage.directory.publish(&state).await;
    let told = stage.answer(member, |told| told.version == version).await;
    assert_eq!(told.outcome, "erased", "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_who_is_a_member_is_neither_changed_nor_removed() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let staff = [
        ("boss", "owner@example.com"),
        ("admin", "second@example.com"),
    ];
    let names: Vec<String> = staff.map(|(_, it)| stage.kisi.name_of(it)).to_vec();
    for (member, email) in staff {
        joins(&stage, member, email).await;
        let told = stage.answer(member, |told| told.version == 1).await;
        assert_eq!(told.failure.as_deref(), Some("identity_conflict"));
    }
    let shown = replica.integration().await.conflicts;
    assert_eq!(shown.len(), 2);
    for conflict in shown {
        assert_eq!(
            (conflict.what.as_str(), conflict.who.as_str()),
            ("kisi_staff", "staff")
        );
    }
    replica.sync().await;
    for (member, _) in staff {
        is_erased(&stage, member, 2).await;
    }
    replica.sync().await;
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");
    let kept: Vec<String> = staff.map(|(_, it)| stage.kisi.name_of(it)).to_vec();
    assert_eq!(kept, names);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;
}

/// We made the user, and the gym made an administrator of her since.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_who_became_an_administrator_outlives_her_membership_s_end() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let change = json!({
        "action": "give_right", "email": "m1@example.com", "organization_id": ORGANIZATION,
    });
    stage.kisi.by_hand(change).await;
    for member in ["m1", "m2"] {
        is_erased(&stage, member, 2).await;
    }
    let users = stage.kisi.emails_of_users();
    assert!(users.contains(&"m1@example.com".to_owned()));
    assert!(!users.contains(&"m2@example.com".to_owned()));
    // What we gave as a gym is taken back.
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    replica.stop().await;
}

/// Who runs one place, and who is in the organization without running anything.
#[tokio::test(flavor = "multi_thread")]
async fn who_runs_a_place_is_staff_and_a_mere_user_is_none() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    for (email, change) in [
        (
            "place@example.com",
            json!({ "place_id": PLACE, "role_id": "place_administrator" }),
        ),
        (
            "mere@example.com",
            json!({ "organization_id": ORGANIZATION, "role_id": "organization_basic" }),
        ),
    ] {
        stage.kisi.add_user_by_hand(email).await;
        let mut change = change;
        change["action"] = json!("give_right");
        change["email"] = json!(email);
        stage.kisi.by_hand(change).await;
    }
    stage.kisi.forget_requests().await;
    joins(&stage, "manager", "place@example.com").await;
    let told = stage.answer("manager", |told| told.version == 1).await;
    assert_eq!(told.failure.as_deref(), Some("identity_conflict"));
    is_erased(&stage, "manager", 2).await;
    assert!(stage.kisi.writes().await.is_empty());

    joins(&stage, "mere", "mere@example.com").await;
    let told = stage.answer("mere", |told| told.version == 1).await;
    assert_eq!(
        (told.outcome.as_str(), told.kisi_user_ours),
        ("granted", false)
    );
    // She was here before us, and is not ours to rename or to remove.
    let name = stage.kisi.name_of("mere@example.com");
    let mut person = stage.directory.get(GYM, "mere");
    person.name = "Another Name".to_owned();
    stage.directory.insert(person);
    replica.sync().await;
    is_erased(&stage, "mere", 2).await;
    assert_eq!(stage.kisi.name_of("mere@example.com"), name);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;
}
