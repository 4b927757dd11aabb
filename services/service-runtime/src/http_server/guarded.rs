//! Serving strangers: an entrance on which a slow sender holds nothing for long.
//!
//! `axum::serve` gives a connection no time limit, and as many connections as there are file
//! descriptors. Here a connection that does not send a whole request head in time is closed,
//! whether it is new, idle between two requests, or sends byte by byte; and connections past a
//! bound wait in the kernel's queue until one ends; and none gets older than a bound. The body's time limit is the handler's, which
//! knows what to answer.
//!
//! HTTP/1.1 only, which is what webhooks come by: waiting for the first bytes of a connection to
//! tell the versions apart would have no time limit.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::ServeError;

/// The most bytes of a request head.
const MAX_HEAD: usize = 64 * 1024;

/// What a stranger may take.
#[derive(Debug, Clone, Copy)]
pub struct Guards {
    /// How long a request head may take to arrive, counted from the connection's start or from the
    /// end of the request before it.
    pub head_time: Duration,
    /// Connections open at once, at least 1.
    pub max_connections: usize,
    /// How old a connection gets: then it is closed after the request it is at, and at twice this
    /// age cut, because whoever does not read its answers could stay for ever.
    pub max_age: Duration,
}

/// As [`super::serve`], with guards.
pub async fn serve_guarded(
    mut listener: TcpListener,
    router: Router,
    guards: Guards,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let places = Arc::new(Semaphore::new(guards.max_connections.max(1)));
    let open = TaskTracker::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(guards.head_time)
        .max_buf_size(MAX_HEAD);
    while let Some(Some((connection, place))) = shutdown
        .run_until_cancelled(next(&mut listener, &places))
        .await
    {
        // Small answers must not wait for more bytes.
        let _ = connection.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let serving = http.serve_connection(TokioIo::new(connection), service);
        let stop = shutdown.clone();
        open.spawn(async move {
            tokio::pin!(serving);
            let old = tokio::time::sleep(guards.max_age);
            let ended = tokio::select! {
                ended = serving.as_mut() => Ok(ended),
                () = async { tokio::select! { () = stop.cancelled() => (), () = old => () } } => {
                    // An open request is answered, an idle connection is closed.
                    serving.as_mut().graceful_shutdown();
                    tokio::time::timeout(guards.max_age, serving).await
                }
            };
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "A connection ended early"),
                Err(_) => debug!("A connection was cut: it does not read its answers"),
            }
            drop(place);
        });
    }
    drop(listener);
    open.close();
    open.wait().await;
    Ok(())
}

/// The next connection, when there is a place for it. Broken ones are skipped, and without file
/// descriptors it waits: that is the listener's own doing. `None` cannot happen, because nobody
/// closes the places.
async fn next(
    listener: &mut TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    let (connection, _) = Listener::accept(listener).await;
    Some((connection, place))
}
