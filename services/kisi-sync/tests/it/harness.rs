//! A gym with everything around it real: nats-server, the database, Kisi over HTTP, gRPC with
//! tokens. Only membership-events is the test's own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use contracts::access::v1::AccessApplied;
use contracts::integration::v1 as api;
use contracts::kisi::v1::kisi_sync_service_client::KisiSyncServiceClient;
use event_bus::{Bus, NatsSettings};
use futures_util::{Stream, StreamExt};
use kisi_client::{ConnectionSettings, KisiConnection};
use kisi_simulator::settings::{LimiterModel, Settings};
use kisi_sync::config::Config;
use kisi_sync::ownership::Leases;
use kisi_sync::reconcile::AskedFor;
use kisi_sync::schedule::Passes;
use kisi_sync::sealing::Sealer;
use kisi_sync::shared::{Pacers, Shared};
use kisi_sync::worker::Workers;
use sea_orm::ConnectionTrait;
use service_runtime::clock::{Clock, SystemClock};
use service_runtime::grpc::service_channel;
use service_runtime::identity::ServiceToken;
use service_runtime::settings;
use testkit::{NatsServer, TestDatabase, TokenIssuer, eventually_some};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::kisi::{GROUP, Kisi, OTHER_GROUP, PLACE};
use crate::membership_events::Directory;

mod replica;

pub use replica::{Process, Running, set};

pub const GYM: &str = "iron";
pub const PLAN: &str = "open-gym";
pub const OTHER_PLAN: &str = "classes";
/// Long enough for a loaded machine; a test that waits this long fails.
pub const SOON: Duration = Duration::from_secs(20);

/// Which database a test runs on.
#[derive(Debug, Clone, Copy)]
pub enum On {
    Sqlite,
    Postgres,
}

/// What stands around the service.
pub struct Stage {
    pub nats: NatsServer,
    pub kisi: Kisi,
    pub directory: Directory,
    pub bus: Bus,
    issuer: TokenIssuer,
    token_file: PathBuf,
    directory_url: String,
    database_url: String,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// With a Kisi that has no limit, so that tests of other things are quick.
    pub async fn set(on: On) -> Self {
        let settings = Settings {
            limiter: LimiterModel::Off,
            ..Settings::default()
        };
        Self::set_with(on, settings).await
    }

    pub async fn set_with(on: On, settings: Settings) -> Self {
        let _ = service_runtime::telemetry::start(
            "kisi-sync-test",
            &service_runtime::telemetry::TelemetrySettings {
                rust_log: std::env::var("TEST_LOG").unwrap_or_else(|_| "off".to_owned()),
                ..service_runtime::telemetry::TelemetrySettings::for_testing()
            },
        );
        let folder = tempfile::tempdir().unwrap();
        let nats = NatsServer::start().await.unwrap();
        let database_url = match on {
            On::Sqlite => format!("sqlite://{}", folder.path().join("kisi.db").display()),
            On::Postgres => TestDatabase::create().await.unwrap().url().to_owned(),
        };
        let issuer = TokenIssuer::new().unwrap();
        let token_file = issuer.service_token_file("kisi-sync").unwrap();
        let bus = NatsSettings::for_testing(&nats.url(), &nats.monitor_url());
        let shutdown = CancellationToken::new();
        let bus = Bus::start(&bus, "test", &shutdown).await.unwrap();
        let directory = Directory::new(bus.publisher());
        let directory_url = format!("http://{}", directory.serve().await);
        Self {
            nats,
            kisi: Kisi::start(settings).await,
            directory,
            bus,
            issuer,
            token_file,
            directory_url,
            database_url,
            _folder: folder,
        }
    }

    /// Where the tables are.
    pub fn database_url(&self) -> String {
        self.database_url.clone()
    }

    /// What stands in the tables, as a file.
    pub async fn back_up(&self) -> PathBuf {
        let backup = self.database_file().with_extension("backup");
        let url = secrecy::SecretString::from(self.database_url());
        let db = kisi_sync::store::connect(&url).await.unwrap();
        let sql = format!("vacuum into '{}'", backup.display());
        db.execute_unprepared(&sql).await.unwrap();
        db.close().await.unwrap();
        backup
    }

    /// The tables as they were. The service is stopped.
    pub fn restore(&self, backup: &Path) {
        let file = self.database_file();
        for extension in ["db", "db-wal", "db-shm"] {
            let _ = std::fs::remove_file(file.with_extension(extension));
        }
        std::fs::copy(backup, file).unwrap();
    }

