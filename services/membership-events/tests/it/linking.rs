//! Whose an event is, where that is not plain.

use contracts::billing::v1::BillingEvent;
use contracts::membership::v1 as wire;
use jiff::SignedDuration;
use membership_events::unmatched;
use service_runtime::clock::Clock;
use tonic::Code;

use crate::world::{ACCOUNT, GYM, World, event, invoice, on_both};

on_both! {
    async fn what_a_customer_linked_moves_when_its_subscription_is_known(world: World) {
        world.put_gym(|gym| gym.overdue_scope = "membership".into()).await;
        world.put_member("ann").await;
        world.put_membership("ms", "ann", |_| {}).await;
        // Nothing says that this payment is of another membership, but its customer is Ann's.
        let mut refunded = payment("evt_3", "payment_refunded", "2026-03-09T07:00:00Z");
        refunded.customer_id = Some("cus_ann".into());
        world.publish(&refunded).await;
        world.until_billing_is_quiet().await;
        let mut tie = payment("evt_2", "payment_succeeded", "2026-03-09T06:00:00Z");
        tie.invoice_id = Some("in_1".into());
        world.publish(&tie).await;
        world.until_billing_is_quiet().await;
        assert_eq!(unmatched(world).await, [] as [&str; 0]);
        let mut paid = payment("evt_1", "payment_succeeded", "2026-03-09T06:00:00Z");
        paid.payment_id = None;
        paid.invoice_id = Some("in_1".into());
        paid.subscription_id = Some("sub_other".into());
        paid.reason = Some("invoice_paid".into());
        world.publish(&paid).await;
        world.publish(&payment("evt_4", "payment_reversed", "2026-03-09T08:00:00Z")).await;
        world.until_billing_is_quiet().await;
        assert_eq!(unmatched(world).await, ["evt_1", "evt_2", "evt_3", "evt_4"]);
        world.put_membership("other", "ann", |_| {}).await;
        let state = world.until("two memberships", "ann", |state| state.memberships.len() == 2).await;
        let status = |id: &str| {
            let of = state.memberships.iter().find(|it| it.membership_id == id);
            of.expect("a membership").status.clone()
        };
        assert_eq!((status("ms"), status("other")), ("active".into(), "overdue".into()));
        assert_eq!(unmatched(world).await, [] as [&str; 0]);
    }

    async fn a_customers_debt_stays_when_the_customer_buys_again(world: World) {
        world.put_gym(|_| {}).await;
        world.put_member("ann").await;
        let without = |put: &mut wire::PutMembershipRequest| {
            put.billing.as_mut().expect("a reference").subscription_id = None;
        };
        world.put_membership("ms", "ann", without).await;
        let mut failed = payment("evt_1", "payment_failed", "2026-03-09T05:00:00Z");
        failed.customer_id = Some("cus_ann".into());
        world.publish(&failed).await;
        world.until_allowed("ann", false).await;
        // From here on the customer alone says nothing; what is said of that payment does.
        world.put_membership("again", "ann", without).await;
        let mut more = payment("evt_2", "payment_failed", "2026-03-10T05:00:00Z");
        more.customer_id = Some("cus_ann".into());
        world.publish(&more).await;
        world.publish(&payment("evt_3", "payment_failed", "2026-03-10T06:00:00Z")).await;
        world.until_billing_is_quiet().await;
        assert_eq!(unmatched(world).await, [] as [&str; 0]);
        assert!(!world.published("ann").await.expect("a state").allowed);
        world.publish(&payment("evt_4", "payment_succeeded", "2026-03-10T07:00:00Z")).await;
        world.until_allowed("ann", true).await;
    }

    async fn an_event_that_waits_is_linked_by_hand_and_takes_its_invoice_along(world: World) {
        world.with_ann().await;
        let mut failed = invoice("evt_1", "payment_failed", "in_1", "2026-03-09T05:00:00Z");
        failed.subscription_id = Some("sub_nobodys".into());
        world.publish(&failed).await;
        let mut again = invoice("evt_2", "payment_failed", "in_1", "2026-03-10T05:00:00Z");
        again.subscription_id = None;
        world.publish(&again).await;
        world.until_billing_is_quiet().await;
        assert_eq!(unmatched(world).await, ["evt_1", "evt_2"]);
        let answer = link(world, |_| {}).await.expect("linked");
        assert!(answer.applied);
        assert_eq!(answer.members.len(), 1);
        let closed = world.until_allowed("ann", false).await;
        let cause = closed.cause.expect("a cause");
        assert_eq!((cause.id.as_str(), cause.actor.as_str()), ("LinkBilling", "staff:eve"));
        assert_eq!(unmatched(world).await, [] as [&str; 0]);
        let repeated = link(world, |_| {}).await.expect("harmless");
        assert_eq!(repeated.members, answer.members);
        let mut paid = invoice("evt_3", "payment_succeeded", "in_1", "2026-03-10T06:00:00Z");
        paid.subscription_id = None;
        world.publish(&paid).await;
        world.until_allowed("ann", true).await;
    }

    async fn what_cannot_be_linked_by_hand_says_why(world: World) {
        world.with_ann().await;
        world.put_membership("other", "ann", |_| {}).await;
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-09T05:00:00Z")).await;
        world.until_allowed("ann", false).await;
        type Change = fn(&mut wire::LinkBillingRequest);
        let cases: [(Change, Code, &str); 6] = [
            (|it| it.event_id = "evt_9".into(), Code::NotFound, "billing event"),
            (|it| it.membership_id = "nobodys".into(), Code::NotFound, "membership"),
            (|it| it.gym_id = "steel".into(), Code::NotFound, "gym"),
            (|it| it.membership_id = "other".into(), Code::FailedPrecondition, "another membership"),
            (|it| it.account = "not an id".into(), Code::InvalidArgument, "account"),
            (|it| it.actor = "x".repeat(201), Code::InvalidArgument, "actor"),
        ];
        for (change, code, says) in cases {
            let status = link(world, change).await.expect_err("refused");
            assert_eq!(status.code(), code, "{status:?}");
            assert!(status.message().contains(says), "{status:?}");
        }
        world.put_gym(|gym| gym.billing_accounts.clear()).await;
        let status = link(world, |_| {}).await.expect_err("refused");
        assert!(status.message().contains("billing_accounts"), "{status:?}");
    }

    async fn an_event_that_links_to_two_memberships_is_a_dead_letter(world: World) {
        world.with_ann().await;
        world.put_membership("other", "ann", |_| {}).await;
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-09T05:00:00Z")).await;
        world.until_allowed("ann", false).await;
        let mut odd = invoice("evt_2", "payment_succeeded", "in_1", "2026-03-09T06:00:00Z");
        odd.subscription_id = Some("sub_other".into());
        world.publish(&odd).await;
        world.until_dead_letters(1).await;
        assert!(!world.published("ann").await.expect("a state").allowed);
    }

    async fn a_payment_of_two_amounts_is_a_dead_letter(world: World) {
        world.with_ann().await;
        let paid = |id: &str, amount: i64| BillingEvent {
            payment_id: Some("pi_1".into()),
            amount_minor: Some(amount),
            ..invoice(id, "payment_succeeded", "in_1", "2026-03-09T05:00:00Z")
        };
        world.publish(&paid("evt_1", 2_000)).await;
        world.until_billing_is_quiet().await;
        world.publish(&paid("evt_2", 2_000)).await;
        world.until_billing_is_quiet().await;
        assert_eq!(world.dead_letters().await, 0);
        world.publish(&paid("evt_3", 4_000)).await;
        world.until_dead_letters(1).await;
        // A dispute that was won gives back what it took, which may be less.
        let mut won = payment("evt_4", "payment_succeeded", "2026-03-10T05:00:00Z");
        won.amount_minor = Some(500);
        world.publish(&won).await;
        world.until_billing_is_quiet().await;
        assert_eq!(world.dead_letters().await, 1);
    }

    async fn money_from_the_desk_pays_a_debt_that_is_told_later(world: World) {
        world.with_ann().await;
        let before = world.published("ann").await.expect("a state").version;
        let taken = wire::RecordPaymentRequest {
            gym_id: GYM.into(),
            membership_id: "ms".into(),
            payment_id: "till_1".into(),
            invoice_id: None,
            amount_minor: 4_000,
            currency: "GBP".into(),
            received_at: Some(contracts::wire::timestamp("2026-03-10T08:00:00Z".parse().expect("an instant"))),
        };
        world.client().record_payment(taken).await.expect("a payment");
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z")).await;
        world.until_billing_is_quiet().await;
        let state = world.published("ann").await.expect("a state");
        assert!(state.allowed);
        assert_eq!(state.version, before);
        // It pays one debt, and none that comes after it.
        world.publish(&invoice("evt_2", "payment_failed", "in_2", "2026-03-10T09:00:00Z")).await;
        world.until_allowed("ann", false).await;
    }

    async fn what_waits_is_counted_and_said_when_it_grows_old(world: World) {
        world.put_gym(|_| {}).await;
        let store = world.store().await;
        let hour = SignedDuration::from_hours(1);
        let look = async |after: SignedDuration| {
            let now = world.clock.now() + after;
            unmatched::look(&store, now).await.expect("a count")
        };
        let none = look(hour).await;
        assert_eq!((none.count, unmatched::sentence(none, hour)), (0, None));
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z")).await;
        world.publish(&invoice("evt_2", "payment_failed", "in_2", "2026-03-10T05:00:00Z")).await;
        world.until_billing_is_quiet().await;
        let young = look(hour).await;
        assert_eq!((young.count, unmatched::sentence(young, hour)), (2, None));
        let old = look(hour * 2).await;
        let sentence = unmatched::sentence(old, hour).expect("a sentence");
        assert!(sentence.starts_with("2 billing events wait"), "{sentence}");
        assert!(sentence.contains("for 120 minutes"), "{sentence}");
    }
}

