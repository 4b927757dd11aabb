//! Who is who at Kisi: conflicts are a person's to solve, doors open as the member, and one member
//! can be looked at again.

use contracts::access::v1::{Location, UnlockRequest};
use contracts::integration::v1 as api;

use crate::harness::{GYM, On, PLAN, SOON, Stage};
use crate::kisi::{Fault, GATE_ONLY, GROUP};

#[tokio::test(flavor = "multi_thread")]
async fn two_members_with_one_e_mail_are_a_conflict_and_get_one_right() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let mut twin = stage.directory.put(GYM, "m2", 1, &[PLAN]);
    twin.email = "M1@Example.com".to_owned();
    stage.directory.insert(twin.clone());
    stage.directory.publish(&twin.state.unwrap()).await;
    let told = stage.answer("m2", |answer| answer.version == 1).await;
    assert_eq!(told.outcome, "failed");
    assert_eq!(told.failure.as_deref(), Some("identity_conflict"));
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    let shown = replica.integration().await.conflicts;
    assert_eq!(shown.len(), 1);
    assert_eq!([&shown[0].what, &shown[0].who], ["same_email", "staff"]);
    assert_eq!(shown[0].member_ids, ["m2", "m1"]);
    replica.stop().await;
}

/// The user was there before us, and nothing at Kisi says whose it is.
#[tokio::test(flavor = "multi_thread")]
async fn two_members_with_the_e_mail_of_one_known_before_are_a_conflict_too() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let known = stage.kisi.add_user_by_hand("known@example.com").await;
    for (member, outcome) in [("first", "granted"), ("second", "failed")] {
        let mut person = stage.directory.put(GYM, member, 1, &[PLAN]);
        person.email = "known@example.com".to_owned();
        stage.directory.insert(person.clone());
        stage.directory.publish(&person.state.unwrap()).await;
        let told = stage.answer(member, |answer| answer.version == 1).await;
        assert_eq!(told.outcome, outcome, "{told:?}");
    }
    let shown = replica.integration().await.conflicts;
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0].what, "same_email");
    assert_eq!(shown[0].member_ids, ["second", "first"]);
    let rows = stage.kisi.group_rows(GROUP).await;
    let hers = rows.iter().filter(|row| row["assignee_id"] == known);
    assert_eq!(hers.count(), 1, "{rows:?}");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_who_is_an_administrator_at_kisi_is_left_to_people() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    for (member, email) in [
        ("boss", "owner@example.com"),
        ("admin", "second@example.com"),
    ] {
        let mut person = stage.directory.put(GYM, member, 1, &[PLAN]);
        person.email = email.to_owned();
        stage.directory.insert(person.clone());
        stage.directory.publish(&person.state.unwrap()).await;
        let told = stage.answer(member, |answer| answer.version == 1).await;
        assert_eq!(
            told.failure.as_deref(),
            Some("identity_conflict"),
            "{member}"
        );
    }
    let shown = replica.integration().await.conflicts;
    let is_for_staff = |it: &api::Conflict| it.what == "kisi_staff" && it.who == "staff";
    assert!(shown.iter().all(is_for_staff), "{shown:?}");
    assert_eq!(shown.len(), 2);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_opens_as_the_member_by_one_login_and_not_after_a_revoke() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let door = replica.integration().await.groups[0].doors[0].lock_id;
    let request = UnlockRequest {
        gym_id: GYM.to_owned(),
        member_id: "m1".to_owned(),
        lock_id: door,
        location: Some(Location {
            latitude: 51.5,
            longitude: -0.12,
            accuracy_metres: None,
        }),
        proximity_proof: None,
    };
    for _ in 0..2 {
        let opened = replica
            .client
            .unlock(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(opened.unlocked, "{opened:?}");
    }
    let logins = stage.kisi.writes().await;
    assert_eq!(logins.iter().filter(|r| *r == "POST /logins").count(), 1);

    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.answer("m1", |answer| answer.version == 2).await;
    let refused = replica.client.unlock(request).await.unwrap().into_inner();
    assert!(!refused.unlocked);
    let alert = refused.alert.unwrap();
    assert!(
        !alert.message.is_empty() && alert.action.is_some(),
        "{alert:?}"
    );
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_is_looked_at_again_on_demand() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let ours = stage.answer("m1", |answer| answer.version == 1).await;
    stage
        .kisi
        .remove_by_hand(ours.grants[0].assignment_id)
        .await;
    let request = api::SyncMemberRequest {
        gym_id: GYM.to_owned(),
        member_id: "m1".to_owned(),
    };
    let answer = replica
        .client
        .sync_member(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.outcome, "queued");
    let back = stage
        .answer("m1", |answer| answer.applied_seq > ours.applied_seq)
        .await;
    assert_eq!(back.outcome, "granted");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_keeps_what_kisi_holds_or_takes_ours_back() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 3).await;
    let added = stage.kisi.add_by_hand("stranger@example.com", GROUP).await;
    let end = |access: &str, digest: Option<String>| api::DisableIntegrationRequest {
        gym_id: GYM.to_owned(),
        access: access.to_owned(),
        digest,
    };
    let refused = replica
        .client
        .disable_integration(end("revoke", None))
        .await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::FailedPrecondition);
    let preview = api::PreviewSyncRequest {
        gym_id: GYM.to_owned(),
        associations: Some(api::AssociationSet::default()),
    };
    let preview = replica
        .client
        .preview_sync(preview)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(preview.revokes, 3);
    let ended = replica
        .client
        .disable_integration(end("revoke", Some(preview.digest)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(ended.state, "disabled");
    let left = stage.kisi.group_rows(GROUP).await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["id"].as_i64(), Some(added));

    // And it can begin again.
    stage.set_up(&mut replica).await;
    assert!(replica.sync().await.in_sync);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 4);
    let kept = replica
        .client
        .disable_integration(end("keep", None))
        .await
        .unwrap();
    assert_eq!(kept.into_inner().state, "disabled");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 4);
    replica.stop().await;
}

