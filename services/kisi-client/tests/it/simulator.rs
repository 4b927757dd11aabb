//! The client's whole surface against the real simulator, and what went over the wire judged by an
//! independent validator of openapi.yaml.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kisi_client::{
    ConnectionSettings, Deletion, HttpKisi, KisiConnection, KisiError, KisiRead, KisiWrite, Lane,
    Pacer, PacerSettings,
};
use kisi_simulator::faults::{Fault, FaultKind};
use kisi_simulator::settings::{LimiterModel, RefusalBody, RetryAfter, Settings};
use kisi_simulator::{Simulator, SimulatorConfig};
use serde_json::{Value, json};

use crate::surface::{Seeded, call_everything};

const KEY: &str = "owner-key";
/// No user has this id.
const NOBODY: i64 = 987_654_321;

async fn started(settings: Settings) -> (Simulator, Seeded) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = SimulatorConfig {
        settings,
        ..SimulatorConfig::default()
    };
    let simulator = Simulator::start(config).await.expect("a simulator");
    let seed = json!({ "organizations": [{
        "name": "Iron House", "owner": { "email": "owner@iron.example.com", "api_key": KEY },
        "places": [{ "name": "Main", "locks": [{ "name": "Front" }] }],
        "groups": [{ "name": "24/7", "locks": ["Front"] }],
    }]});
    let http = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let url = format!("{}/_simulator/seed", simulator.base_url());
    let made: Value = http
        .post(url)
        .json(&seed)
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    let made = &made["organizations"][0];
    let id = |value: &Value| value.as_i64().expect("an id");
    let seeded = Seeded {
        place_id: id(&made["places"][0]["id"]),
        group_id: id(&made["groups"][0]["id"]),
        lock_id: id(&made["places"][0]["locks"][0]["id"]),
    };
    (simulator, seeded)
}

fn client(simulator: &Simulator, requests_per_second: f64) -> HttpKisi {
    let url = simulator.base_url().parse().expect("a URL");
    let settings = ConnectionSettings::new(url, "gymflow", "dev@gymflow.example");
    let connection = KisiConnection::new(settings).expect("a connection");
    HttpKisi::new(
        connection,
        KEY.to_owned().into(),
        Pacer::new(PacerSettings {
            requests_per_second,
        }),
    )
}

#[tokio::test]
async fn everything_the_client_can_ask_is_what_the_document_allows() {
    let (simulator, seeded) = started(Settings {
        limiter: LimiterModel::Off,
        ..Settings::default()
    })
    .await;
    let kisi = client(&simulator, 1_000.0);
    call_everything(&kisi, &seeded)
        .await
        .expect("every call is answered");

    let unwanted: Vec<_> = {
        let state = simulator.shared().lock();
        let noted = state.log.since(0).filter(|entry| entry.note.is_some());
        noted
            .map(|entry| format!("{} {}: {:?}", entry.method, entry.path, entry.note))
            .collect()
    };
    assert!(unwanted.is_empty(), "{unwanted:?}");
    validate(&simulator.exchanges_jsonl());
}

/// The models side by side: each has a simulator and a client of its own.
#[tokio::test]
async fn a_burst_is_never_refused_whatever_the_model_and_the_way() {
    let tried = [
        (LimiterModel::FixedWindow, 5, 50, 12),
        (LimiterModel::SlidingWindow, 5, 50, 12),
        (LimiterModel::SlidingWindowCountingRefused, 5, 50, 12),
        (LimiterModel::TokenBucket, 5, 50, 12),
        // Without a burst evenly sent requests must arrive evenly. One a second, so that the five
        // percent between are more than what a busy machine takes or gives.
        (LimiterModel::TokenBucket1, 1, 0, 4),
    ]
    .map(|(limiter, rate, jitter_ms, requests)| async move {
        let settings = Settings {
            limiter,
            rate,
            jitter_ms,
            ..Settings::default()
        };
        let (simulator, _) = started(settings).await;
        let kisi = client(&simulator, f64::from(rate));
        // All at once: more than any window lets through unpaced.
        let asked = (0..requests).map(|_| kisi.current_user(Lane::SetUp));
        for answer in futures_util::future::join_all(asked).await {
            answer.expect("an answer");
        }
        assert_eq!(came(&simulator), (requests, 0), "{limiter:?}");
    });
    futures_util::future::join_all(tried).await;
}

