//! A member's phones, from the app to kisi-sync and back.

use contracts::access::v1 as wire;
use contracts::wire::timestamp;
use serde_json::json;
use tonic::Status;

use crate::world::{GYM, World, now};

fn phone(id: &str, primary: bool) -> wire::Device {
    wire::Device {
        device_id: id.to_owned(),
        brand: "Apple".to_owned(),
        model: "iPhone 17".to_owned(),
        os_name: "iOS 20.1".to_owned(),
        primary,
        enrolled_at: Some(timestamp(now())),
    }
}

#[tokio::test]
async fn a_phone_is_enrolled_and_its_secret_told_once() -> anyhow::Result<()> {
    let world = World::start().await?;
    let enrolled = wire::EnrolDeviceResponse {
        device: Some(phone("71", true)),
        secret: "secret-of-71".to_owned(),
        phone_key: "key-of-71".to_owned(),
        online_certificate: String::new(),
    };
    world.upstream.answer("enrol_device", &enrolled);
    let member = world.tokens.member(GYM, "m_1");
    let path = format!("/{GYM}/members/m_1/devices");
    let body = json!({"brand": "Apple", "model": "iPhone 17", "os_name": "iOS 20.1"});
    let answer = world.post(&member, &path, body).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.body["secret"], "secret-of-71");
    assert_eq!(answer.body["phone_key"], "key-of-71");
    assert_eq!(answer.body.get("online_certificate"), None);
    assert_eq!(answer.body["device"]["device_id"], "71");
    assert_eq!(answer.body["device"]["primary"], true);
    let calls = world.upstream.calls("enrol_device");
    assert_eq!(
        calls[0].message,
        json!({"gymId": GYM, "memberId": "m_1", "brand": "Apple", "model": "iPhone 17", "osName": "iOS 20.1"})
    );
    assert_eq!(calls[0].actor.as_deref(), Some("member:m_1"));

    // The secret is in no list.
    let list = wire::ListDevicesResponse {
        devices: vec![phone("71", true), phone("72", false)],
    };
    world.upstream.answer("list_devices", &list);
    let answer = world.get(&member, &path).await;
    assert_eq!(answer.status, 200);
    let devices = answer.body["devices"].as_array().expect("a list");
    assert_eq!(devices.len(), 2);
    assert_eq!(devices[1]["device_id"], "72");
    assert!(!answer.body.to_string().contains("secret"));
    world.stop().await
}

#[tokio::test]
async fn a_phone_is_made_primary_and_staff_withdraw_all() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.upstream.answer("make_primary", &phone("72", true));
    world
        .upstream
        .answer("reset_devices", &wire::ListDevicesResponse::default());
    let (member, staff) = (world.tokens.member(GYM, "m_1"), world.staff());
    let devices = format!("/{GYM}/members/m_1/devices");
    let answer = world
        .post(&member, &format!("{devices}/72/primary"), json!({}))
        .await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["primary"]),
        (200, &json!(true))
    );
    let calls = world.upstream.calls("make_primary");
    assert_eq!(
        calls[0].message,
        json!({"gymId": GYM, "memberId": "m_1", "deviceId": "72"})
    );

    let reset = format!("{devices}/reset");
    assert_eq!(world.post(&member, &reset, json!({})).await.status, 403);
    assert!(world.upstream.calls("reset_devices").is_empty());
    let answer = world.post(&staff, &reset, json!({})).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body),
        (200, json!({"devices": []}))
    );
    world.stop().await
}

#[tokio::test]
async fn what_is_wrong_is_named_and_nothing_is_asked_then() -> anyhow::Result<()> {
    let world = World::start().await?;
    let member = world.tokens.member(GYM, "m_1");
    let path = format!("/{GYM}/members/m_1/devices");
    let answer = world.post(&member, &path, json!({"brand": "Apple"})).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.body["errors"][0]["field"], "model");
    let answer = world
        .post(&member, &format!("{path}/a%20b/primary"), json!({}))
        .await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.body["errors"][0]["field"], "device_id");
    let other = format!("/{GYM}/members/m_2/devices");
    assert_eq!(world.get(&member, &other).await.status, 403);
    for method in ["enrol_device", "make_primary", "list_devices"] {
        assert!(world.upstream.calls(method).is_empty(), "{method}");
    }

    // Who is not at Kisi yet has no phone.
    let not_yet = Status::failed_precondition("the member has no access at Kisi yet");
    world.upstream.refuse("enrol_device", not_yet);
    let body = json!({"brand": "Apple", "model": "iPhone 17", "os_name": "iOS 20.1"});
    let answer = world.post(&member, &path, body).await;
    assert_eq!(answer.status, 409);
    assert_eq!(
        answer.body["detail"],
        "the member has no access at Kisi yet"
    );
    world.stop().await
}
