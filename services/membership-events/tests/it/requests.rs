//! Who may call, and what is refused with which fields named.

use contracts::membership::v1 as wire;
use tonic::Code;

use crate::world::{GYM, World, faults, on_both};

on_both! {
    async fn only_services_may_call(world: World) {
        let request = || wire::GetMemberRequest {
            gym_id: GYM.into(),
            member_id: "ann".into(),
            read_mask: None,
        };
        for (token, code) in [
            (world.tokens.member(GYM, "ann"), Code::PermissionDenied),
            (world.tokens.staff(GYM, "u_1", "read override"), Code::PermissionDenied),
            ("nonsense".to_owned(), Code::Unauthenticated),
            (world.tokens.service("gateway"), Code::NotFound),
        ] {
            let refused = world.client_with(&token).get_member(request()).await;
            assert_eq!(refused.expect_err("a refusal").code(), code);
        }
    }

    async fn every_faulty_field_is_named_at_once(world: World) {
        let request = wire::PutGymRequest {
            gym_id: "iron gym".into(),
            name: "x".repeat(201),
            time_zone: "Europe/Atlantis".into(),
            overdue_grace: Some(pbjson_types::Duration { seconds: -1, nanos: 0 }),
            overdue_scope: "family".into(),
            billing_accounts: vec![wire::BillingAccount {
                provider: "stripe".into(),
                account: "a.b".into(),
            }],
            source_version: -1,
        };
        let refused = world.client().put_gym(request).await.expect_err("a refusal");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(
            faults(&refused),
            [
                "gym_id",
                "name",
                "time_zone",
                "overdue_grace",
                "overdue_scope",
                "billing_accounts[0].account",
                "source_version",
            ]
        );
    }

    async fn dates_and_ends_must_make_sense(world: World) {
        world.with_ann().await;
        let mut put = world.membership("ms", "ann");
        put.starts_on = "2026-02-30".into();
        put.ends_on = Some("soon".into());
        put.member_ids.push("b b".into());
        let refused = world.client().put_membership(put).await.expect_err("a refusal");
        assert_eq!(faults(&refused), ["member_ids[1]", "starts_on", "ends_on"]);

        let mut put = world.membership("ms", "ann");
        put.ends_on = Some("2025-12-31".into());
        let refused = world.client().put_membership(put).await.expect_err("a refusal");
        assert_eq!(faults(&refused), ["ends_on"]);

        let pause = wire::PauseMembershipRequest {
            gym_id: GYM.into(),
            membership_id: "ms".into(),
            pause_id: "p1".into(),
            from: "2026-03-10".into(),
            until: Some("2026-03-10".into()),
            source_version: world.next(),
        };
        let refused = world.client().pause_membership(pause).await.expect_err("a refusal");
        assert_eq!(faults(&refused), ["until"]);
    }

    async fn money_must_be_money_and_overrides_short(world: World) {
        world.with_ann().await;
        let payment = wire::RecordPaymentRequest {
            gym_id: GYM.into(),
            membership_id: "ms".into(),
            payment_id: "p".into(),
            invoice_id: None,
            amount_minor: 0,
            currency: "EURO".into(),
            received_at: None,
        };
        let refused = world.client().record_payment(payment).await.expect_err("a refusal");
        assert_eq!(faults(&refused), ["amount_minor", "currency", "received_at"]);

        let eight_days = "2026-03-18T12:00:00Z".parse().expect("an instant");
        let put = wire::PutOverrideRequest {
            gym_id: GYM.into(),
            member_id: "ann".into(),
            override_id: "o".into(),
            kind: "invite".into(),
            until: Some(contracts::wire::timestamp(eight_days)),
            reason: String::new(),
            actor: "staff:u_1".into(),
        };
        let refused = world.client().put_override(put).await.expect_err("a refusal");
        assert_eq!(faults(&refused), ["kind", "until"]);
    }

    async fn what_is_unknown_is_not_found(world: World) {
        let put = world.membership("ms", "ann");
        let refused = world.client().put_membership(put).await.expect_err("no gym yet");
        assert_eq!((refused.code(), refused.message()), (Code::NotFound, "the gym is not known"));
        world.put_gym(|_| {}).await;
        let put = world.membership("ms", "ann");
        let refused = world.client().put_membership(put).await.expect_err("no member yet");
        assert_eq!((refused.code(), refused.message()), (Code::NotFound, "the member is not known"));
        assert_eq!(faults(&refused), ["member_ids[0]"]);
    }

    async fn members_are_listed_and_found_page_by_page(world: World) {
        world.put_gym(|_| {}).await;
        for member in ["ann", "bob", "cat"] {
            world.put_member(member).await;
            world.put_membership(&format!("ms_{member}"), member, |_| {}).await;
        }
        let list = |query: &str, status: &str, token: String| wire::ListMembersRequest {
            gym_id: GYM.into(),
            query: query.into(),
            status: status.into(),
            reason: String::new(),
            page_size: 2,
            page_token: token,
        };
        let mut client = world.client();
        let first = client.list_members(list("", "", String::new())).await;
        let first = first.expect("a page").into_inner();
        assert_eq!(ids(&first.members), ["ann", "bob"]);
        let rest = client.list_members(list("", "", first.next_page_token)).await;
        let rest = rest.expect("a page").into_inner();
        assert_eq!(ids(&rest.members), ["cat"]);
        assert!(rest.next_page_token.is_empty());
        let found = client.list_members(list("BOB@EXAMPLE", "active", String::new())).await;
        assert_eq!(ids(&found.expect("a page").into_inner().members), ["bob"]);
        let none = client.list_members(list("", "ended", String::new())).await;
        assert!(none.expect("a page").into_inner().members.is_empty());

        let versions = wire::ListMemberVersionsRequest {
            gym_id: GYM.into(),
            page_size: 2,
            page_token: String::new(),
        };
        let versions = client.list_member_versions(versions).await.expect("a page").into_inner();
        assert_eq!(versions.members.len(), 2);
        assert!(!versions.next_page_token.is_empty());
        let bob = world.published("bob").await.expect("a state");
        assert_eq!(versions.members[1].version, bob.version);
    }

    async fn a_gym_is_published_again_under_its_versions(world: World) {
        world.with_ann().await;
        let before = world.published("ann").await.expect("a state");
        let request = wire::RepublishGymRequest { gym_id: GYM.into(), member_ids: Vec::new() };
        let answer = world.client().republish_gym(request).await.expect("republished");
        assert_eq!(answer.into_inner().published, 1);
        assert_eq!(world.published("ann").await.expect("a state"), before);
    }
}

fn ids(members: &[wire::Member]) -> Vec<&str> {
    members.iter().map(|m| m.member_id.as_str()).collect()
}
