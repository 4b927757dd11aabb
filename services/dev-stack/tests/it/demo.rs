//! The demo's steps, on both databases and over restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use contracts::access::v1::AccessApplied;
use contracts::membership::v1::{Cause, MembershipStatusChanged};
use contracts::{subjects, wire};
use dev_stack::demo::{Step, play};
use dev_stack::simulated_kisi::Control;
use dev_stack::stack::Stack;
use futures_util::{FutureExt, StreamExt};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use testkit::{Postgres, eventually, eventually_some};

use crate::harness::{DEADLINE, folder, settings, start};
use crate::observed::jetstream;

/// Every step came out as expected.
pub fn assert_held(steps: &[Step]) {
    assert_eq!(steps.len(), 8);
    for step in steps {
        assert_eq!(step.observed, step.expected, "{}", step.name);
    }
}

pub async fn played(stack: &mut Stack) -> Vec<Step> {
    let mut steps = Vec::new();
    play(stack, &mut steps)
        .await
        .unwrap_or_else(|error| panic!("{error:#} after {steps:?}"));
    steps
}

/// From the hand, by Kisi's webhook and through the gateway, to our look at Kisi; no pass is under way.
async fn a_change_by_hand_is_looked_at_within_two_seconds(stack: &Stack) {
    let kisi = Control::of(stack).expect("the simulator");
    let state = kisi.state().await.expect("its state");
    let mut rows = stack.demo.rows();
    let held = rows.find_map(|(person, contract)| {
        let group = *stack.kisi.groups.get(contract.plan_id)?;
        let user = state.user(&person.email)?;
        let is_in = state.is_in_group(&person.email, Some(&group));
        is_in.then_some((person.email.clone(), group, user))
    });
    let (email, group, user) = held.expect("somebody who is let in");
    let before = kisi.last_request().await.expect("a number");
    kisi.revoke_by_hand(&email, group).await.expect("taken");
    let of_hers = format!("assignee_id={user}");
    eventually("a look at her rights", Duration::from_secs(2), async || {
        let requests = kisi.requests(before).await.expect("the log");
        requests.iter().any(|request| {
            let query = request["query"].as_str().unwrap_or_default();
            request["method"] == "GET"
                && request["route"] == "/role_assignments"
                && query.split('&').any(|part| part == of_hers)
        })
    })
    .await;
    eventually("her right is back", DEADLINE, async || {
        let state = kisi.state().await.expect("its state");
        state.is_in_group(&email, Some(&group))
    })
    .await;
}

/// What is published from here on.
async fn listen(stack: &Stack) -> [Subscriber; 2] {
    let client = jetstream(stack).await.client();
    let states = client.subscribe(subjects::MEMBERSHIP_ALL).await;
    let answers = client.subscribe(subjects::ACCESS_ALL).await;
    client.flush().await.expect("a flush");
    [states.expect("MEMBERSHIP"), answers.expect("ACCESS")]
}

/// A webhook's way to a closed door, with the instants that each who had it in hand has written down.
async fn the_stages_of_a_failed_payment_are_told([mut states, mut answers]: [Subscriber; 2]) {
    let mut causes: BTreeMap<(String, String, i64), Cause> = BTreeMap::new();
    let mut told: Vec<AccessApplied> = Vec::new();
    let closed = eventually_some("a payment has closed a door", DEADLINE, async || {
        while let Some(Some(message)) = states.next().now_or_never() {
            let state: MembershipStatusChanged = read(&message);
            let cause = state.cause.unwrap_or_default();
            if cause.kind == "billing_event" && !state.allowed {
                causes.insert((state.gym_id, state.member_id, state.version), cause);
            }
        }
        while let Some(Some(message)) = answers.next().now_or_never() {
            told.push(read(&message));
        }
        let revoked = told.iter().filter(|answer| answer.outcome == "revoked");
        let closed = revoked.filter_map(|answer| {
            let of = (answer.gym_id.clone(), answer.member_id.clone());
            let cause = causes.get(&(of.0, of.1, answer.version))?;
            Some((answer.timings?, cause.received_at))
        });
        let closed: Vec<_> = closed.collect();
        (!closed.is_empty()).then_some(closed)
    })
    .await;
    for (timings, received_at) in closed {
        let instant = |at: &Option<_>| wire::instant(at.as_ref().expect("an instant"));
        // The tables keep microseconds.
        let micros = |at: &Option<_>| instant(at).map(|at| at.as_microsecond());
        assert_eq!(micros(&timings.received_at), micros(&received_at));
        let stages = [
            &timings.received_at,
            &timings.decided_at,
            &timings.sent_at,
            &timings.applied_at,
        ];
        let stages = stages.map(instant);
        assert!(stages.is_sorted(), "{timings:?}");
        assert!(timings.requests > 0);
    }
}

fn read<M: DeserializeOwned>(message: &Message) -> M {
    serde_json::from_slice(&message.payload).expect("JSON")
}

#[tokio::test]
async fn the_demo_holds_and_holds_again_after_everything_was_killed() {
    let folder = folder();
    let settings = settings(&folder);
    let mut stack = start(&settings).await;
    let heard = listen(&stack).await;
    assert_held(&played(&mut stack).await);
    the_stages_of_a_failed_payment_are_told(heard).await;
    stack.kill().await;
    drop(stack);

    let mut stack = start(&settings).await;
    assert_held(&played(&mut stack).await);
    a_change_by_hand_is_looked_at_within_two_seconds(&stack).await;
    stack.stop().await;
    assert!(stack.pids().is_empty());
}

#[tokio::test]
async fn the_demo_holds_on_postgresql_with_two_of_each_while_one_is_killed_and_one_stopped() {
    let server = Postgres::start().await.expect("PostgreSQL");
    let membership_events = server.create_database().await.expect("a database");
    let kisi_sync = server.create_database().await.expect("a database");
    let folder = folder();
    let mut settings = settings(&folder);
    settings.replicas = 2;
    settings.membership_events_database_url = Some(membership_events.url().to_owned());
    settings.kisi_sync_database_url = Some(kisi_sync.url().to_owned());
    let mut stack = start(&settings).await;
    stack.prepare().await.expect("prepared");

    // The replicas that nobody addresses by name take part by the bus alone: of one kind they are
    // killed for good, of the other one sleeps past its lease.
    for service in [
        "membership-events-2",
        "billing-webhook-2",
        "access-gateway-2",
    ] {
        stack.child(service).expect("it").kill().await;
    }
    let sleeper = |stack: &mut Stack, signal| {
        stack
            .child("kisi-sync-2")
            .expect("it")
            .signal(signal)
            .expect("signalled");
    };
    sleeper(&mut stack, Signal::SIGSTOP);
    assert_held(&played(&mut stack).await);
    // Awake again, a stale owner does no harm.
    sleeper(&mut stack, Signal::SIGCONT);
    assert_held(&played(&mut stack).await);
    stack.stop().await;
}