/// An event that names its payment alone, with 4,000 pence.
fn payment(id: &str, kind: &str, at: &str) -> BillingEvent {
    BillingEvent {
        subscription_id: None,
        payment_id: Some("pi_1".into()),
        amount_minor: Some(4_000),
        currency: Some("GBP".into()),
        ..event(id, kind, at)
    }
}

/// Links `evt_1` to `ms` by hand, or what `change` makes of that.
async fn link(
    world: &World,
    change: impl FnOnce(&mut wire::LinkBillingRequest),
) -> Result<wire::WriteOutcome, tonic::Status> {
    let mut request = wire::LinkBillingRequest {
        gym_id: GYM.into(),
        membership_id: "ms".into(),
        provider: "stripe".into(),
        account: ACCOUNT.into(),
        event_id: "evt_1".into(),
        actor: "staff:eve".into(),
    };
    change(&mut request);
    let answer = world.client().link_billing(request).await?;
    Ok(answer.into_inner())
}

async fn unmatched(world: &World) -> Vec<String> {
    let request = wire::ListUnmatchedBillingRequest {
        gym_id: GYM.into(),
        page_size: 10,
        page_token: String::new(),
    };
    let answer = world.client().list_unmatched_billing(request).await;
    let events = answer.expect("a list").into_inner().events;
    let ids = events
        .into_iter()
        .map(|parked| parked.event.expect("an event").event_id);
    let mut ids: Vec<String> = ids.collect();
    ids.sort();
    ids
}
