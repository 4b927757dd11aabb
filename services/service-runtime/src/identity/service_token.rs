//! The token a service presents to the others: read from a file and read again when it changes,
//! as mounted secrets do.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use secrecy::{ExposeSecret, SecretString};
use tonic::metadata::{Ascii, MetadataValue};

/// How often the file is looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why there is no token to present.
#[derive(Debug, thiserror::Error)]
pub enum ServiceTokenError {
    /// The file cannot be read.
    #[error("SERVICE_TOKEN_FILE {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The file holds no token.
    #[error("SERVICE_TOKEN_FILE {} holds no token", .0.display())]
    Empty(PathBuf),
}

/// The service's own token. Clones share it.
#[derive(Debug, Clone)]
pub struct ServiceToken(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    token: SecretString,
    modified: Option<SystemTime>,
    looked: Instant,
}

impl ServiceToken {
    /// Reads the file named by `SERVICE_TOKEN_FILE`.
    pub fn from_file(path: &Path) -> Result<Self, ServiceTokenError> {
        let held = Held {
            modified: modified(path),
            token: read(path)?,
            looked: Instant::now(),
        };
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            held: Mutex::new(held),
        })))
    }

    /// The token as it is now; the last good one while the file cannot be read.
    pub fn current(&self) -> SecretString {
        let mut held = self.0.held.lock().unwrap_or_else(|e| e.into_inner());
        if held.looked.elapsed() >= LOOK_EVERY {
            held.looked = Instant::now();
            let found = modified(&self.0.path);
            if found != held.modified {
                match read(&self.0.path) {
                    Ok(token) => {
                        held.token = token;
                        held.modified = found;
                    }
                    Err(error) => tracing::warn!("The old service token is kept: {error}"),
                }
            }
        }
        held.token.clone()
    }

    /// The value of the `authorization` metadata; `None` when the token holds bytes that cannot
    /// be sent.
    pub fn authorization(&self) -> Option<MetadataValue<Ascii>> {
        let text = format!("Bearer {}", self.current().expose_secret());
        let mut value: MetadataValue<Ascii> = text.parse().ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

fn read(path: &Path) -> Result<SecretString, ServiceTokenError> {
    let text = std::fs::read_to_string(path).map_err(|source| ServiceTokenError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    match text.trim() {
        "" => Err(ServiceTokenError::Empty(path.to_owned())),
        token => Ok(SecretString::from(token)),
    }
}
