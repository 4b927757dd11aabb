//! gRPC as every service serves and calls it.
//!
//! Serving: the port is bound before anything else, health and reflection stand beside the
//! service's own, calls are authenticated and traced, done whole and answered by their deadlines
//! (see [`whole`]), and shutdown lets open calls finish.
//! Calling: a lazy channel (the other side may start later), dead peers noticed by keep-alive, a
//! time limit on each call, our own token and the trace attached to each.

mod whole;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::service::{Interceptor, Routes};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_health::ServingStatus;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::health::Health;
use crate::http_server::{self, ServeError};
use crate::identity::grpc::AuthLayer;
use crate::identity::{ACTOR_HEADER, Caller, ServiceToken};
use crate::trace_context;

/// What stands beside a service's own.
const BESIDE: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// A bound gRPC server, not serving yet.
#[derive(Debug)]
pub struct GrpcServer {
    listener: TcpListener,
}

impl GrpcServer {
    /// Binds `GRPC_ADDR`.
    pub async fn bind(addr: SocketAddr) -> Result<Self, ServeError> {
        let listener = http_server::bind("GRPC_ADDR", addr).await?;
        Ok(Self { listener })
    }

    /// The bound address, with the port the system chose for port 0.
    pub fn local_addr(&self) -> Result<SocketAddr, ServeError> {
        http_server::local_addr(&self.listener)
    }

    /// Serves `routes` (`Routes::new(service).add_service(…)`) until `shutdown`, then lets open
    /// calls finish. `names` are the full names of those services: reflection tells them and no
    /// other of `descriptors`, the encoded file descriptor sets. gRPC health, of the server and of
    /// each name, follows `health`.
    pub async fn serve(
        self,
        routes: Routes,
        auth: AuthLayer,
        descriptors: &[&'static [u8]],
        names: &[&'static str],
        health: &Health,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let mirror = tokio::spawn(mirror_health(health.clone(), reporter, names.to_vec()));
        let reflection = || {
            let start = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
            let start = descriptors.iter().fold(start, |builder, set| {
                builder.register_encoded_file_descriptor_set(set)
            });
            names
                .iter()
                .chain(&BESIDE)
                .fold(start, |builder, name| builder.with_service_name(*name))
        };
        let routes = routes
            .add_service(health_service)
            .add_service(reflection().build_v1().map_err(ServeError::Reflection)?)
            .add_service(
                reflection()
                    .build_v1alpha()
                    .map_err(ServeError::Reflection)?,
            );
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let served = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .trace_fn(|request| {
                let span = tracing::info_span!("grpc.request", rpc.method = %request.uri().path());
                // Fails only where no exporter is installed, and then there is nothing to join.
                let _ = span.set_parent(trace_context::extract(request.headers()));
                span
            })
            .layer(whole::WholeCalls)
            .layer(auth)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
            .await
            .map_err(ServeError::Grpc);
        mirror.abort();
        served
    }
}

async fn mirror_health(
    health: Health,
    reporter: tonic_health::server::HealthReporter,
    names: Vec<&'static str>,
) {
    let mut changes = tokio_stream::wrappers::WatchStream::new(health.changes());
    while let Some(conditions) = changes.next().await {
        let status = if conditions.values().all(Option::is_none) {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for name in std::iter::once("").chain(names.iter().copied()) {
            reporter.set_service_status(name, status).await;
        }
    }
}

/// A channel that authenticates as this service.
pub type ServiceChannel = InterceptedService<Channel, OutgoingCall>;

/// The address of another service is not one.
#[derive(Debug, thiserror::Error)]
#[error("bad setting {setting}: an http:// or https:// address is expected")]
pub struct AddressError {
    setting: &'static str,
    #[source]
    source: tonic::transport::Error,
}

/// A lazy channel to `url` whose calls end after `time_limit` (for streams: until the first
/// answer). `setting` is the variable to name when the address is bad.
pub fn channel(
    setting: &'static str,
    url: &str,
    time_limit: Duration,
) -> Result<Channel, AddressError> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|source| AddressError { setting, source })?
        .connect_timeout(Duration::from_secs(2))
        .timeout(time_limit)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_lazy())
}

/// [`channel`], presenting `token` and the current trace with every call.
pub fn service_channel(
    setting: &'static str,
    url: &str,
    time_limit: Duration,
    token: ServiceToken,
) -> Result<ServiceChannel, AddressError> {
    let channel = channel(setting, url, time_limit)?;
    Ok(InterceptedService::new(channel, OutgoingCall { token }))
}

/// Attaches the service's token and the current trace to each call.
#[derive(Debug, Clone)]
pub struct OutgoingCall {
    token: ServiceToken,
}

impl Interceptor for OutgoingCall {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let authorization = self
            .token
            .authorization()
            .ok_or_else(|| Status::unauthenticated("our own token cannot be sent"))?;
        request
            .metadata_mut()
            .insert("authorization", authorization);
        let mut headers = http::HeaderMap::new();
        trace_context::inject_from(&Span::current(), &mut headers);
        if let Some(traceparent) = headers.get("traceparent")
            && let Ok(value) = traceparent.to_str().unwrap_or_default().parse()
        {
            request.metadata_mut().insert("traceparent", value);
        }
        Ok(request)
    }
}

/// A request made on behalf of `caller`: the other service records that actor, not us.
pub fn on_behalf_of<T>(caller: &Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Ok(actor) = caller.actor().parse() {
        request.metadata_mut().insert(ACTOR_HEADER, actor);
    }
    request
}