    fn database_file(&self) -> PathBuf {
        let path = self.database_url.strip_prefix("sqlite://");
        PathBuf::from(path.expect("a test on SQLite"))
    }

    /// The usual flags, these besides, on a gRPC port.
    fn arguments(&self, grpc: u16, more: &[(&str, &str)]) -> Vec<String> {
        let mut flags: Vec<(String, String)> = [
            ("nats-url", self.nats.url()),
            ("nats-monitor-urls", self.nats.monitor_url()),
            ("database-url", self.database_url.clone()),
            ("grpc-addr", format!("127.0.0.1:{grpc}")),
            ("health-addr", "127.0.0.1:0".to_owned()),
            ("membership-events-url", self.directory_url.clone()),
            ("service-token-file", self.token_file.display().to_string()),
            (
                "sealing-keys",
                "k1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=".to_owned(),
            ),
            ("kisi-base-url", self.kisi.url()),
            ("kisi-requests-per-second", "200".to_owned()),
            ("kisi-request-timeout", "1s".to_owned()),
            ("reconcile-every", "1h".to_owned()),
            ("jwt-jwks", self.issuer.jwks_path().display().to_string()),
            ("jwt-issuer", self.issuer.issuer().to_owned()),
            ("jwt-audience", self.issuer.audience().to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        for (name, value) in more {
            flags.retain(|(known, _)| known != name);
            flags.push(((*name).to_owned(), (*value).to_owned()));
        }
        let mut arguments = vec!["kisi-sync".to_owned()];
        for (name, value) in flags {
            arguments.push(format!("--{name}"));
            arguments.push(value);
        }
        arguments
    }

    /// A replica in this process.
    pub async fn start(&self) -> Running {
        self.start_with(&[]).await
    }

    /// The same with these flags.
    pub async fn start_with(&self, more: &[(&str, &str)]) -> Running {
        let grpc = testkit::free_port();
        let config: Config = settings::read(self.arguments(grpc, more)).unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(kisi_sync::run(config, shutdown.clone()));
        self.served(grpc, shutdown, task).await
    }

    /// The same by another clock than the machine's.
    pub async fn start_at(&self, clock: Arc<dyn Clock>, more: &[(&str, &str)]) -> Running {
        let grpc = testkit::free_port();
        let config: Config = settings::read(self.arguments(grpc, more)).unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(kisi_sync::run_at(config, clock, shutdown.clone()));
        self.served(grpc, shutdown, task).await
    }

    /// What the parts of a replica share, and nothing that runs: a test moves them one by one.
    pub async fn parts(&self) -> Arc<Shared> {
        let config: Config = settings::read(self.arguments(0, &[])).unwrap();
        let channel = |url: &str| {
            let token = ServiceToken::from_file(&self.token_file).unwrap();
            service_channel("TEST", url, SOON, token).unwrap()
        };
        let connection = ConnectionSettings {
            request_timeout: SOON,
            ..ConnectionSettings::new(
                self.kisi.url().parse().unwrap(),
                &config.kisi.kisi_integration_name,
                &config.kisi.kisi_integration_contact,
            )
        };
        let db = kisi_sync::store::open(&config.database_url).await.unwrap();
        let (id, ttl) = ("test".to_owned(), 4 * SOON);
        Arc::new(Shared {
            leases: Leases::new(db.clone(), id, String::new(), ttl),
            db,
            bus: self.bus.clone(),
            clock: Arc::new(SystemClock),
            sealer: Sealer::parse(&config.sealing_keys).unwrap(),
            kisi: KisiConnection::new(connection).unwrap(),
            pacers: Pacers::new(config.kisi.kisi_requests_per_second),
            directory: kisi_sync::directory::Directory::new(channel(&self.directory_url)),
            workers: Workers::default(),
            passes: Passes::new(),
            readings: Passes::new(),
            asked_for: AskedFor::default(),
            outbox: tokio::sync::Notify::new(),
            limits: kisi_sync::brake::limits(&config.brake),
            reconcile_every: config.reconcile_every,
            events_url: None,
            request_timeout: SOON,
            outage_shows_after: config.kisi.kisi_outage_shows_after,
        })
    }

    /// A replica as a process of its own, to be killed.
    pub async fn spawn(&self, more: &[(&str, &str)]) -> Process {
        let log = std::env::var("TEST_LOG").unwrap_or_else(|_| "off".to_owned());
        self.spawn_logging(&log, Stdio::inherit(), more).await
    }

    /// The same that logs so much, to there.
    pub async fn spawn_logging(
        &self,
        log: &str,
        to: impl Into<Stdio>,
        more: &[(&str, &str)],
    ) -> Process {
        let grpc = testkit::free_port();
        let arguments = self.arguments(grpc, more);
        let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_kisi-sync"))
            .args(&arguments[1..])
            .env("RUST_LOG", log)
            .stderr(to)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let task = tokio::spawn(std::future::pending());
        let running = self.served(grpc, CancellationToken::new(), task).await;
        Process { running, child }
    }

    async fn served(
        &self,
        grpc: u16,
        shutdown: CancellationToken,
        task: JoinHandle<Result<(), kisi_sync::error::RunError>>,
    ) -> Running {
        let token = ServiceToken::from_file(&self.token_file).unwrap();
        let url = format!("http://127.0.0.1:{grpc}");
        let channel = service_channel("TEST", &url, Duration::from_secs(30), token).unwrap();
        let mut running = Running {
            client: KisiSyncServiceClient::new(channel),
            shutdown,
            task,
        };
        let mut client = running.client.clone();
        eventually_some("kisi-sync serves", SOON, async || {
            let request = api::GymRequest {
                gym_id: GYM.to_owned(),
            };
            client.get_integration(request).await.ok()
        })
        .await;
        assert!(
            !running.task.is_finished(),
            "kisi-sync ended: {:?}",
            (&mut running.task).await
        );
        running
    }

    /// Waits until every published state was read and acknowledged.
    pub async fn consumed(&self) {
        self.consumed_within(SOON).await;
    }

    /// The same where a process died that had fetched some: they come again when its time is over.
    pub async fn consumed_within(&self, within: Duration) {
        testkit::eventually("everything is consumed", within, async || {
            let stream = self.bus.jetstream().get_stream("MEMBERSHIP").await.unwrap();
            let info = stream.consumer_info("kisi-sync").await.unwrap();
            info.num_pending == 0 && info.num_ack_pending == 0
        })
        .await;
    }

    /// Enables the integration and maps both plans, up to the first sync.
    pub async fn set_up(&self, replica: &mut Running) {
        replica.enable(&self.kisi.api_key()).await.unwrap();
        let place = api::SelectPlaceRequest {
            gym_id: GYM.to_owned(),
            place_id: PLACE,
        };
        replica.client.select_place(place).await.unwrap();
        replica
            .associate(&[(PLAN, GROUP), (OTHER_PLAN, OTHER_GROUP)])
            .await
            .unwrap();
    }

    /// Members `m1` to `m{n}` with the first plan, set up and in sync; the request log is empty.
    pub async fn in_sync(&self, replica: &mut Running, n: i64) {
        for i in 1..=n {
            let member = format!("m{i}");
            self.directory.decide(GYM, &member, 1, &[PLAN]).await;
        }
        self.set_up(replica).await;
        let sync = replica.sync().await;
        assert_eq!(sync.state, "done", "{sync:?}");
        assert!(sync.in_sync);
        for i in 1..=n {
            self.answer(&format!("m{i}"), |answer| answer.outcome == "granted")
                .await;
        }
        self.kisi.forget_requests().await;
    }

    /// What is told of the member from now on.
    pub async fn answers(&self, member: &str) -> impl Stream<Item = AccessApplied> + Unpin {
        let client = self.bus.jetstream().client();
        let subject = contracts::subjects::access(GYM, member);
        let answers = client.subscribe(subject).await.unwrap();
        client.flush().await.unwrap();
        answers.map(|answer| serde_json::from_slice(&answer.payload).unwrap())
    }

    /// The member's newest answer on the bus, once it is as wanted.
    pub async fn answer(
        &self,
        member: &str,
        wanted: impl Fn(&AccessApplied) -> bool,
    ) -> AccessApplied {
        self.answer_within(SOON, member, wanted).await
    }

    pub async fn answer_within(
        &self,
        deadline: Duration,
        member: &str,
        wanted: impl Fn(&AccessApplied) -> bool,
    ) -> AccessApplied {
        let subject = contracts::subjects::access(GYM, member);
        let mut last = None;
        let found = tokio::time::timeout(deadline, async {
            loop {
                let stream = self.bus.jetstream().get_stream("ACCESS").await.unwrap();
                if let Ok(message) = stream.get_last_raw_message_by_subject(&subject).await {
                    let answer: AccessApplied = serde_json::from_slice(&message.payload).unwrap();
                    if wanted(&answer) {
                        return answer;
                    }
                    last = Some(answer);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("no such answer for {member}; the last is {last:?}"))
    }
}
