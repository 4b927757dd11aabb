//! The processes that are meant to fail: what runs of the stack, by name, and starting again what
//! ended.

use dev_stack::settings::Settings;
use dev_stack::stack::Stack;
use testkit::eventually;

use crate::gocardless_bodies::NOBODYS_ACCOUNT;
use crate::harness::{DEADLINE, start};

/// What is meant to fail; the rest of the stack has no part in this and is stopped.
const TRIED: [&str; 3] = ["nats-server", "membership-events", "billing-webhook"];
/// GoCardless's secret of the endpoint `debits`.
pub const DEBIT_SECRET: &str = "a secret of people's choice";
/// Both gyms are organisations that one partner collects for; the first is the endpoint's own.
pub const ORGANISATIONS: [&str; 2] = ["OR00HARBOUR", "OR00QUAY"];

/// The names of all processes of one kind.
pub fn of_kind(stack: &Stack, kind: &str) -> Vec<String> {
    let replicas = stack.addresses.get(kind).map_or(1, Vec::len);
    let others = (2..=replicas).map(|number| format!("{kind}-{number}"));
    std::iter::once(kind.to_owned()).chain(others).collect()
}

/// The names of all processes that are meant to fail.
pub fn tried(stack: &Stack) -> Vec<String> {
    let kinds = TRIED.iter();
    kinds.flat_map(|kind| of_kind(stack, kind)).collect()
}

/// As whatever runs the services would: what ended by itself is started again.
pub fn keep_alive(stack: &mut Stack) {
    for name in tried(stack) {
        let child = stack.child(&name).expect("it");
        if child.has_ended() {
            child.start_again().expect("started");
        }
    }
}

/// A stack of which only the way from webhook to member runs, and GoCardless posts as well.
pub async fn stack_to_try(settings: &Settings) -> Stack {
    let mut stack = start(settings).await;
    for kind in ["kisi-sync", "access-gateway", "kisi-simulator"] {
        for name in of_kind(&stack, kind) {
            stack.child(&name).expect("it").stop().await;
        }
    }
    let file = "billing-endpoints.yaml";
    let endpoints = std::fs::read_to_string(stack.folder.path(file)).expect(file);
    let [own, other] = ORGANISATIONS;
    let more = format!(
        "- {{ id: debits, provider: gocardless, account: {own}, \
         accounts: [{own}, {other}, {NOBODYS_ACCOUNT}], livemode: true, secrets: [{DEBIT_SECRET}] }}\n"
    );
    stack.folder.write(file, &(endpoints + &more)).expect(file);
    for name in of_kind(&stack, "billing-webhook") {
        let child = stack.child(&name).expect("it");
        child.stop().await;
        child.start_again().expect("started");
    }
    until_ready(&mut stack, "billing-webhook").await;
    stack
}

/// Waits until all of a kind are ready.
pub async fn until_ready(stack: &mut Stack, kind: &str) {
    for replica in stack.addresses[kind].clone() {
        let url = format!("http://{}/readyz", replica.health);
        eventually("it is ready", DEADLINE, async || {
            keep_alive(stack);
            let answer = stack.http.get(&url).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }
}
