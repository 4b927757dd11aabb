//! Waiting for a condition with a deadline, so that no test sleeps for luck.

use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds.
///
/// # Panics
/// With `what` when it does not hold within `deadline`.
pub async fn eventually<F>(what: &str, deadline: Duration, mut condition: F)
where
    F: AsyncFnMut() -> bool,
{
    eventually_some(what, deadline, async || condition().await.then_some(())).await;
}

/// Waits until `probe` answers `Some`, and hands that value out.
///
/// # Panics
/// With `what` when there is none within `deadline`.
pub async fn eventually_some<T, F>(what: &str, deadline: Duration, mut probe: F) -> T
where
    F: AsyncFnMut() -> Option<T>,
{
    let started = Instant::now();
    loop {
        let left = deadline.saturating_sub(started.elapsed());
        match tokio::time::timeout(left.max(POLL), probe()).await {
            Ok(Some(value)) => return value,
            Ok(None) if started.elapsed() < deadline => tokio::time::sleep(POLL).await,
            _ => panic!("not within {deadline:?}: {what}"),
        }
    }
}
