//! A Kisi that is not the stack's: only the key is saved, and a script that knows `stack.json` and
//! the contract's routes does the rest, under every model of the rate limit.

use std::net::{Ipv4Addr, SocketAddr};

use dev_stack::stripe;
use jiff::Timestamp;
use kisi_simulator::settings::{LimiterModel, Settings as KisiSettings};
use kisi_simulator::{Simulator, SimulatorConfig};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::eventually;

use crate::harness::{DEADLINE, folder, settings, start};

const KEY: &str = "a-key-of-another-kisi";

/// Another Kisi with one door and one group, at a rate that the whole gym's first sync fits in.
async fn kisi(limiter: LimiterModel, rate: u32) -> Simulator {
    let config = SimulatorConfig {
        addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        state_file: None,
        settings: KisiSettings {
            limiter,
            rate,
            ..KisiSettings::default()
        },
    };
    let simulator = Simulator::start(config).await.expect("a Kisi");
    let seed = json!({ "organizations": [{
        "name": "Iron House", "owner": { "email": "owner@iron.example.com", "api_key": KEY },
        "places": [{ "name": "Main street", "locks": [{ "name": "Front door" }] }],
        "groups": [{ "name": "24/7", "locks": ["Front door"] }],
    }]});
    let http = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let url = format!("{}/_simulator/seed", simulator.base_url());
    let answer = http.post(url).json(&seed).send().await.expect("an answer");
    assert!(answer.status().is_success());
    simulator
}

/// What a script sees: `stack.json`, and nothing else of the stack.
struct Script {
    http: reqwest::Client,
    stack: Value,
}

impl Script {
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let gateway = self.stack["urls"]["access_gateway"]
            .as_str()
            .expect("a url");
        let gym = self.stack["gym"].as_str().expect("a gym");
        let token = self.stack["tokens"]["staff"].as_str().expect("a token");
        let url = format!("{gateway}/api/v1/gyms/{gym}{path}");
        let mut request = self.http.request(method, url).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }
}

// A bucket of capacity 1 is left to kisi-client's tests: at a rate at which a whole gym's first
// sync fits into a test, its margin is a millisecond, and a busy machine's is more.

#[tokio::test]
async fn a_script_sets_another_kisi_up_and_doors_follow_there() {
    follows(LimiterModel::FixedWindow).await;
}

#[tokio::test]
async fn doors_follow_at_a_kisi_that_counts_refused_requests_too() {
    follows(LimiterModel::SlidingWindowCountingRefused).await;
}

#[tokio::test]
async fn doors_follow_at_a_kisi_with_a_token_bucket() {
    follows(LimiterModel::TokenBucket).await;
}

async fn follows(limiter: LimiterModel) {
    const RATE: u32 = 40;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kisi = kisi(limiter, RATE).await;
    let folder = folder();
    let mut settings = settings(&folder);
    settings.kisi_base_url = Some(kisi.base_url());
    settings.kisi_api_key = Some(KEY.into());
    settings.kisi_requests_per_second = Some(RATE.to_string());
    let mut stack = start(&settings).await;
    stack.prepare().await.expect("prepared");
    stack.write_stack_file().expect("stack.json");

    let text = std::fs::read_to_string(folder.path().join("stack.json")).expect("stack.json");
    let script = Script {
        http: reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client"),
        stack: serde_json::from_str(&text).expect("JSON"),
    };
    assert!(script.stack["place_id"].is_null());
    assert!(script.stack["plans"][0]["group_id"].is_null());
    let places = script.call(Method::GET, "/integration/places", None).await;
    let place = places["places"][0]["place_id"].clone();
    script
        .call(
            Method::PUT,
            "/integration/place",
            Some(json!({ "place_id": place })),
        )
        .await;
    let groups = script.call(Method::GET, "/integration/groups", None).await;
    let group = groups["groups"][0]["group_id"].clone();
    assert_eq!(groups["groups"][0]["scope"], "organization");
    let plan = script.stack["plans"][0]["plan_id"].clone();
    let set = json!({ "associations": [{ "plan_id": plan, "group_id": group }] });
    script
        .call(Method::PUT, "/integration/associations", Some(set))
        .await;
    assert!(
        assignments(&kisi, &group).is_empty(),
        "before the first sync nothing is written"
    );
    let sync = script.call(Method::POST, "/integration/sync", None).await;
    let id = sync["id"].as_str().expect("an id").to_owned();
    let path = format!("/integration/syncs/{id}");
    eventually("the first sync is done", DEADLINE * 3, async || {
        script.call(Method::GET, &path, None).await["state"] == "done"
    })
    .await;

    let members = script.stack["members"].as_array().expect("members");
    let entitled = members.iter().filter(|row| row["plan_id"] == plan).count();
    assert_eq!(assignments(&kisi, &group).len(), entitled);
    let row = members
        .iter()
        .find(|row| row["plan_id"] == plan)
        .expect("a member")
        .clone();
    for (kind, event, wanted) in [
        ("invoice.payment_failed", "evt_1", "denied"),
        ("invoice.paid", "evt_2", "granted"),
    ] {
        post(&script, &row, kind, event).await;
        let path = format!(
            "/members/{}/access",
            row["member_id"].as_str().expect("an id")
        );
        eventually(wanted, DEADLINE, async || {
            script.call(Method::GET, &path, None).await["status"] == wanted
        })
        .await;
        let still = usize::from(wanted == "granted");
        assert_eq!(assignments(&kisi, &group).len(), entitled - 1 + still);
    }
    stack.stop().await;

    let state = kisi.shared().lock();
    for entry in state.log.since(0) {
        assert!(
            !entry.refused_by_limiter,
            "{limiter:?}: {} {}",
            entry.method, entry.path
        );
        assert!(
            entry.note.is_none(),
            "{} {}: {:?}",
            entry.method,
            entry.path,
            entry.note
        );
    }
    assert!(
        state.world.emails.is_empty(),
        "managed users get no mail from Kisi"
    );
}

fn assignments(kisi: &Simulator, group: &Value) -> Vec<i64> {
    let state = kisi.shared().lock();
    let target = kisi_simulator::rows::Target::Group(group.as_i64().expect("an id"));
    state
        .world
        .assignments_on(target)
        .map(|row| row.id)
        .collect()
}

async fn post(script: &Script, row: &Value, kind: &str, event: &str) {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let contract = dev_stack::roster::Contract {
        membership_id: text(&row["membership_id"]),
        plan_id: dev_stack::roster::OPEN_GYM,
        holders: vec![text(&row["member_id"])],
        subscription_id: text(&row["billing"]["subscription_id"]),
        customer_id: text(&row["billing"]["customer_id"]),
    };
    let webhook = &script.stack["webhooks"][0];
    let now = Timestamp::now();
    let body = stripe::invoice_event(kind, &contract, "in_1", event, now);
    let url = format!(
        "{}{}",
        text(&script.stack["urls"]["billing_webhook"]),
        text(&webhook["path"])
    );
    let signature = stripe::signature(&text(&webhook["secret"]), &body, now);
    let answer = script
        .http
        .post(url)
        .header("content-type", "application/json")
        .header("stripe-signature", signature)
        .body(body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
}
