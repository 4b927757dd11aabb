//! A member's phones: enrolled once by a login whose secret is kept nowhere, made primary, withdrawn.

use contracts::access::v1::{
    Device, DeviceRequest, EnrolDeviceRequest, EnrolDeviceResponse, GetAccessStatusRequest,
    UnlockRequest,
};
use kisi_sync::store;
use sea_orm::ConnectionTrait;
use secrecy::SecretString;
use tonic::Code;

use crate::harness::{GYM, On, PLAN, Running, Stage};
use crate::kisi::{Fault, GROUP};

fn phone(member: &str, model: &str) -> EnrolDeviceRequest {
    EnrolDeviceRequest {
        gym_id: GYM.to_owned(),
        member_id: member.to_owned(),
        brand: "Fair".to_owned(),
        model: model.to_owned(),
        os_name: "Android".to_owned(),
    }
}

fn of(member: &str) -> GetAccessStatusRequest {
    GetAccessStatusRequest {
        gym_id: GYM.to_owned(),
        member_id: member.to_owned(),
    }
}

async fn enrol(replica: &mut Running, member: &str, model: &str) -> EnrolDeviceResponse {
    let answer = replica.client.enrol_device(phone(member, model)).await;
    answer.unwrap().into_inner()
}

async fn list(replica: &mut Running, member: &str) -> Vec<Device> {
    let answer = replica.client.list_devices(of(member)).await.unwrap();
    answer.into_inner().devices
}

async fn primary(replica: &mut Running, member: &str, device: &str) -> Result<Device, Code> {
    let request = DeviceRequest {
        gym_id: GYM.to_owned(),
        member_id: member.to_owned(),
        device_id: device.to_owned(),
    };
    let answer = replica.client.make_primary(request).await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|s| s.code())
}

/// To open the door of [`GROUP`].
async fn front_door(replica: &mut Running, member: &str) -> UnlockRequest {
    UnlockRequest {
        gym_id: GYM.to_owned(),
        member_id: member.to_owned(),
        lock_id: replica.integration().await.groups[0].doors[0].lock_id,
        location: None,
        proximity_proof: None,
    }
}

