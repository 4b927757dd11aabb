//! The part of the stack that doors need: nats-server, membership-events, the simulator and
//! kisi-sync, which can be started again with other settings.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use contracts::integration::v1 as integration;
use contracts::kisi::v1::kisi_sync_service_client::KisiSyncServiceClient;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use super::membership_servers::{Database, MembershipServers};
use super::webhook_servers::{program, wait_until_ready};
use crate::child::Child;
use crate::folder::Folder;
use crate::identity::{AUDIENCE, ISSUER};
use crate::ports::Ports;
use crate::programs;
use crate::seed::{self, Bearer};
use crate::settings::Settings;
use crate::simulated_kisi::Control;

/// As fast as both sides can, for what is prepared and not measured.
const UNPACED: f64 = 5_000.0;
/// What a gym's plans are called, up to a number.
const PLAN: &str = "plan";

/// A client of kisi-sync that presents a service's token.
pub type Client = KisiSyncServiceClient<InterceptedService<Channel, Bearer>>;

/// The running processes.
pub struct KisiServers {
    pub memberships: MembershipServers,
    pub http: reqwest::Client,
    simulator: Child,
    simulator_url: String,
    service: Child,
    grpc: SocketAddr,
    ready: String,
}

/// A pass that has ended, as kisi-sync's table has it.
#[derive(Debug, Clone)]
pub struct Pass {
    pub state: String,
    /// Microseconds since 1970.
    pub started_at: i64,
    pub ended_at: i64,
}

impl Pass {
    /// How long it took, in seconds.
    pub fn seconds(&self) -> f64 {
        (self.ended_at - self.started_at) as f64 / 1e6
    }
}

impl KisiServers {
    /// Starts them on `folder`, which is fresh, with a Kisi without a limit.
    pub async fn start(folder: Folder, settings: &Settings) -> anyhow::Result<Self> {
        let memberships = MembershipServers::start(folder, settings, Database::Sqlite).await?;
        let folder = &memberships.folder;
        let bin = programs::folder_of_binaries(settings)?;
        let mut ports = Ports::new(false);
        let (kisi, grpc, health) = (ports.take(0)?, ports.take(0)?, ports.take(0)?);
        drop(ports);
        let mut simulator = program(folder, "kisi-simulator", bin.join("kisi-simulator"));
        simulator.arguments = ["--limiter", "off", "--addr", &kisi.to_string()]
            .map(str::to_owned)
            .into();
        let simulator = Child::start(simulator)?;
        let simulator_url = format!("http://{kisi}");
        wait_until_ready(&format!("{simulator_url}/_simulator/clock")).await?;

        let (nats, monitor) = memberships.nats_address;
        let path = |name: &str| folder.path(name).display().to_string();
        let mut service = program(folder, "kisi-sync", bin.join("kisi-sync"));
        service.environment = [
            ("GRPC_ADDR", grpc.to_string()),
            ("HEALTH_ADDR", health.to_string()),
            ("NATS_URL", format!("nats://{nats}")),
            ("NATS_MONITOR_URLS", format!("http://{monitor}")),
            (
                "DATABASE_URL",
                format!("sqlite://{}?mode=rwc", path(TABLES)),
            ),
            (
                "MEMBERSHIP_EVENTS_URL",
                format!("http://{}", memberships.grpc),
            ),
            ("SERVICE_TOKEN_FILE", path("service.token")),
            ("JWT_JWKS", path("jwks.json")),
            ("JWT_ISSUER", ISSUER.to_owned()),
            ("JWT_AUDIENCE", AUDIENCE.to_owned()),
            ("SEALING_KEYS", SEALING_KEYS.to_owned()),
            ("KISI_BASE_URL", simulator_url.clone()),
            ("KISI_REQUESTS_PER_SECOND", UNPACED.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let ready = format!("http://{health}/readyz");
        let service = Child::start(service)?;
        wait_until_ready(&ready)
            .await
            .with_context(|| path("logs"))?;
        Ok(Self {
            memberships,
            http: reqwest::Client::builder().no_proxy().build()?,
            simulator,
            simulator_url,
            service,
            grpc,
            ready,
        })
    }

    /// Starts kisi-sync again at this rate, with a pass of every gym as often as this.
    pub async fn start_again(&mut self, rate: f64, every: Duration) -> anyhow::Result<()> {
        self.service.stop().await;
        let every = format!("{}s", every.as_secs());
        let environment = &mut self.service.program.environment;
        environment.insert("KISI_REQUESTS_PER_SECOND".into(), rate.to_string());
        environment.insert("RECONCILE_EVERY".into(), every);
        let limits = json!({ "limiter": "fixed_window", "rate": rate.ceil() as u32 });
        self.control()
            .call(Method::PUT, "/settings", Some(limits))
            .await?;
        self.service.start_again()?;
        wait_until_ready(&self.ready).await
    }

    /// The simulator's control side.
    pub fn control(&self) -> Control<'_> {
        Control::at(&self.http, &self.simulator_url)
    }

    /// kisi-sync's process id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.service.id().context("kisi-sync has ended")
    }

