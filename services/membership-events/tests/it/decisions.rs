//! Several memberships, several people: how a decision adds up.

use contracts::membership::v1 as wire;

use crate::world::{World, invoice, on_both};

on_both! {
    async fn a_paused_membership_does_not_close_what_another_opens(world: World) {
        world.with_ann().await;
        world.put_membership("second", "ann", |put| put.plan_id = "silver".into()).await;
        world.until("two plans", "ann", |state| state.plans.len() == 2).await;
        world.pause("p1", "2026-03-10", None).await;
        let state = world.until("one plan", "ann", |state| state.plans.len() == 1).await;
        assert!(state.allowed);
        assert_eq!(state.plans[0].plan_id, "silver");
        assert!(state.reasons.is_empty());
        let paused = state.memberships.iter().find(|m| m.membership_id == "ms");
        assert_eq!(paused.expect("the membership").status, "paused");
    }

    async fn a_debt_follows_its_payer_and_spares_other_holders(world: World) {
        world.put_gym(|_| {}).await;
        for member in ["ann", "bob"] {
            world.put_member(member).await;
        }
        // Ann pays for two memberships; bob holds a seat in one of them.
        let shared = |put: &mut wire::PutMembershipRequest| put.member_ids.push("bob".into());
        world.put_membership("ms", "ann", |_| {}).await;
        world.put_membership("family", "ann", shared).await;
        world.until_allowed("bob", true).await;
        let bob = world.published("bob").await.expect("a state").version;
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z")).await;
        let ann = world.until_allowed("ann", false).await;
        assert_eq!(ann.reasons, ["missed_payment"]);
        world.until_billing_is_quiet().await;
        assert_eq!(world.published("bob").await.expect("a state").version, bob);

        // The debt reaches a membership bought later.
        world.put_membership("new", "ann", |put| put.plan_id = "silver".into()).await;
        let ann = world.until("three memberships", "ann", |s| s.memberships.len() == 3).await;
        assert!(!ann.allowed);

        world.put_gym(|gym| gym.overdue_scope = "membership".into()).await;
        let ann = world.until_allowed("ann", true).await;
        assert_eq!(ann.plans.len(), 2);
    }

    async fn a_payer_without_a_seat_loses_nothing_and_the_holder_does(world: World) {
        world.put_gym(|_| {}).await;
        for member in ["ann", "mum"] {
            world.put_member(member).await;
        }
        let paid_by_mum = |put: &mut wire::PutMembershipRequest| {
            put.payer_member_id = Some("mum".into());
        };
        world.put_membership("ms", "ann", paid_by_mum).await;
        world.put_membership("mums", "mum", |put| put.plan_id = "silver".into()).await;
        world.until_allowed("mum", true).await;
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z")).await;
        world.until_allowed("ann", false).await;
        // It is mum's debt: her own membership, which she pays for, closes too.
        world.until_allowed("mum", false).await;
    }

    async fn a_gyms_new_grace_is_applied_to_everybody(world: World) {
        world.with_ann().await;
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z")).await;
        world.until_allowed("ann", false).await;
        let three_days = pbjson_types::Duration { seconds: 3 * 86_400, nanos: 0 };
        world.put_gym(|gym| gym.overdue_grace = Some(three_days)).await;
        let state = world.until_allowed("ann", true).await;
        assert_eq!(state.memberships[0].status, "overdue");
        let changes_at = state.changes_at.as_ref().and_then(contracts::wire::instant);
        assert_eq!(changes_at.expect("an instant").to_string(), "2026-03-13T05:00:00Z");
    }
}
