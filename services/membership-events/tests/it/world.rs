//! A running service with its own NATS server, database and keys, and the words tests use.

mod steps;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use contracts::billing::v1::BillingEvent;
use contracts::membership::v1 as wire;
use contracts::membership::v1::membership_service_client::MembershipServiceClient;
use contracts::message::BusMessage;
use contracts::wire as convert;
use event_bus::{Bus, Envelope, NatsSettings};
use jiff::Timestamp;
use membership_events::cause::CauseOf;
use membership_events::config::Config;
use membership_events::decide::{self, Decision, Whom};
use membership_events::error::Error;
use membership_events::store::{self, Store};
use membership_events::{RunError, Service};
use service_runtime::clock::{Clock, ManualClock};
use service_runtime::identity::IdentitySettings;
use testkit::{NatsServer, TestDatabase, TokenIssuer, eventually_some};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::proxy::Proxy;

pub const GYM: &str = "iron";
pub const ACCOUNT: &str = "acct_iron";
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Runs a test once on SQLite and once on PostgreSQL.
macro_rules! on_both {
    ($(async fn $name:ident($world:ident: World) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn story($world: &mut World) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                let mut world = World::on_sqlite().await;
                story(&mut world).await;
                world.finish().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                let mut world = World::on_postgres().await;
                story(&mut world).await;
                world.finish().await;
            }
        }
    )*};
}
pub(crate) use on_both;

enum TheDatabase {
    Sqlite(tempfile::TempDir),
    Postgres(TestDatabase),
}

impl TheDatabase {
    fn url(&self) -> String {
        match self {
            Self::Sqlite(folder) => {
                format!("sqlite://{}", folder.path().join("tables.db").display())
            }
            Self::Postgres(database) => database.url().to_owned(),
        }
    }
}

/// One running replica.
struct Replica {
    address: SocketAddr,
    running: Running,
}

enum Running {
    /// In this process, under the test's clock.
    Task(CancellationToken, JoinHandle<Result<(), RunError>>),
    /// The real program, under the machine's clock.
    Process(Child),
}

impl Replica {
    async fn stop(self) {
        match self.running {
            Running::Task(shutdown, task) => {
                shutdown.cancel();
                let ended = tokio::time::timeout(DEADLINE, task).await;
                ended
                    .expect("the service ends soon after it is told to")
                    .expect("no panic")
                    .expect("the service ends well");
            }
            Running::Process(mut child) => {
                let id = i32::try_from(child.id().expect("a process id")).expect("an id");
                let pid = nix::unistd::Pid::from_raw(id);
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a signal");
                let ended = tokio::time::timeout(DEADLINE, child.wait()).await;
                let status = ended.expect("the program ends soon").expect("a status");
                assert!(status.success(), "{status}");
            }
        }
    }
}

pub type Client = MembershipServiceClient<InterceptedService<Channel, Bearer>>;

#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Everything one test has.
pub struct World {
    pub nats: NatsServer,
    pub clock: ManualClock,
    pub tokens: TokenIssuer,
    pub bus: Bus,
    database: TheDatabase,
    replicas: Vec<Replica>,
    source_version: i64,
}

impl World {
    pub async fn on_sqlite() -> Self {
        Self::start(TheDatabase::Sqlite(tempfile::tempdir().expect("a folder"))).await
    }

    pub async fn on_postgres() -> Self {
        let database = TestDatabase::create().await.expect("a database");
        Self::start(TheDatabase::Postgres(database)).await
    }

    /// On the file `tables.db` in `folder`.
    pub async fn on_sqlite_in(folder: tempfile::TempDir) -> Self {
        Self::start(TheDatabase::Sqlite(folder)).await
    }

    /// On a database that the test has filled, or whose server it may stop.
    pub async fn on_database(database: TestDatabase) -> Self {
        Self::start(TheDatabase::Postgres(database)).await
    }

    async fn start(database: TheDatabase) -> Self {
        let nats = NatsServer::start().await.expect("nats-server");
        let settings = nats_settings(&nats);
        let bus = Bus::start(&settings, "test", &CancellationToken::new())
            .await
            .expect("a bus");
        let mut world = Self {
            nats,
            clock: ManualClock::at("2026-03-10T12:00:00Z".parse().expect("an instant")),
            tokens: TokenIssuer::new().expect("keys"),
            bus,
            database,
            replicas: Vec::new(),
            source_version: 0,
        };
        world.start_replica().await;
        world
    }

