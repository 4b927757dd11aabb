//! From a key to a gym in sync, and what each call says when a step is missing.

use contracts::integration::v1 as api;
use tonic::Code;

use crate::harness::{GYM, OTHER_PLAN, On, PLAN, SOON, Stage, set};
use crate::kisi::{Fault, GROUP, OTHER_GROUP, PLACE};

fn gym() -> api::GymRequest {
    api::GymRequest {
        gym_id: GYM.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_names_the_step_that_is_missing() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    assert_eq!(replica.integration().await.state, "disabled");

    let refused = replica.client.list_places(gym()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("EnableIntegration"));

    let refused = replica.enable("no-such-key").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("api_key") && refused.message().contains("Kisi refuses"));
    assert!(!refused.message().contains("no-such-key"));

    let enabled = replica.enable(&stage.kisi.api_key()).await.unwrap();
    assert_eq!(enabled.state, "key_saved");
    assert_eq!(enabled.key.unwrap().status, "ok");
    let again = replica.enable(&stage.kisi.api_key()).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);

    let refused = replica.client.list_groups(gym()).await.unwrap_err();
    assert!(refused.message().contains("SelectPlace"));
    let refused = replica.associate(&[(PLAN, GROUP)]).await.unwrap_err();
    assert!(refused.message().contains("SelectPlace"));

    let place = |place_id| api::SelectPlaceRequest {
        gym_id: GYM.to_owned(),
        place_id,
    };
    let refused = replica.client.select_place(place(1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("place_id"));
    let selected = replica.client.select_place(place(PLACE)).await.unwrap();
    assert_eq!(selected.into_inner().state, "place_selected");

    let request = api::StartSyncRequest {
        gym_id: GYM.to_owned(),
        digest: None,
    };
    let refused = replica.client.start_sync(request).await.unwrap_err();
    assert!(refused.message().contains("SetAssociations"));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_the_place_are_offered_with_their_scope_and_mapped_once_per_plan() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    replica.enable(&stage.kisi.api_key()).await.unwrap();
    let places = replica
        .client
        .list_places(gym())
        .await
        .unwrap()
        .into_inner();
    assert!(places.places.iter().any(|place| place.place_id == PLACE));
    let place = api::SelectPlaceRequest {
        gym_id: GYM.to_owned(),
        place_id: PLACE,
    };
    replica.client.select_place(place).await.unwrap();
    let groups = replica
        .client
        .list_groups(gym())
        .await
        .unwrap()
        .into_inner();
    let scopes: Vec<(i64, &str)> = groups
        .groups
        .iter()
        .map(|group| (group.group_id, group.scope.as_str()))
        .collect();
    assert_eq!(scopes, [(GROUP, "place"), (OTHER_GROUP, "organization")]);

    let twice = replica
        .associate(&[(PLAN, GROUP), (PLAN, OTHER_GROUP)])
        .await
        .unwrap_err();
    assert!(twice.message().contains("associations.plan_id"));
    let unknown = replica.associate(&[(PLAN, 999_999)]).await.unwrap_err();
    assert!(unknown.message().contains("associations.group_id"));
    let ready = replica
        .associate(&[(PLAN, GROUP), (OTHER_PLAN, GROUP)])
        .await
        .unwrap();
    assert_eq!(ready.state, "ready");
    assert_eq!(ready.groups.len(), 1);
    assert!(!ready.groups[0].doors.is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_counts_what_the_first_sync_then_does_and_nothing_is_written_before() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.directory.decide(GYM, "m1", 1, &[PLAN]).await;
    stage
        .directory
        .decide(GYM, "m2", 1, &[OTHER_PLAN, "pool"])
        .await;
    stage.directory.decide(GYM, "m3", 1, &[]).await;
    let told = stage.answer("m3", |answer| answer.version == 1).await;
    assert_eq!(told.outcome, "unchanged");
    assert_eq!(told.failure.as_deref(), Some("not_set_up"));
    stage.answer("m2", |answer| answer.version == 1).await;
    stage.answer("m1", |answer| answer.version == 1).await;

    stage.set_up(&mut replica).await;
    let request = api::PreviewSyncRequest {
        gym_id: GYM.to_owned(),
        associations: None,
    };
    let preview = replica
        .client
        .preview_sync(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((preview.grants, preview.revokes), (2, 0));
    assert_eq!(preview.plans_without_group.len(), 1);
    assert_eq!(preview.plans_without_group[0].plan_id, "pool");
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "before the first sync: {writes:?}");

    let sync = replica.sync().await;
    assert_eq!(sync.activation, "first");
    assert_eq!((sync.state.as_str(), sync.in_sync), ("done", true));
    assert_eq!(sync.report.unwrap().granted, 2);
    assert_eq!(replica.integration().await.state, "active");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    assert_eq!(stage.kisi.group_rows(OTHER_GROUP).await.len(), 1);

    // And once more: nothing is left to do.
    stage.kisi.forget_requests().await;
    let again = replica.sync().await;
    assert!(again.in_sync);
    let writes = stage.kisi.writes().await;
    assert!(writes.is_empty(), "{writes:?}");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_group_is_granted_before_the_old_one_is_revoked() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let old = stage.kisi.group_rows(GROUP).await;
    replica.associate(&[(PLAN, OTHER_GROUP)]).await.unwrap();
    for member in ["m1", "m2"] {
        stage
            .answer(member, |answer| {
                answer.grants.len() == 1 && answer.grants[0].group_id == OTHER_GROUP
            })
            .await;
    }
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    assert_eq!(stage.kisi.group_rows(OTHER_GROUP).await.len(), 2);
    let writes = stage.kisi.writes().await;
    assert_eq!(writes.len(), 4, "{writes:?}");
    // Of each of them.
    for row in old {
        let new = stage.kisi.made_for(&row["assignee_id"]);
        let gone = format!("DELETE /role_assignments/{}", row["id"]);
        let gone = writes.iter().position(|write| *write == gone);
        assert!(new.is_some() && new < gone, "{row}: {writes:?}");
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_closes_too_many_doors_is_held_until_it_is_approved() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 12).await;
    replica
        .associate(&[(OTHER_PLAN, OTHER_GROUP)])
        .await
        .unwrap();
    let plan = testkit::eventually_some("the plan is held", crate::harness::SOON, async || {
        let plans = replica.client.list_held_plans(gym()).await.unwrap();
        plans.into_inner().held_plans.pop()
    })
    .await;
    assert_eq!((plan.class.as_str(), plan.revokes), ("unexplained", 12));
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 12);
    assert_eq!(replica.integration().await.state, "needs_attention");

    let mut wrong = api::DecidePlanRequest {
        gym_id: GYM.to_owned(),
        id: plan.id.clone(),
        digest: "another".to_owned(),
    };
    let refused = replica
        .client
        .approve_plan(wrong.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    wrong.digest = plan.digest;
    replica.client.approve_plan(wrong).await.unwrap();
    testkit::eventually("the doors are closed", crate::harness::SOON, async || {
        stage.kisi.group_rows(GROUP).await.is_empty()
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_change_passes_the_brake() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 12).await;
    let request = api::PreviewSyncRequest {
        gym_id: GYM.to_owned(),
        associations: Some(api::AssociationSet {
            associations: set(&[(OTHER_PLAN, OTHER_GROUP)]),
        }),
    };
    let preview = replica
        .client
        .preview_sync(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(preview.revokes, 12);
    let request = api::SetAssociationsRequest {
        gym_id: GYM.to_owned(),
        associations: set(&[(OTHER_PLAN, OTHER_GROUP)]),
        digest: Some(preview.digest),
    };
    replica.client.set_associations(request).await.unwrap();
    testkit::eventually("the doors are closed", crate::harness::SOON, async || {
        stage.kisi.group_rows(GROUP).await.is_empty()
    })
    .await;
    replica.stop().await;
}

/// Kisi fails right after the mapping was changed: the members follow it all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_mapping_is_applied_where_its_doors_cannot_be_listed_at_first() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    // As often as a read is repeated.
    let fault = Fault::Status(500);
    stage.kisi.fail("GET", "/locks", 3, fault).await;
    let answer = replica.associate(&[(PLAN, OTHER_GROUP)]).await;
    testkit::eventually("the rights follow the mapping", SOON, async || {
        let old = stage.kisi.group_rows(GROUP).await.len();
        let new = stage.kisi.group_rows(OTHER_GROUP).await.len();
        (old, new) == (0, 2)
    })
    .await;
    assert_eq!(answer.unwrap().associations, set(&[(PLAN, OTHER_GROUP)]));
    testkit::eventually("the doors are shown", SOON, async || {
        let groups = replica.integration().await.groups;
        groups.len() == 1 && groups[0].group_id == OTHER_GROUP && !groups[0].doors.is_empty()
    })
    .await;
    replica.stop().await;
}
