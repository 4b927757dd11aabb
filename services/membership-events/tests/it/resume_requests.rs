//! A member asks to be resumed.

use contracts::membership::v1 as wire;
use tonic::Code;

use crate::world::{GYM, World, faults, on_both};

on_both! {
    async fn one_open_request_per_member_is_kept_and_told_once(world: World) {
        world.with_ann().await;
        world.pause("p1", "2026-03-01", None).await;
        world.until_allowed("ann", false).await;
        let first = ask(world, |_| {}).await.expect("kept");
        let again = ask(world, |_| {}).await.expect("a repeat");
        assert!(first.applied && again.applied);
        assert_eq!(first.members, again.members);
        let told = told(world, 1).await.remove(0);
        assert_eq!((told.gym_id.as_str(), told.kind.as_str()), (GYM, "resume_requested"));
        assert_eq!(told.member_id.as_deref(), Some("ann"));
        assert_eq!((told.who.as_str(), &told.details["membership_id"]), ("staff", &"ms".to_owned()));
        assert!(!world.published("ann").await.expect("a state").allowed, "access follows billing");

        // Resumed, and paused again: that is another request.
        world.resume(None).await;
        world.until_allowed("ann", true).await;
        until_open(world, 0).await;
        let status = ask(world, |_| {}).await.expect_err("refused");
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains("not paused"), "{status:?}");
        world.clock.advance(std::time::Duration::from_secs(1));
        world.pause("p2", "2026-03-01", None).await;
        world.until_allowed("ann", false).await;
        ask(world, |_| {}).await.expect("kept");
        let both = self::told(world, 2).await;
        assert_ne!(both[0].id, both[1].id);
    }

    async fn a_request_that_was_kept_is_told_though_the_bus_was_down(world: World) {
        world.with_ann().await;
        world.pause("p1", "2026-03-01", None).await;
        world.until_allowed("ann", false).await;
        world.nats.kill().await.expect("killed");
        ask(world, |_| {}).await.expect("kept");
        world.stop_all().await;
        world.nats.restart().await.expect("nats-server");
        world.start_replica().await;
        told(world, 1).await;
        until_open(world, 1).await;
    }

    async fn what_cannot_be_asked_for_says_why(world: World) {
        world.with_ann().await;
        world.put_member("bob").await;
        world.pause("p1", "2026-03-01", None).await;
        world.put_membership("other", "ann", |_| {}).await;
        world.until("paused", "ann", |state| state.memberships.len() == 2).await;
        type Change = fn(&mut wire::RequestResumeRequest);
        let cases: [(Change, Code, &str); 6] = [
            (|it| it.member_id = "bob".into(), Code::FailedPrecondition, "neither holds nor pays"),
            (|it| it.membership_id = "other".into(), Code::FailedPrecondition, "not paused"),
            (|it| it.membership_id = "nobodys".into(), Code::NotFound, "membership"),
            (|it| it.member_id = "nobody".into(), Code::NotFound, "member"),
            (|it| it.gym_id = "steel".into(), Code::NotFound, "gym"),
            (|it| it.member_id = "not an id".into(), Code::InvalidArgument, "member_id"),
        ];
        for (change, code, says) in cases {
            let status = ask(world, change).await.expect_err("refused");
            assert_eq!(status.code(), code, "{status:?}");
            assert!(status.message().contains(says), "{status:?}");
            assert_eq!(faults(&status).is_empty(), code != Code::InvalidArgument);
        }
        until_open(world, 0).await;
    }

    async fn two_who_ask_at_once_leave_one_request(world: World) {
        world.with_ann().await;
        world.pause("p1", "2026-03-01", None).await;
        world.until_allowed("ann", false).await;
        if world.is_postgres() {
            world.start_replica().await;
        }
        let clients = world.clients_with(&world.tokens.service("gateway"));
        let asks = clients.iter().cycle().take(8).cloned().map(|mut client| async move {
            client.request_resume(request()).await.expect("kept")
        });
        futures_util::future::join_all(asks).await;
        told(world, 1).await;
        until_open(world, 1).await;
    }
}

fn request() -> wire::RequestResumeRequest {
    wire::RequestResumeRequest {
        gym_id: GYM.into(),
        membership_id: "ms".into(),
        member_id: "ann".into(),
    }
}

async fn ask(
    world: &World,
    change: impl FnOnce(&mut wire::RequestResumeRequest),
) -> Result<wire::WriteOutcome, tonic::Status> {
    let mut request = request();
    change(&mut request);
    let answer = world.client().request_resume(request).await?;
    Ok(answer.into_inner())
}

/// Waits until so many requests are open.
async fn until_open(world: &World, count: usize) {
    let store = world.store().await;
    let what = format!("{count} open requests");
    testkit::eventually(&what, std::time::Duration::from_secs(20), async || {
        let open = membership_events::store::resume_requests::list_open(store.reads()).await;
        open.is_ok_and(|open| open.len() == count)
    })
    .await;
}

/// The notifications, once there are so many.
async fn told(world: &World, count: u64) -> Vec<wire::Notification> {
    let what = format!("{count} notifications");
    let state = testkit::eventually_some(&what, std::time::Duration::from_secs(20), async || {
        let mut stream = world.bus.jetstream().get_stream("NOTIFY").await.ok()?;
        let state = stream.info().await.ok()?.state.clone();
        (state.messages >= count).then_some(state)
    })
    .await;
    assert_eq!(state.messages, count);
    let stream = world
        .bus
        .jetstream()
        .get_stream("NOTIFY")
        .await
        .expect("a stream");
    let mut all = Vec::new();
    for sequence in state.first_sequence..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.expect("a message");
        all.push(serde_json::from_slice(&message.payload).expect("a notification"));
    }
    all
}
