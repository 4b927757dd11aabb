//! Who asks a replica for its health learns whether it has what it needs.

use testkit::eventually;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::proxy::Proxy;
use crate::world::{DEADLINE, World, on_both};

on_both! {
    async fn a_replica_without_the_bus_is_not_serving(world: World) {
        until(world, ServingStatus::Serving).await;
        world.nats.stop().await.expect("stopped");
        until(world, ServingStatus::NotServing).await;
        world.nats.restart().await.expect("restarted");
        until(world, ServingStatus::Serving).await;
    }
}

/// PostgreSQL only: an SQLite file does not go away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_the_database_is_not_serving() {
    let mut world = World::on_postgres().await;
    let proxy = Proxy::to(world.database_server()).await;
    world.stop_all().await;
    world.start_replica_before(&proxy).await;
    until(&world, ServingStatus::Serving).await;
    proxy.close();
    until(&world, ServingStatus::NotServing).await;
    proxy.open();
    until(&world, ServingStatus::Serving).await;
    // Nothing answers, and nothing says so.
    proxy.freeze();
    until(&world, ServingStatus::NotServing).await;
    proxy.open();
    until(&world, ServingStatus::Serving).await;
    world.finish().await;
}

async fn until(world: &World, wanted: ServingStatus) {
    let address = format!("http://{}", world.address());
    let endpoint = Endpoint::from_shared(address).expect("an address");
    let client = HealthClient::new(endpoint.connect_lazy());
    for service in ["", "gymflow.membership.v1.MembershipService"] {
        let what = format!("{service:?} is {wanted:?}");
        eventually(&what, DEADLINE, async || {
            let request = HealthCheckRequest {
                service: service.to_owned(),
            };
            let answer = client.clone().check(request).await;
            answer.is_ok_and(|answer| answer.into_inner().status() == wanted)
        })
        .await;
    }
}
