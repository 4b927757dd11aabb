//! A replica as a test has it: in this process or as one of its own, and what staff ask of it.

use contracts::integration::v1 as api;
use contracts::kisi::v1::kisi_sync_service_client::KisiSyncServiceClient;
use service_runtime::grpc::ServiceChannel;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{GYM, SOON};

/// A replica in this process.
pub struct Running {
    pub client: KisiSyncServiceClient<ServiceChannel>,
    pub(super) shutdown: CancellationToken,
    pub(super) task: JoinHandle<Result<(), kisi_sync::error::RunError>>,
}

/// A replica as a process of its own.
pub struct Process {
    pub running: Running,
    pub(super) child: tokio::process::Child,
}

impl Process {
    /// SIGSTOP: it holds everything and does nothing.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        let sent = std::process::Command::new("kill")
            .args([&format!("-{signal}"), &pid])
            .status();
        assert!(sent.unwrap().success());
    }

    /// SIGTERM, and everything in order after it.
    pub async fn terminate(mut self) {
        self.signal("TERM");
        let ended = tokio::time::timeout(SOON, self.child.wait()).await;
        assert!(ended.unwrap().unwrap().success());
    }

    /// SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

impl Running {
    /// An orderly stop.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    pub async fn enable(&mut self, key: &str) -> Result<api::Integration, tonic::Status> {
        let request = api::EnableIntegrationRequest {
            gym_id: GYM.to_owned(),
            api_key: key.to_owned(),
        };
        let answer = self.client.enable_integration(request).await?;
        Ok(answer.into_inner())
    }

    pub async fn associate(
        &mut self,
        associations: &[(&str, i64)],
    ) -> Result<api::Integration, tonic::Status> {
        let request = api::SetAssociationsRequest {
            gym_id: GYM.to_owned(),
            associations: set(associations),
            digest: None,
        };
        let answer = self.client.set_associations(request).await?;
        Ok(answer.into_inner())
    }

    /// The plans that wait for a person; showing them seals them.
    pub async fn held_plans(&mut self) -> Vec<api::HeldPlan> {
        let request = api::GymRequest {
            gym_id: GYM.to_owned(),
        };
        let plans = self.client.list_held_plans(request).await.unwrap();
        plans.into_inner().held_plans
    }

    /// The one plan that waits for a person, once there is one.
    pub async fn plan_held(&mut self) -> api::HeldPlan {
        let mut plans = Vec::new();
        testkit::eventually("a plan is held", SOON, async || {
            plans = self.held_plans().await;
            !plans.is_empty()
        })
        .await;
        assert_eq!(plans.len(), 1, "{plans:?}");
        plans.remove(0)
    }

    pub async fn approve(
        &mut self,
        id: &str,
        digest: &str,
    ) -> Result<api::HeldPlan, tonic::Status> {
        let request = api::DecidePlanRequest {
            gym_id: GYM.to_owned(),
            id: id.to_owned(),
            digest: digest.to_owned(),
        };
        Ok(self.client.approve_plan(request).await?.into_inner())
    }

    pub async fn integration(&mut self) -> api::Integration {
        let request = api::GymRequest {
            gym_id: GYM.to_owned(),
        };
        let answer = self.client.get_integration(request).await.unwrap();
        answer.into_inner()
    }

    /// Starts a sync and waits for its end.
    pub async fn sync(&mut self) -> api::Sync {
        let request = api::StartSyncRequest {
            gym_id: GYM.to_owned(),
            digest: None,
        };
        let sync = self.client.start_sync(request).await.unwrap().into_inner();
        self.ended(&sync.sync_id).await
    }

    /// What a sync would do with these associations, or with those that are held.
    pub async fn preview(&mut self, associations: Option<&[(&str, i64)]>) -> api::Preview {
        let request = api::PreviewSyncRequest {
            gym_id: GYM.to_owned(),
            associations: associations.map(|associations| api::AssociationSet {
                associations: set(associations),
            }),
        };
        self.client
            .preview_sync(request)
            .await
            .unwrap()
            .into_inner()
    }

    pub async fn ended(&mut self, sync_id: &str) -> api::Sync {
        let request = api::GetSyncRequest {
            gym_id: GYM.to_owned(),
            sync_id: sync_id.to_owned(),
        };
        let mut states = self.client.watch_sync(request).await.unwrap().into_inner();
        let mut last = None;
        while let Some(state) = states.message().await.unwrap() {
            last = Some(state);
        }
        last.unwrap()
    }
}

pub fn set(associations: &[(&str, i64)]) -> Vec<api::Association> {
    associations
        .iter()
        .map(|(plan, group)| api::Association {
            plan_id: (*plan).to_owned(),
            group_id: *group,
        })
        .collect()
}
