//! One gateway with all around it, and messages published straight to the bus.
//!
//! Every HTTP answer a test sees is held against the OpenAPI document: its status must be
//! documented and its body fit the schema.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use access_gateway::config::Config;
use access_gateway::error::GatewayError;
use contracts::message::BusMessage;
use event_bus::{Bus, Envelope, NatsSettings};
use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use service_runtime::clock::{Clock, SystemClock};
use service_runtime::identity::IdentitySettings;
use service_runtime::lifecycle::LifecycleSettings;
use service_runtime::telemetry::TelemetrySettings;
use testkit::{NatsServer, TokenIssuer, eventually, free_port};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use crate::messages::{decision, gym, outcome};
use crate::upstream::Upstream;

pub const GYM: &str = "iron";
pub const GROUP: i64 = 11;
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The gateway under test.
pub struct World {
    pub nats: NatsServer,
    pub bus: Bus,
    pub tokens: TokenIssuer,
    pub upstream: Upstream,
    pub config: Config,
    pub http: reqwest::Client,
    document: Value,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), GatewayError>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl World {
    /// A gateway that has caught up with an empty bus.
    pub async fn start() -> anyhow::Result<Self> {
        let nats = NatsServer::start().await?;
        let world = Self::start_on(nats).await?;
        world.ready().await;
        Ok(world)
    }

    /// A gateway on this server, perhaps not caught up.
    pub async fn start_on(nats: NatsServer) -> anyhow::Result<Self> {
        let upstream = Upstream::default();
        let url = upstream.serve().await?;
        Self::start_before(nats, upstream, url).await
    }

    /// A gateway whose two services behind it are nowhere.
    pub async fn start_alone() -> anyhow::Result<Self> {
        let nats = NatsServer::start().await?;
        let nowhere = format!("http://127.0.0.1:{}", free_port());
        let world = Self::start_before(nats, Upstream::default(), nowhere).await?;
        world.ready().await;
        Ok(world)
    }

    async fn start_before(
        nats: NatsServer,
        upstream: Upstream,
        url: String,
    ) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tokens = TokenIssuer::new()?;
        let settings = NatsSettings::for_testing(&nats.url(), &nats.monitor_url());
        let free = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let config = Config {
            http_addr: free(),
            grpc_addr: free(),
            health_addr: free(),
            membership_events_url: url.clone(),
            kisi_sync_url: url,
            service_token_file: tokens.service_token_file("access-gateway")?,
            identity: IdentitySettings {
                jwt_jwks: tokens.jwks_path().display().to_string(),
                jwt_issuer: tokens.issuer().to_owned(),
                jwt_audience: tokens.audience().to_owned(),
            },
            nats: settings.clone(),
            telemetry: TelemetrySettings::for_testing(),
            lifecycle: LifecycleSettings {
                drain_time: Duration::from_secs(5),
            },
        };
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(access_gateway::run(config.clone(), shutdown.clone()));
        let bus = Bus::connect(&settings, "test").await?;
        let mut world = Self {
            nats,
            bus,
            tokens,
            upstream,
            config,
            http: reqwest::Client::new(),
            document: Value::Null,
            shutdown,
            running,
        };
        let document = testkit::eventually_some("the gateway listens", DEADLINE, async || {
            let url = world.url("/api/openapi.json");
            world.http.get(url).send().await.ok()?.json().await.ok()
        })
        .await;
        world.document = document;
        Ok(world)
    }

    /// Waits until the projection has caught up.
    pub async fn ready(&self) {
        eventually("the gateway is ready", DEADLINE, async || {
            self.is_ready().await
        })
        .await;
    }

    pub async fn is_ready(&self) -> bool {
        let url = format!("http://{}/readyz", self.config.health_addr);
        matches!(self.http.get(url).send().await, Ok(answer) if answer.status().is_success())
    }

    /// Stops the gateway and fails when it did not end well.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.running).await???;
        Ok(())
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.config.http_addr)
    }

    pub fn grpc_url(&self) -> String {
        format!("http://{}", self.config.grpc_addr)
    }

    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Staff of the gym with every scope.
    pub fn staff(&self) -> String {
        self.tokens
            .staff(GYM, "u_1", "read override configure approve")
    }

    pub async fn publish<M: BusMessage>(&self, message: &M) {
        self.publish_as(&message.subject(), &message.id(), message)
            .await;
    }

    /// Publishes anything under any subject.
    pub async fn publish_as(&self, subject: &str, id: &str, message: &impl serde::Serialize) {
        let envelope = Envelope {
            ce_id: id.to_owned(),
            ce_type: "test".to_owned(),
            ce_source: "/test".to_owned(),
            ce_time: now(),
            ce_subject: id.to_owned(),
            traceparent: None,
        };
        self.bus
            .publisher()
            .publish(subject, &envelope, message)
            .await
            .expect("published");
    }

    /// Publishes a gym whose plan `gold` opens one group with one door.
    pub async fn active_gym(&self) {
        self.publish(&gym(1, "active", "request")).await;
    }

    pub async fn get(&self, token: &str, path: &str) -> Answer {
        self.call(Method::GET, Some(token), path, None).await
    }

    pub async fn post(&self, token: &str, path: &str, body: Value) -> Answer {
        self.call(Method::POST, Some(token), path, Some(body)).await
    }

    pub async fn put(&self, token: &str, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, Some(token), path, Some(body)).await
    }

    /// A call under `/api/v1/gyms`, with a JSON body or none.
    pub async fn call(
        &self,
        method: Method,
        token: Option<&str>,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let path = format!("/api/v1/gyms{path}");
        let mut request = self.http.request(method.clone(), self.url(&path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.read(method, &path, request).await
    }

    /// Sends `request` and holds the answer against the document.
    pub async fn read(
        &self,
        method: Method,
        path: &str,
        request: reqwest::RequestBuilder,
    ) -> Answer {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.expect("a body");
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|e| panic!("{method} {path}: {status}, not JSON: {e}"))
        };
        let answer = Answer {
            status,
            headers,
            body,
        };
        self.hold_against_document(&method, path, &answer);
        answer
    }

    fn hold_against_document(&self, method: &Method, path: &str, answer: &Answer) {
        let status = answer.status.as_str();
        let media = answer.header("content-type");
        if !answer.status.is_success() {
            assert_eq!(
                media, "application/problem+json",
                "{method} {path} {status}"
            );
            assert_eq!(answer.body["status"], answer.status.as_u16());
        }
        let Some(operation) = self.operation(method, path) else {
            let unknown = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
            assert!(
                unknown.contains(&answer.status),
                "{method} {path} is undocumented"
            );
            return;
        };
        let documented = &operation["responses"][status];
        assert!(
            documented.is_object(),
            "{method} {path}: {status} is undocumented"
        );
        let Some(content) = documented["content"].as_object() else {
            assert!(
                answer.body.is_null(),
                "{method} {path}: {status} has no body"
            );
            return;
        };
        let schema = content
            .get(media)
            .unwrap_or_else(|| panic!("{method} {path}: {status} is not of {media}"));
        let schema = json!({
            "$ref": schema["schema"]["$ref"],
            "components": self.document["components"],
        });
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let wrong: Vec<String> = validator
            .iter_errors(&answer.body)
            .map(|error| error.to_string())
            .collect();
        assert!(wrong.is_empty(), "{method} {path} {status}: {wrong:?}");
    }

    fn operation(&self, method: &Method, path: &str) -> Option<&Value> {
        let path = path.split('?').next().unwrap_or(path);
        let paths = self.document["paths"].as_object().expect("paths");
        // As a router does: a literal segment wins over a parameter.
        let template = paths
            .keys()
            .filter(|template| fits(template, path))
            .min_by_key(|template| template.matches('{').count())?;
        paths[template].get(method.as_str().to_ascii_lowercase())
    }

    /// A member's page, once it is there and has this status.
    pub async fn status_becomes(&self, member: &str, status: &str) -> Value {
        let staff = self.staff();
        let path = format!("/{GYM}/members/{member}/access");
        testkit::eventually_some(&format!("{member} is {status}"), DEADLINE, async || {
            let answer = self.get(&staff, &path).await;
            (answer.body["status"] == status).then_some(answer.body)
        })
        .await
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The fields named in `errors`.
    pub fn fields(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array();
        errors
            .into_iter()
            .flatten()
            .filter_map(|error| error["field"].as_str())
            .collect()
    }

    /// Codes of the alerts of a member's page.
    pub fn alert_codes(&self) -> Vec<&str> {
        alert_codes(&self.body)
    }
}

/// Codes of the alerts of a member's page.
pub fn alert_codes(page: &Value) -> Vec<&str> {
    let alerts = page["alerts"].as_array();
    alerts
        .into_iter()
        .flatten()
        .filter_map(|alert| alert["code"].as_str())
        .collect()
}

pub fn now() -> Timestamp {
    SystemClock.now()
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/'), path.split('/'));
    template.clone().count() == path.clone().count()
        && template
            .zip(path)
            .all(|(wanted, found)| wanted.starts_with('{') || wanted == found)
}
