//! The gRPC side.

use contracts::access::v1 as wire;
use contracts::access::v1::access_service_client::AccessServiceClient;
use contracts::integration::v1::integration_service_client::IntegrationServiceClient;
use contracts::integration::v1::{GetSyncRequest, GymRequest, ListDeadLettersRequest, Sync};
use testkit::NatsServer;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::world::{DEADLINE, GROUP, GYM, World, decision, outcome};

async fn connect(world: &World) -> anyhow::Result<Channel> {
    Ok(Channel::from_shared(world.grpc_url())?.connect().await?)
}

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("a token");
    request.metadata_mut().insert("authorization", value);
    request
}

fn check(member: &str, group_id: Option<i64>) -> wire::CheckAccessRequest {
    wire::CheckAccessRequest {
        gym_id: GYM.to_owned(),
        member_id: member.to_owned(),
        group_id,
    }
}

#[tokio::test]
async fn check_access_answers_from_memory_with_reasons_and_version() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.active_gym().await;
    world.publish(&decision("m_1", 4, &[])).await;
    world
        .publish(&decision("m_2", 5, &["missed_payment"]))
        .await;
    world.status_becomes("m_1", "granting").await;
    world.status_becomes("m_2", "denied").await;
    let mut client = AccessServiceClient::new(connect(&world).await?);
    let service = world.tokens.service("booking");
    let answer = client
        .check_access(with_token(&service, check("m_1", None)))
        .await?;
    let answer = answer.into_inner();
    assert!(answer.allowed);
    assert_eq!((answer.version, answer.group_ids), (4, vec![GROUP]));

    let answer = client
        .check_access(with_token(&service, check("m_1", Some(12))))
        .await?;
    assert!(!answer.into_inner().allowed, "another group");

    let answer = client
        .check_access(with_token(&service, check("m_2", None)))
        .await?;
    let answer = answer.into_inner();
    assert!(!answer.allowed);
    assert_eq!(answer.reasons, ["missed_payment"]);

    for (request, code) in [
        (check("m_9", None), Code::NotFound),
        (check("m.1", None), Code::InvalidArgument),
        (check("m_1", Some(0)), Code::InvalidArgument),
    ] {
        let refused = client.check_access(with_token(&service, request)).await;
        assert_eq!(refused.expect_err("refused").code(), code);
    }
    let refused = client.check_access(check("m_1", None)).await;
    assert_eq!(refused.expect_err("no token").code(), Code::Unauthenticated);
    let other = world.tokens.member(GYM, "m_2");
    let refused = client
        .check_access(with_token(&other, check("m_1", None)))
        .await;
    assert_eq!(
        refused.expect_err("another's").code(),
        Code::PermissionDenied
    );

    let batch = wire::BatchCheckAccessRequest {
        gym_id: GYM.to_owned(),
        member_ids: ["m_1", "m_9", "m_2"].map(str::to_owned).to_vec(),
    };
    let answer = client
        .batch_check_access(with_token(&service, batch))
        .await?;
    let rows: Vec<_> = answer
        .into_inner()
        .results
        .into_iter()
        .map(|row| (row.member_id, row.allowed, row.unknown))
        .collect();
    let row = |member: &str, allowed, unknown| (member.to_owned(), allowed, unknown);
    assert_eq!(
        rows,
        [
            row("m_1", true, false),
            row("m_9", false, true),
            row("m_2", false, false)
        ]
    );
    world.stop().await
}

#[tokio::test]
async fn bad_fields_are_named_in_the_details() -> anyhow::Result<()> {
    use tonic_types::StatusExt;
    let world = World::start().await?;
    let mut client = AccessServiceClient::new(connect(&world).await?);
    let service = world.tokens.service("booking");
    let refused = client
        .check_access(with_token(&service, check("m.1", None)))
        .await;
    let refused = refused.expect_err("refused");
    let details = refused.get_details_bad_request().expect("details");
    assert_eq!(details.field_violations[0].field, "member_id");
    world.stop().await
}

#[tokio::test]
async fn watcher_sees_each_change_once() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.active_gym().await;
    world.publish(&decision("m_1", 1, &[])).await;
    world.publish(&decision("m_2", 1, &[])).await;
    world.status_becomes("m_2", "granting").await;
    let mut client = AccessServiceClient::new(connect(&world).await?);
    let ask = wire::GetAccessStatusRequest {
        gym_id: GYM.to_owned(),
        member_id: "m_1".to_owned(),
    };
    let member = world.tokens.member(GYM, "m_1");
    let mut stream = client
        .watch_access(with_token(&member, ask))
        .await?
        .into_inner();
    let mut next = async || -> anyhow::Result<String> {
        let status = tokio::time::timeout(DEADLINE, stream.message()).await??;
        Ok(status.map(|status| status.status).unwrap_or_default())
    };
    assert_eq!(next().await?, "granting");
    // What concerns another member, or changes nothing, is not told.
    world
        .publish(&outcome("m_2", 1, 1, "granted", &[GROUP]))
        .await;
    world
        .publish(&outcome("m_1", 1, 1, "granted", &[GROUP]))
        .await;
    assert_eq!(next().await?, "granted");
    world
        .publish(&decision("m_1", 2, &["missed_payment"]))
        .await;
    assert_eq!(next().await?, "revoking");
    world.stop().await
}

