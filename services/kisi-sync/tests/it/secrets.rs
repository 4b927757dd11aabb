//! Whatever is logged, and however much: no key, no secret of a login, and nobody's e-mail is in it.

use contracts::access::v1::{EnrolDeviceRequest, UnlockRequest};
use contracts::integration::v1 as api;

use crate::harness::{GYM, On, PLAN, SOON, Stage};
use crate::kisi::Fault;
use crate::kisi_events::Inlet;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_logged_even_at_the_lowest_level() {
    let stage = Stage::set(On::Sqlite).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kisi-sync.log");
    let log = std::fs::File::create(&file).unwrap();
    let inlet = Inlet::default();
    let url = inlet.open().await;
    let flags = [("kisi-events-url", url.as_str())];
    let mut process = stage.spawn_logging("trace", log, &flags).await;
    let replica = &mut process.running;
    *inlet.client.lock().unwrap() = Some(replica.client.clone());

    // A key that Kisi does not know, one with less than is needed, and one that does.
    let wrong = "wrong-key-00000000000000000000000004";
    replica.enable(wrong).await.unwrap_err();
    stage.in_sync(replica, 2).await;
    let ours = stage.answer("m1", |answer| answer.version == 1).await;

    // A login of the server's and one of a phone; what Kisi calls us for; and a Kisi that fails.
    let door = replica.integration().await.groups[0].doors[0].lock_id;
    let unlock = UnlockRequest {
        gym_id: GYM.to_owned(),
        member_id: "m1".to_owned(),
        lock_id: door,
        location: None,
        proximity_proof: Some("proof-of-being-near-0005".to_owned()),
    };
    replica.client.unlock(unlock).await.unwrap();
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
    let right = ours.grants[0].assignment_id;
    stage.kisi.remove_by_hand(right).await;
    inlet.has_passed_of("role_assignment.destroy", right).await;
    stage
        .kisi
        .fail("POST", "/role_assignments", 1, Fault::Status(500))
        .await;
    stage.directory.decide(GYM, "m3", 1, &[PLAN]).await;
    stage
        .answer("m3", |answer| answer.outcome == "granted")
        .await;

    // The key dies, and another one takes its place.
    let mut secrets = stage.kisi.signature_keys();
    assert_eq!(secrets.len(), 1, "the webhook is signed");
    secrets.extend(stage.kisi.secrets());
    let other = stage.kisi.revoke_key().await;
    // An event's look may have found it before, and then no sync is begun.
    let start = api::StartSyncRequest {
        gym_id: GYM.to_owned(),
        digest: None,
    };
    let _ = replica.client.start_sync(start).await;
    testkit::eventually("the key is known to be dead", SOON, async || {
        replica.integration().await.state == "needs_attention"
    })
    .await;
    let rotate = api::EnableIntegrationRequest {
        gym_id: GYM.to_owned(),
        api_key: other.clone(),
    };
    replica.client.rotate_api_key(rotate).await.unwrap();
    assert_eq!(replica.sync().await.state, "done");
    process.terminate().await;

    secrets.extend([wrong.to_owned(), stage.kisi.api_key(), other]);
    secrets.extend([phone.secret, phone.phone_key, phone.online_certificate]);
    secrets.extend(["AQEBAQEBAQEB", "proof-of-being-near", "@example.com"].map(str::to_owned));
    let log = std::fs::read_to_string(&file).unwrap();
    for level in ["TRACE", "DEBUG", "INFO", "WARN"] {
        assert!(log.contains(level), "nothing at {level}");
    }
    for secret in secrets {
        assert!(secret.len() > 8, "{secret:?}");
        let found = log.lines().find(|line| line.contains(&secret));
        assert_eq!(found, None, "{secret}");
    }
}
