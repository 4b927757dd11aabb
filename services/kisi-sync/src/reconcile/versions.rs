//! The first part of a pass: what membership-events knows that we have not heard.

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::integration::v1::StepFailure;

use super::Pass;
use crate::store::members;

/// How long newer versions may take to arrive after they were asked for.
const VERSIONS_WITHIN: Duration = Duration::from_secs(15);
/// So many members are asked for by name.
const FEW: usize = 500;

/// What came of it.
pub(super) enum Versions {
    /// All that were decided are held.
    Known,
    /// Some did not arrive in time.
    Behind,
}

impl Pass {
    /// A lost message is found here: newer versions are asked for, and a short answer removes
    /// nobody.
    pub(super) async fn compare_versions(&self) -> Result<Versions, tonic::Status> {
        let theirs = self.shared.directory.list_versions(&self.gym).await?;
        let deadline = tokio::time::Instant::now() + VERSIONS_WITHIN;
        let mut asked = false;
        let mut missing: Vec<String> = theirs.keys().cloned().collect();
        loop {
            let (db, gym) = (&self.shared.db, &self.gym);
            // One that is lost is not worth reading all others again and again.
            let held = match missing.len() > FEW {
                true => members::versions(db, gym).await,
                false => members::versions_of(db, gym, &missing).await,
            };
            let Ok(held) = held else {
                return Ok(Versions::Behind);
            };
            let held: BTreeMap<String, i64> = held.into_iter().collect();
            missing.retain(|member| held.get(member) < theirs.get(member));
            if missing.is_empty() {
                return match members::believe(&self.shared.db, &self.gym, &theirs).await {
                    Ok(()) => Ok(Versions::Known),
                    Err(_) => Ok(Versions::Behind),
                };
            }
            if !asked {
                asked = true;
                self.shared.directory.republish(&self.gym, &missing).await?;
            }
            if tokio::time::Instant::now() > deadline {
                tracing::warn!(gym.id = %self.gym, members = missing.len(),
                    "Newer versions of members did not arrive in time");
                return Ok(Versions::Behind);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A pass that did not hear everything is not whole.
    pub(super) fn note_versions(&mut self, versions: Result<Versions, tonic::Status>) {
        match versions {
            Ok(Versions::Known) => {}
            Ok(Versions::Behind) => (self.whole, self.heard) = (false, false),
            Err(status) => self.note_directory(&status),
        }
    }

    pub(super) fn note_directory(&mut self, status: &tonic::Status) {
        tracing::warn!(gym.id = %self.gym, grpc.code = ?status.code(),
            "Versions cannot be compared with membership-events");
        (self.whole, self.heard) = (false, false);
        self.report.failures.push(StepFailure {
            step: "compare_versions".to_owned(),
            failure: "membership-events did not answer".to_owned(),
            ..StepFailure::default()
        });
    }
}
