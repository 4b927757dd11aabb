//! Who is who at Kisi: conflicts are a person's to solve, doors open as the member, and one member
//! can be looked at again.

use contracts::access::v1::{Location, UnlockRequest};
use contracts::integration::v1 as api;

use crate::harness::{GYM, On, PLAN, Stage};
use crate::kisi::GROUP;

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
    assert_eq!(shown[0].what, "same_email");
    assert_eq!(shown[0].member_ids, ["m2", "m1"]);
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
    assert!(shown.iter().all(|conflict| conflict.what == "kisi_staff"));
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
