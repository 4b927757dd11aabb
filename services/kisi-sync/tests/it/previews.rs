//! A preview: who gets in, who goes, who is there already, whose e-mails clash, and how long it takes.

use contracts::integration::v1 as api;
use serde_json::json;
use tonic::Code;

use crate::harness::{GYM, OTHER_PLAN, On, PLAN, Running, Stage, set};
use crate::kisi::{GROUP, OTHER_GROUP};

/// A member with this e-mail.
async fn with_email(stage: &Stage, member: &str, email: &str, plans: &[&str]) {
    let mut person = stage.directory.put(GYM, member, 1, plans);
    person.email = email.to_owned();
    stage.directory.insert(person.clone());
    stage.directory.publish(&person.state.unwrap()).await;
}

fn clashes(preview: &api::Preview) -> Vec<(&str, Vec<&str>)> {
    let mut clashes: Vec<_> = preview
        .conflicts
        .iter()
        .map(|conflict| {
            let members = conflict.member_ids.iter().map(String::as_str);
            (conflict.what.as_str(), members.collect())
        })
        .collect();
    clashes.sort();
    clashes
}

async fn before_the_first_sync_everything_is_told_and_nothing_written(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.directory.decide(GYM, "m1", 1, &[PLAN]).await;
    stage.directory.decide(GYM, "m2", 1, &[PLAN]).await;
    with_email(&stage, "m3", "Second@example.com", &[PLAN]).await;
    with_email(&stage, "m4", "twins@example.com", &[PLAN]).await;
    with_email(&stage, "m5", "Twins@Example.com", &[PLAN]).await;
    // Who left is no clash with nobody's user.
    with_email(&stage, "m6", "m1@example.com", &[]).await;
    stage
        .directory
        .decide(GYM, "m7", 1, &[OTHER_PLAN, "pool"])
        .await;
    stage.directory.decide(GYM, "m8", 1, &["pool"]).await;
    stage.directory.decide(GYM, "m9", 1, &[]).await;
    stage.consumed().await;
    stage.kisi.add_by_hand("m2@example.com", GROUP).await;
    stage.kisi.add_by_hand("m9@example.com", GROUP).await;
    stage.kisi.add_by_hand("stranger@example.com", GROUP).await;
    for change in [
        json!({ "action": "give_right", "team": "Coaches", "group_id": GROUP }),
        json!({ "action": "add_link", "group_id": OTHER_GROUP, "name": "Link", "email": "m8@example.com" }),
    ] {
        stage.kisi.by_hand(change).await;
    }
    stage.set_up(&mut replica).await;
    stage.kisi.forget_requests().await;

    let preview = replica.preview(None).await;
    assert_eq!(preview.member_ids_in, ["m1", "m4", "m7"]);
    assert_eq!((preview.grants, preview.members_in), (3, 3));
    assert_eq!((preview.revokes, preview.members_out), (0, 0));
    assert_eq!(preview.member_ids_in_by_others, ["m2", "m3", "m8", "m9"]);
    assert_eq!(preview.members_in_by_others, 4);
    assert_eq!(preview.unmanaged, 4, "three by hand and the team");
    let others = preview.other_rights.clone().unwrap();
    let kinds = (others.people, others.teams, others.links, others.staff);
    assert_eq!(kinds, (3, 1, 1, 2));
    assert_eq!(
        clashes(&preview),
        [("kisi_staff", vec!["m3"]), ("same_email", vec!["m5", "m4"])]
    );
    let plans = &preview.plans_without_group;
    assert_eq!(plans.len(), 1);
    assert_eq!((plans[0].plan_id.as_str(), plans[0].members), ("pool", 2));
    assert!(stage.kisi.writes().await.is_empty());

    // The same is confirmed by the same digest, and a change of anything shown by another.
    let again = replica.preview(None).await;
    assert_eq!(again.digest, preview.digest);
    stage
        .kisi
        .by_hand(json!({ "action": "add_link", "group_id": GROUP, "name": "Another" }))
        .await;
    let changed = replica.preview(None).await;
    assert_ne!(changed.digest, preview.digest);
    assert_eq!((changed.grants, changed.revokes), (3, 0));

    let sync = start(&mut replica, Some(changed.digest)).await.unwrap();
    let report = replica.ended(&sync.sync_id).await.report.unwrap();
    assert_eq!(report.granted, changed.grants);
    let twins = [("m4", "granted"), ("m5", "failed")];
    let told: Vec<_> = [
        ("m1", "granted"),
        ("m2", "unchanged"),
        ("m3", "failed"),
        ("m7", "granted"),
    ]
    .into_iter()
    .collect();
    for (member, outcome) in told {
        let answer = stage
            .answer(member, |answer| {
                answer.failure.as_deref() != Some("not_set_up")
            })
            .await;
        assert_eq!(answer.outcome, outcome, "{member}");
    }
    let mut of_twins = Vec::new();
    for (member, _) in twins {
        let answer = stage
            .answer(member, |answer| {
                answer.failure.as_deref() != Some("not_set_up")
            })
            .await;
        of_twins.push(answer.outcome);
    }
    of_twins.sort();
    assert_eq!(of_twins, ["failed", "granted"]);
    replica.stop().await;
}

