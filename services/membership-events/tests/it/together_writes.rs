//! Writes that wait together: one transaction, and each as if it were alone.

use std::sync::Arc;
use std::time::Duration;

use contracts::membership::v1 as wire;
use contracts::wire as convert;
use membership_events::error::Error;
use membership_events::lanes::Work;
use membership_events::outbox::Relay;
use membership_events::requests::{
    CancelMembership, PauseMembership, PutMember, PutMembership, PutOverride, RecordPayment,
};
use membership_events::store::Store;
use membership_events::timers::Wake;
use membership_events::unit::Decisions;
use membership_events::writes::{By, Call, Outcome, Write};
use sea_orm::{ConnectionTrait, Statement};
use testkit::eventually;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::together::number;
use crate::world::{GYM, World, faults, invoice, on_both};

const DEADLINE: Duration = Duration::from_secs(30);

/// What the service has to write with, in the test's own hands, so that a group is what the test
/// makes it.
pub struct Hands {
    decisions: Decisions,
    relay: JoinHandle<()>,
    stop: CancellationToken,
}

impl Hands {
    /// In place of the service, which is stopped.
    pub async fn instead_of_the_service(world: &mut World) -> Self {
        world.stop_all().await;
        let (store, stop) = (world.store().await, CancellationToken::new());
        let wall = Arc::new(service_runtime::clock::SystemClock);
        let (relay, outcomes) = Relay::new(world.bus.clone(), wall);
        let clock = Arc::new(world.clock.clone());
        let decisions = Decisions::new(store.clone(), relay.clone(), Wake::default(), clock);
        let relay = tokio::spawn(relay.run(store, outcomes, stop.clone()));
        Self {
            decisions,
            relay,
            stop,
        }
    }

    fn call(&self, rpc: &'static str, write: impl Into<Write>) -> Call {
        let by = By {
            rpc,
            actor: format!("service:{rpc}"),
        };
        Call::new(&self.decisions, &by, write)
    }

    pub fn put(&self, put: wire::PutMembershipRequest) -> Call {
        self.call(
            "PutMembership",
            PutMembership::try_from(put).expect("a request"),
        )
    }

    pub async fn together(&self, group: &[Call]) -> Vec<Option<Result<Outcome, Error>>> {
        Call::together(&self.decisions, group).await
    }

    async fn alone(&self, call: &Call) -> Result<Outcome, Error> {
        call.alone(&self.decisions).await
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.relay.await.expect("no panic");
    }
}

/// A gym of `m_0`, `m_1` and so on, of whom the first ones hold `ms_0`, `ms_1` and so on.
async fn gym_of(world: &mut World, people: usize, memberships: usize) {
    world.put_gym(|_| {}).await;
    for n in 0..people {
        world.put_member(&format!("m_{n}")).await;
    }
    for n in 0..memberships {
        world
            .put_membership(&format!("ms_{n}"), &format!("m_{n}"), |_| {})
            .await;
        world.until_allowed(&format!("m_{n}"), true).await;
    }
}

fn applied(taken: &Option<Result<Outcome, Error>>) -> &Outcome {
    match taken {
        Some(Ok(outcome)) if outcome.applied => outcome,
        other => panic!("applied: {other:?}"),
    }
}

fn refused(taken: Option<Result<Outcome, Error>>) -> Status {
    taken
        .expect("an answer")
        .expect_err("a refusal")
        .into_status()
}

/// Memberships, their people, their references, people about whom something was decided, and these
/// decisions: all of one write each. In one statement: PostgreSQL may still be committing what a
/// process that was killed had sent.
async fn written(store: &Store) -> [i64; 5] {
    let db = store.reads();
    let counts = "select (select count(*) from memberships),
        (select count(*) from membership_people),
        (select count(*) from billing_references where kind = 'subscription'),
        (select count(*) from members where version > 0),
        (select count(*) from outbox) + (select count(*) from decision_history)";
    let row = db
        .query_one_raw(Statement::from_string(db.get_database_backend(), counts))
        .await;
    let row = row.expect("an answer").expect("a row");
    std::array::from_fn(|column| row.try_get_by_index(column).expect("a number"))
}

