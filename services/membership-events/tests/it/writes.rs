//! What other Gymflow services change, and what is published for it.

use contracts::membership::v1 as wire;
use contracts::wire as convert;

use crate::world::{GYM, World, invoice, on_both};

on_both! {
    async fn a_new_membership_gives_access_and_nothing_else_is_said(world: World) {
        world.put_gym(|_| {}).await;
        world.put_member("ann").await;
        let outcome = world.put_membership("ms", "ann", |_| {}).await;
        let state = world.until_allowed("ann", true).await;
        assert_eq!(outcome.members.len(), 1);
        assert_eq!(outcome.members[0].version, state.version);
        assert_eq!(state.plans[0].plan_id, "gold");
        assert!(state.plans[0].valid_until.is_none());
        assert!(state.reasons.is_empty() && state.changes_at.is_none());
        assert_eq!(state.memberships[0].status, "active");
        let cause = state.cause.expect("a cause");
        assert_eq!((cause.id.as_str(), cause.actor.as_str()), ("PutMembership", "service:dev-stack"));
    }

    async fn the_same_write_again_makes_no_new_version(world: World) {
        world.with_ann().await;
        let before = world.published("ann").await.expect("a state").version;
        let outcome = world.put_membership("ms", "ann", |_| {}).await;
        assert!(outcome.applied);
        assert_eq!(outcome.members[0].version, before);
    }

    async fn an_older_write_changes_nothing_and_says_so(world: World) {
        world.put_gym(|_| {}).await;
        world.put_member("ann").await;
        let older = world.membership("ms", "ann");
        world.put_membership("ms", "ann", |_| {}).await;
        world.until_allowed("ann", true).await;
        let held = world.next() - 1;
        let stale = wire::PutMembershipRequest { plan_id: "silver".into(), ..older };
        let outcome = world.client().put_membership(stale).await.expect("an answer").into_inner();
        assert!(!outcome.applied);
        assert_eq!(outcome.source_version, held);
        let member = get(world, "ann").await;
        assert_eq!(member.state.expect("a state").plans[0].plan_id, "gold");
    }

    async fn a_paused_membership_closes_and_a_resumed_one_opens(world: World) {
        world.with_ann().await;
        world.pause("p1", "2026-03-10", Some("2026-04-01")).await;
        let paused = world.until_allowed("ann", false).await;
        assert_eq!(paused.reasons, ["membership_paused"]);
        assert_eq!(paused.memberships[0].status, "paused");
        assert_eq!(paused.memberships[0].paused_until, "2026-04-01");
        world.resume(Some("p1")).await;
        world.until_allowed("ann", true).await;
        // A retry of the pause that comes late is older than the resume.
        world.pause("p2", "2026-03-10", None).await;
        world.until_allowed("ann", false).await;
        world.resume(None).await;
        world.until_allowed("ann", true).await;
    }

    async fn a_pause_that_has_begun_keeps_its_start_and_changes_its_end(world: World) {
        world.with_ann().await;
        world.pause("p1", "2026-03-01", None).await;
        world.until_allowed("ann", false).await;
        let moved = wire::PauseMembershipRequest {
            gym_id: GYM.into(),
            membership_id: "ms".into(),
            pause_id: "p1".into(),
            from: "2026-06-01".into(),
            until: None,
            source_version: world.next(),
        };
        let refused = world.client().pause_membership(moved).await.expect_err("a refusal");
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        world.pause("p1", "2026-03-01", Some("2026-03-10")).await;
        world.until_allowed("ann", true).await;
    }

    async fn a_cancelled_membership_ends_and_is_taken_back(world: World) {
        world.with_ann().await;
        cancel(world, Some("2026-03-31"), false).await;
        let cancelling = world
            .until("cancelling", "ann", |state| state.memberships[0].status == "cancelling")
            .await;
        assert!(cancelling.allowed);
        let until = cancelling.plans[0].valid_until.as_ref().and_then(convert::instant);
        // The last day is the gym's: London is an hour ahead of UTC by then.
        assert_eq!(until.expect("an end").to_string(), "2026-03-31T23:00:00Z");
        cancel(world, None, false).await;
        let ended = world.until_allowed("ann", false).await;
        assert_eq!(ended.reasons, ["membership_ended"]);
        cancel(world, None, true).await;
        world.until_allowed("ann", true).await;
    }

    async fn a_new_write_of_a_membership_keeps_its_cancellation(world: World) {
        world.with_ann().await;
        cancel(world, None, false).await;
        world.until_allowed("ann", false).await;
        let outcome = world.put_membership("ms", "ann", |put| put.plan_id = "silver".into()).await;
        assert!(outcome.applied);
        assert!(!get(world, "ann").await.state.expect("a state").allowed);
    }

    async fn money_at_the_desk_settles_the_oldest_open_invoice(world: World) {
        world.with_ann().await;
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-09T05:00:00Z")).await;
        world.until_allowed("ann", false).await;
        assert_eq!(get(world, "ann").await.open_invoices[0].invoice_id, "in_1");
        let part = payment("desk_1", 1_000);
        world.client().record_payment(part).await.expect("a part payment");
        assert!(!get(world, "ann").await.state.expect("a state").allowed);
        let rest = payment("desk_2", 3_000);
        world.client().record_payment(rest.clone()).await.expect("the rest");
        let open = world.until_allowed("ann", true).await;
        assert!(get(world, "ann").await.open_invoices.is_empty());
        let again = world.client().record_payment(rest).await.expect("a repeat").into_inner();
        assert_eq!(again.members[0].version, open.version);
    }

    async fn the_pay_link_is_the_payers_alone(world: World) {
        world.with_ann().await;
        world.put_member("ben").await;
        world
            .put_membership("ms", "ann", |put| {
                put.member_ids = vec!["ann".into(), "ben".into()];
            })
            .await;
        let mut failed = invoice("evt_1", "payment_failed", "in_1", "2026-03-09T05:00:00Z");
        failed.payment_url = Some("https://pay.example.com/in_1".into());
        world.publish(&failed).await;
        world.until_allowed("ann", false).await;
        world.until_allowed("ben", false).await;
        let link = async |who| get(world, who).await.open_invoices[0].payment_url.clone();
        assert!(link("ann").await.is_some());
        assert_eq!(link("ben").await, None, "a holder who does not pay sees the debt, not the link");
    }

    async fn a_forgiven_invoice_opens_the_door(world: World) {
        world.with_ann().await;
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-09T05:00:00Z")).await;
        world.until_allowed("ann", false).await;
        let forgive = wire::ForgiveInvoiceRequest {
            gym_id: GYM.into(),
            membership_id: "ms".into(),
            invoice_id: "in_1".into(),
            forgiveness_id: "f_1".into(),
            reason: "goodwill".into(),
            actor: "staff:u_1".into(),
            forgiven_at: None,
        };
        world.client().forgive_invoice(forgive).await.expect("forgiven");
        world.until_allowed("ann", true).await;
    }

    async fn staff_let_one_in_and_bar_one(world: World) {
        world.with_ann().await;
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-09T05:00:00Z")).await;
        world.until_allowed("ann", false).await;
        put_override(world, "o_1", "let_in").await;
        let let_in = world.until_allowed("ann", true).await;
        assert_eq!(let_in.reasons, ["let_in_by_staff"]);
        assert_eq!(let_in.cause.expect("a cause").kind, "override");
        assert!(let_in.plans[0].valid_until.is_some());
        put_override(world, "o_2", "bar").await;
        let barred = world.until_allowed("ann", false).await;
        assert!(barred.reasons.contains(&"barred_by_staff".to_owned()));
        for id in ["o_2", "o_1"] {
            let clear = wire::ClearOverrideRequest {
                gym_id: GYM.into(),
                member_id: "ann".into(),
                override_id: id.into(),
                actor: "staff:u_1".into(),
            };
            world.client().clear_override(clear).await.expect("cleared");
        }
        let state = world.until("only the debt", "ann", |s| s.reasons == ["missed_payment"]).await;
        assert!(!state.allowed);
    }

    async fn an_erased_member_has_a_last_version_and_no_name(world: World) {
        world.with_ann().await;
        let delete = wire::DeleteMemberRequest { gym_id: GYM.into(), member_id: "ann".into() };
        world.client().delete_member(delete).await.expect("deleted");
        let last = world.until("erased", "ann", |state| state.erased).await;
        assert!(!last.allowed && last.plans.is_empty() && last.memberships.is_empty());
        let member = get(world, "ann").await;
        assert!(member.erased);
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-09T05:00:00Z")).await;
        world.until_billing_is_quiet().await;
        assert_eq!(world.published("ann").await.expect("a state").version, last.version);
    }

    async fn a_member_who_leaves_a_shared_membership_loses_it(world: World) {
        world.put_gym(|_| {}).await;
        world.put_member("ann").await;
        world.put_member("bob").await;
        let both = |put: &mut wire::PutMembershipRequest| put.member_ids.push("bob".into());
        world.put_membership("ms", "ann", both).await;
        world.until_allowed("ann", true).await;
        world.until_allowed("bob", true).await;
        world.put_membership("ms", "ann", |_| {}).await;
        let bob = world.until_allowed("bob", false).await;
        assert!(bob.memberships.is_empty());
        assert!(world.published("ann").await.expect("a state").allowed);
    }
}