async fn start(replica: &mut Running, digest: Option<String>) -> Result<api::Sync, tonic::Status> {
    let request = api::StartSyncRequest {
        gym_id: GYM.to_owned(),
        digest,
    };
    let answer = replica.client.start_sync(request).await?;
    Ok(answer.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_sync_everything_is_told_and_nothing_written_on_sqlite() {
    before_the_first_sync_everything_is_told_and_nothing_written(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_sync_everything_is_told_and_nothing_written_on_postgres() {
    before_the_first_sync_everything_is_told_and_nothing_written(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_mapping_is_previewed_with_who_comes_and_who_goes() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.directory.decide(GYM, "m4", 1, &[OTHER_PLAN]).await;
    stage.in_sync(&mut replica, 3).await;
    stage.directory.decide(GYM, "m5", 1, &["pool"]).await;
    stage.answer("m5", |answer| answer.version == 1).await;
    // The first plan loses its group, the second changes it, the third gets one.
    let mapping = [(OTHER_PLAN, GROUP), ("pool", OTHER_GROUP)];
    let preview = replica.preview(Some(&mapping)).await;
    assert_eq!(preview.member_ids_in, ["m4", "m5"]);
    assert_eq!(preview.member_ids_out, ["m1", "m2", "m3"]);
    assert_eq!((preview.members_in, preview.members_out), (2, 3));
    assert_eq!((preview.grants, preview.revokes), (2, 4));
    let plans: Vec<_> = preview.plans_without_group.iter().collect();
    assert_eq!((plans[0].plan_id.as_str(), plans[0].members), (PLAN, 3));
    assert!(preview.conflicts.is_empty());

    // What was never shown confirms nothing.
    let mut request = api::SetAssociationsRequest {
        gym_id: GYM.to_owned(),
        associations: set(&mapping),
        digest: Some("0".repeat(64)),
    };
    let refused = replica.client.set_associations(request.clone()).await;
    assert_eq!(refused.unwrap_err().code(), Code::Aborted);
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 3);
    request.digest = Some(preview.digest);
    replica.client.set_associations(request).await.unwrap();
    stage
        .answer("m5", |answer| answer.outcome == "granted")
        .await;
    testkit::eventually("the doors are as shown", crate::harness::SOON, async || {
        stage.kisi.group_rows(GROUP).await.len() == 1
            && stage.kisi.group_rows(OTHER_GROUP).await.len() == 1
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_tells_how_many_requests_it_takes_and_so_how_long() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage
        .start_with(&[("kisi-requests-per-second", "20")])
        .await;
    for i in 1..=9 {
        let member = format!("m{i}");
        stage.directory.decide(GYM, &member, 1, &[PLAN]).await;
    }
    stage.consumed().await;
    // One is known to Kisi, and has a right somewhere else; another is there by hand.
    stage.kisi.add_by_hand("m2@example.com", GROUP).await;
    stage.set_up(&mut replica).await;
    let preview = replica.preview(None).await;
    stage.kisi.forget_requests().await;
    let began = std::time::Instant::now();
    let sync = replica.sync().await;
    let took = began.elapsed().as_secs_f64();
    assert!(sync.in_sync);
    let made = stage.kisi.requests().await;
    assert_eq!(sync.report.unwrap().requests, made.len() as i64);
    assert_eq!(preview.requests, made.len() as i64, "{made:?}");
    let expected = (preview.requests as f64 * 1.075 / 20.0).ceil() as i64;
    assert_eq!(preview.seconds, expected);
    // Time is Kisi's pace: never less than that allows.
    assert!(took >= (made.len() - 1) as f64 * 1.05 / 20.0, "{took}");

    // Nothing is left to do: the pages of a pass.
    let preview = replica.preview(None).await;
    assert_eq!((preview.grants, preview.revokes), (0, 0));
    stage.kisi.forget_requests().await;
    replica.sync().await;
    let made = stage.kisi.requests().await;
    assert_eq!(preview.requests, made.len() as i64, "{made:?}");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_lists_each_group_once() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    replica.preview(None).await;
    let requests = stage.kisi.requests().await;
    let lists = requests.iter().filter(|it| *it == "GET /role_assignments");
    // Two groups, their place and the organization.
    assert_eq!(lists.count(), 4, "{requests:?}");
    replica.stop().await;
}
