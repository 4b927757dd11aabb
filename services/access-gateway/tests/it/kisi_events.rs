//! Kisi's own event webhooks, passed on.

use reqwest::Method;
use tonic::Status;

use crate::world::{GYM, World};

#[tokio::test]
async fn kisi_events_are_passed_on_byte_by_byte() -> anyhow::Result<()> {
    let world = World::start().await?;
    let path = format!("/kisi/events/{GYM}");
    let send = |signature: Option<&str>, body: Vec<u8>| {
        let mut request = world.http.post(world.url(&path)).body(body);
        if let Some(signature) = signature {
            request = request.header("X-Signature", signature);
        }
        world.read(Method::POST, &path, request)
    };
    let body = b"{\"type\" : \"lock.unlock\"}\n".to_vec();
    world.upstream.answer(
        "pass_kisi_event",
        &contracts::kisi::v1::PassKisiEventResponse { looked_again: true },
    );
    assert_eq!(send(Some("abc"), body.clone()).await.status, 200);
    let calls = world.upstream.calls("pass_kisi_event");
    let event: contracts::kisi::v1::PassKisiEventRequest =
        serde_json::from_value(calls[0].message.clone())?;
    assert_eq!(
        (event.gym_id.as_str(), event.signature.as_str()),
        (GYM, "abc")
    );
    assert_eq!(event.body, body);
    assert!(event.received_at.is_some());

    assert_eq!(send(None, body.clone()).await.status, 401);
    assert_eq!(send(Some("abc"), vec![b' '; 300_000]).await.status, 413);
    let wrong = Status::permission_denied("the signature does not fit");
    world.upstream.refuse("pass_kisi_event", wrong);
    assert_eq!(send(Some("abc"), body.clone()).await.status, 403);
    world
        .upstream
        .refuse("pass_kisi_event", Status::unavailable("down"));
    assert_eq!(send(Some("abc"), body).await.status, 503);
    world.stop().await
}
