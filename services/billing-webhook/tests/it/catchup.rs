//! Catching up: a day's webhooks of which a tenth is lost, real nats-servers, real HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::http::HeaderMap;
use billing_webhook::catchup::CatchUpSettings;
use billing_webhook::catchup::rhythm::Rhythm;
use billing_webhook::catchup::turn::{Taken, Turns};
use billing_webhook::config::Config;
use billing_webhook::endpoints::Endpoints;
use billing_webhook::provider;
use contracts::message::BusMessage;
use contracts::subjects;
use event_bus::{Bus, NatsSettings};
use futures_util::{Stream, StreamExt};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use service_runtime::clock::{Clock, SystemClock};
use sha2::Sha256;
use testkit::{NatsServer, eventually, eventually_some};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::catchup_api::{Fault, GOCARDLESS_KEY, Kept, ProviderApi, STRIPE_KEY};
use crate::harness::{DEADLINE, Harness, SECRET, config, fixture, now};

/// One run; the next is due at midnight.
pub const ONCE: Duration = Duration::from_secs(24 * 60 * 60);

/// The endpoints, with API keys or without.
pub fn endpoints(with_keys: bool) -> String {
    let key = |key: &str| match with_keys {
        true => format!(", api_key: {key}"),
        false => String::new(),
    };
    format!(
        "endpoints:\n\
         - {{ id: main, provider: stripe, account: acct_default, accounts: [acct_a], secrets: [{SECRET}]{} }}\n\
         - {{ id: gym, provider: gocardless, account: OR1, secrets: [{SECRET}]{} }}\n",
        key(STRIPE_KEY),
        key(GOCARDLESS_KEY),
    )
}

/// Another replica on the same NATS.
pub struct Replica {
    shutdown: CancellationToken,
    service: JoinHandle<Result<(), billing_webhook::error::Error>>,
    _folder: tempfile::TempDir,
}

impl Replica {
    pub fn launch(nats: &NatsServer, api: &ProviderApi, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("endpoints.yaml");
        std::fs::write(&file, endpoints(true)).expect("endpoints");
        let mut config = config(nats, file);
        config.catchup = CatchUpSettings::for_testing(Some(&api.url));
        config.catchup.catchup_every = ONCE;
        change(&mut config);
        let shutdown = CancellationToken::new();
        let service = tokio::spawn(billing_webhook::run(config, shutdown.clone()));
        Self {
            shutdown,
            service,
            _folder: folder,
        }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(DEADLINE, self.service).await;
        ended
            .expect("it ends")
            .expect("no panic")
            .expect("no error");
    }
}

pub async fn bus(nats: &NatsServer) -> Bus {
    let settings = NatsSettings::for_testing(&nats.url(), &nats.monitor_url());
    Bus::connect(&settings, "test").await.expect("NATS")
}

/// So that nothing is trimmed by JetStream that should not have been published at all.
async fn forget_ids_at_once(bus: &Bus) {
    let js = bus.jetstream();
    let stream = js.get_stream(subjects::BILLING).await.expect("BILLING");
    let mut config = stream.cached_info().config.clone();
    config.duplicate_window = Duration::from_millis(100);
    js.update_stream(config).await.expect("changed");
}

/// What a run left behind at this key of the bucket.
pub async fn in_bucket(bus: &Bus, key: &str) -> Option<Value> {
    let found = bus.catchup_bucket().read::<Value>(key).await.ok()?;
    found.map(|(value, _)| value)
}

/// A thousand events are flushed to a disk that other tests use as well.
pub async fn until_run_is_done(bus: &Bus) {
    eventually("the run is done", 3 * DEADLINE, async || {
        in_bucket(bus, "turn")
            .await
            .is_some_and(|turn| turn["state"] == "done")
    })
    .await;
}

