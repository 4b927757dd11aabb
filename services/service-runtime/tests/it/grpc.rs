//! The server's own services (health, reflection) and a stand-in behind authentication.

use std::time::Duration;

use service_runtime::grpc::{GrpcServer, channel, on_behalf_of, service_channel};
use service_runtime::health::{Condition, Health};
use service_runtime::identity::grpc::AuthLayer;
use service_runtime::identity::{Caller, ServiceToken};
use testkit::{TokenIssuer, eventually};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Code, Request};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::verifier;

struct Served {
    issuer: TokenIssuer,
    url: String,
    condition: Condition,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

const NAME: &str = "test.v1.Test";

/// A service of a name that is not open to everybody. It has no message to answer with, so it
/// tells the caller's actor in a status.
fn stand_in() -> axum::Router {
    axum::Router::new().route(
        "/test.v1.Test/WhoAmI",
        axum::routing::post(async |axum::Extension(caller): axum::Extension<Caller>| {
            tonic::Status::already_exists(caller.actor()).into_http::<axum::body::Body>()
        }),
    )
}

async fn served() -> Served {
    let issuer = TokenIssuer::new().unwrap();
    let auth = AuthLayer::services_only(verifier(&issuer).await);
    let (health, shutdown) = (Health::new(), CancellationToken::new());
    let condition = health.condition("bus");
    let server = GrpcServer::bind("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let stop = shutdown.clone();
    let task = tokio::spawn(async move {
        server
            .serve(Routes::from(stand_in()), auth, &[], &[NAME], &health, stop)
            .await
            .unwrap();
    });
    Served {
        issuer,
        url,
        condition,
        shutdown,
        task,
    }
}

type Codec = tonic_prost::ProstCodec<HealthCheckRequest, HealthCheckRequest>;

async fn who_am_i<S>(service: S, request: Request<HealthCheckRequest>) -> Result<String, Code>
where
    S: tonic::client::GrpcService<tonic::body::Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::ResponseBody: tonic::codegen::Body<Data = bytes::Bytes> + Send + 'static,
    <S::ResponseBody as tonic::codegen::Body>::Error:
        Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let mut client = tonic::client::Grpc::new(service);
    client.ready().await.map_err(|_| Code::Unavailable)?;
    let path = "/test.v1.Test/WhoAmI".parse().unwrap();
    match client.unary(request, path, Codec::default()).await {
        Err(status) if status.code() == Code::AlreadyExists => Ok(status.message().to_owned()),
        Err(status) => Err(status.code()),
        Ok(_) => panic!("the stand-in never answers with a message"),
    }
}

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn only_services_get_in_and_their_actor_is_kept() {
    let served = served().await;
    let plain = channel("TEST_URL", &served.url, LIMIT).unwrap();
    let ask = || Request::new(HealthCheckRequest::default());
    assert_eq!(
        who_am_i(plain.clone(), ask()).await,
        Err(Code::Unauthenticated)
    );

    let mut staff = ask();
    let token = format!("Bearer {}", served.issuer.staff("demo", "u_1", "read"));
    staff
        .metadata_mut()
        .insert("authorization", token.parse().unwrap());
    assert_eq!(who_am_i(plain, staff).await, Err(Code::PermissionDenied));

    let file = served.issuer.service_token_file("access-gateway").unwrap();
    let token = ServiceToken::from_file(&file).unwrap();
    let trusted = service_channel("TEST_URL", &served.url, LIMIT, token).unwrap();
    assert_eq!(
        who_am_i(trusted.clone(), ask()).await.as_deref(),
        Ok("service:access-gateway")
    );
    let staff = verifier(&served.issuer)
        .await
        .verify(&served.issuer.staff("demo", "u_1", "read"))
        .await
        .unwrap();
    let request = on_behalf_of(&staff, HealthCheckRequest::default());
    assert_eq!(who_am_i(trusted, request).await.as_deref(), Ok("staff:u_1"));
}

#[tokio::test]
async fn health_needs_no_token_and_follows_readiness() {
    let served = served().await;
    let mut client = HealthClient::new(channel("TEST_URL", &served.url, LIMIT).unwrap());
    let mut status = async |service: &str| {
        let service = service.to_owned();
        let answer = client.check(HealthCheckRequest { service }).await;
        answer.map(|answer| answer.into_inner().status)
    };
    for name in ["", NAME] {
        eventually("it is not ready", LIMIT, async || {
            status(name).await.ok() == Some(ServingStatus::NotServing as i32)
        })
        .await;
    }
    served.condition.set_ready();
    for name in ["", NAME] {
        eventually("it is ready", LIMIT, async || {
            status(name).await.ok() == Some(ServingStatus::Serving as i32)
        })
        .await;
    }
    let unknown = status("test.v1.Other").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn shutdown_ends_the_server_with_an_idle_client_connected() {
    let served = served().await;
    let mut client = HealthClient::new(channel("TEST_URL", &served.url, LIMIT).unwrap());
    client.check(HealthCheckRequest::default()).await.unwrap();
    served.shutdown.cancel();
    tokio::time::timeout(LIMIT, served.task)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_call_to_nobody_ends_within_its_time_limit() {
    let url = format!("http://127.0.0.1:{}", testkit::free_port());
    let mut client = HealthClient::new(channel("TEST_URL", &url, LIMIT).unwrap());
    let call = client.check(HealthCheckRequest::default());
    let status = tokio::time::timeout(LIMIT, call)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}
