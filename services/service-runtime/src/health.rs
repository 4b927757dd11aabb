//! Health for whoever runs the process: `/livez`, `/readyz`, `/startupz` and `/metrics`.
//!
//! Readiness is a set of named conditions. A part of the service registers its own, which starts
//! as not ready, and flips it; `/readyz` names what is missing. Ready says "send me work", not
//! "all is well": an outside system being down makes no replica unready, because then all would be.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::http_server::{self, ServeError};
use crate::metrics;

/// Where health is served.
#[derive(Debug, Clone, Args)]
pub struct HealthSettings {
    /// Address of /livez, /readyz, /startupz and /metrics.
    #[arg(long, env = "HEALTH_ADDR", default_value = "127.0.0.1:8090")]
    pub health_addr: SocketAddr,
}

/// The conditions of one process. Clones share them.
#[derive(Debug, Clone)]
pub struct Health {
    conditions: watch::Sender<BTreeMap<&'static str, Option<String>>>,
    started: Arc<AtomicBool>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// No condition yet, which counts as ready.
    pub fn new() -> Self {
        Self {
            conditions: watch::Sender::new(BTreeMap::new()),
            started: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Registers a condition, not ready as of now, such as `bus` or `projection.membership`.
    #[must_use = "the condition stays not ready until it is flipped"]
    pub fn condition(&self, name: &'static str) -> Condition {
        let condition = Condition {
            health: self.clone(),
            name,
        };
        condition.set_not_ready("starting");
        condition
    }

    /// True when every condition holds.
    pub fn is_ready(&self) -> bool {
        self.conditions.borrow().values().all(Option::is_none)
    }

    /// Ends when every condition holds.
    pub async fn wait_ready(&self) {
        let mut changes = self.conditions.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = changes
            .wait_for(|conditions| conditions.values().all(Option::is_none))
            .await;
    }

    /// Ends when readiness may have changed; for mirrors such as gRPC health.
    pub(crate) fn changes(&self) -> watch::Receiver<BTreeMap<&'static str, Option<String>>> {
        self.conditions.subscribe()
    }

    /// Binds `addr`, so that a clash is known at once, and serves in the background until
    /// `shutdown`, answering "not ready" from then on until the process ends.
    pub async fn serve(
        &self,
        addr: SocketAddr,
        shutdown: CancellationToken,
    ) -> Result<SocketAddr, ServeError> {
        let listener = http_server::bind("HEALTH_ADDR", addr).await?;
        self.serve_on(listener, shutdown)
    }

    /// As [`Self::serve`], on a listener that is bound already.
    pub fn serve_on(
        &self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<SocketAddr, ServeError> {
        let addr = http_server::local_addr(&listener)?;
        let handle = metrics::install();
        let stopping = self.condition("running");
        stopping.set_ready();
        tokio::spawn(async move {
            shutdown.cancelled().await;
            stopping.set_not_ready("shutting down");
        });
        let upkeep = handle.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(5));
            loop {
                tick.tick().await;
                upkeep.run_upkeep();
            }
        });
        let router = Router::new()
            .route("/livez", get(async || Json(json!({ "status": "live" }))))
            .route("/readyz", get(readyz))
            .route("/startupz", get(startupz))
            .route(
                "/metrics",
                get(async move || {
                    let media = "text/plain; version=0.0.4; charset=utf-8";
                    ([(header::CONTENT_TYPE, media)], handle.render())
                }),
            )
            .with_state(self.clone());
        // It answers to the very end of the process: the drain is when it is asked most.
        tokio::spawn(http_server::serve(
            listener,
            router,
            CancellationToken::new(),
        ));
        Ok(addr)
    }
}

/// One named condition of readiness. Dropping it leaves it as it is.
#[derive(Debug, Clone)]
pub struct Condition {
    health: Health,
    name: &'static str,
}

impl Condition {
    /// The condition holds.
    pub fn set_ready(&self) {
        self.put(None);
    }

    /// The condition does not hold, for `reason`: a few words without ids or secrets.
    pub fn set_not_ready(&self, reason: &str) {
        self.put(Some(reason));
    }

    fn put(&self, missing: Option<&str>) {
        self.health.conditions.send_if_modified(|conditions| {
            let known = conditions.get(self.name).map(Option::as_deref);
            if known == Some(missing) {
                return false;
            }
            conditions.insert(self.name, missing.map(str::to_owned));
            true
        });
    }
}

async fn readyz(State(health): State<Health>) -> Response {
    let conditions = health.conditions.borrow().clone();
    let missing: BTreeMap<_, _> = conditions
        .iter()
        .filter_map(|(name, reason)| reason.as_ref().map(|reason| (*name, reason.clone())))
        .collect();
    if missing.is_empty() {
        health.started.store(true, Ordering::Relaxed);
        return Json(json!({ "status": "ready" })).into_response();
    }
    let body = Json(json!({ "status": "not_ready", "missing": missing }));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

/// Started is for good: once ready, a later loss of readiness is no reason to start over.
async fn startupz(State(health): State<Health>) -> Response {
    if health.started.load(Ordering::Relaxed) {
        return Json(json!({ "status": "started" })).into_response();
    }
    readyz(State(health)).await
}