async fn a_phone_is_enrolled_made_primary_and_reset(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let first = enrol(&mut replica, "m1", "One").await;
    let second = enrol(&mut replica, "m1", "Two").await;
    for secret in [&first.secret, &first.phone_key, &first.online_certificate] {
        assert!(!secret.is_empty());
    }
    let ids: Vec<String> = [&first, &second]
        .map(|made| made.device.clone().unwrap().device_id)
        .to_vec();
    let held = stage.kisi.logins("m1@example.com");
    assert_eq!(held.len(), 2);
    // The app speaks to Kisi with it.
    assert_eq!(stage.kisi.secret_of(held[0]), first.secret);

    let made = primary(&mut replica, "m1", &ids[1]).await.unwrap();
    assert!(made.primary);
    let shown = list(&mut replica, "m1").await;
    let shown: Vec<(&str, bool)> = shown
        .iter()
        .map(|d| (d.model.as_str(), d.primary))
        .collect();
    assert_eq!(shown, [("One", false), ("Two", true)]);
    // Another member's phone is none of hers.
    let refused = primary(&mut replica, "m2", &ids[0]).await;
    assert_eq!(refused, Err(Code::NotFound));

    // What opens doors from the server is no phone, and stays.
    let unlock = front_door(&mut replica, "m1").await;
    replica.client.unlock(unlock.clone()).await.unwrap();
    let left = replica.client.reset_devices(of("m1")).await.unwrap();
    assert!(left.into_inner().devices.is_empty());
    assert!(list(&mut replica, "m1").await.is_empty());
    assert_eq!(stage.kisi.logins("m1@example.com").len(), 1);
    let opened = replica.client.unlock(unlock).await.unwrap().into_inner();
    assert!(opened.unlocked);
    assert_eq!(
        primary(&mut replica, "m1", &ids[0]).await,
        Err(Code::NotFound)
    );

    // Neither secret is in any table.
    let db = store::connect(&SecretString::from(stage.database_url()))
        .await
        .unwrap();
    let rows = store::audit::list_after(&db, GYM, 0, 100).await.unwrap();
    let log: String = rows.into_iter().map(|row| row.entry).collect();
    assert!(log.contains("device_enrolled") && log.contains("device_withdrawn"));
    assert!(!log.contains(&first.secret) && !log.contains(&first.phone_key));
    if matches!(on, On::Sqlite) {
        db.execute_unprepared("pragma wal_checkpoint(truncate)")
            .await
            .unwrap();
        let file = stage.database_url().replace("sqlite://", "");
        let bytes = std::fs::read(file).unwrap();
        let holds = |secret: &str| bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(holds("device_enrolled"));
        assert!(!holds(&first.secret) && !holds(&second.secret) && !holds(&first.phone_key));
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_is_enrolled_made_primary_and_reset_on_sqlite() {
    a_phone_is_enrolled_made_primary_and_reset(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_is_enrolled_made_primary_and_reset_on_postgres() {
    a_phone_is_enrolled_made_primary_and_reset(On::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_forty_first_login_pushes_out_a_phone_of_ours_and_never_the_primary_one() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let mut ids = Vec::new();
    for i in 1..=40 {
        let made = enrol(&mut replica, "m1", &format!("P{i}")).await;
        ids.push(made.device.unwrap().device_id);
    }
    primary(&mut replica, "m1", &ids[0]).await.unwrap();
    enrol(&mut replica, "m1", "P41").await;
    let shown = list(&mut replica, "m1").await;
    let models: Vec<&str> = shown.iter().map(|device| device.model.as_str()).collect();
    assert_eq!(models.len(), 40);
    assert_eq!((models[0], models[1], models[39]), ("P1", "P3", "P41"));
    let at_kisi: Vec<String> = stage
        .kisi
        .logins("m1@example.com")
        .iter()
        .map(i64::to_string)
        .collect();
    let listed: Vec<String> = shown.into_iter().map(|device| device.device_id).collect();
    assert_eq!(listed, at_kisi);

    // The login that opens doors from the server takes the place of a phone too.
    let unlock = front_door(&mut replica, "m1").await;
    assert!(
        replica
            .client
            .unlock(unlock)
            .await
            .unwrap()
            .get_ref()
            .unlocked
    );
    let at_kisi = stage.kisi.logins("m1@example.com");
    let shown = list(&mut replica, "m1").await;
    let models: Vec<&str> = shown.iter().map(|device| device.model.as_str()).collect();
    assert_eq!((at_kisi.len(), models.len()), (40, 39));
    assert_eq!((models[0], models[1], models[38]), ("P1", "P4", "P41"));
    for device in shown {
        assert!(at_kisi.contains(&device.device_id.parse().unwrap()));
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_login_is_made_for_whoever_a_changed_e_mail_belongs_to() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let before = stage.kisi.logins("owner@example.com");
    let unlock = front_door(&mut replica, "m1").await;
    let mut person = stage.directory.get(GYM, "m1");
    person.email = "owner@example.com".to_owned();
    stage.directory.insert(person);

    let answer = replica.client.unlock(unlock.clone()).await.unwrap();
    let alert = answer.into_inner().alert.unwrap();
    assert_eq!(
        (alert.code.as_str(), alert.action.unwrap().kind.as_str()),
        ("identity_conflict", "contact_gym")
    );
    let refused = replica.client.enrol_device(phone("m1", "One")).await;
    assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(stage.kisi.logins("owner@example.com"), before);
    assert!(stage.kisi.writes().await.is_empty());

    // The e-mail is put back, and the door opens as it should.
    let mut person = stage.directory.get(GYM, "m1");
    person.email = "m1@example.com".to_owned();
    stage.directory.insert(person);
    let answer = replica.client.unlock(unlock).await.unwrap().into_inner();
    assert!(answer.unlocked, "{answer:?}");
    assert_eq!(stage.kisi.logins("m1@example.com").len(), 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn phones_outlive_a_revoke_and_go_with_an_erased_member() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    // A person whom others made at Kisi stays there, without what we made for her.
    stage.kisi.add_by_hand("guest@example.com", 13).await;
    let mut guest = stage.directory.put(GYM, "guest", 1, &[PLAN]);
    guest.email = "guest@example.com".to_owned();
    stage.directory.insert(guest.clone());
    stage.directory.publish(&guest.state.unwrap()).await;
    stage
        .answer("guest", |answer| answer.outcome == "granted")
        .await;
    for (member, left) in [("m1", 0), ("guest", 0)] {
        enrol(&mut replica, member, "One").await;
        stage.directory.decide(GYM, member, 2, &[]).await;
        stage.answer(member, |answer| answer.version == 2).await;
        assert_eq!(list(&mut replica, member).await.len(), 1);
        let mut person = stage.directory.put(GYM, member, 3, &[]);
        person.email = format!("{member}@example.com");
        let mut state = person.state.clone().unwrap();
        stage.directory.insert(person);
        state.erased = true;
        stage.directory.publish(&state).await;
        let erased = stage.answer(member, |answer| answer.version == 3).await;
        assert_eq!(erased.outcome, "erased");
        assert_eq!(
            stage.kisi.logins(&format!("{member}@example.com")).len(),
            left
        );
        let gone = replica.client.list_devices(of(member)).await.unwrap_err();
        assert_eq!(gone.code(), Code::NotFound);
    }
    let users = stage.kisi.emails_of_users();
    assert!(users.contains(&"guest@example.com".to_owned()));
    assert!(!users.contains(&"m1@example.com".to_owned()));
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_needs_a_name_and_a_member_whom_kisi_knows() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    stage.directory.decide(GYM, "m2", 1, &[]).await;
    stage.answer("m2", |answer| answer.version == 1).await;
    for (request, code) in [
        (phone("m1", " "), Code::InvalidArgument),
        (phone("m1", &"x".repeat(101)), Code::InvalidArgument),
        (phone("m2", "One"), Code::FailedPrecondition),
        (phone("nobody", "One"), Code::NotFound),
        (phone("no body", "One"), Code::InvalidArgument),
    ] {
        let refused = replica.client.enrol_device(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    assert!(stage.kisi.writes().await.is_empty());
    replica.stop().await;
}

/// Phones that others enrolled are not ours to choose from; a member at a door does not wait for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_door_opens_for_whoever_has_forty_logins_that_are_not_ours() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    for i in 1..=40 {
        enrol(&mut replica, "m1", &format!("P{i}")).await;
    }
    let url = SecretString::from(stage.database_url());
    let db = store::connect(&url).await.unwrap();
    db.execute_unprepared("delete from devices").await.unwrap();
    let refused = replica.client.enrol_device(phone("m1", "P41")).await;
    assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition);
    let unlock = front_door(&mut replica, "m1").await;
    let opened = replica.client.unlock(unlock).await.unwrap().into_inner();
    assert!(opened.unlocked, "{opened:?}");
    assert_eq!(stage.kisi.logins("m1@example.com").len(), 40);
    replica.stop().await;
}

/// Staff withdrew it in Kisi's pages, or Kisi dropped it for a forty-first: the member at the door is let
/// in all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_gone_at_kisi_is_made_anew_by_the_next_unlock() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let unlock = front_door(&mut replica, "m1").await;
    for _ in 0..2 {
        let opened = replica.client.unlock(unlock.clone()).await.unwrap();
        assert!(opened.get_ref().unlocked, "{opened:?}");
        let held = stage.kisi.logins("m1@example.com");
        assert_eq!(held.len(), 1);
        stage.kisi.shared().lock().world.remove_login(held[0]);
    }
    let writes = stage.kisi.writes().await;
    let made = writes.iter().filter(|write| *write == "POST /logins");
    assert_eq!(made.count(), 2, "{writes:?}");
    replica.stop().await;
}

/// A member who taps twice at the first door.
async fn two_first_unlocks_at_once_open_by_one_login(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    let unlock = front_door(&mut replica, "m1").await;
    let before = stage.kisi.held_back();
    stage.kisi.fail("POST", "/logins", 1, Fault::Wait).await;
    let taps = (0..2).map(|_| {
        let (mut client, unlock) = (replica.client.clone(), unlock.clone());
        tokio::spawn(async move { client.unlock(unlock).await })
    });
    let taps: Vec<_> = taps.collect();
    stage.kisi.one_is_held_back(before).await;
    stage.kisi.clear_faults();
    for tap in taps {
        let opened = tap.await.unwrap().unwrap().into_inner();
        assert!(opened.unlocked, "{opened:?}");
    }
    assert_eq!(stage.kisi.logins("m1@example.com").len(), 1);
    stage.kisi.forget_requests().await;
    let opened = replica.client.unlock(unlock).await.unwrap().into_inner();
    assert!(opened.unlocked, "{opened:?}");
    let writes = stage.kisi.writes().await;
    assert!(
        writes.iter().all(|write| write.ends_with("/unlock")),
        "{writes:?}"
    );
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_first_unlocks_at_once_open_by_one_login_on_sqlite() {
    two_first_unlocks_at_once_open_by_one_login(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_first_unlocks_at_once_open_by_one_login_on_postgres() {
    two_first_unlocks_at_once_open_by_one_login(On::Postgres).await;
}