fn payment(id: &str, amount: i64) -> wire::RecordPaymentRequest {
    wire::RecordPaymentRequest {
        gym_id: GYM.into(),
        membership_id: "ms".into(),
        payment_id: id.into(),
        invoice_id: None,
        amount_minor: amount,
        currency: "GBP".into(),
        received_at: Some(convert::timestamp(
            "2026-03-10T11:00:00Z".parse().expect("an instant"),
        )),
    }
}

async fn get(world: &World, member: &str) -> wire::Member {
    let request = wire::GetMemberRequest {
        gym_id: GYM.into(),
        member_id: member.into(),
        read_mask: None,
    };
    let answer = world.client().get_member(request).await;
    answer.expect("a member").into_inner()
}

async fn cancel(world: &mut World, ends_on: Option<&str>, take_back: bool) {
    let request = wire::CancelMembershipRequest {
        gym_id: GYM.into(),
        membership_id: "ms".into(),
        ends_on: ends_on.map(str::to_owned),
        take_back: Some(take_back),
        source_version: world.next(),
    };
    let answer = world.client().cancel_membership(request).await;
    assert!(answer.expect("an answer").into_inner().applied);
}

async fn put_override(world: &World, id: &str, kind: &str) {
    let request = wire::PutOverrideRequest {
        gym_id: GYM.into(),
        member_id: "ann".into(),
        override_id: id.into(),
        kind: kind.into(),
        until: Some(convert::timestamp(
            "2026-03-12T00:00:00Z".parse().expect("an instant"),
        )),
        reason: "a good customer".into(),
        actor: "staff:u_1".into(),
    };
    world
        .client()
        .put_override(request)
        .await
        .expect("an override");
}
