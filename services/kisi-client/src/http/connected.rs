//! When the last socket was opened.
//!
//! A request on a cold connection leaves only after the handshakes, later than its turn began.
//! Measured from the turn, the next one on the warm connection would follow too closely; so the
//! pacer is told the instant at which the connection stood. Sockets of other keys on the same
//! [`super::KisiConnection`] count too: that errs on the slow side, by one handshake.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::time::Instant;
use tower::{Layer, Service};

#[derive(Debug, Default)]
pub(super) struct LastConnected(Mutex<Option<Instant>>);

impl LastConnected {
    /// The instant, if a connection was made after `since`.
    pub(super) fn after(&self, since: Instant) -> Option<Instant> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.filter(|at| *at > since)
    }

    fn note(&self, at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }
}

/// Around the client's connector.
#[derive(Clone)]
pub(super) struct NoteConnected {
    last: Arc<LastConnected>,
}

impl NoteConnected {
    pub(super) fn new(last: Arc<LastConnected>) -> Self {
        Self { last }
    }
}

impl<S> Layer<S> for NoteConnected {
    type Service = NotingConnector<S>;

    fn layer(&self, inner: S) -> Self::Service {
        NotingConnector {
            inner,
            last: Arc::clone(&self.last),
        }
    }
}

#[derive(Clone)]
pub(super) struct NotingConnector<S> {
    inner: S,
    last: Arc<LastConnected>,
}

impl<S, Destination> Service<Destination> for NotingConnector<S>
where
    S: Service<Destination>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, destination: Destination) -> Self::Future {
        let connecting = self.inner.call(destination);
        let last = Arc::clone(&self.last);
        Box::pin(async move {
            let connected = connecting.await?;
            last.note(Instant::now());
            Ok(connected)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_instant_is_the_end_of_connecting_and_is_told_only_for_what_came_before() {
        let last = Arc::new(LastConnected::default());
        let slow = tower::service_fn(|_: ()| async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            Ok::<_, std::convert::Infallible>(())
        });
        let mut connector = NoteConnected::new(Arc::clone(&last)).layer(slow);
        let began = Instant::now();
        assert_eq!(last.after(began), None);
        connector.call(()).await.expect("a connection");
        let connected = last.after(began).expect("noted");
        assert!((150..=151).contains(&(connected - began).as_millis()));
        assert_eq!(last.after(connected), None);
    }
}
