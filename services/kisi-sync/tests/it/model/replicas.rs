//! The replicas of a story: one process on SQLite, two on PostgreSQL, killed, stopped, frozen and
//! started again.

use std::time::Duration;

use contracts::integration::v1 as api;
use contracts::kisi::v1::kisi_sync_service_client::KisiSyncServiceClient;
use rand::Rng;
use rand::rngs::StdRng;
use service_runtime::grpc::ServiceChannel;

use super::truth::{Micros, now};
use crate::harness::{GYM, On, Process, Stage};

const FLAGS: [(&str, &str); 5] = [
    ("lease-ttl", "3s"),
    ("lease-renew-every", "1s"),
    // The brake has its own tests; here nobody is held.
    ("brake-unexplained-min", "100000"),
    ("brake-explained-min", "100000"),
    ("brake-grants-min", "100000"),
];
/// What a dead replica held of the bus comes again after five seconds, and its lease ends before
/// that.
const TAKEN_OVER: Micros = 7_000_000;
/// A frozen one is thawed when its lease has long passed.
const PAST_THE_LEASE: Duration = Duration::from_secs(4);

/// All of them; None is one that does not run.
pub struct Replicas {
    all: Vec<Option<Process>>,
}

impl Replicas {
    pub async fn start(stage: &Stage, on: On) -> Self {
        let count = match on {
            On::Sqlite => 1,
            On::Postgres => 2,
        };
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(Some(stage.spawn(&FLAGS).await));
        }
        Self { all }
    }

    /// The first that is up; its client.
    pub fn client(&self) -> Option<KisiSyncServiceClient<ServiceChannel>> {
        let up = self.all.iter().flatten().next();
        up.map(|process| process.running.client.clone())
    }

    pub fn first(&mut self) -> Option<&mut Process> {
        self.all.iter_mut().flatten().next()
    }

    /// Does something to one of them; answers what, and for how long nobody may have worked.
    pub async fn strike(
        &mut self,
        stage: &Stage,
        dice: &mut StdRng,
    ) -> (&'static str, (Micros, Micros)) {
        let begun = now();
        let alone = self.all.len() == 1;
        let index = dice.random_range(0..self.all.len());
        let replica = self.all[index].take();
        let what = match (replica, dice.random_range(0..10)) {
            (None, _) => {
                self.all[index] = Some(stage.spawn(&FLAGS).await);
                "started"
            }
            (Some(process), 0..=1) if !alone => {
                process.freeze();
                tokio::time::sleep(PAST_THE_LEASE).await;
                process.thaw();
                self.all[index] = Some(process);
                "frozen past its lease"
            }
            (Some(process), 2..=4) => {
                process.terminate().await;
                "stopped"
            }
            (Some(process), _) => {
                process.kill().await;
                "killed"
            }
        };
        if alone {
            self.all_up(stage).await;
        }
        (what, (begun, now() + TAKEN_OVER))
    }

    pub async fn all_up(&mut self, stage: &Stage) {
        for replica in &mut self.all {
            if replica.is_none() {
                *replica = Some(stage.spawn(&FLAGS).await);
            }
        }
    }

    /// The mapping that is in force, if anybody can be asked.
    pub async fn mapping(&self) -> Option<Vec<api::Association>> {
        let request = api::GymRequest {
            gym_id: GYM.to_owned(),
        };
        let shown = self.client()?.get_integration(request).await.ok()?;
        Some(shown.into_inner().associations)
    }

    pub async fn end(self) {
        for process in self.all.into_iter().flatten() {
            process.terminate().await;
        }
    }
}
