//! The time a caller gives, by the service's own word: this caller would wait for longer.

use std::time::{Duration, Instant};

use membership_events::store;

use crate::raw_call::RawCall;
use crate::world::{GYM, World, on_both};

const DEADLINE_EXCEEDED: &str = "4";

on_both! {
    async fn a_call_whose_time_is_up_is_answered_so_and_done_all_the_same(world: World) {
        world.with_ann().await;
        let mut put = world.membership("ms", "ann");
        put.plan_id = "silver".into();
        // Somebody else has what it needs.
        let store = world.store().await;
        let held = store.begin().await.expect("a transaction");
        let (gym, ann) = (GYM.parse().expect("an id"), "ann".parse().expect("an id"));
        store::members::lock(&held, &gym, &[ann].into()).await.expect("locked");
        let token = world.tokens.service("dev-stack");
        let call = RawCall::open_for(world.address(), "PutMembership", &token, Some("200m"));
        let (call, called) = (call.await, Instant::now());
        assert_eq!(call.status_of(&put).await, DEADLINE_EXCEEDED);
        let took = called.elapsed();
        assert!(took >= Duration::from_millis(190), "{took:?}");
        assert!(took < Duration::from_millis(1_500), "{took:?}");
        assert_eq!(world.published("ann").await.expect("a state").plans[0].plan_id, "gold");
        held.rollback().await.expect("released");
        world.until("it is written", "ann", |state| state.plans[0].plan_id == "silver").await;
    }
}
