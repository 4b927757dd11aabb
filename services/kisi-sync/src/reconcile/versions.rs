//! The first part of a pass: what membership-events knows that we have not heard.

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::integration::v1::StepFailure;

use super::Pass;
use crate::store::members;

/// How long newer versions may take to arrive after they were asked for.
const VERSIONS_WITHIN: Duration = Duration::from_secs(15);

impl Pass {
    /// A lost message is found here: newer versions are asked for, and a short answer removes
    /// nobody.
    pub(super) async fn compare_versions(&mut self) {
        let theirs = match self.shared.directory.list_versions(&self.gym).await {
            Ok(theirs) => theirs,
            Err(status) => {
                self.note_directory(&status);
                return;
            }
        };
        let behind = |held: Vec<(String, i64)>| -> Vec<String> {
            let held: BTreeMap<String, i64> = held.into_iter().collect();
            theirs
                .iter()
                .filter(|(member, version)| held.get(*member) < Some(version))
                .map(|(member, _)| member.clone())
                .collect()
        };
        let deadline = tokio::time::Instant::now() + VERSIONS_WITHIN;
        let mut asked = false;
        loop {
            let Ok(held) = members::versions(&self.shared.db, &self.gym).await else {
                return;
            };
            let missing = behind(held);
            if missing.is_empty() {
                return;
            }
            if !asked {
                asked = true;
                if let Err(status) = self.shared.directory.republish(&self.gym, &missing).await {
                    self.note_directory(&status);
                    return;
                }
            }
            if tokio::time::Instant::now() > deadline {
                tracing::warn!(gym.id = %self.gym, members = missing.len(),
                    "Newer versions of members did not arrive in time");
                self.whole = false;
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) fn note_directory(&mut self, status: &tonic::Status) {
        tracing::warn!(gym.id = %self.gym, grpc.code = ?status.code(),
            "Versions cannot be compared with membership-events");
        self.whole = false;
        self.report.failures.push(StepFailure {
            step: "compare_versions".to_owned(),
            failure: "membership-events did not answer".to_owned(),
            ..StepFailure::default()
        });
    }
}