on_both! {
    async fn each_of_a_group_is_answered_and_told_as_its_own(world: World) {
        gym_of(world, 10, 5).await;
        let older = wire::PutMembershipRequest {
            plan_id: "silver".into(),
            source_version: 0,
            ..world.membership("ms_0", "m_0")
        };
        let new = world.membership("ms_6", "m_6");
        let nobodys = world.membership("ms_nobody", "nobody");
        let pause = wire::PauseMembershipRequest {
            gym_id: GYM.into(),
            membership_id: "ms_1".into(),
            pause_id: "p".into(),
            from: "2026-03-10".into(),
            until: None,
            source_version: world.next(),
        };
        let second = world.membership("ms_second", "m_1");
        let mut shared = world.membership("ms_shared", "m_7");
        shared.member_ids = vec!["m_7".into(), "m_8".into()];
        let cancel = wire::CancelMembershipRequest {
            gym_id: GYM.into(),
            membership_id: "ms_2".into(),
            ends_on: None,
            take_back: None,
            source_version: world.next(),
        };
        let payment = |membership: &str| wire::RecordPaymentRequest {
            gym_id: GYM.into(),
            membership_id: membership.into(),
            payment_id: format!("desk_{membership}"),
            invoice_id: None,
            amount_minor: 100,
            currency: "GBP".into(),
            received_at: Some(convert::timestamp(world.now())),
        };
        let (paid, paid_for_none) = (payment("ms_3"), payment("ms_none"));
        let bar = |member: &str| wire::PutOverrideRequest {
            gym_id: GYM.into(),
            member_id: member.into(),
            override_id: "o".into(),
            kind: "bar".into(),
            until: Some(convert::timestamp(world.now() + jiff::SignedDuration::from_hours(1))),
            reason: "a test".into(),
            ..wire::PutOverrideRequest::default()
        };
        let (barred, barred_too) = (bar("m_4"), bar("m_8"));
        let renamed = wire::PutMemberRequest {
            gym_id: GYM.into(),
            member_id: "m_9".into(),
            email: "new@example.org".into(),
            name: "A new name".into(),
            source_version: world.next(),
        };
        let now = world.now();
        let hands = Hands::instead_of_the_service(world).await;
        let group = [
            hands.put(new),
            hands.put(nobodys),
            hands.put(older),
            hands.call("PauseMembership", PauseMembership::try_from(pause).expect("a request")),
            hands.put(second),
            hands.put(shared),
            hands.call("CancelMembership", CancelMembership::try_from(cancel).expect("a request")),
            hands.call("RecordPayment", RecordPayment::try_from(paid_for_none).expect("a request")),
            hands.call("RecordPayment", RecordPayment::try_from(paid).expect("a request")),
            hands.call("PutOverride", PutOverride::parse(barred, now).expect("a request")),
            hands.call("PutOverride", PutOverride::parse(barred_too, now).expect("a request")),
            hands.call("PutMember", PutMember::try_from(renamed).expect("a request")),
        ];
        let mut taken = hands.together(&group).await;
        let named = |n: usize| {
            let members = applied(&taken[n]).members.keys();
            members.map(ToString::to_string).collect::<Vec<_>>()
        };
        for (n, members) in [
            (0, &["m_6"][..]),
            (3, &["m_1"]),
            (5, &["m_7", "m_8"]),
            (6, &["m_2"]),
            (8, &["m_3"]),
            (9, &["m_4"]),
            (11, &[]),
        ] {
            assert_eq!(named(n), members, "{n}");
        }
        let stale = taken[2].as_ref().expect("an answer").as_ref().expect("stale");
        assert!(!stale.applied && stale.source_version > 0 && stale.members.is_empty());
        // About somebody of whom an earlier one is.
        assert!(taken[4].is_none() && taken[10].is_none());
        let unknown = refused(taken[1].take());
        assert_eq!((unknown.code(), faults(&unknown)), (Code::NotFound, vec!["member_ids[0]".into()]));
        assert_eq!(refused(taken[7].take()).code(), Code::NotFound);

        for (member, allowed, rpc) in [
            ("m_6", true, "PutMembership"),
            ("m_1", false, "PauseMembership"),
            ("m_7", true, "PutMembership"),
            ("m_8", true, "PutMembership"),
            ("m_2", false, "CancelMembership"),
            ("m_4", false, "PutOverride"),
        ] {
            let state = world.until(rpc, member, |state| {
                state.cause.as_ref().is_some_and(|cause| cause.id == rpc)
            });
            let state = state.await;
            assert_eq!(state.allowed, allowed, "{member}");
            assert_eq!(state.cause.expect("a cause").actor, format!("service:{rpc}"));
        }
        assert!(world.published("m_0").await.expect("a state").plans[0].plan_id == "gold");
        // Those that were left are taken as if nobody had been before them.
        let second = hands.alone(&group[4]).await.expect("taken");
        assert!(second.applied);
        hands.alone(&group[10]).await.expect("taken");
        world.until_allowed("m_1", true).await;
        world.until_allowed("m_8", false).await;
        assert!(world.published("m_7").await.expect("a state").allowed);
        let facts = "select count(*) from billing_links";
        assert_eq!(number(hands.decisions.store(), facts).await, 1);
        let renamed = "select count(*) from members where name = 'A new name'";
        assert_eq!(number(hands.decisions.store(), renamed).await, 1);
        hands.stop().await;
    }

    async fn a_payment_twice_in_one_group_is_one_fact(world: World) {
        gym_of(world, 2, 2).await;
        let payment = |membership: &str| wire::RecordPaymentRequest {
            gym_id: GYM.into(),
            membership_id: membership.into(),
            payment_id: "desk".into(),
            invoice_id: None,
            amount_minor: 100,
            currency: "GBP".into(),
            received_at: Some(convert::timestamp(world.now())),
        };
        let payments = ["ms_0", "ms_1"].map(payment);
        let hands = Hands::instead_of_the_service(world).await;
        let calls = payments.map(|payment| {
            hands.call("RecordPayment", RecordPayment::try_from(payment).expect("a request"))
        });
        assert!(!calls[0].names().is_disjoint(&calls[1].names()), "never in one group");
        for call in &calls {
            assert!(hands.alone(call).await.expect("taken").applied);
        }
        let facts = "select count(*) from billing_links where membership_id = 'ms_0'";
        assert_eq!(number(hands.decisions.store(), facts).await, 1);
        let facts = "select count(*) from billing_links";
        assert_eq!(number(hands.decisions.store(), facts).await, 1);
        hands.stop().await;
    }

    async fn a_membership_that_events_wait_for_is_left_to_be_taken_alone(world: World) {
        gym_of(world, 2, 0).await;
        let failed = invoice("evt", "payment_failed", "in_1", "2026-03-09T05:00:00Z");
        let failed = contracts::billing::v1::BillingEvent {
            subscription_id: Some("sub_ms_0".into()),
            ..failed
        };
        world.publish(&failed).await;
        world.until_billing_is_quiet().await;
        let puts = [world.membership("ms_0", "m_0"), world.membership("ms_1", "m_1")];
        let hands = Hands::instead_of_the_service(world).await;
        let calls = puts.map(|put| hands.put(put));
        let taken = hands.together(&calls).await;
        assert!(taken[0].is_none());
        applied(&taken[1]);
        world.until_allowed("m_1", true).await;
        assert!(hands.alone(&calls[0]).await.expect("taken").applied);
        let closed = world.until_allowed("m_0", false).await;
        assert_eq!(closed.reasons, ["missed_payment"]);
        hands.stop().await;
    }

    async fn a_row_that_makes_no_sense_spoils_no_neighbour(world: World) {
        gym_of(world, 3, 2).await;
        let store = world.store().await;
        let spoil = |json: &str| {
            format!("update memberships set pauses = '{json}' where membership_id = 'ms_1'")
        };
        store.reads().execute_unprepared(&spoil("{")).await.expect("spoilt");
        // Each is read with all that the person holds.
        let puts = [
            world.membership("ms_0", "m_0"),
            world.membership("second", "m_1"),
            world.membership("ms_2", "m_2"),
        ];
        let mut calls = JoinSet::new();
        for put in puts.clone() {
            let mut client = world.client();
            calls.spawn(async move { (put.membership_id.clone(), client.put_membership(put).await) });
        }
        while let Some(done) = calls.join_next().await {
            let (membership, answer) = done.expect("no panic");
            match membership.as_str() {
                "second" => assert_eq!(answer.expect_err("spoilt").code(), Code::Internal),
                _ => assert!(answer.expect("written").into_inner().applied),
            }
        }
        world.until_allowed("m_2", true).await;
        let hands = Hands::instead_of_the_service(world).await;
        let again = puts.map(|put| hands.put(put));
        let taken = hands.together(&again).await;
        assert!(taken.iter().all(Option::is_none), "{taken:?}");
        assert!(hands.alone(&again[0]).await.expect("a repeat").applied);
        assert!(hands.alone(&again[1]).await.is_err());
        store.reads().execute_unprepared(&spoil("[]")).await.expect("mended");
        assert!(hands.alone(&again[1]).await.expect("taken").applied);
        hands.stop().await;
    }

    async fn many_callers_share_transactions_and_lose_nothing(world: World) {
        gym_of(world, 60, 0).await;
        if world.is_postgres() {
            world.start_replica().await;
        }
        let clients = world.clients_with(&world.tokens.service("writers"));
        let mut calls = JoinSet::new();
        for n in 0..60 {
            let mut put = world.membership(&format!("ms_{n}"), &format!("m_{n}"));
            // Each has a neighbour, who may be written at the same time by another replica.
            put.member_ids.push(format!("m_{}", (n + 1) % 60));
            let mut client = clients[n % clients.len()].clone();
            calls.spawn(async move { client.put_membership(put).await });
        }
        while let Some(done) = calls.join_next().await {
            assert!(done.expect("no panic").expect("written").into_inner().applied);
        }
        for n in 0..60 {
            let both = |state: &wire::MembershipStatusChanged| state.memberships.len() == 2;
            world.until("both memberships", &format!("m_{n}"), both).await;
        }
    }

    async fn killed_in_the_middle_of_many_writes_leaves_nothing_half_done(world: World) {
        gym_of(world, 150, 0).await;
        world.stop_all().await;
        let puts: Vec<_> = (0..150)
            .map(|n| world.membership(&format!("ms_{n}"), &format!("m_{n}")))
            .collect();
        let mut seen = 0;
        for _ in 0..3 {
            world.start_process().await;
            let (client, mut calls) = (world.client(), JoinSet::new());
            for put in puts.clone() {
                let mut client = client.clone();
                // Sent again until the program is up or killed.
                calls.spawn(async move {
                    while client.put_membership(put.clone()).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                });
            }
            let store = world.store().await;
            eventually("some more are written", DEADLINE, async || {
                let rows = number(&store, "select count(*) from memberships").await;
                rows > seen || rows == 150
            })
            .await;
            world.kill_process().await;
            calls.shutdown().await;
            let counts = written(&store).await;
            assert_eq!(counts, [counts[0]; 5], "half done");
            seen = counts[0];
        }
        world.start_replica().await;
        let mut client = world.client();
        for put in puts {
            let outcome = client.put_membership(put).await.expect("written");
            assert!(outcome.into_inner().applied);
        }
        let store = world.store().await;
        // What a process that was killed had claimed is not for another before its time is over.
        eventually("everything is published", DEADLINE, async || {
            number(&store, "select count(*) from outbox").await == 0
        })
        .await;
        for n in [0, 75, 149] {
            world.until_allowed(&format!("m_{n}"), true).await;
        }
        assert_eq!(written(&store).await, [150; 5]);
    }
}
