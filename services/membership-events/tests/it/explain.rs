//! Why somebody is let in or not: in the past as it was published, to come as it will be.

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::membership::v1 as wire;
use contracts::wire as convert;
use jiff::Timestamp;
use membership_events::history::kept_since;
use membership_events::store::{self, Store};
use service_runtime::clock::Clock;
use tonic::{Code, Status};

use crate::history::{kept, until_moved};
use crate::random::{Answers, Dice, PEOPLE, step};
use crate::world::{GYM, World, faults, invoice, on_both};

const DEADLINE: Duration = Duration::from_secs(20);

on_both! {
    async fn a_debt_and_its_payment_at_the_desk_are_told_for_every_instant(world: World) {
        world.with_ann().await;
        world.clock.set(at("2026-03-10T13:00:00Z"));
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z")).await;
        let denied = world.until_allowed("ann", false).await;
        world.clock.set(at("2026-03-10T14:00:00Z"));
        world.pause("p1", "2026-03-10", None).await;
        world.until("both reasons", "ann", |state| state.reasons.len() == 2).await;
        world.clock.set(at("2026-03-10T15:00:00Z"));
        world.resume(None).await;
        world.until("one reason", "ann", |state| state.reasons.len() == 1).await;
        world.clock.set(at("2026-03-10T16:00:00Z"));
        let payment = wire::RecordPaymentRequest {
            gym_id: GYM.into(),
            membership_id: "ms".into(),
            payment_id: "desk_1".into(),
            invoice_id: None,
            amount_minor: 4_000,
            currency: "GBP".into(),
            received_at: Some(convert::timestamp(at("2026-03-10T16:00:00Z"))),
        };
        world.client().record_payment(payment).await.expect("paid");
        world.until_allowed("ann", true).await;
        world.clock.set(at("2026-03-10T17:00:00Z"));

        let billing = ("billing_event", "stripe/acct_iron/evt_1", "provider:stripe");
        let call = |rpc| ("call", rpc, "service:dev-stack");
        let put = call("PutMembership");
        let (pause, resume) = (call("PauseMembership"), call("ResumeMembership"));
        let payment = call("RecordPayment");
        for (when, allowed, since, causes) in [
            ("2026-03-10T12:00:00Z", true, "2026-03-10T12:00:00Z", vec![put]),
            ("2026-03-10T12:59:59.999999Z", true, "2026-03-10T12:00:00Z", vec![put]),
            ("2026-03-10T13:00:00Z", false, "2026-03-10T13:00:00Z", vec![billing]),
            ("2026-03-10T14:30:00Z", false, "2026-03-10T14:00:00Z", vec![pause, billing]),
            ("2026-03-10T15:30:00Z", false, "2026-03-10T15:00:00Z", vec![resume, pause, billing]),
            ("2026-03-10T16:30:00Z", true, "2026-03-10T16:00:00Z", vec![payment]),
            ("2026-03-10T17:00:00Z", true, "2026-03-10T16:00:00Z", vec![payment]),
            ("2026-09-10T17:00:00Z", true, "2026-03-10T16:00:00Z", vec![payment]),
        ] {
            let told = explain(world, "ann", Some(when)).await.expect(when);
            assert_eq!(told.state.as_ref().expect("a state").allowed, allowed, "{when}");
            assert_eq!(told.since, Some(convert::timestamp(at(since))), "{when}");
            let of = |cause: &wire::Cause| (cause.kind.clone(), cause.id.clone(), cause.actor.clone());
            let named = |(kind, id, actor): &(&str, &str, &str)| {
                ((*kind).to_owned(), (*id).to_owned(), (*actor).to_owned())
            };
            let causes: Vec<_> = causes.iter().map(named).collect();
            assert_eq!(told.causes.iter().map(of).collect::<Vec<_>>(), causes, "{when}");
        }
        let then = explain(world, "ann", Some("2026-03-10T13:30:00Z")).await.expect("explained");
        assert_eq!(then.state, Some(denied), "as it was published");
        let now = explain(world, "ann", None).await.expect("explained");
        assert_eq!(now.state, world.published("ann").await);

        let before = explain(world, "ann", Some("2026-03-10T11:59:59Z")).await;
        let before = before.expect_err("a refusal");
        assert_eq!(before.code(), Code::NotFound);
        assert!(before.message().contains("2026-03-10T12:00:00Z"), "{}", before.message());
    }

    async fn what_is_to_come_is_what_will_be_published(world: World) {
        world.put_gym(|gym| {
            gym.overdue_grace = Some(pbjson_types::Duration { seconds: 3 * 86_400, nanos: 0 });
        })
        .await;
        world.put_member("ann").await;
        world.put_membership("ms", "ann", |put| {
            put.next_plan = Some(wire::NextPlan {
                plan_id: "silver".into(),
                from: "2026-04-02".into(),
            });
        })
        .await;
        // London goes to summer time on the 29th of March and back on the 25th of October.
        world.pause("p1", "2026-03-29", Some("2026-03-30")).await;
        let cancel = wire::CancelMembershipRequest {
            gym_id: GYM.into(),
            membership_id: "ms".into(),
            ends_on: Some("2026-10-25".into()),
            take_back: None,
            source_version: world.next(),
        };
        world.client().cancel_membership(cancel).await.expect("cancelled");
        let bar = wire::PutOverrideRequest {
            gym_id: GYM.into(),
            member_id: "ann".into(),
            override_id: "o1".into(),
            kind: "bar".into(),
            until: Some(convert::timestamp(at("2026-03-12T09:30:00Z"))),
            reason: "a lost towel".into(),
            actor: "staff:u_1".into(),
        };
        world.client().put_override(bar).await.expect("barred");
        // The grace of this debt runs out on the 21st at five; it is paid for on the 25th.
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-18T05:00:00Z")).await;
        world.publish(&invoice("evt_2", "payment_succeeded", "in_1", "2026-03-25T05:00:00Z")).await;
        world.until_billing_is_quiet().await;
        let now = explain(world, "ann", None).await.expect("explained");
        let state = now.state.expect("a state");
        assert!(!state.allowed);
        assert_eq!(now.causes[0].kind, "override");

        // A long way ahead from here, one step at a time.
        let walk = [
            ("2026-03-12T09:30:00Z", true, "gold"),
            ("2026-03-29T00:00:00Z", false, ""),
            ("2026-03-29T23:00:00Z", true, "gold"),
            ("2026-04-01T23:00:00Z", true, "silver"),
            ("2026-10-26T00:00:00Z", false, ""),
        ];
        let mut foretold = Vec::new();
        for (when, allowed, plan) in walk {
            let told = explain(world, "ann", Some(when)).await.expect(when);
            let step = told.state.expect("a state");
            assert_eq!(step.version, state.version, "{when}");
            assert_eq!(step.allowed, allowed, "{when}");
            let plans: Vec<_> = step.plans.iter().map(|access| access.plan_id.as_str()).collect();
            assert_eq!(plans.join(","), plan, "{when}");
            assert_eq!(told.since, Some(convert::timestamp(at(when))));
            assert_eq!((told.causes[0].kind.as_str(), told.causes[0].id.as_str()), ("timer", when));
            let before = at(when) - jiff::SignedDuration::from_micros(1);
            let earlier = explain(world, "ann", Some(&before.to_string())).await.expect(when);
            assert!(earlier.since != told.since, "{when}: it begins at this instant");
            foretold.push((at(when), step));
        }
        for (when, step) in foretold {
            world.clock.set(when);
            let decided_at = step.decided_at;
            let held = world.until("the step", "ann", |held| held.decided_at == decided_at).await;
            assert_eq!(without_version(held), without_version(step), "{when}");
        }
    }

    async fn a_grace_that_runs_out_closes_the_door_and_the_debt_is_among_the_causes(world: World) {
        world.put_gym(|gym| {
            gym.overdue_grace = Some(pbjson_types::Duration { seconds: 86_400, nanos: 0 });
        })
        .await;
        world.put_member("ann").await;
        world.put_membership("ms", "ann", |_| {}).await;
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z")).await;
        world.until("overdue", "ann", |state| state.memberships[0].status == "overdue").await;
        let still = explain(world, "ann", Some("2026-03-11T04:59:59Z")).await.expect("explained");
        assert!(still.state.expect("a state").allowed);
        assert_eq!(still.causes[0].id, "stripe/acct_iron/evt_1");
        let denied = explain(world, "ann", Some("2026-03-11T05:00:00Z")).await.expect("explained");
        assert_eq!(denied.state.expect("a state").reasons, ["missed_payment"]);
        assert_eq!(denied.causes.len(), 1);
        assert_eq!(denied.causes[0].actor, "time");
    }

    async fn a_decision_that_is_still_in_the_outbox_is_found(world: World) {
        world.with_ann().await;
        until_moved(&world.store().await).await;
        world.nats.stop().await.expect("stopped");
        for minute in 1..=2 {
            world.clock.set(at("2026-03-10T12:00:00Z") + jiff::SignedDuration::from_mins(minute));
            world.pause("p1", "2026-03-10", Some(&format!("2026-04-0{minute}"))).await;
        }
        world.clock.set(at("2026-03-10T12:03:00Z"));
        let instants = ["2026-03-10T12:00:30Z", "2026-03-10T12:01:30Z", "2026-03-10T12:02:30Z"];
        let mut told = Vec::new();
        for when in instants {
            told.push(explain(world, "ann", Some(when)).await.expect(when));
        }
        let allowed: Vec<_> = told.iter().map(|told| told.state.as_ref().expect("a state").allowed).collect();
        assert_eq!(allowed, [true, false, false]);
        assert_eq!(told.iter().map(|told| told.causes.len()).collect::<Vec<_>>(), [1, 1, 2]);
        world.nats.restart().await.expect("restarted");
        let store = world.store().await;
        until_moved(&store).await;
        assert_eq!(kept(&store, "ann").await.len(), 3);
        for (when, told) in instants.iter().zip(told) {
            assert_eq!(explain(world, "ann", Some(when)).await.expect("explained"), told, "{when}");
        }
    }

    async fn thirteen_months_can_be_asked_for_and_not_more(world: World) {
        world.with_ann().await;
        world.clock.set(at("2026-04-10T12:00:00Z"));
        world.pause("p1", "2026-04-10", None).await;
        world.until_allowed("ann", false).await;
        until_moved(&world.store().await).await;
        world.stop_all().await;
        world.clock.set(at("2027-05-01T00:00:00Z"));
        world.start_replica().await;
        let line = kept_since(world.clock.now());
        assert_eq!(line.to_string(), "2026-04-01T00:00:00Z");
        let told = explain(world, "ann", Some(&line.to_string())).await.expect("explained");
        assert!(told.state.expect("a state").allowed);
        let older = explain(world, "ann", Some("2026-03-31T23:59:59.999999Z")).await;
        let older = older.expect_err("a refusal");
        assert_eq!(older.code(), Code::OutOfRange);
        assert!(older.message().contains("2026-04-01T00:00:00Z"), "{}", older.message());
        assert_eq!(faults(&older), ["at"]);

        world.stop_all().await;
        world.clock.set(at("2027-06-01T00:00:00Z"));
        world.start_replica().await;
        let store = world.store().await;
        testkit::eventually("the first row is gone", DEADLINE, async || {
            kept(&store, "ann").await.len() == 1
        })
        .await;
        let told = explain(world, "ann", Some("2026-05-01T00:00:00Z")).await.expect("explained");
        assert!(!told.state.expect("a state").allowed);
        assert_eq!(told.since, Some(convert::timestamp(at("2026-04-10T12:00:00Z"))));
    }

    async fn what_cannot_be_explained_is_refused_with_its_reason(world: World) {
        world.put_gym(|_| {}).await;
        world.put_member("new").await;
        let mut client = world.client();
        let request = |gym: &str, member: &str, at: Option<&str>| wire::ExplainMemberRequest {
            gym_id: gym.into(),
            member_id: member.into(),
            at: at.map(|at| convert::timestamp(at.parse().expect("an instant"))),
        };
        for (request, code, words) in [
            (request("other", "new", None), Code::NotFound, "the gym is not known"),
            (request(GYM, "nobody", None), Code::NotFound, "the member is not known"),
            (request(GYM, "new", None), Code::NotFound, "nothing has been decided"),
            (request(GYM, "new", Some("2030-01-01T00:00:00Z")), Code::NotFound, "nothing has been"),
            (request(GYM, "a b", None), Code::InvalidArgument, "member_id"),
            (request(GYM, "new", Some("2031-03-10T12:00:01Z")), Code::InvalidArgument, "at"),
            (request(GYM, "new", Some("2025-02-10T11:59:59Z")), Code::OutOfRange, "13 months"),
        ] {
            let refused = client.explain_member(request).await.expect_err(words);
            assert_eq!(refused.code(), code, "{words}");
            assert!(refused.message().contains(words), "{words}: {}", refused.message());
        }
        let nonsense = wire::ExplainMemberRequest {
            at: Some(pbjson_types::Timestamp { seconds: 1, nanos: -1_000_000_001 }),
            ..request(GYM, "new", None)
        };
        let refused = client.explain_member(nonsense).await.expect_err("a refusal");
        assert_eq!(faults(&refused), ["at"]);
    }

    async fn of_an_erased_member_the_erasure_alone_is_told(world: World) {
        world.with_ann().await;
        world.clock.set(at("2026-03-10T13:00:00Z"));
        let request = wire::DeleteMemberRequest { gym_id: GYM.into(), member_id: "ann".into() };
        world.client().delete_member(request).await.expect("erased");
        world.clock.set(at("2026-03-10T14:00:00Z"));
        for when in [None, Some("2026-03-10T13:00:00Z"), Some("2026-09-10T13:00:00Z")] {
            let told = explain(world, "ann", when).await.expect("explained");
            let state = told.state.expect("a state");
            assert!(state.erased && !state.allowed && state.memberships.is_empty());
            assert_eq!(told.causes.len(), 1);
            assert_eq!(told.causes[0].kind, "erasure");
        }
        let before = explain(world, "ann", Some("2026-03-10T12:30:00Z")).await;
        let before = before.expect_err("a refusal");
        assert_eq!(before.code(), Code::NotFound);
        assert!(before.message().contains("erased at 2026-03-10T13:00:00Z"), "{}", before.message());
    }

    async fn any_history_is_explained_as_it_was_published_and_foretold_as_it_came(world: World) {
        world.put_gym(|_| {}).await;
        for (i, member) in PEOPLE.iter().enumerate() {
            world.put_member(member).await;
            world.put_membership(&format!("ms_{i}"), member, |_| {}).await;
        }
        if world.is_postgres() {
            world.start_replica().await;
        }
        let store = world.store().await;
        let mut dice = Dice(20_261_124);
        // By (member, instant) what was published last.
        let mut published: BTreeMap<(&str, Timestamp), wire::MembershipStatusChanged> = BTreeMap::new();
        until_quiet(world, &store).await;
        note(world, &mut published).await;
        for _ in 0..12 {
            world.clock.advance(Duration::from_secs(3_600));
            let mut together = Answers::new();
            for _ in 0..6 {
                step(world, &mut dice, &mut together).await;
            }
            while together.join_next().await.is_some() {}
            world.until_billing_is_quiet().await;
            until_quiet(world, &store).await;
            note(world, &mut published).await;
            // What two days of waiting will bring, and then bring.
            let then = world.clock.now() + jiff::SignedDuration::from_hours(47);
            let mut foretold = Vec::new();
            for member in PEOPLE {
                let told = explain(world, member, Some(&then.to_string())).await.expect(member);
                foretold.push((member, told.state.expect("a state")));
            }
            world.clock.set(then);
            until_quiet(world, &store).await;
            for (member, foretold) in foretold {
                let came = world.published(member).await.expect("a state");
                assert_eq!(without_cause(came), without_cause(foretold), "{member} at {then}");
            }
            note(world, &mut published).await;
        }
        assert!(published.len() > 2 * PEOPLE.len(), "{} states", published.len());
        let mut before: Option<(&str, &wire::MembershipStatusChanged)> = None;
        for ((member, decided_at), state) in &published {
            let told = explain(world, member, Some(&decided_at.to_string())).await.expect(member);
            assert_eq!(told.state.as_ref(), Some(state), "{member} at {decided_at}");
            assert_eq!(told.since, state.decided_at);
            assert_eq!(told.causes.first(), state.cause.as_ref());
            let shortly_before = *decided_at - jiff::SignedDuration::from_micros(1);
            let told = explain(world, member, Some(&shortly_before.to_string())).await;
            match before.filter(|(of, _)| of == member) {
                Some((_, held)) => assert_eq!(told.expect(member).state.as_ref(), Some(held)),
                None => assert_eq!(told.expect_err(member).code(), Code::NotFound),
            }
            before = Some((member, state));
        }
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

async fn explain(
    world: &World,
    member: &str,
    when: Option<&str>,
) -> Result<wire::ExplainMemberResponse, Status> {
    let request = wire::ExplainMemberRequest {
        gym_id: GYM.into(),
        member_id: member.into(),
        at: when.map(|when| convert::timestamp(at(when))),
    };
    let answer = world.client().explain_member(request).await?;
    Ok(answer.into_inner())
}

fn without_version(mut state: wire::MembershipStatusChanged) -> wire::MembershipStatusChanged {
    state.version = 0;
    state
}

fn without_cause(mut state: wire::MembershipStatusChanged) -> wire::MembershipStatusChanged {
    state.decided_at = None;
    state.cause = None;
    without_version(state)
}

/// Waits until no timer is due and nothing waits to be published.
async fn until_quiet(world: &World, store: &Store) {
    testkit::eventually("no timer is due", DEADLINE, async || {
        let due = store::timers::list_gyms(store.reads(), world.clock.now()).await;
        due.expect("timers").is_empty()
    })
    .await;
    until_moved(store).await;
}

async fn note(
    world: &World,
    published: &mut BTreeMap<(&'static str, Timestamp), wire::MembershipStatusChanged>,
) {
    for member in PEOPLE {
        let state = world.published(member).await.expect("a state");
        let decided_at = state.decided_at.as_ref().and_then(convert::instant);
        published.insert((member, decided_at.expect("an instant")), state);
    }
}
