//! What is to be seen from outside while a storm goes on and after it: the inbox and outbox of
//! membership-events, the streams, and each member's state, over gRPC and as last published.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use contracts::membership::v1 as wire;
use contracts::subjects;
use dev_stack::roster::STARTS_ON;
use dev_stack::seed::Client;
use dev_stack::stack::Stack;
use futures_util::StreamExt;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::task::JoinHandle;

use crate::harness::DEADLINE;
use crate::history::{Known, Signed};
use crate::reference::{Member, Seen, SeenMembership};

/// The inbox, as (account, event id).
pub struct Inbox {
    pub facts: BTreeSet<(String, String)>,
    pub parked: i64,
    /// Messages that wait to be published.
    pub outbox: i64,
}

/// Looks into the tables; `None` while they cannot be read.
pub async fn inbox(database_url: &str) -> Option<Inbox> {
    let options = SqliteConnectOptions::from_str(database_url)
        .ok()?
        .read_only(true)
        .busy_timeout(Duration::from_secs(5));
    let mut tables = options.connect().await.ok()?;
    let facts: Vec<(String, String)> =
        sqlx::query_as("select account, event_id from billing_events")
            .fetch_all(&mut tables)
            .await
            .ok()?;
    let parked = "select count(*) from billing_events where parked_at is not null";
    let parked: i64 = sqlx::query_scalar(parked)
        .fetch_one(&mut tables)
        .await
        .ok()?;
    let outbox: i64 = sqlx::query_scalar("select count(*) from outbox")
        .fetch_one(&mut tables)
        .await
        .ok()?;
    tables.close().await.ok()?;
    // One row each, or the key of the table is not what it says.
    let rows = facts.len();
    let facts: BTreeSet<_> = facts.into_iter().collect();
    assert_eq!(facts.len(), rows);
    Some(Inbox {
        facts,
        parked,
        outbox,
    })
}

/// A connection to the stack's nats-server that outlives its restarts.
pub async fn jetstream(stack: &Stack) -> jetstream::Context {
    let client = async_nats::ConnectOptions::new()
        .ping_interval(Duration::from_secs(2))
        .retry_on_initial_connect()
        .connect(format!("nats://{}", stack.nats))
        .await
        .expect("nats-server");
    jetstream::new(client)
}

/// Messages that nobody could handle.
pub async fn dead_letters(bus: &jetstream::Context) -> u64 {
    let stream = bus.get_stream(subjects::DEAD_LETTER).await;
    stream.expect("the stream").cached_info().state.messages
}

/// What is on `BILLING`, as (account, event id), and how many messages that took.
pub async fn on_billing(bus: &jetstream::Context) -> (BTreeSet<(String, String)>, u64) {
    let Ok(stream) = bus.get_stream(subjects::BILLING).await else {
        return Default::default();
    };
    let state = stream.cached_info().state.clone();
    let mut facts = BTreeSet::new();
    for sequence in state.first_sequence.max(1)..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.expect("a message");
        let id = message.headers.get("ce-id").expect("an id").to_string();
        let (account, event) = id
            .strip_prefix("stripe/")
            .and_then(|id| id.split_once('/'))
            .expect("an id of Stripe's");
        facts.insert((account.to_owned(), event.to_owned()));
    }
    (facts, state.messages)
}

/// Every member's state as last published, with its version.
pub async fn published(
    bus: &jetstream::Context,
    members: impl Iterator<Item = &Member>,
) -> BTreeMap<Member, (i64, Seen)> {
    let stream = bus.get_stream(subjects::MEMBERSHIP).await;
    let stream = stream.expect("the stream");
    let mut all = BTreeMap::new();
    for (gym, member) in members {
        let subject = subjects::membership(gym, member);
        let message = stream.get_last_raw_message_by_subject(&subject).await;
        let message = message.unwrap_or_else(|error| panic!("{subject}: {error}"));
        let state: wire::MembershipStatusChanged =
            serde_json::from_slice(&message.payload).expect("a state");
        let seen = (state.version, seen(&state));
        all.insert((gym.clone(), member.clone()), seen);
    }
    all
}