    /// A connection to kisi-sync.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let token = self.memberships.issuer.service(Timestamp::now())?;
        let channel = seed::channel(self.grpc, &token)
            .await
            .context("connecting to kisi-sync")?;
        Ok(KisiSyncServiceClient::new(channel))
    }

    /// Sets a gym up as staff would, with as many plans as the place has groups, up to its first
    /// sync.
    pub async fn connect(&self, gym: &str, key: &str) -> anyhow::Result<()> {
        let mut client = self.client().await?;
        let enable = integration::EnableIntegrationRequest {
            gym_id: gym.into(),
            api_key: key.into(),
        };
        client.enable_integration(enable).await?;
        let of_gym = || integration::GymRequest { gym_id: gym.into() };
        let places = client.list_places(of_gym()).await?.into_inner().places;
        let place = places.first().context("no place at Kisi")?;
        let select = integration::SelectPlaceRequest {
            gym_id: gym.into(),
            place_id: place.place_id,
        };
        client.select_place(select).await?;
        let groups = client.list_groups(of_gym()).await?.into_inner().groups;
        let associations = groups.iter().enumerate();
        let associations = associations
            .map(|(n, group)| integration::Association {
                plan_id: plan(n),
                group_id: group.group_id,
            })
            .collect();
        let set = integration::SetAssociationsRequest {
            gym_id: gym.into(),
            associations,
            digest: None,
        };
        client.set_associations(set).await?;
        Ok(())
    }

    /// Waits until kisi-sync has taken every state there is.
    pub async fn until_consumed(&self, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        let stream = self.memberships.bus.jetstream();
        let stream = stream.get_stream("MEMBERSHIP").await?;
        loop {
            let info = stream.consumer_info("kisi-sync").await?;
            if info.num_pending == 0 && info.num_ack_pending == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{} states are not taken", info.num_pending);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Kisi's ids of the rights that are ours, in the order they were given.
    pub async fn assignments(&self) -> anyhow::Result<Vec<i64>> {
        let mut tables = self.tables().await?;
        let ours = "select assignment_id from applied_grants
            where assignment_id is not null order by id";
        let ours = sqlx::query_scalar(ours).fetch_all(&mut tables).await?;
        tables.close().await?;
        Ok(ours)
    }

    async fn tables(&self) -> anyhow::Result<SqliteConnection> {
        let path = self.memberships.folder.path(TABLES);
        let url = format!("sqlite://{}", path.display());
        Ok(SqliteConnection::connect(&url).await?)
    }

    /// A pass on demand, to its end.
    pub async fn sync(&self, gym: &str, within: Duration) -> anyhow::Result<()> {
        let mut client = self.client().await?;
        let start = integration::StartSyncRequest {
            gym_id: gym.into(),
            digest: None,
        };
        let started = client.start_sync(start).await?.into_inner();
        let deadline = Instant::now() + within;
        loop {
            let ask = integration::GetSyncRequest {
                gym_id: gym.into(),
                sync_id: started.sync_id.clone(),
            };
            let sync = client.get_sync(ask).await?.into_inner();
            match sync.state.as_str() {
                "queued" | "running" if Instant::now() < deadline => {}
                "done" => return Ok(()),
                _ => bail!("the sync of {gym} within {within:?}: {sync:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The scheduled passes that began at `due` or later and have ended.
    pub async fn passes_since(&self, due: Timestamp) -> anyhow::Result<Vec<Pass>> {
        let mut tables = self.tables().await?;
        let ended = "select state, started_at, ended_at from syncs
            where activation = 'schedule' and created_at >= ? and ended_at is not null";
        let passes: Vec<(String, i64, i64)> = sqlx::query_as(ended)
            .bind(due.as_microsecond())
            .fetch_all(&mut tables)
            .await?;
        tables.close().await?;
        let passes = passes.into_iter();
        Ok(passes
            .map(|(state, started_at, ended_at)| Pass {
                state,
                started_at,
                ended_at,
            })
            .collect())
    }

    /// Waits until so many of them have ended well.
    pub async fn until_passed(
        &self,
        due: Timestamp,
        count: usize,
        within: Duration,
    ) -> anyhow::Result<Vec<Pass>> {
        let deadline = Instant::now() + within;
        loop {
            let passes = self.passes_since(due).await?;
            if passes.len() >= count {
                let failed = passes.iter().find(|pass| pass.state != "done");
                ensure!(failed.is_none(), "a pass did not end well: {failed:?}");
                return Ok(passes);
            }
            if Instant::now() > deadline {
                bail!("{} of {count} passes ended within {within:?}", passes.len());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Each request that Kisi got after `seq`, as its log has it.
    pub async fn requests(&self, seq: u64) -> anyhow::Result<Vec<Value>> {
        self.control().requests(seq).await
    }

    /// Stops them, last started first.
    pub async fn stop(&mut self) {
        self.service.stop().await;
        self.simulator.stop().await;
        self.memberships.stop().await;
    }
}

const TABLES: &str = "kisi_sync.sqlite";
/// Of nothing that anybody keeps.
const SEALING_KEYS: &str = "bench:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

/// The plan whose group is the n-th of its place.
pub fn plan(n: usize) -> String {
    format!("{PLAN}-{n:02}")
}

/// An organization with one place and so many groups, each with a door of its own.
pub fn organization(gym: &str, key: &str, groups: usize) -> Value {
    let door = |n| format!("Door {n}");
    json!({
        "name": gym,
        "owner": { "name": "Owner", "email": format!("owner@{gym}.example.org"), "api_key": key },
        "places": [{
            "name": gym,
            "locks": (0..groups).map(|n| json!({ "name": door(n) })).collect::<Vec<_>>(),
            "groups": (0..groups)
                .map(|n| json!({ "name": format!("Group {n:02}"), "locks": [door(n)] }))
                .collect::<Vec<_>>(),
        }],
    })
}

/// The first instant after `now` that is a whole number of `every` since the day began, in UTC.
pub fn next_aligned(now: Timestamp, every: Duration) -> anyhow::Result<Timestamp> {
    let every = i64::try_from(every.as_micros())?;
    let next = (now.as_microsecond().div_euclid(every) + 1) * every;
    Ok(Timestamp::from_microsecond(next)?)
}

/// Sleeps until `at`.
pub async fn sleep_until(at: Timestamp) {
    let left = at.duration_since(Timestamp::now());
    if let Ok(left) = Duration::try_from(left) {
        tokio::time::sleep(left).await;
    }
}