#[tokio::test]
async fn doors_pages_set_up_and_dead_letters_answer() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.active_gym().await;
    world.publish(&decision("m_1", 1, &[])).await;
    world.status_becomes("m_1", "granting").await;
    let channel = connect(&world).await?;
    let staff = world.staff();
    let mut client = AccessServiceClient::new(channel.clone());
    let ask = wire::GetAccessStatusRequest {
        gym_id: GYM.to_owned(),
        member_id: "m_1".to_owned(),
    };
    let doors = client.list_doors(with_token(&staff, ask.clone())).await?;
    assert_eq!(doors.into_inner().doors[0].lock_id, 21);
    let status = client
        .get_access_status(with_token(&staff, ask.clone()))
        .await?;
    assert_eq!(status.into_inner().status, "granting");
    world
        .upstream
        .answer("list_devices", &wire::ListDevicesResponse::default());
    let devices = client.list_devices(with_token(&staff, ask)).await?;
    assert!(devices.into_inner().devices.is_empty());

    let mut client = IntegrationServiceClient::new(channel);
    let gym = GymRequest {
        gym_id: GYM.to_owned(),
    };
    let remembered = client
        .get_integration(with_token(&staff, gym.clone()))
        .await;
    assert_eq!(
        remembered.expect_err("not scripted").code(),
        Code::Unimplemented
    );
    world
        .upstream
        .refuse("get_integration", tonic::Status::unavailable("down"));
    let remembered = client.get_integration(with_token(&staff, gym)).await?;
    assert_eq!(remembered.into_inner().state, "active");
    let sync = Sync {
        sync_id: "s_1".to_owned(),
        state: "done".to_owned(),
        ..Default::default()
    };
    world.upstream.answer("watch_sync", &sync);
    let watch = GetSyncRequest {
        gym_id: GYM.to_owned(),
        sync_id: "s_1".to_owned(),
    };
    let mut stream = client
        .watch_sync(with_token(&staff, watch))
        .await?
        .into_inner();
    assert_eq!(stream.message().await?.expect("a sync").state, "done");
    assert!(stream.message().await?.is_none());
    let nowhere = ListDeadLettersRequest::default();
    let refused = client.list_dead_letters(with_token(&staff, nowhere)).await;
    assert_eq!(refused.expect_err("no gym").code(), Code::InvalidArgument);
    let list = ListDeadLettersRequest {
        gym_id: GYM.to_owned(),
        ..Default::default()
    };
    let letters = client.list_dead_letters(with_token(&staff, list)).await?;
    assert!(letters.into_inner().dead_letters.is_empty());
    world.stop().await
}

#[tokio::test]
async fn health_follows_readiness_and_reflection_lists_both_services() -> anyhow::Result<()> {
    use tokio_stream::StreamExt;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let mut nats = NatsServer::start().await?;
    nats.stop().await?;
    let mut world = World::start_on(nats).await?;
    let channel = connect(&world).await?;
    let mut health = HealthClient::new(channel.clone());
    let ask = HealthCheckRequest::default();
    let status = health.check(ask.clone()).await?.into_inner().status();
    assert_eq!(status.as_str_name(), "NOT_SERVING");
    let mut client = AccessServiceClient::new(channel.clone());
    let service = world.tokens.service("booking");
    let refused = client
        .check_access(with_token(&service, check("m_1", None)))
        .await;
    assert_eq!(
        refused.expect_err("not caught up").code(),
        Code::Unavailable
    );

    world.nats.restart().await?;
    world.ready().await;
    testkit::eventually("gRPC health follows", DEADLINE, async || {
        matches!(health.check(ask.clone()).await, Ok(answer) if answer.get_ref().status().as_str_name() == "SERVING")
    })
    .await;

    let list = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let answers = reflection
        .server_reflection_info(tokio_stream::once(list))
        .await?;
    let answer = answers.into_inner().next().await.expect("an answer")?;
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        anyhow::bail!("no list of services");
    };
    let names: Vec<_> = services
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    for name in [
        "gymflow.access.v1.AccessService",
        "gymflow.integration.v1.IntegrationService",
    ] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
    world.stop().await
}