    pub fn config(&self) -> Config {
        let identity = IdentitySettings {
            jwt_jwks: self.tokens.jwks_path().display().to_string(),
            jwt_issuer: self.tokens.issuer().to_owned(),
            jwt_audience: self.tokens.audience().to_owned(),
        };
        Config::for_testing(nats_settings(&self.nats), &self.database.url(), identity)
    }

    pub fn is_postgres(&self) -> bool {
        matches!(self.database, TheDatabase::Postgres(_))
    }

    pub async fn start_replica(&mut self) {
        self.start_replica_with(self.config()).await;
    }

    /// One whose way to NATS is its own.
    pub async fn start_replica_through(&mut self, proxy: &Proxy) {
        let mut config = self.config();
        config.nats.nats_url = format!("nats://{}", proxy.address());
        self.start_replica_with(config).await;
    }

    /// One whose way to the database is its own. PostgreSQL alone.
    pub async fn start_replica_before(&mut self, proxy: &Proxy) {
        let mut config = self.config();
        let server = self.database_server();
        let through = proxy.address().to_string();
        config.database.database_url = config.database.database_url.replace(&server, &through);
        self.start_replica_with(config).await;
    }

    /// `address:port` of PostgreSQL.
    pub fn database_server(&self) -> String {
        let url = self.database.url();
        let server = url
            .split('@')
            .nth(1)
            .and_then(|rest| rest.split('/').next());
        server.expect("an address").to_owned()
    }

    async fn start_replica_with(&mut self, config: Config) {
        let shutdown = CancellationToken::new();
        let service = Service::start(config, Arc::new(self.clock.clone()), shutdown.clone())
            .await
            .expect("the service starts");
        let address = service.grpc_addr();
        self.replicas.push(Replica {
            address,
            running: Running::Task(shutdown, tokio::spawn(service.serve())),
        });
    }

    /// Starts the real program.
    pub async fn start_process(&mut self) {
        let address = SocketAddr::from(([127, 0, 0, 1], testkit::free_port()));
        let program = self.program(env!("CARGO_BIN_EXE_membership-events"), address);
        self.start_program(program, address);
    }

    /// A program that is to serve at `address`, with all its settings.
    pub fn program(&self, program: impl AsRef<OsStr>, address: SocketAddr) -> Command {
        let config = self.config();
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("GRPC_ADDR", address.to_string())
            .env("HEALTH_ADDR", format!("127.0.0.1:{}", testkit::free_port()))
            .env("NATS_URL", &config.nats.nats_url)
            .env("NATS_MONITOR_URLS", config.nats.nats_monitor_urls.join(","))
            .env("DATABASE_URL", &config.database.database_url)
            .env("JWT_JWKS", &config.identity.jwt_jwks)
            .env("JWT_ISSUER", &config.identity.jwt_issuer)
            .env("JWT_AUDIENCE", &config.identity.jwt_audience)
            .env("RUST_LOG", "warn")
            .kill_on_drop(true);
        command
    }

    /// Starts what [`Self::program`] made.
    pub fn start_program(&mut self, mut program: Command, address: SocketAddr) {
        let child = program.spawn().expect("the program starts");
        self.replicas.push(Replica {
            address,
            running: Running::Process(child),
        });
    }

    /// Kills the replica started last, a real program, as `kill -9` does.
    pub async fn kill_process(&mut self) {
        let address = self.address();
        self.kill(address).await;
    }

    /// As [`Self::kill_process`], the one at `address`.
    pub async fn kill(&mut self, address: SocketAddr) {
        let at = self
            .replicas
            .iter()
            .position(|replica| replica.address == address);
        let replica = self.replicas.remove(at.expect("a replica"));
        let Running::Process(mut child) = replica.running else {
            panic!("only a program can be killed");
        };
        child.kill().await.expect("killed");
    }

    /// Stops all replicas in order.
    pub async fn stop_all(&mut self) {
        for replica in self.replicas.drain(..) {
            replica.stop().await;
        }
    }

