use async_nats::jetstream::stream::{Config, PersistenceMode, StorageType};
use event_bus::preflight::PreflightError;
use event_bus::topology::{self, TopologyError};
use event_bus::{Bus, BusError};
use testkit::NatsServer;
use tokio_util::sync::CancellationToken;

use crate::{settings, start};

#[tokio::test]
async fn the_streams_are_created_as_designed_and_verified_by_the_next_start() {
    let (nats, bus) = start().await;
    let again = Bus::start(&settings(&nats), "second", &CancellationToken::new()).await;
    assert!(again.is_ok());

    let config = |name: &'static str| {
        let js = bus.jetstream().clone();
        async move {
            js.get_stream(name)
                .await
                .unwrap()
                .cached_info()
                .config
                .clone()
        }
    };
    let days = |config: &Config| config.max_age.as_secs() / 86_400;
    let billing = config("BILLING").await;
    assert_eq!(billing.subjects, ["billing.v1.>"]);
    assert_eq!((billing.storage, days(&billing)), (StorageType::File, 30));
    for (name, subject) in [
        ("MEMBERSHIP", "membership.v1.>"),
        ("ACCESS", "access.v1.>"),
        ("INTEGRATION", "integration.v1.>"),
    ] {
        let config = config(name).await;
        assert_eq!(config.subjects, [subject]);
        assert_eq!((config.max_messages_per_subject, days(&config)), (2, 0));
    }
    assert_eq!(days(&config("NOTIFY").await), 7);
    assert_eq!(days(&config("DEAD_LETTER").await), 90);
    for name in [
        "BILLING",
        "MEMBERSHIP",
        "ACCESS",
        "INTEGRATION",
        "NOTIFY",
        "DEAD_LETTER",
    ] {
        assert_eq!(config(name).await.duplicate_window.as_secs(), 120);
    }
    let bucket = bus.jetstream().get_key_value("CATCHUP").await.unwrap();
    bucket.put("cursor", "1".into()).await.unwrap();
}

#[tokio::test]
async fn a_limit_that_differs_is_put_right_and_foreign_settings_stay() {
    let (nats, bus) = start().await;
    let mut changed = topology::streams(1).remove(0);
    changed.max_age /= 2;
    changed.description = Some("kept".to_owned());
    bus.jetstream().update_stream(changed).await.unwrap();

    Bus::start(&settings(&nats), "second", &CancellationToken::new())
        .await
        .unwrap();

    let stream = bus.jetstream().get_stream("BILLING").await.unwrap();
    let config = &stream.cached_info().config;
    assert_eq!(config.max_age.as_secs(), 30 * 86_400);
    assert_eq!(config.description.as_deref(), Some("kept"));
}

#[tokio::test]
async fn a_stream_in_memory_or_that_acks_early_stops_the_start_and_is_named() {
    type Spoil = fn(&mut Config);
    let cases: [(Spoil, &str); 2] = [
        (|config| config.storage = StorageType::Memory, "storage"),
        (
            |config| {
                config.persist_mode = Some(PersistenceMode::Async);
                // The server refuses the two together.
                config.allow_atomic_publish = false;
            },
            "persist_mode",
        ),
    ];
    for (spoil, expected) in cases {
        let nats = NatsServer::start().await.unwrap();
        let bus = Bus::connect(&settings(&nats), "tool").await.unwrap();
        let mut wrong = topology::streams(1).remove(0);
        spoil(&mut wrong);
        bus.jetstream().create_stream(wrong).await.unwrap();

        let error = Bus::start(&settings(&nats), "test", &CancellationToken::new())
            .await
            .unwrap_err();

        assert!(
            matches!(&error, BusError::Topology(TopologyError::Mismatch { stream, field, .. })
                if stream == "BILLING" && field == expected),
            "{error}"
        );
    }
}

#[tokio::test]
async fn more_replicas_than_servers_stop_the_start() {
    let nats = NatsServer::start().await.unwrap();
    let mut settings = settings(&nats);
    settings.nats_replicas = 3;
    let error = Bus::start(&settings, "test", &CancellationToken::new())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("BILLING"), "{error}");
}

#[tokio::test]
async fn a_server_that_syncs_lazily_is_refused_unless_allowed() {
    let nats = NatsServer::start_with_lazy_sync().await.unwrap();
    let mut settings = settings(&nats);
    let error = Bus::start(&settings, "test", &CancellationToken::new())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, BusError::Preflight(PreflightError::LazySync { url }) if *url == nats.monitor_url()),
        "{error}"
    );

    settings.allow_lazy_sync = true;
    assert!(
        Bus::start(&settings, "test", &CancellationToken::new())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn without_monitoring_addresses_nothing_is_promised() {
    let nats = NatsServer::start().await.unwrap();
    let mut settings = settings(&nats);
    settings.nats_monitor_urls.clear();
    let error = Bus::start(&settings, "test", &CancellationToken::new())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("NATS_MONITOR_URLS"), "{error}");
}

#[tokio::test]
async fn a_start_waits_for_nats_and_can_be_stopped_while_it_waits() {
    let mut nats = NatsServer::start().await.unwrap();
    let settings = settings(&nats);
    nats.stop().await.unwrap();

    let stopped = CancellationToken::new();
    stopped.cancel();
    let error = Bus::start(&settings, "test", &stopped).await.unwrap_err();
    assert!(matches!(error, BusError::Stopped), "{error}");

    let waiting =
        tokio::spawn(async move { Bus::start(&settings, "test", &CancellationToken::new()).await });
    nats.restart().await.unwrap();
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test]
async fn one_of_three_servers_may_be_down_at_start_but_not_two() {
    let (one, two) = (
        NatsServer::start().await.unwrap(),
        NatsServer::start().await.unwrap(),
    );
    let nobody = format!("http://127.0.0.1:{}", testkit::free_port());
    let check = event_bus::preflight::check;
    let most = [one.monitor_url(), nobody.clone(), two.monitor_url()];
    assert!(check(&most).await.is_ok());
    let few = [one.monitor_url(), nobody.clone(), nobody.clone()];
    assert!(
        matches!(check(&few).await, Err(PreflightError::Unreachable { url, .. }) if url == nobody)
    );
}