/// Bodies on BILLING by id, and how many messages there are.
pub async fn on_billing(nats: &NatsServer) -> (BTreeMap<String, Value>, usize) {
    let bus = bus(nats).await;
    let stream = bus.jetstream().get_stream(subjects::BILLING).await;
    let mut stream = stream.expect("BILLING");
    let last = stream.info().await.expect("its state").state.last_sequence;
    let mut by_id = BTreeMap::new();
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await.expect("a message");
        let id = message
            .headers
            .get("Nats-Msg-Id")
            .expect("an id")
            .to_string();
        by_id.insert(id, serde_json::from_slice(&message.payload).expect("JSON"));
    }
    (by_id, usize::try_from(last).expect("few"))
}

/// A day at both providers, over two of Stripe's accounts; nothing delivered yet.
pub struct Day {
    pub stripe: Vec<Kept>,
    /// In the bodies in which GoCardless would post them.
    pub gocardless: Vec<Vec<Kept>>,
}

/// `n` events of Stripe's and as many of GoCardless's, over the last 20 hours.
pub fn day(n: usize) -> Day {
    let failed = read("stripe/d1_new_invoice.payment_failed.json");
    let paid = read("stripe/d3_new_invoice.paid.json");
    let ago = |n: usize| i64::try_from(n % 7_200).expect("small") * 10;
    let stripe = (0..n).map(|n| {
        let mut posted = if n % 3 == 0 {
            paid.clone()
        } else {
            failed.clone()
        };
        let account = if n % 4 == 0 { "acct_default" } else { "acct_a" };
        posted["id"] = json!(format!("evt_{n}"));
        posted["created"] = json!(now() - ago(7 * n));
        posted["data"]["object"]["id"] = json!(format!("in_{n}"));
        match account {
            "acct_default" => drop(posted.as_object_mut().expect("an event").remove("account")),
            account => posted["account"] = json!(account),
        }
        if n % 13 == 0 {
            posted["type"] = json!("invoice.updated");
        }
        let account = account.to_owned();
        Kept {
            account,
            posted,
            delivered: false,
        }
    });
    let gocardless: Vec<_> = (0..n)
        .map(|n| {
            let at = Timestamp::from_second(now() - ago(5 * n)).expect("an instant");
            let action = ["failed", "confirmed", "created", "paid_out"][n % 4];
            let posted = json!({
                "id": format!("EV{n}"), "created_at": format!("{at:.3}"),
                "resource_type": "payments", "action": action,
                "links": { "payment": format!("PM{n}") },
                "details": { "origin": "bank", "cause": "other" },
                "metadata": {}, "resource_metadata": { "gymflow_invoice_id": format!("i{n}") },
            });
            Kept {
                account: "OR1".into(),
                posted,
                delivered: false,
            }
        })
        .collect();
    Day {
        stripe: stripe.collect(),
        gocardless: gocardless.chunks(4).map(<[_]>::to_vec).collect(),
    }
}

fn read(name: &str) -> Value {
    serde_json::from_slice(&fixture(name)).expect("JSON")
}

impl Day {
    /// What should be on BILLING in the end, by id: what a post of each event becomes.
    pub fn expected(&self) -> BTreeMap<String, Value> {
        let endpoints = Endpoints::parse(&endpoints(true)).expect("endpoints");
        let translate = |name: &str, id: &str, body: Value| {
            let provider = provider::find(name).expect("a provider");
            let endpoint = endpoints.find(name, id).expect("the endpoint");
            let body = body.to_string().into_bytes();
            let translated = provider.translate(endpoint, &HeaderMap::new(), &body);
            translated
                .expect("events")
                .into_iter()
                .filter_map(|one| one.event)
        };
        let of_stripe = self
            .stripe
            .iter()
            .flat_map(|kept| translate("stripe", "main", kept.posted.clone()));
        let of_gocardless = self
            .gocardless
            .iter()
            .flat_map(|body| translate("gocardless", "gym", as_body(body)));
        of_stripe
            .chain(of_gocardless)
            .map(|event| (event.id(), serde_json::to_value(&event).expect("JSON")))
            .collect()
    }

