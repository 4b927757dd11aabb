//! A bare HTTP round trip: the same request over the same kind of connection to a server that
//! reads the body and answers in as many bytes as billing-webhook does, and nothing else.
//!
//! On a thread and a runtime of its own, so that an answer crosses from one thread to another as it
//! does between processes.

use std::net::SocketAddr;

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::routing::post;
use axum::serve::ListenerExt;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The server; it ends when this is dropped.
pub struct BareHttp {
    pub address: SocketAddr,
    _stop: DropGuard,
}

impl BareHttp {
    /// Starts it on a free port.
    pub fn start() -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("bare HTTP")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("bare-http".into())
            .spawn(move || runtime.block_on(serve(listener, stopped)))
            .context("the thread of bare HTTP")?;
        Ok(Self {
            address,
            _stop: stop.drop_guard(),
        })
    }
}

async fn serve(listener: std::net::TcpListener, stopped: CancellationToken) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|connection| {
        let _ = connection.set_nodelay(true);
    });
    let answer = async |_body: Bytes| {
        let json = [(header::CONTENT_TYPE, "application/json")];
        (json, r#"{"received":true}"#)
    };
    let router = Router::new().route("/{*any}", post(answer));
    axum::serve(listener, router)
        .with_graceful_shutdown(stopped.cancelled_owned())
        .await?;
    Ok(())
}
