//! Kisi's event webhooks: registered, signed, kept alive; a change by hand is looked at at once, our
//! own changes cost no request, and unlocks are on the timeline.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use contracts::access::v1::{AccessApplied, EnrolDeviceRequest, GetTimelineRequest, UnlockRequest};
use contracts::integration::v1 as api;
use contracts::kisi::v1::PassKisiEventRequest;
use contracts::kisi::v1::kisi_sync_service_client::KisiSyncServiceClient;
use service_runtime::grpc::ServiceChannel;
use testkit::{eventually, eventually_some};
use tonic::Code;

use crate::brake_days::Later;
use crate::harness::{GYM, On, PLAN, Running, SOON, Stage, set};
use crate::kisi::{Fault, GROUP, PLACE};

/// What stands between Kisi and kisi-sync: it passes on byte by byte.
#[derive(Clone, Default)]
pub struct Inlet {
    pub client: Arc<Mutex<Option<KisiSyncServiceClient<ServiceChannel>>>>,
    passed: Arc<Mutex<Vec<PassKisiEventRequest>>>,
    /// The gym whose events are lost.
    lost: Arc<Mutex<Option<String>>>,
}

impl Inlet {
    /// Serves; answers the address for `KISI_EVENTS_URL`.
    pub async fn open(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new()
            .route("/kisi/events/{gym}", post(pass))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        url
    }

    fn kinds(&self) -> Vec<String> {
        let passed = self.passed.lock().unwrap();
        let bodies = passed.iter().map(|event| kind(&event.body));
        bodies.collect()
    }

    /// One about this right.
    pub async fn has_passed_of(&self, wanted: &str, right: i64) -> PassKisiEventRequest {
        let right = right.to_string();
        eventually_some("Kisi's event of the right has come", SOON, async || {
            let passed = self.passed.lock().unwrap();
            let mut of_right = passed.iter().filter(|event| {
                let body = String::from_utf8_lossy(&event.body);
                kind(&event.body) == wanted && body.contains(&right)
            });
            of_right.next().cloned()
        })
        .await
    }

    async fn has_passed(&self, kind: &str, count: usize) {
        eventually("Kisi's events have come", SOON, async || {
            self.kinds().iter().filter(|known| *known == kind).count() >= count
        })
        .await;
    }
}

fn kind(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    body["type"].as_str().unwrap().to_owned()
}