    /// Posts all but every tenth webhook. Of what was delivered some counts as undelivered all the
    /// same, because another of the account's endpoints does not answer.
    pub async fn deliver_nine_tenths(&mut self, harness: &Harness) {
        for (n, kept) in self.stripe.iter_mut().enumerate() {
            if n % 10 == 3 {
                continue;
            }
            let body = kept.posted.to_string().into_bytes();
            assert_eq!(harness.post_signed(SECRET, &body).await.status(), 200);
            kept.delivered = n % 10 != 4;
        }
        for (n, body) in self.gocardless.iter().enumerate() {
            if n % 10 == 3 {
                continue;
            }
            let body = as_body(body).to_string().into_bytes();
            let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
            mac.update(&body);
            let post = harness
                .http
                .post(harness.url("/webhooks/gocardless/gym"))
                .header(
                    "Webhook-Signature",
                    hex::encode(mac.finalize().into_bytes()),
                )
                .body(body);
            assert_eq!(post.send().await.expect("an answer").status(), 204);
        }
    }

    /// The providers' side of it.
    pub fn is_kept_by(&self, api: &ProviderApi) {
        api.keep_stripe(self.stripe.clone());
        api.keep_gocardless(self.gocardless.concat());
    }
}

fn as_body(events: &[Kept]) -> Value {
    let events: Vec<_> = events.iter().map(|kept| &kept.posted).collect();
    json!({ "events": events, "meta": { "webhook_id": "WB1" } })
}