    /// Stops everything in order and looks that nothing was left in the outbox, and that everybody
    /// is as the tables say.
    pub async fn finish(mut self) {
        self.stop_all().await;
        let store = self.store().await;
        let backlog = store::outbox::backlog(store.reads(), i64::MAX)
            .await
            .expect("a count");
        assert_eq!(backlog.depth, 0, "messages were left in the outbox");
        self.check_everybody(&store).await;
    }

    /// Asserts that what was published last about everybody is what the tables come to. Nothing
    /// may be under way.
    pub async fn check_everybody(&self, store: &Store) {
        for decision in self.decide_again(store).await {
            let member = &decision.member;
            assert!(decision.change.is_none(), "{member} is held otherwise");
            let published = self.published(member.as_str()).await.expect("a state");
            assert_eq!(published.version, decision.held, "{member}");
        }
    }

    /// Whether the tables come to something else about somebody than what is held.
    pub async fn is_anybody_held_otherwise(&self, store: &Store) -> bool {
        let decisions = self.decide_again(store).await;
        decisions.iter().any(|decision| decision.change.is_some())
    }

    /// What the tables come to now, about everybody.
    async fn decide_again(&self, store: &Store) -> Vec<Decision> {
        let gym = GYM.parse().expect("an id");
        let ids = store::members::list_ids(store.reads(), &gym, "", 1_000).await;
        let ids = ids.expect("ids").into_iter().map(|key| key.0).collect();
        let again = store.begin().await.expect("a transaction");
        let whom = Whom::Members(&ids);
        let causes = CauseOf::Timer.into();
        let decisions = decide::decide(&again, &gym, whom, || self.clock.now(), &causes);
        let decisions = match decisions.await {
            Err(Error::Unknown(_)) => Vec::new(),
            decisions => decisions.expect("decisions"),
        };
        again.rollback().await.expect("undone");
        decisions
    }

    /// A look at the tables.
    pub async fn store(&self) -> Store {
        Store::open(&self.config().database)
            .await
            .expect("the tables")
    }

    /// A client with this token of the replica started last.
    pub fn client_with(&self, token: &str) -> Client {
        self.clients_with(token).pop().expect("a replica")
    }

    /// A client of each replica.
    pub fn clients_with(&self, token: &str) -> Vec<Client> {
        let connect = |replica: &Replica| {
            let channel = Endpoint::from_shared(format!("http://{}", replica.address))
                .expect("an address")
                .connect_lazy();
            let bearer = format!("Bearer {token}").parse().expect("a header");
            MembershipServiceClient::with_interceptor(channel, Bearer(bearer))
        };
        self.replicas.iter().map(connect).collect()
    }

    /// Where the replica started last serves gRPC.
    pub fn address(&self) -> SocketAddr {
        self.replicas.last().expect("a replica").address
    }

    /// A client of role service.
    pub fn client(&self) -> Client {
        self.client_with(&self.tokens.service("dev-stack"))
    }

    /// The next source version.
    pub fn next(&mut self) -> i64 {
        self.source_version += 1;
        self.source_version
    }
}

fn nats_settings(nats: &NatsServer) -> NatsSettings {
    NatsSettings::for_testing(&nats.url(), &nats.monitor_url())
}

fn rand_id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

/// An event of `sub_ms` in the gym's own account.
pub fn event(id: &str, kind: &str, at: &str) -> BillingEvent {
    BillingEvent {
        event_id: id.into(),
        provider: "stripe".into(),
        account: ACCOUNT.into(),
        kind: kind.into(),
        occurred_at: Some(convert::timestamp(at.parse().expect("an instant"))),
        subscription_id: Some("sub_ms".into()),
        ..BillingEvent::default()
    }
}

/// An event about an invoice of 4,000 pence.
pub fn invoice(id: &str, kind: &str, invoice: &str, at: &str) -> BillingEvent {
    BillingEvent {
        invoice_id: Some(invoice.into()),
        amount_minor: Some(4_000),
        amount_due_minor: Some(4_000),
        currency: Some("GBP".into()),
        ..event(id, kind, at)
    }
}

/// The fields that an answer's details name.
pub fn faults(status: &Status) -> Vec<String> {
    use tonic_types::StatusExt;
    status
        .get_details_bad_request()
        .map(|bad| bad.field_violations)
        .unwrap_or_default()
        .into_iter()
        .map(|violation| violation.field)
        .collect()
}