async fn pass(
    State(inlet): State<Inlet>,
    Path(gym): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let request = PassKisiEventRequest {
        gym_id: gym,
        body: body.to_vec(),
        signature: headers["x-signature"].to_str().unwrap().to_owned(),
        received_at: None,
    };
    if inlet.lost.lock().unwrap().as_ref() == Some(&request.gym_id) {
        return StatusCode::OK;
    }
    let client = inlet.client.lock().unwrap().clone();
    let Some(mut client) = client else {
        return StatusCode::SERVICE_UNAVAILABLE;
    };
    let answer = client.pass_kisi_event(request.clone()).await;
    inlet.passed.lock().unwrap().push(request);
    match answer {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A gym in sync whose Kisi tells us of events.
pub async fn listening(stage: &Stage, members: i64) -> (Running, Inlet) {
    listening_with(stage, members, &[]).await
}

async fn listening_with(stage: &Stage, members: i64, more: &[(&str, &str)]) -> (Running, Inlet) {
    let inlet = Inlet::default();
    let url = inlet.open().await;
    let flags = [&[("kisi-events-url", url.as_str())], more].concat();
    let mut replica = stage.start_with(&flags).await;
    *inlet.client.lock().unwrap() = Some(replica.client.clone());
    stage.in_sync(&mut replica, members).await;
    (replica, inlet)
}

async fn a_change_by_hand_is_looked_at_at_once(on: On) {
    let stage = Stage::set(on).await;
    let (replica, inlet) = listening(&stage, 3).await;
    let ours = stage.answer("m1", |answer| answer.version == 1).await;
    stage
        .kisi
        .remove_by_hand(ours.grants[0].assignment_id)
        .await;
    let back = stage
        .answer("m1", |answer| answer.applied_seq > ours.applied_seq)
        .await;
    assert_eq!(back.outcome, "granted");
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 3);

    // A window put on by hand closes no door: it is taken off again.
    let right = back.grants[0].assignment_id;
    let until = "2099-01-01T00:00:00Z";
    stage.kisi.set_window_by_hand(right, until).await;
    eventually("the window is gone again", SOON, async || {
        let rows = stage.kisi.group_rows(GROUP).await;
        let row = rows.iter().find(|row| row["id"] == right).unwrap();
        row["valid_until"].is_null()
            && stage
                .kisi
                .writes()
                .await
                .iter()
                .any(|w| w.starts_with("PATCH /role"))
    })
    .await;

    // A right given by hand is seen as others' doing.
    stage.directory.decide(GYM, "m2", 2, &[]).await;
    stage.answer("m2", |answer| answer.version == 2).await;
    stage.kisi.add_by_hand("m2@example.com", GROUP).await;
    stage
        .answer("m2", |answer| answer.groups_opened_by_others == [GROUP])
        .await;
    inlet.has_passed("role_assignment.create", 1).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_hand_is_looked_at_at_once_on_sqlite() {
    a_change_by_hand_is_looked_at_at_once(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_hand_is_looked_at_at_once_on_postgres() {
    a_change_by_hand_is_looked_at_at_once(On::Postgres).await;
}

/// From the hand to our look, at the usual pace and in a gym that is idle otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_hand_is_looked_at_within_two_seconds() {
    let stage = Stage::set(On::Sqlite).await;
    let pace = [("kisi-requests-per-second", "5")];
    let (mut replica, inlet) = listening_with(&stage, 2, &pace).await;
    let ours = stage.answer("m1", |answer| answer.version == 1).await;
    let right = ours.grants[0].assignment_id;
    let user = ours.kisi_user_id.unwrap();
    stage.kisi.remove_by_hand(right).await;
    let within = Duration::from_secs(2);
    eventually("we look at the member", within, async || {
        stage.kisi.looks_at(user) > 0
    })
    .await;
    inlet.has_passed_of("role_assignment.destroy", right).await;
    stage
        .answer("m1", |answer| answer.applied_seq > ours.applied_seq)
        .await;
    // Whose hand it was is in the log.
    let request = GetTimelineRequest {
        gym_id: GYM.to_owned(),
        member_id: "m1".to_owned(),
        ..GetTimelineRequest::default()
    };
    let told = replica.client.get_timeline(request).await.unwrap();
    let entries = &told.into_inner().entries[..2];
    let hand = format!("kisi_user:{}", stage.kisi.user_of("owner@example.com"));
    for (entry, kind) in entries.iter().zip(["granted", "removed_by_others"]) {
        assert_eq!((&*entry.kind, &entry.actor), (kind, &hand), "{entry:?}");
        assert!(entry.cause.starts_with("kisi_event:"), "{entry:?}");
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_changes_come_back_and_cost_no_request() {
    let stage = Stage::set(On::Sqlite).await;
    let (replica, inlet) = listening(&stage, 2).await;
    let ours = stage.answer("m1", |answer| answer.version == 1).await;
    let mut right = ours.grants[0].assignment_id;
    for version in 2..=5 {
        let plans: &[&str] = if version % 2 == 0 { &[] } else { &[PLAN] };
        stage.directory.decide(GYM, "m1", version, plans).await;
        let answer = stage.answer("m1", |answer| answer.version == version).await;
        // One that comes after the next change costs a look, as it could be another's.
        match answer.grants.first() {
            Some(grant) => {
                right = grant.assignment_id;
                inlet.has_passed_of("role_assignment.create", right).await;
            }
            None => {
                inlet.has_passed_of("role_assignment.destroy", right).await;
            }
        }
    }
    let requests = stage.kisi.requests().await;
    assert_eq!(requests.len(), 4, "{requests:?}");
    // Nor does the change after them.
    stage.directory.decide(GYM, "m1", 6, &[]).await;
    stage.answer("m1", |answer| answer.version == 6).await;
    assert_eq!(stage.kisi.requests().await.len(), 5);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_kisi_signed_is_taken_and_each_event_once() {
    let stage = Stage::set(On::Sqlite).await;
    let (mut replica, inlet) = listening(&stage, 1).await;
    let ours = stage.answer("m1", |answer| answer.version == 1).await;
    stage
        .kisi
        .remove_by_hand(ours.grants[0].assignment_id)
        .await;
    let back = stage
        .answer("m1", |answer| answer.applied_seq > ours.applied_seq)
        .await;
    inlet.has_passed("role_assignment.destroy", 1).await;
    let event = {
        let passed = inlet.passed.lock().unwrap();
        let found = passed
            .iter()
            .find(|e| kind(&e.body) == "role_assignment.destroy");
        found.cloned().unwrap()
    };
    let hex = event.signature.strip_prefix("sha256=").unwrap().to_owned();
    stage.kisi.forget_requests().await;
    for (signature, taken) in [
        (event.signature.clone(), true),
        (hex.clone(), true),
        (format!("sha256={}", hex.to_uppercase()), true),
        (
            format!("sha256={}", hex.replace(|c: char| c.is_ascii_digit(), "0")),
            false,
        ),
        ("sha256=".to_owned(), false),
        (String::new(), false),
    ] {
        let request = PassKisiEventRequest {
            signature: signature.clone(),
            ..event.clone()
        };
        match replica.client.pass_kisi_event(request).await {
            Ok(answer) => {
                assert!(taken, "{signature}");
                assert!(!answer.into_inner().looked_again, "a repeat does nothing");
            }
            Err(refused) => {
                assert!(!taken, "{signature}");
                assert_eq!(refused.code(), Code::PermissionDenied);
            }
        }
    }
    let mut forged = event.clone();
    forged.body.push(b' ');
    let refused = replica.client.pass_kisi_event(forged).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // A gym that has no webhook takes none, whoever signed.
    let mut elsewhere = event;
    elsewhere.gym_id = "another".to_owned();
    let refused = replica.client.pass_kisi_event(elsewhere).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(stage.kisi.requests().await.is_empty());
    let last = stage.answer("m1", |_| true).await;
    assert_eq!(last.applied_seq, back.applied_seq);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_is_made_once_switched_on_again_and_taken_away_at_the_end() {
    let stage = Stage::set(On::Sqlite).await;
    let (mut replica, _inlet) = listening(&stage, 1).await;
    assert_eq!(stage.kisi.webhooks(), [(format!("Gymflow {GYM}"), true)]);
    replica.sync().await;
    assert!(stage.kisi.writes().await.is_empty());
    stage.kisi.switch_webhooks_off();
    replica.sync().await;
    assert_eq!(stage.kisi.webhooks(), [(format!("Gymflow {GYM}"), true)]);
    let writes = stage.kisi.writes().await;
    assert!(writes[0].starts_with("PATCH /integrations/"), "{writes:?}");
    // Somebody deleted it.
    stage.kisi.delete_webhooks();
    replica.sync().await;
    assert_eq!(stage.kisi.webhooks().len(), 1);
    let request = api::DisableIntegrationRequest {
        gym_id: GYM.to_owned(),
        access: "keep".to_owned(),
        digest: None,
    };
    replica.client.disable_integration(request).await.unwrap();
    assert!(stage.kisi.webhooks().is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unlocks_by_phone_and_from_the_server_are_on_the_timeline_once_each() {
    let stage = Stage::set(On::Sqlite).await;
    let (mut replica, inlet) = listening(&stage, 1).await;
    let door = replica.integration().await.groups[0].doors[0].lock_id;
    let unlock = UnlockRequest {
        gym_id: GYM.to_owned(),
        member_id: "m1".to_owned(),
        lock_id: door,
        location: None,
        proximity_proof: None,
    };
    replica.client.unlock(unlock).await.unwrap();
    inlet.has_passed("lock.unlock", 1).await;
    let unlocks = async |replica: &mut Running| {
        let request = GetTimelineRequest {
            gym_id: GYM.to_owned(),
            member_id: "m1".to_owned(),
            ..GetTimelineRequest::default()
        };
        let told = replica.client.get_timeline(request).await.unwrap();
        let entries = told.into_inner().entries.into_iter();
        let unlocks = entries.filter(|entry| entry.kind.starts_with("unlock"));
        unlocks
            .map(|entry| {
                (
                    entry.kind,
                    entry.cause.split(':').next().unwrap().to_owned(),
                )
            })
            .collect::<Vec<_>>()
    };
    let by_server = ("unlocked".to_owned(), "call".to_owned());
    assert_eq!(
        unlocks(&mut replica).await,
        std::slice::from_ref(&by_server)
    );

    let phone = EnrolDeviceRequest {
        gym_id: GYM.to_owned(),
        member_id: "m1".to_owned(),
        brand: "Fair".to_owned(),
        model: "One".to_owned(),
        os_name: "Android".to_owned(),
    };
    let phone = replica
        .client
        .enrol_device(phone)
        .await
        .unwrap()
        .into_inner();
    let other = stage.kisi.other_door();
    assert_eq!(stage.kisi.unlock_as(&phone.secret, other).await, 403);
    inlet.has_passed("lock.unlock", 2).await;
    let by_phone = ("unlock_refused".to_owned(), "kisi_event".to_owned());
    eventually(
        "the phone's attempt is there",
        Duration::from_secs(20),
        async || unlocks(&mut replica).await == [by_phone.clone(), by_server.clone()],
    )
    .await;
    replica.stop().await;
}

/// A second gym in the same Kisi organization, in sync.
async fn second_gym_in_sync(stage: &Stage, replica: &mut Running, gym: &str) {
    let gym_id = || gym.to_owned();
    let client = &mut replica.client;
    let enable = api::EnableIntegrationRequest {
        gym_id: gym_id(),
        api_key: stage.kisi.api_key(),
    };
    client.enable_integration(enable).await.unwrap();
    let place = api::SelectPlaceRequest {
        gym_id: gym_id(),
        place_id: PLACE,
    };
    client.select_place(place).await.unwrap();
    let associations = api::SetAssociationsRequest {
        gym_id: gym_id(),
        associations: set(&[(PLAN, GROUP)]),
        digest: None,
    };
    client.set_associations(associations).await.unwrap();
    let start = api::StartSyncRequest {
        gym_id: gym_id(),
        digest: None,
    };
    let sync = client.start_sync(start).await.unwrap().into_inner();
    let request = api::GetSyncRequest {
        gym_id: gym_id(),
        sync_id: sync.sync_id,
    };
    eventually("the second gym is in sync", SOON, async || {
        let sync = client.get_sync(request.clone()).await.unwrap();
        sync.into_inner().state == "done"
    })
    .await;
}

/// The right that a member of a gym is told to have, once it is another one.
async fn right_of(stage: &Stage, gym: &str, member: &str, but: Option<i64>) -> i64 {
    let subject = contracts::subjects::access(gym, member);
    testkit::eventually_some("the gym has a right", SOON, async || {
        let stream = stage.bus.jetstream().get_stream("ACCESS").await.unwrap();
        let message = stream
            .get_last_raw_message_by_subject(&subject)
            .await
            .ok()?;
        let told: AccessApplied = serde_json::from_slice(&message.payload).unwrap();
        let right = told.grants.first()?.assignment_id;
        (Some(right) != but).then_some(right)
    })
    .await
}

/// Whichever of the two is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_two_gyms_share_is_looked_at_for_the_one_that_is_told() {
    for (lost, told, member) in [(GYM, "steel", "s1"), ("steel", GYM, "m1")] {
        a_shared_right_is_looked_at_for(lost, told, member).await;
    }
}

async fn a_shared_right_is_looked_at_for(lost: &str, told: &str, member: &str) {
    let stage = Stage::set(On::Sqlite).await;
    let (mut replica, inlet) = listening(&stage, 1).await;
    let mut same = stage.directory.put("steel", "s1", 1, &[PLAN]);
    same.email = "m1@example.com".to_owned();
    stage.directory.insert(same.clone());
    stage.directory.publish(&same.state.unwrap()).await;
    second_gym_in_sync(&stage, &mut replica, "steel").await;
    let right = right_of(&stage, GYM, "m1", None).await;
    assert_eq!(right_of(&stage, "steel", "s1", None).await, right);

    *inlet.lost.lock().unwrap() = Some(lost.to_owned());
    stage.kisi.remove_by_hand(right).await;
    right_of(&stage, told, member, Some(right)).await;
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_kisi_refuses_fails_no_pass_and_is_asked_for_again_a_day_later() {
    let stage = Stage::set(On::Sqlite).await;
    let url = Inlet::default().open().await;
    let clock = Later::default();
    let flags = [
        ("kisi-events-url", url.as_str()),
        ("reconcile-every", "96h"),
    ];
    let mut replica = stage.start_at(Arc::new(clock.clone()), &flags).await;
    let fault = Fault::Status(403);
    stage.kisi.fail("POST", "/integrations", 1, fault).await;
    // Each of these passes ends as done.
    stage.in_sync(&mut replica, 1).await;
    assert!(stage.kisi.webhooks().is_empty());
    let shown = replica.integration().await;
    assert_eq!((shown.state.as_str(), shown.attention.len()), ("active", 0));
    for (later, made) in [(0, 0), (25, 1)] {
        for _ in 0..later {
            clock.by_an_hour();
        }
        assert_eq!(replica.sync().await.state, "done");
        assert_eq!(stage.kisi.webhooks().len(), made);
        assert_eq!(stage.kisi.writes().await.len(), made);
    }
    replica.stop().await;
}