async fn start_without_keys() -> Harness {
    Harness::start_with(|config| {
        std::fs::write(&config.billing_endpoints_file, endpoints(false)).expect("endpoints");
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_one_run_nothing_of_a_days_webhooks_is_missing_and_nothing_is_double() {
    let api = ProviderApi::start().await;
    let harness = start_without_keys().await;
    let bus = bus(&harness.nats).await;
    forget_ids_at_once(&bus).await;
    let mut day = day(1_100);
    let expected = day.expected();
    assert!(expected.len() > 1_600, "{}", expected.len());
    day.deliver_nine_tenths(&harness).await;
    day.is_kept_by(&api);
    let (before, _) = on_billing(&harness.nats).await;
    let missing = expected.len() - before.len();
    assert!(missing > 150, "{missing}");
    assert!(api.asked().is_empty(), "without a key nobody is asked");

    // Two at once: one of them asks.
    api.fail(0, Fault::Slow(Duration::from_millis(100)));
    let heard = overheard(&bus).await;
    let replicas = [(); 2].map(|()| {
        Replica::launch(&harness.nats, &api, |config| {
            config.catchup.catchup_turn_expiry = Duration::from_secs(5);
        })
    });
    // The other one waits for its turn, and looks once more when the run is done.
    until_looked_at_when_done(heard).await;
    for replica in replicas {
        replica.stop().await;
    }
    let left = in_bucket(&bus, "turn").await.expect("the turn");
    assert_eq!(left["state"], "done", "nobody took it again");
    let pages = |provider: &str, account: Option<&str>| {
        let asked = api.asked();
        let of = |asked: &&crate::catchup_api::Asked| {
            asked.provider == provider && asked.account.as_deref() == account
        };
        asked.iter().filter(of).count()
    };
    // A fifth of 275 and of 825 events at 100 a page, and all of 1,100 at 500 a page.
    assert_eq!(pages("stripe", None), 1);
    assert_eq!(pages("stripe", Some("acct_a")), 2);
    assert_eq!(pages("gocardless", None), 3);

    let (after, messages) = on_billing(&harness.nats).await;
    assert_eq!(messages, after.len(), "nothing is double");
    for (id, event) in &expected {
        assert_eq!(after.get(id), Some(event), "{id}");
    }
    assert_eq!(after.len(), expected.len());
    harness.stop().await;
}

/// All that goes through the server, as (subject, body), reads and writes of buckets included.
async fn overheard(bus: &Bus) -> impl Stream<Item = (String, Vec<u8>)> + use<> {
    let client = bus.jetstream().client();
    let all = client.subscribe(">").await.expect("a subscription");
    client.flush().await.expect("NATS knows of it");
    all.map(|message| (message.subject.to_string(), message.payload.to_vec()))
}

/// Waits until somebody looks whose turn it is after the run was written down as done. A look of
/// the test's own would count, too.
async fn until_looked_at_when_done(overheard: impl Stream<Item = (String, Vec<u8>)>) {
    let is_done = |(subject, body): &(String, Vec<u8>)| {
        let turn = serde_json::from_slice::<Value>(body);
        subject == "$KV.CATCHUP.turn" && turn.is_ok_and(|turn| turn["state"] == "done")
    };
    let is_look = |subject: &str| subject.ends_with("KV_CATCHUP.$KV.CATCHUP.turn");
    let looked_at = async {
        let after = overheard.skip_while(|heard| std::future::ready(!is_done(heard)));
        let look = after.filter(|(subject, _)| std::future::ready(is_look(subject)));
        std::pin::pin!(look).next().await
    };
    let looked_at = tokio::time::timeout(DEADLINE, looked_at).await;
    assert!(looked_at.is_ok(), "the other one looks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gocardless_is_read_from_where_the_last_completed_run_began() {
    let api = ProviderApi::start().await;
    let nats = NatsServer::start().await.expect("nats-server");
    let day = day(20);
    day.is_kept_by(&api);
    let replica = Replica::launch(&nats, &api, |config| {
        config.catchup.catchup_every = Duration::from_secs(1);
    });
    let since = || -> Vec<Timestamp> {
        let asked = api.asked().into_iter();
        let asked = asked.filter(|asked| asked.provider == "gocardless");
        asked
            .map(|asked| asked.query["created_at[gte]"].parse().expect("an instant"))
            .collect()
    };
    eventually("three runs", DEADLINE, async || since().len() >= 3).await;
    replica.stop().await;
    let since = since();
    let ago = |at: Timestamp| SystemClock.now().duration_since(at);
    assert!(
        ago(since[0]) > SignedDuration::from_hours(29 * 24),
        "{since:?}"
    );
    // What shows late in the list, or by another clock, is read twice.
    assert!(ago(since[1]) > SignedDuration::from_mins(10), "{since:?}");
    assert!(ago(since[1]) < SignedDuration::from_mins(12), "{since:?}");
    assert!(since[2] > since[1], "{since:?}");
    let (after, messages) = on_billing(&nats).await;
    assert_eq!((after, messages), (day.expected(), day.expected().len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_is_one_replicas_until_it_is_done_given_back_or_stands_still() {
    let nats = NatsServer::start().await.expect("nats-server");
    let settings = NatsSettings::for_testing(&nats.url(), &nats.monitor_url());
    let bus = Bus::start(&settings, "test", &CancellationToken::new())
        .await
        .expect("NATS");
    let expiry = Duration::from_secs(4);
    let mut one = Turns::new(bus.catchup_bucket(), expiry);
    let mut other = Turns::new(bus.catchup_bucket(), expiry);
    let slot = |n: i64| Timestamp::from_second(900 * n).expect("an instant");
    let taken = |taken: Result<Taken, _>| match taken.expect("NATS answers") {
        Taken::Ours(turn) => turn,
        Taken::Over => panic!("over"),
        Taken::Held => panic!("held"),
    };
    let is_held = |taken: Result<Taken, _>| matches!(taken, Ok(Taken::Held));
    let is_over = |taken: Result<Taken, _>| matches!(taken, Ok(Taken::Over));

    let turn = taken(one.take(slot(1)).await);
    assert!(is_held(other.take(slot(1)).await));
    turn.done().await.expect("written");
    assert!(is_over(other.take(slot(1)).await));
    assert!(is_over(other.take(slot(0)).await));

    let turn = taken(other.take(slot(2)).await);
    turn.give_back().await.expect("written");
    let mut turn = taken(one.take(slot(2)).await);

    // Kept for longer than its expiry, and still ours.
    let keeping = tokio::time::timeout(2 * expiry, turn.keep(expiry));
    let watching = async {
        for _ in 0..30 {
            assert!(is_held(other.take(slot(2)).await));
            tokio::time::sleep(expiry / 20).await;
        }
    };
    let (kept, ()) = tokio::join!(keeping, watching);
    assert!(kept.is_err(), "lost");

    // Its replica says nothing any more.
    let successor = eventually_some("it is taken over", DEADLINE, async || {
        match other.take(slot(2)).await {
            Ok(Taken::Ours(turn)) => Some(turn),
            _ => None,
        }
    })
    .await;
    // And if it wakes up again, it learns that it has lost.
    let lost = tokio::time::timeout(DEADLINE, turn.keep(expiry)).await;
    assert!(lost.is_ok());
    assert!(turn.done().await.is_err());
    successor.done().await.expect("written");
    nats_has_no_other_key(&bus).await;
}

async fn nats_has_no_other_key(bus: &Bus) {
    let turn = in_bucket(bus, "turn").await.expect("the turn");
    let fields: BTreeSet<_> = turn.as_object().expect("fields").keys().cloned().collect();
    assert_eq!(fields, BTreeSet::from(["slot".into(), "state".into()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_silent_for_longer_than_is_usual_for_it_shows_until_it_is_heard() {
    let nats = NatsServer::start().await.expect("nats-server");
    let settings = NatsSettings::for_testing(&nats.url(), &nats.monitor_url());
    let bus = Bus::start(&settings, "test", &CancellationToken::new())
        .await
        .expect("NATS");
    // Heard every two hours for ten days, and not since yesterday.
    let hours_ago = |hours: i64| SystemClock.now() - SignedDuration::from_hours(hours);
    let mut rhythm = Rhythm::new(hours_ago(24 * 10));
    for ago in (24..=24 * 10).rev().step_by(2) {
        rhythm.hear(hours_ago(ago), hours_ago(ago), Duration::from_secs(3_600));
    }
    let written = bus
        .catchup_bucket()
        .write("heard.stripe.silent", &rhythm, 0)
        .await;
    written.expect("written");
    let harness = Harness::start_on(nats, |config| {
        let file = format!(
            "endpoints:\n\
             - {{ id: silent, provider: stripe, account: acct_default, secrets: [{SECRET}] }}\n\
             - {{ id: young, provider: stripe, account: acct_young, secrets: [{SECRET}] }}\n"
        );
        std::fs::write(&config.billing_endpoints_file, file).expect("endpoints");
        config.catchup.catchup_every = Duration::from_secs(1);
    })
    .await;
    let gauge = async |name: &str, endpoint: &str| {
        let series = format!(
            "billing_webhook_endpoint_{name}{{provider=\"stripe\",endpoint=\"{endpoint}\"}} "
        );
        let metrics = harness.metrics().await;
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
        line.map(str::to_owned)
    };
    let shows = async |endpoint: &str| gauge("silent", endpoint).await;
    let silence = async || -> f64 {
        let seconds = gauge("silence_seconds", "silent").await;
        seconds.expect("a gauge").parse().expect("seconds")
    };
    eventually("the silent one shows", DEADLINE, async || {
        shows("silent").await.as_deref() == Some("1")
    })
    .await;
    eventually("the young one does not", DEADLINE, async || {
        shows("young").await.as_deref() == Some("0")
    })
    .await;

    // A stranger's post is no sign of life; the provider's own is, even with nothing in it for us.
    let mut body = read("stripe/a4_old_invoice.paid.json");
    body["type"] = json!("invoice.updated");
    let body = body.to_string().into_bytes();
    let post = async |secret: &str| {
        let url = harness.url("/webhooks/stripe/silent");
        let signature = crate::harness::signed(secret, &body, now());
        let post = harness.http.post(url).header("stripe-signature", signature);
        post.body(body.clone())
            .send()
            .await
            .expect("an answer")
            .status()
    };
    assert_eq!(post("whsec_other").await, 400);
    // Two looks on, of which the first may have begun before the post, the silence has only grown.
    for _ in 0..2 {
        let before = silence().await;
        eventually("it is looked again", DEADLINE, async || {
            silence().await > before
        })
        .await;
    }
    assert_eq!(shows("silent").await.as_deref(), Some("1"));
    assert_eq!(post(SECRET).await, 200);
    eventually("it is heard again", DEADLINE, async || {
        shows("silent").await.as_deref() == Some("0")
    })
    .await;
    harness.stop().await;
}