/// The directory has another name and e-mail for a member, and nothing is published of it.
fn renamed(stage: &Stage, member: &str, email: &str, name: &str) {
    let mut person = stage.directory.get(GYM, member);
    person.email = email.to_owned();
    person.name = name.to_owned();
    stage.directory.insert(person);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_name_follows_with_the_next_pass_and_once() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 7).await;
    renamed(&stage, "m7", "m7@example.com", "Ada E. Example");
    assert_eq!(replica.sync().await.state, "done");
    let writes = stage.kisi.writes().await;
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert!(writes[0].starts_with("PATCH /users/"));
    assert_eq!(stage.kisi.name_of("m7@example.com"), "Ada E. Example");
    stage.kisi.forget_requests().await;
    replica.sync().await;
    assert!(stage.kisi.writes().await.is_empty());
    replica.stop().await;
}

async fn a_changed_e_mail_moves_the_rights_to_a_new_user(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let before = stage.answer("m1", |answer| answer.version == 1).await;
    renamed(&stage, "m1", "new@example.com", "Member m1");
    let request = api::SyncMemberRequest {
        gym_id: GYM.to_owned(),
        member_id: "m1".to_owned(),
    };
    replica.client.sync_member(request).await.unwrap();
    let moved = stage
        .answer("m1", |answer| answer.kisi_user_id != before.kisi_user_id)
        .await;
    assert_eq!(moved.outcome, "granted");
    assert_eq!(moved.grants.len(), 1);
    // The door is open all the time.
    let writes = stage.kisi.writes().await;
    let kinds: Vec<String> = writes
        .iter()
        .map(|w| w.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned())
        .collect();
    assert_eq!(
        kinds,
        [
            "POST /users",
            "POST /role_assignments",
            "DELETE /role_assignments/",
            "DELETE /users/"
        ]
    );
    let users = stage.kisi.emails_of_users();
    assert!(users.contains(&"new@example.com".to_owned()), "{users:?}");
    assert!(!users.contains(&"m1@example.com".to_owned()), "{users:?}");
    let rows = stage.kisi.group_rows(GROUP).await;
    assert_eq!(rows.len(), 2);
    assert!(
        rows.iter()
            .any(|row| row["assignee_id"].as_i64() == moved.kisi_user_id)
    );
    // And from then on it is as ever: one request.
    stage.kisi.forget_requests().await;
    stage.directory.decide_as(GYM, "m1", 2, &[]).await;
    stage
        .answer("m1", |answer| {
            answer.version == 2 && answer.outcome == "revoked"
        })
        .await;
    assert_eq!(stage.kisi.requests().await.len(), 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_e_mail_moves_the_rights_to_a_new_user_on_sqlite() {
    a_changed_e_mail_moves_the_rights_to_a_new_user(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_e_mail_moves_the_rights_to_a_new_user_on_postgres() {
    a_changed_e_mail_moves_the_rights_to_a_new_user(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_e_mail_takes_nothing_away_that_others_gave() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let given = stage.kisi.add_by_hand("m1@example.com", GATE_ONLY).await;
    renamed(&stage, "m1", "new@example.com", "Member m1");
    assert_eq!(replica.sync().await.state, "done");
    let new = stage.kisi.user_of("new@example.com");
    let rows = stage.kisi.group_rows(GROUP).await;
    assert!(rows.len() == 1 && rows[0]["assignee_id"] == new, "{rows:?}");
    // The former user stays, and with it what others gave to it.
    let former = stage.kisi.user_of("m1@example.com");
    let rows = stage.kisi.group_rows(GATE_ONLY).await;
    assert!(
        rows.len() == 1 && rows[0]["id"] == given && rows[0]["assignee_id"] == former,
        "{rows:?}"
    );
    // It goes once nobody gives it anything any more.
    stage.kisi.remove_by_hand(given).await;
    stage.directory.decide_as(GYM, "m1", 2, &[]).await;
    stage.answer("m1", |answer| answer.version == 2).await;
    let users = stage.kisi.emails_of_users();
    assert!(!users.contains(&"m1@example.com".to_owned()), "{users:?}");
    replica.stop().await;
}

/// The first former user has to stay, because others gave it a right, when the e-mail changes again.
#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_takes_every_user_that_changes_of_the_e_mail_left_behind() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    stage.kisi.add_by_hand("m1@example.com", GATE_ONLY).await;
    for email in ["second@m1.example.com", "third@m1.example.com"] {
        renamed(&stage, "m1", email, "Member m1");
        assert_eq!(replica.sync().await.state, "done");
        let user = stage.kisi.user_of(email);
        let rows = stage.kisi.group_rows(GROUP).await;
        assert!(
            rows.len() == 1 && rows[0]["assignee_id"] == user,
            "{rows:?}"
        );
    }
    let hers = || {
        let mut emails = stage.kisi.emails_of_users();
        emails.retain(|email| email.contains("m1"));
        emails
    };
    let mut left = hers();
    left.sort();
    assert_eq!(left, ["m1@example.com", "third@m1.example.com"]);
    let mut state = stage.directory.put(GYM, "m1", 2, &[]).state.unwrap();
    state.erased = true;
    stage.directory.publish(&state).await;
    let told = stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(told.outcome, "erased");
    assert!(hers().is_empty(), "{:?}", hers());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_e_mail_that_becomes_somebody_else_s_closes_no_door_and_is_a_conflict() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    renamed(&stage, "m1", "owner@example.com", "Member m1");
    replica.sync().await;
    let told = stage
        .answer("m1", |answer| answer.outcome == "failed")
        .await;
    assert_eq!(told.failure.as_deref(), Some("identity_conflict"));
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 2);
    let shown = replica.integration().await.conflicts;
    assert_eq!(shown[0].what, "kisi_staff");
    // Who is not let in any more loses the right that was left.
    stage.directory.decide_as(GYM, "m1", 2, &[]).await;
    stage.answer("m1", |answer| answer.version == 2).await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_e_mail_changed_while_not_let_in_is_found_by_the_next_grant() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.answer("m1", |answer| answer.version == 2).await;
    renamed(&stage, "m1", "new@example.com", "Member m1");
    assert_eq!(replica.sync().await.state, "done");
    assert!(
        !stage
            .kisi
            .emails_of_users()
            .contains(&"m1@example.com".to_owned())
    );
    stage.directory.decide_as(GYM, "m1", 3, &[PLAN]).await;
    let told = stage.answer("m1", |answer| answer.version == 3).await;
    assert_eq!(told.outcome, "granted");
    assert!(
        stage
            .kisi
            .emails_of_users()
            .contains(&"new@example.com".to_owned())
    );
    replica.stop().await;
}

/// Kisi fails after the former user was left and before the new one is found.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_e_mail_moves_the_rights_though_kisi_failed_on_the_way() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    renamed(&stage, "m1", "new@example.com", "Member m1");
    let fault = Fault::Status(500);
    // As often as a read is repeated.
    stage.kisi.fail("GET", "/users", 3, fault).await;
    replica.sync().await;
    testkit::eventually("the right is the new user's", SOON, async || {
        let emails = stage.kisi.emails_of_users();
        if !emails.contains(&"new@example.com".to_owned()) {
            return false;
        }
        let user = stage.kisi.user_of("new@example.com");
        let rows = stage.kisi.group_rows(GROUP).await;
        rows.len() == 1 && rows[0]["assignee_id"].as_i64() == Some(user)
    })
    .await;
    replica.stop().await;
}
