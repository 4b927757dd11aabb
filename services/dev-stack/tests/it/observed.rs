//! What is to be seen from outside after a storm: the streams, and each member's state, over gRPC
//! and as last published.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use contracts::membership::v1 as wire;
use contracts::subjects;
use dev_stack::roster::STARTS_ON;
use dev_stack::seed::Client;
use dev_stack::stack::Stack;

use crate::harness::DEADLINE;
use crate::history::{Known, Signed};
use crate::post::FactId;
use crate::reference::{Member, Seen, SeenMembership};

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

/// The facts on `BILLING`, and how many messages they take.
pub async fn on_billing(bus: &jetstream::Context) -> (BTreeSet<FactId>, u64) {
    let Ok(stream) = bus.get_stream(subjects::BILLING).await else {
        return Default::default();
    };
    let state = stream.cached_info().state.clone();
    let mut facts = BTreeSet::new();
    for sequence in state.first_sequence.max(1)..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.expect("a message");
        let id = message.headers.get("ce-id").expect("an id").to_string();
        let parts: Vec<&str> = id.splitn(3, '/').collect();
        let [provider, account, event] = parts[..] else {
            panic!("{id} is no billing event's");
        };
        facts.insert((provider.into(), account.into(), event.into()));
    }
    (facts, state.messages)
}

/// The facts that no membership of `gym` claims; of no gym, those of accounts that are nobody's.
pub async fn unmatched(mut client: Client, gym: &str) -> BTreeSet<FactId> {
    let mut facts = BTreeSet::new();
    let mut page_token = String::new();
    loop {
        let request = wire::ListUnmatchedBillingRequest {
            gym_id: gym.into(),
            page_size: 0,
            page_token,
        };
        let answer = client.list_unmatched_billing(request).await;
        let page = answer.expect("an answer").into_inner();
        for event in page.events.into_iter().filter_map(|it| it.event) {
            let is_new = facts.insert((event.provider, event.account, event.event_id));
            assert!(is_new, "listed twice");
        }
        if page.next_page_token.is_empty() {
            return facts;
        }
        page_token = page.next_page_token;
    }
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
        provider,
        account,
        contract,
        mandate,
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
            provider: provider.as_str().into(),
            account: account.into(),
            subscription_id: Some(contract.subscription_id),
            customer_id: Some(contract.customer_id),
            mandate_id: mandate,
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
