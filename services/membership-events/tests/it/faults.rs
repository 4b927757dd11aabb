//! What fails around the service, and what must hold all the same.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use contracts::membership::v1 as wire;
use event_bus::{ConsumerConfig, Disposition};
use tokio_util::sync::CancellationToken;

use crate::world::{GYM, World, invoice, on_both};

on_both! {
    async fn what_was_committed_while_nats_was_down_is_published(world: World) {
        world.with_ann().await;
        world.nats.stop().await.expect("stopped");
        // The write is durable in the tables; that is all its OK says.
        let outcome = world.put_membership("ms", "ann", |put| put.plan_id = "silver".into()).await;
        assert_eq!(outcome.members.len(), 1);
        world.pause("p1", "2026-03-10", None).await;
        world.nats.restart().await.expect("restarted");
        let state = world.until_allowed("ann", false).await;
        assert_eq!(state.memberships[0].plan_id, "silver");
        assert!(state.version > outcome.members[0].version);
    }

    async fn a_process_killed_between_commit_and_publish_loses_nothing(world: World) {
        world.stop_all().await;
        world.start_process().await;
        eventually_put_gym(world).await;
        world.put_member("ann").await;
        world.nats.stop().await.expect("stopped");
        world.put_membership("ms", "ann", |_| {}).await;
        world.kill_process().await;
        world.nats.restart().await.expect("restarted");
        assert!(world.published("ann").await.is_none());
        world.start_process().await;
        world.until_allowed("ann", true).await;
    }

    async fn an_event_published_while_the_process_was_dead_is_applied(world: World) {
        world.stop_all().await;
        world.start_process().await;
        eventually_put_gym(world).await;
        world.put_member("ann").await;
        world.put_membership("ms", "ann", |_| {}).await;
        world.until_allowed("ann", true).await;
        world.kill_process().await;
        world.publish(&invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z")).await;
        world.start_process().await;
        world.until_allowed("ann", false).await;
    }

    async fn concurrent_writers_on_one_member_lose_no_update(world: World) {
        world.put_gym(|_| {}).await;
        world.put_member("ann").await;
        if world.is_postgres() {
            world.start_replica().await;
        }
        let clients = world.clients_with(&world.tokens.service("writers"));
        let mut writers = tokio::task::JoinSet::new();
        for i in 0..24_usize {
            let mut client = clients[i % clients.len()].clone();
            let put = world.membership(&format!("ms_{i}"), "ann");
            writers.spawn(async move { client.put_membership(put).await });
        }
        while let Some(written) = writers.join_next().await {
            written.expect("no panic").expect("written");
        }
        let state = world.until("all of them", "ann", |s| s.memberships.len() == 24).await;
        let mut client = world.client();
        let newest = client.get_member(wire::GetMemberRequest {
            gym_id: GYM.into(),
            member_id: "ann".into(),
            read_mask: None,
        });
        let newest = newest.await.expect("a member").into_inner().state.expect("a state");
        assert_eq!(newest.version, state.version);
    }

    async fn a_holder_who_joins_while_the_payment_fails_is_closed_too(world: World) {
        world.put_gym(|_| {}).await;
        if world.is_postgres() {
            world.start_replica().await;
        }
        for i in 0..8 {
            let (ann, bob, id) = (format!("ann_{i}"), format!("bob_{i}"), format!("ms_{i}"));
            world.put_member(&ann).await;
            world.put_member(&bob).await;
            world.put_membership(&id, &ann, |_| {}).await;
            let mut joined = world.membership(&id, &ann);
            joined.member_ids.push(bob.clone());
            let mut failed = invoice(
                &format!("evt_{i}"), "payment_failed", &format!("in_{i}"), "2026-03-10T05:00:00Z",
            );
            failed.subscription_id = Some(format!("sub_{id}"));
            let mut client = world.client();
            let (written, ()) =
                tokio::join!(client.put_membership(joined), world.publish(&failed));
            written.expect("written");
            world.until_allowed(&ann, false).await;
            world.until_allowed(&bob, false).await;
        }
    }

    async fn messages_of_one_member_go_out_in_order(world: World) {
        world.with_ann().await;
        if world.is_postgres() {
            world.start_replica().await;
        }
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (watched, stop) = (seen.clone(), CancellationToken::new());
        let watching = world
            .bus
            .consumer(ConsumerConfig::new("MEMBERSHIP", "watcher", "membership.v1.>").concurrency(1))
            .run(
                move |state: wire::MembershipStatusChanged, _| {
                    watched.lock().expect("no panic").push(state.version);
                    async { Disposition::Done }
                },
                stop.clone(),
            );
        let watching = tokio::spawn(watching);
        let clients = world.clients_with(&world.tokens.service("writers"));
        for i in 0..30_usize {
            let mut put = world.membership("ms", "ann");
            put.plan_id = format!("plan_{i}");
            let mut client = clients[i % clients.len()].clone();
            client.put_membership(put).await.expect("written");
        }
        let last = world.until("the last plan", "ann", |s| s.plans[0].plan_id == "plan_29").await;
        testkit::eventually("the watcher saw it", Duration::from_secs(20), async || {
            seen.lock().expect("no panic").contains(&last.version)
        })
        .await;
        stop.cancel();
        watching.await.expect("no panic").expect("watched");
        let seen = seen.lock().expect("no panic");
        assert!(seen.is_sorted(), "{seen:?}");
    }

    async fn the_members_of_a_seed_go_out_side_by_side(world: World) {
        world.put_gym(|_| {}).await;
        let mut clients = tokio::task::JoinSet::new();
        for worker in 0..8 {
            let mut client = world.client();
            clients.spawn(async move {
                for i in 0..25 {
                    let member = format!("m_{worker}_{i}");
                    client.put_member(wire::PutMemberRequest {
                        gym_id: GYM.into(),
                        member_id: member.clone(),
                        email: String::new(),
                        name: String::new(),
                        source_version: 1,
                    })
                    .await
                    .expect("a member");
                    client.put_membership(wire::PutMembershipRequest {
                        gym_id: GYM.into(),
                        membership_id: format!("ms_{member}"),
                        plan_id: "gold".into(),
                        member_ids: vec![member],
                        starts_on: "2026-01-01".into(),
                        source_version: 1,
                        ..wire::PutMembershipRequest::default()
                    })
                    .await
                    .expect("a membership");
                }
            });
        }
        while let Some(done) = clients.join_next().await {
            done.expect("no panic");
        }
        testkit::eventually("all are published", Duration::from_secs(20), async || {
            let stream = world.bus.jetstream().get_stream("MEMBERSHIP").await;
            let mut stream = stream.expect("a stream");
            stream.info().await.expect("its state").state.messages == 200
        })
        .await;
    }
}

/// The first call waits for the program to be up.
async fn eventually_put_gym(world: &mut World) {
    let mut client = world.client();
    testkit::eventually("the program is up", Duration::from_secs(20), async || {
        let known = client
            .list_member_versions(wire::ListMemberVersionsRequest {
                gym_id: GYM.into(),
                page_size: 1,
                page_token: String::new(),
            })
            .await;
        // It answers, be it that there is no such gym yet.
        known
            .err()
            .is_none_or(|error| error.code() == tonic::Code::NotFound)
    })
    .await;
    world.put_gym(|_| {}).await;
}
