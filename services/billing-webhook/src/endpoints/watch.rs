//! The endpoints file and the secret files it names, looked at again while the service runs.
//!
//! Contents are compared, not times or inodes: Kubernetes replaces files by swapping a symlink
//! above them, and editors by a rename. A content counts when it is the same at two looks, so that
//! a file that is just being written is not taken for a shorter one. A bad one keeps the old
//! endpoints and says so, once for each bad content and in a gauge while it lasts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{Endpoints, EndpointsError, Fingerprint};
use crate::measures::{RELOADS, STALE};

/// The endpoints in force. Clones see the same.
#[derive(Clone, Debug)]
pub struct Current(Arc<ArcSwap<Endpoints>>);

impl Current {
    /// Those of now.
    pub fn load(&self) -> arc_swap::Guard<Arc<Endpoints>> {
        self.0.load()
    }

    /// Those of now, to keep.
    pub fn load_full(&self) -> Arc<Endpoints> {
        self.0.load_full()
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
    let (seen, endpoints) = Endpoints::look(path);
    let current = Current(Arc::new(ArcSwap::from_pointee(endpoints?)));
    let follow = follow(path.to_owned(), every, seen, current.clone());
    tokio::spawn(async move { shutdown.run_until_cancelled(follow).await });
    Ok(current)
}

async fn follow(path: PathBuf, every: Duration, mut judged: Fingerprint, current: Current) {
    let mut seen_once = None;
    loop {
        tokio::time::sleep(every).await;
        let path = path.clone();
        let look = tokio::task::spawn_blocking(move || Endpoints::look(&path));
        let Ok((now, endpoints)) = look.await else {
            continue;
        };
        if now == judged {
            seen_once = None;
            continue;
        }
        if seen_once != Some(now) {
            seen_once = Some(now);
            continue;
        }
        judged = now;
        seen_once = None;
        match endpoints {
            Ok(endpoints) => {
                info!(
                    endpoints = endpoints.len(),
                    "The billing endpoints were read again"
                );
                metrics::counter!(RELOADS, "outcome" => "read").increment(1);
                metrics::gauge!(STALE).set(0.0);
                current.0.store(Arc::new(endpoints));
            }
            Err(error) => {
                error!("The billing endpoints stay as they were: {error}");
                metrics::counter!(RELOADS, "outcome" => "refused").increment(1);
                metrics::gauge!(STALE).set(1.0);
            }
        }
    }
}
