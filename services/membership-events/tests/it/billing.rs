//! What payment providers say, and what it does to access.

use crate::world::{ACCOUNT, World, event, invoice, on_both};

on_both! {
    async fn a_failed_payment_closes_and_its_success_opens(world: World) {
        world.with_ann().await;
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z")).await;
        let closed = world.until_allowed("ann", false).await;
        assert_eq!(closed.reasons, ["missed_payment"]);
        assert_eq!(closed.memberships[0].status, "overdue");
        let cause = closed.cause.expect("a cause");
        assert_eq!((cause.kind.as_str(), cause.actor.as_str()), ("billing_event", "provider:stripe"));
        assert_eq!(cause.id, format!("stripe/{ACCOUNT}/evt_1"));

        world.publish(&invoice("evt_2", "payment_succeeded", "in_1", "2026-03-10T06:00:00Z")).await;
        let open = world.until_allowed("ann", true).await;
        assert!(open.version > closed.version);
        assert_eq!(open.plans[0].plan_id, "gold");
    }

    async fn the_same_event_three_times_makes_one_version(world: World) {
        world.with_ann().await;
        let failed = invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z");
        world.publish(&failed).await;
        let first = world.until_allowed("ann", false).await;
        world.publish(&failed).await;
        world.publish(&failed).await;
        world.until_billing_is_quiet().await;
        assert_eq!(world.published("ann").await.expect("a state").version, first.version);
        assert_eq!(world.dead_letters().await, 0);
    }

    async fn a_recovery_that_arrives_before_its_failure_ends_open(world: World) {
        world.with_ann().await;
        let before = world.published("ann").await.expect("a state").version;
        world.publish(&invoice("evt_2", "payment_succeeded", "in_1", "2026-03-10T06:00:00Z")).await;
        world.until_billing_is_quiet().await;
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z")).await;
        world.until_billing_is_quiet().await;
        let state = world.published("ann").await.expect("a state");
        assert!(state.allowed);
        assert_eq!(state.version, before, "nothing about her changed");
    }

    async fn one_of_two_failed_invoices_paid_is_still_overdue(world: World) {
        world.with_ann().await;
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-02-10T05:00:00Z")).await;
        world.publish(&invoice("evt_2", "payment_failed", "in_2", "2026-03-10T05:00:00Z")).await;
        world.until_billing_is_quiet().await;
        world.until_allowed("ann", false).await;
        world.publish(&invoice("evt_3", "payment_succeeded", "in_1", "2026-03-10T06:00:00Z")).await;
        world.until_billing_is_quiet().await;
        assert!(!world.published("ann").await.expect("a state").allowed);
        world.publish(&invoice("evt_4", "payment_succeeded", "in_2", "2026-03-10T07:00:00Z")).await;
        world.until_allowed("ann", true).await;
    }

    async fn an_event_before_its_membership_is_parked_and_applied_later(world: World) {
        world.put_gym(|_| {}).await;
        world.put_member("ann").await;
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z")).await;
        world.until_billing_is_quiet().await;
        let unmatched = unmatched(world, "iron").await;
        assert_eq!(unmatched, [("evt_1".to_owned(), "unknown_subscription".to_owned())]);

        world.put_membership("ms", "ann", |_| {}).await;
        world.until_allowed("ann", false).await;
        assert!(self::unmatched(world, "iron").await.is_empty());
    }

    async fn an_account_that_is_nobodys_links_to_nothing_until_a_gym_claims_it(world: World) {
        world.put_gym(|gym| gym.billing_accounts.clear()).await;
        world.put_member("ann").await;
        world.put_membership("ms", "ann", |_| {}).await;
        let mut failed = invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z");
        failed.metadata.insert("gymflow_membership_id".into(), "ms".into());
        world.publish(&failed).await;
        world.until_billing_is_quiet().await;
        assert!(world.published("ann").await.expect("a state").allowed);
        assert_eq!(unmatched(world, "").await, [("evt_1".to_owned(), "unknown_account".to_owned())]);

        world.put_gym(|_| {}).await;
        world.until_allowed("ann", false).await;
    }

    async fn an_event_that_names_a_membership_before_it_is_known_waits_for_it(world: World) {
        world.put_gym(|_| {}).await;
        world.put_member("ann").await;
        let mut failed = invoice("evt_1", "payment_failed", "in_1", "2026-03-09T05:00:00Z");
        failed.subscription_id = None;
        failed.metadata.insert("gymflow_membership_id".into(), "ms".into());
        world.publish(&failed).await;
        world.until_billing_is_quiet().await;
        assert_eq!(unmatched(world, "iron").await.len(), 1);
        world.put_membership("ms", "ann", |put| put.billing = None).await;
        world.until_allowed("ann", false).await;
        assert!(unmatched(world, "iron").await.is_empty());
    }

    async fn a_pause_at_the_provider_is_heard_where_metadata_alone_links(world: World) {
        world.put_gym(|_| {}).await;
        world.put_member("ann").await;
        let former = |at: &str| {
            let mut former = event("evt_0", "subscription_cancelled", at);
            former.subscription_id = Some("sub_before".into());
            former
        };
        world
            .put_membership("ms", "ann", |put| {
                let billing = put.billing.as_mut().expect("a reference");
                billing.subscription_id = Some("sub_before".into());
            })
            .await;
        world.put_membership("ms", "ann", |put| put.billing = None).await;
        let named = |id: &str, kind: &str, at: &str| {
            let mut event = event(id, kind, at);
            event.subscription_id = Some("sub_nobody_linked".into());
            event.metadata.insert("gymflow_membership_id".into(), "ms".into());
            event
        };
        world.publish(&named("evt_1", "subscription_paused", "2026-03-10T05:00:00Z")).await;
        world.until_allowed("ann", false).await;
        world.publish(&named("evt_2", "subscription_resumed", "2026-03-10T06:00:00Z")).await;
        world.until_allowed("ann", true).await;
        world.publish(&former("2026-03-10T07:00:00Z")).await;
        world.until_billing_is_quiet().await;
        assert!(world.published("ann").await.expect("a state").allowed, "an earlier reference");
        world.publish(&named("evt_3", "subscription_cancelled", "2026-03-10T08:00:00Z")).await;
        world.until_allowed("ann", false).await;
    }

    async fn a_payment_is_tied_to_its_invoice_by_a_later_event(world: World) {
        world.with_ann().await;
        world.publish(&invoice("evt_1", "payment_succeeded", "in_1", "2026-03-09T05:00:00Z")).await;
        // A chargeback names its payment alone, and nobody knows that payment yet.
        let mut reversed = event("evt_2", "payment_reversed", "2026-03-10T05:00:00Z");
        reversed.subscription_id = None;
        reversed.payment_id = Some("pi_1".into());
        reversed.amount_minor = Some(4_000);
        world.publish(&reversed).await;
        world.until_billing_is_quiet().await;
        assert!(world.published("ann").await.expect("a state").allowed);
        assert_eq!(unmatched(world, "iron").await, [("evt_2".to_owned(), "unknown_payment".to_owned())]);

        let mut tie = invoice("evt_3", "payment_succeeded", "in_1", "2026-03-09T05:00:01Z");
        tie.subscription_id = None;
        tie.payment_id = Some("pi_1".into());
        world.publish(&tie).await;
        world.until_allowed("ann", false).await;
        assert!(unmatched(world, "iron").await.is_empty());
    }

    async fn an_event_in_another_currency_is_a_dead_letter(world: World) {
        world.with_ann().await;
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z")).await;
        world.until_allowed("ann", false).await;
        let mut odd = invoice("evt_2", "payment_succeeded", "in_1", "2026-03-10T06:00:00Z");
        odd.currency = Some("EUR".into());
        world.publish(&odd).await;
        testkit::eventually("a dead letter", std::time::Duration::from_secs(10), async || {
            world.dead_letters().await == 1
        })
        .await;
        assert!(!world.published("ann").await.expect("a state").allowed);
    }

    async fn a_provider_pauses_and_the_club_resumes(world: World) {
        world.with_ann().await;
        world.publish(&event("evt_1", "subscription_paused", "2026-03-10T05:00:00Z")).await;
        let paused = world.until_allowed("ann", false).await;
        assert_eq!(paused.reasons, ["membership_paused"]);
        world.resume(None).await;
        world.until_allowed("ann", true).await;
    }

    async fn a_cancelled_subscription_ends_only_its_own_membership(world: World) {
        world.with_ann().await;
        world.put_membership("other", "ann", |put| put.plan_id = "silver".into()).await;
        world.until("two plans", "ann", |state| state.plans.len() == 2).await;
        world.publish(&event("evt_1", "subscription_cancelled", "2026-03-10T05:00:00Z")).await;
        let state = world.until("one plan", "ann", |state| state.plans.len() == 1).await;
        assert_eq!(state.plans[0].plan_id, "silver");
        assert!(state.allowed);
    }
}

async fn unmatched(world: &World, gym: &str) -> Vec<(String, String)> {
    let request = contracts::membership::v1::ListUnmatchedBillingRequest {
        gym_id: gym.into(),
        page_size: 10,
        page_token: String::new(),
    };
    let answer = world.client().list_unmatched_billing(request).await;
    answer
        .expect("a list")
        .into_inner()
        .events
        .into_iter()
        .map(|parked| (parked.event.expect("an event").event_id, parked.why))
        .collect()
}
