//! What comes twice, in the wrong order, wrongly signed, or while something is down; and a service
//! killed between webhook and Kisi.

use dev_stack::demo::Demo;
use dev_stack::roster::{Contract, Person};
use dev_stack::simulated_kisi::Control;
use dev_stack::stack::Stack;
use dev_stack::stripe;
use jiff::{SignedDuration, Timestamp};
use testkit::eventually;

use crate::harness::{DEADLINE, folder, settings, start};

/// A member with one membership, by her place in the list.
fn member(stack: &Stack, index: usize) -> (Person, Contract, i64) {
    let (person, contract) = stack.demo.rows().nth(index).expect("a member");
    let group = *stack.kisi.groups.get(contract.plan_id).expect("a group");
    (person.clone(), contract.clone(), group)
}

async fn until_door(stack: &Stack, what: &str, person: &Person, group: i64, open: bool) {
    let kisi = Control::of(stack).expect("the simulator");
    eventually(what, DEADLINE, async || {
        let state = kisi.state().await.expect("its state");
        state.is_in_group(&person.email, Some(&group)) == open
    })
    .await;
}

/// Requests after `seq` that changed anything at Kisi.
async fn writes(stack: &Stack, seq: u64) -> Vec<String> {
    let kisi = Control::of(stack).expect("the simulator");
    let requests = kisi.requests(seq).await.expect("the log");
    requests
        .iter()
        .filter(|request| request["method"] != "GET")
        .map(|request| format!("{} {}", request["method"], request["path"]))
        .collect()
}

#[tokio::test]
async fn nothing_is_lost_nor_done_twice_and_each_killed_service_ends_right() {
    let folder = folder();
    let mut stack = start(&settings(&folder)).await;
    stack.prepare().await.expect("prepared");
    repeats_and_order(&stack).await;
    wrong_signature(&stack).await;
    without_nats(&mut stack).await;
    for (index, service) in dev_stack::stack::SERVICES.iter().enumerate() {
        killed_between_webhook_and_kisi(&mut stack, service, 10 + index).await;
    }
    no_request_was_refused(&stack).await;
    stack.stop().await;
}

async fn repeats_and_order(stack: &Stack) {
    let demo = Demo::new(stack).expect("the simulator");
    let (person, contract, group) = member(stack, 0);
    let kisi = Control::of(stack).expect("the simulator");
    let now = Timestamp::now();
    let body =
        |kind: &str, event: &str, at| stripe::invoice_event(kind, &contract, "in_r", event, at);

    let seq = kisi.last_request().await.expect("the log");
    for _ in 0..3 {
        demo.post(body("invoice.payment_failed", "evt_r1", now))
            .await
            .expect("accepted");
    }
    until_door(stack, "the door closes", &person, group, false).await;
    demo.post(body("invoice.paid", "evt_r2", now))
        .await
        .expect("accepted");
    until_door(stack, "the door opens", &person, group, true).await;
    let made = writes(stack, seq).await;
    assert_eq!(made.len(), 2, "one revoke and one grant: {made:?}");

    // The recovery arrives before its failure: nothing closes in between, nothing stays closed.
    let (person, contract, group) = member(stack, 1);
    let body =
        |kind: &str, event: &str, at| stripe::invoice_event(kind, &contract, "in_o", event, at);
    let earlier = now - SignedDuration::from_secs(60);
    let seq = kisi.last_request().await.expect("the log");
    demo.post(body("invoice.paid", "evt_o2", now))
        .await
        .expect("accepted");
    demo.post(body("invoice.payment_failed", "evt_o1", earlier))
        .await
        .expect("accepted");
    // A change of somebody else that comes after both says that both were looked at.
    let (marker, marked, marker_group) = member(stack, 2);
    let fails = stripe::invoice_event("invoice.payment_failed", &marked, "in_m", "evt_m", now);
    demo.post(fails).await.expect("accepted");
    until_door(
        stack,
        "the marker's door closes",
        &marker,
        marker_group,
        false,
    )
    .await;
    until_door(stack, "the door is open", &person, group, true).await;
    assert_eq!(writes(stack, seq).await.len(), 1, "the marker's alone");
}

async fn wrong_signature(stack: &Stack) {
    let (_, contract, _) = member(stack, 3);
    let now = Timestamp::now();
    let body = stripe::invoice_event("invoice.payment_failed", &contract, "in_w", "evt_w", now);
    let address = stack.first("billing-webhook").expect("it").http;
    let answer = stack
        .http
        .post(format!("http://{address}/webhooks/stripe/main"))
        .header("content-type", "application/json")
        .header(
            "stripe-signature",
            stripe::signature("whsec_another", &body, now),
        )
        .body(body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 400);
}

async fn without_nats(stack: &mut Stack) {
    let (person, contract, group) = member(stack, 4);
    let now = Timestamp::now();
    let body = stripe::invoice_event("invoice.payment_failed", &contract, "in_n", "evt_n", now);
    stack.child("nats-server").expect("it").kill().await;
    let demo = Demo::new(stack).expect("the simulator");
    let refused = demo
        .post(body.clone())
        .await
        .expect_err("503 without NATS")
        .to_string();
    assert!(refused.starts_with("503"), "{refused}");
    stack
        .child("nats-server")
        .expect("it")
        .start_again()
        .expect("started");
    let demo = Demo::new(stack).expect("the simulator");
    eventually("the retry is accepted", DEADLINE, async || {
        demo.post(body.clone()).await.is_ok()
    })
    .await;
    until_door(stack, "the door closes", &person, group, false).await;
}

async fn killed_between_webhook_and_kisi(stack: &mut Stack, service: &str, index: usize) {
    let (person, contract, group) = member(stack, index);
    let now = Timestamp::now();
    let invoice = format!("in_k{index}");
    let event = format!("evt_k{index}");
    let body = stripe::invoice_event("invoice.payment_failed", &contract, &invoice, &event, now);
    // Posted and killed side by side: somewhere between webhook and Kisi. The sender sends again
    // until it hears a 2xx, as a provider does.
    let posted = Demo::new(stack)
        .expect("the simulator")
        .post(body.clone())
        .await;
    stack.child(service).expect("it").kill().await;
    stack
        .child(service)
        .expect("it")
        .start_again()
        .expect("started");
    if posted.is_err() {
        let demo = Demo::new(stack).expect("the simulator");
        eventually("the retry is accepted", DEADLINE, async || {
            demo.post(body.clone()).await.is_ok()
        })
        .await;
    }
    until_door(
        stack,
        &format!("the door closes over a killed {service}"),
        &person,
        group,
        false,
    )
    .await;
}

/// Nothing left for Kisi that openapi.yaml does not allow, and nothing came too fast.
async fn no_request_was_refused(stack: &Stack) {
    let kisi = Control::of(stack).expect("the simulator");
    for request in kisi.requests(0).await.expect("the log") {
        assert!(request["note"].is_null(), "{request}");
        assert_eq!(request["refused_by_limiter"], false, "{request}");
    }
}