/// Every member's state as membership-events answers it, with its version.
pub async fn answered(
    mut client: Client,
    members: impl Iterator<Item = &Member>,
) -> BTreeMap<Member, (i64, Seen)> {
    let mut all = BTreeMap::new();
    for (gym, member) in members {
        let request = wire::GetMemberRequest {
            gym_id: gym.clone(),
            member_id: member.clone(),
            read_mask: None,
        };
        let answer = client.get_member(request).await.expect("an answer");
        let state = answer.into_inner().state.expect("a state");
        let seen = (state.version, seen(&state));
        all.insert((gym.clone(), member.clone()), seen);
    }
    all
}

fn seen(state: &wire::MembershipStatusChanged) -> Seen {
    let set = |words: &[String]| words.iter().cloned().collect::<BTreeSet<_>>();
    Seen {
        allowed: state.allowed,
        plans: state
            .plans
            .iter()
            .map(|plan| plan.plan_id.clone())
            .collect(),
        reasons: set(&state.reasons),
        memberships: state
            .memberships
            .iter()
            .map(|membership| {
                let seen = SeenMembership {
                    status: membership.status.clone(),
                    reasons: set(&membership.reasons),
                    gives_access: membership.gives_access,
                    overdue_since: membership.overdue_since.as_ref().map(|at| at.seconds),
                };
                (membership.membership_id.clone(), seen)
            })
            .collect(),
    }
}

/// Puts a membership in, again and again until membership-events is there to take it.
pub async fn put(mut client: Client, signed: Signed) {
    let Signed {
        gym,
        account,
        contract,
        known,
        ..
    } = signed;
    let request = wire::PutMembershipRequest {
        gym_id: gym.into(),
        membership_id: contract.membership_id,
        plan_id: contract.plan_id.into(),
        member_ids: contract.holders,
        starts_on: STARTS_ON.to_string(),
        billing: (known != Known::ByName).then(|| wire::BillingReference {
            provider: "stripe".into(),
            account: account.into(),
            subscription_id: Some(contract.subscription_id),
            customer_id: Some(contract.customer_id),
            mandate_id: None,
        }),
        source_version: 1,
        ..Default::default()
    };
    // An ordinary loop: a task is to run it.
    let deadline = Instant::now() + DEADLINE;
    while let Err(status) = client.put_membership(request.clone()).await {
        assert!(Instant::now() < deadline, "not taken: {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// By (gym, member, cause).
type Versions = BTreeMap<(String, String, String), BTreeSet<i64>>;

/// Hears what membership-events publishes, to tell how often one event had an effect.
pub struct Listener {
    versions: Arc<Mutex<Versions>>,
    task: JoinHandle<()>,
}

impl Listener {
    pub async fn start(bus: &jetstream::Context) -> Self {
        let mut messages = bus
            .client()
            .subscribe(subjects::MEMBERSHIP_ALL)
            .await
            .expect("a subscription");
        let versions = Arc::<Mutex<Versions>>::default();
        let heard = Arc::clone(&versions);
        let task = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let state: wire::MembershipStatusChanged =
                    serde_json::from_slice(&message.payload).expect("a state");
                let cause = state.cause.expect("a cause");
                if cause.kind == "billing_event" {
                    let key = (state.gym_id, state.member_id, cause.id);
                    let mut heard = heard.lock().expect("no panic");
                    heard.entry(key).or_default().insert(state.version);
                }
            }
        });
        Self { versions, task }
    }

    /// How many changes were heard of, each of which no event brought about twice.
    pub fn end(self) -> usize {
        self.task.abort();
        let versions = self.versions.lock().expect("no panic");
        for (key, versions) in versions.iter() {
            assert_eq!(versions.len(), 1, "{key:?} had more than one effect");
        }
        versions.len()
    }
}
