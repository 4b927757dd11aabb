//! The endpoints file, looked at again while the service runs.
//!
//! The file's content is compared, not its time or its inode: Kubernetes replaces it by swapping a
//! symlink above it, and editors by a rename. A bad file keeps the old endpoints and says so, once
//! for each bad content.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{Endpoints, EndpointsError};
use crate::measures::RELOADS;

/// The endpoints in force. Clones see the same.
#[derive(Clone, Debug)]
pub struct Current(Arc<ArcSwap<Endpoints>>);

impl Current {
    /// Those of now.
    pub fn load(&self) -> arc_swap::Guard<Arc<Endpoints>> {
        self.0.load()
    }
}

/// Reads the file, and again whenever it changes, until `shutdown`.
///
/// # Errors
/// When the file is bad at the start.
pub fn watch(
    path: &Path,
    every: Duration,
    shutdown: CancellationToken,
) -> Result<Current, EndpointsError> {
    let current = Current(Arc::new(ArcSwap::from_pointee(Endpoints::read(path)?)));
    tokio::spawn(follow(path.to_owned(), every, current.clone(), shutdown));
    Ok(current)
}

async fn follow(path: PathBuf, every: Duration, current: Current, shutdown: CancellationToken) {
    let mut seen = fingerprint(&path);
    let mut ticks = tokio::time::interval(every);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = fingerprint(&path);
        if now == seen {
            continue;
        }
        seen = now;
        match Endpoints::read(&path) {
            Ok(endpoints) => {
                info!(
                    endpoints = endpoints.len(),
                    "The billing endpoints were read again"
                );
                metrics::counter!(RELOADS, "outcome" => "read").increment(1);
                current.0.store(Arc::new(endpoints));
            }
            Err(error) => {
                error!("The billing endpoints stay as they were: {error}");
                metrics::counter!(RELOADS, "outcome" => "refused").increment(1);
            }
        }
    }
}

/// The content, and that of nothing when it cannot be read: a missing file is a change too.
fn fingerprint(path: &Path) -> Option<Vec<u8>> {
    use sha2::{Digest, Sha256};
    std::fs::read(path)
        .ok()
        .map(|bytes| Sha256::digest(bytes).to_vec())
}