/// The wrong client, which shows that the simulator would have refused: told four times the limit.
#[tokio::test]
async fn a_client_that_was_told_too_much_is_refused_by_every_model_and_gets_there_all_the_same() {
    let tried = [
        LimiterModel::FixedWindow,
        LimiterModel::SlidingWindow,
        LimiterModel::SlidingWindowCountingRefused,
        LimiterModel::TokenBucket,
        LimiterModel::TokenBucket1,
    ]
    .map(|limiter| async move {
        let settings = Settings {
            limiter,
            ..Settings::default()
        };
        let (simulator, _) = started(settings).await;
        let kisi = client(&simulator, 20.0);
        let asked = (0..12).map(|_| kisi.current_user(Lane::SetUp));
        for answer in futures_util::future::join_all(asked).await {
            answer.expect("an answer");
        }
        let (admitted, refused) = came(&simulator);
        assert_eq!(admitted, 12, "{limiter:?}");
        assert!(refused > 0, "{limiter:?} refused nothing");
    });
    futures_util::future::join_all(tried).await;
}

/// Nothing is published about what a 429 holds. Each form says the same, and how long to wait where it
/// names a time.
#[tokio::test]
async fn a_refusal_is_understood_in_each_form_of_its_body_and_of_its_header() {
    let bodies = [RefusalBody::Error, RefusalBody::Empty, RefusalBody::Html];
    let headers = [RetryAfter::None, RetryAfter::Seconds, RetryAfter::Date];
    let forms = bodies.iter().flat_map(|body| headers.map(|it| (*body, it)));
    let tried = forms.map(|(refusal_body, retry_after)| async move {
        let form = format!("{refusal_body:?}, {retry_after:?}");
        let settings = Settings {
            limiter: LimiterModel::Off,
            refusal_body,
            retry_after,
            ..Settings::default()
        };
        let (simulator, _) = started(settings).await;
        let kisi = client(&simulator, 1_000.0);
        let refuse = |method: &str| Fault {
            method: Some(method.to_owned()),
            route: None,
            kind: FaultKind::TooMany,
            count: Some(1),
            skip: 0,
        };
        for method in ["DELETE", "GET"] {
            let mut state = simulator.shared().lock();
            state.faults.add(refuse(method));
        }
        // A write in a turn is left to whoever sends it, and a question is asked again.
        let turn = kisi.pacer().turn(Lane::Grant).await;
        let answer = kisi.delete_user(turn.into(), NOBODY).await;
        let Err(KisiError::RateLimited {
            retry_after: told, ..
        }) = answer
        else {
            panic!("{form}: {answer:?}");
        };
        let most = Duration::from_secs(2);
        match retry_after {
            RetryAfter::None => assert_eq!(told, None, "{form}"),
            RetryAfter::Seconds => assert_eq!(told, Some(Duration::from_secs(1)), "{form}"),
            RetryAfter::Date => assert!(told.is_some_and(|told| told <= most), "{form}: {told:?}"),
        }
        kisi.current_user(Lane::SetUp).await.expect("an answer");
        let again = kisi.delete_user(Lane::Grant.into(), NOBODY).await;
        assert_eq!(again.expect("an answer"), Deletion::AlreadyGone, "{form}");

        let state = simulator.shared().lock();
        let refused = state.log.since(0).filter(|entry| entry.status == Some(429));
        let refused: Vec<_> = refused.collect();
        assert_eq!(refused.len(), 2, "{form}");
        for entry in refused {
            let header = entry.response_headers.iter();
            let mut header = header.filter(|(name, _)| name == "retry-after");
            let is_told = header.next().is_some();
            assert_eq!(is_told, retry_after != RetryAfter::None, "{form}");
            let is_as_set = match refusal_body {
                RefusalBody::Error => entry.response_body["code"] == "000429",
                RefusalBody::Empty => entry.response_body.is_null(),
                RefusalBody::Html => entry.response_body.is_string(),
            };
            assert!(is_as_set, "{form}: {}", entry.response_body);
        }
    });
    futures_util::future::join_all(tried).await;
}

/// How many requests the limiter let pass, and how many it refused.
fn came(simulator: &Simulator) -> (usize, usize) {
    let state = simulator.shared().lock();
    let refused = state.log.since(0).filter(|entry| entry.refused_by_limiter);
    let (all, refused) = (state.log.since(0).count(), refused.count());
    (all - refused, refused)
}

/// By openapi-core, in Python: nothing of ours judges.
fn validate(exchanges: &str) {
    let simulator = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kisi-simulator");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(exchanges.as_bytes()).expect("written");
    let python = std::env::var("GYMFLOW_PYTHON").unwrap_or_else(|_| "python3".into());
    let tools = std::env::var_os("GYMFLOW_PYTHONPATH")
        .map_or_else(|| simulator.join("../../.tools/py"), PathBuf::from);
    let output = Command::new(python)
        .env("PYTHONPATH", tools)
        .arg(simulator.join("tests/validate_exchanges.py"))
        .arg(simulator.join("openapi.yaml"))
        .arg(file.path())
        .output()
        .expect("python3");
    assert!(
        output.status.success(),
        "{}{}(without openapi-core: run `make tools`)",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
