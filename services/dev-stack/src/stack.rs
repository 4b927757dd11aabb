//! What is started, in which order, and how it ends.
//!
//! nats-server, then Kisi's stand-in, then the services; each is ready before the next starts, but
//! for the services, which wait for each other by themselves. Stopping goes the other way, so that
//! what is on its way arrives.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;

use crate::child::{Child, Program};
use crate::control::StopSignals;
use crate::folder::Folder;
use crate::identity::Issuer;
use crate::ports::Ports;
use crate::roster::Roster;
use crate::settings::Settings;
use crate::{programs, seed, set_up, stack_file};

/// The services' names, in the order they start.
pub const SERVICES: [&str; 4] = [
    "membership-events",
    "kisi-sync",
    "access-gateway",
    "billing-webhook",
];
/// How long everything together may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How soon a dead process is noticed.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// Addresses of one replica of a service.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub health: SocketAddr,
}

/// A running stack.
pub struct Stack {
    pub folder: Folder,
    pub issuer: Issuer,
    /// By service, one for each replica.
    pub addresses: BTreeMap<&'static str, Vec<Addresses>>,
    pub nats: SocketAddr,
    pub kisi_url: String,
    /// The simulator's control side; `None` with another Kisi.
    pub simulator: Option<String>,
    pub stripe_secret: String,
    pub standard_secret: String,
    pub kisi_key: String,
    pub demo: Roster,
    pub small: Roster,
    /// What the set-up found at Kisi.
    pub kisi: set_up::KisiIds,
    pub http: reqwest::Client,
    /// nats-server's monitoring port.
    pub monitor: SocketAddr,
    programs: Vec<Program>,
    children: Vec<Child>,
}

impl Stack {
    /// Starts every process and waits until all say they are ready.
    pub async fn start(
        folder: Folder,
        settings: &Settings,
        stop: &mut StopSignals,
    ) -> anyhow::Result<Self> {
        let mut stack = Self::lay_out(folder, settings)?;
        let started = tokio::select! {
            started = stack.start_children() => started,
            () = stop.wait() => Err(anyhow::anyhow!("stopped while starting")),
        };
        if let Err(error) = started {
            stack.stop().await;
            return Err(error);
        }
        Ok(stack)
    }

    fn lay_out(folder: Folder, settings: &Settings) -> anyhow::Result<Self> {
        let mut ports = Ports::new(!settings.free_ports);
        let nats = ports.take(4222)?;
        let monitor = ports.take(8222)?;
        let simulator = match settings.kisi_base_url {
            Some(_) => None,
            None => Some(ports.take(8090)?),
        };
        let mut addresses = BTreeMap::new();
        // Usual ports of (HTTP, gRPC, health).
        let usual = [
            ("membership-events", (0, 8082, 9082)),
            ("kisi-sync", (0, 8083, 9083)),
            ("access-gateway", (8080, 8084, 9080)),
            ("billing-webhook", (8081, 0, 9081)),
        ];
        for (service, (http, grpc, health)) in usual {
            let replicas = (0..settings.replicas_of(service))
                .map(|_| {
                    Ok(Addresses {
                        http: ports.take(http)?,
                        grpc: ports.take(grpc)?,
                        health: ports.take(health)?,
                    })
                })
                .collect::<anyhow::Result<Vec<_>>>()?;
            addresses.insert(service, replicas);
        }
        let stripe_secret = folder.keep("stripe.secret", || format!("whsec_{}", random_hex(24)))?;
        let standard_secret = folder.keep("standard.secret", || {
            format!(
                "whsec_{}",
                BASE64_STANDARD.encode(rand::random::<[u8; 32]>())
            )
        })?;
        folder.keep("sealing.keys", || {
            format!(
                "dev-1:{}",
                BASE64_STANDARD.encode(rand::random::<[u8; 32]>())
            )
        })?;
        let kisi_key = match &settings.kisi_api_key {
            Some(key) => key.clone(),
            None if settings.kisi_base_url.is_some() => {
                bail!("KISI_BASE_URL is set and KISI_API_KEY is not: set it to a key of that Kisi")
            }
            None => folder.keep("kisi.key", || random_hex(16))?,
        };
        folder.write(
            "billing-endpoints.yaml",
            &programs::billing_endpoints(&stripe_secret, &standard_secret),
        )?;
        folder.write("nats.conf", &programs::nats_conf(&folder, nats, monitor))?;
        let kisi_url = match (&settings.kisi_base_url, simulator) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(address)) => format!("http://{address}"),
            (None, None) => bail!("no Kisi"),
        };
        let mut stack = Self {
            issuer: Issuer::open(&folder, Timestamp::now())?,
            folder,
            addresses,
            nats,
            simulator: simulator.map(|address| format!("http://{address}")),
            kisi_url,
            stripe_secret,
            standard_secret,
            kisi_key,
            demo: Roster::demo(),
            small: Roster::small(),
            kisi: set_up::KisiIds::default(),
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(30))
                .build()
                .context("HTTP client")?,
            monitor,
            programs: Vec::new(),
            children: Vec::new(),
        };
        stack.programs = programs::all(&stack, settings, simulator)?;
        Ok(stack)
    }

    async fn start_children(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        for program in std::mem::take(&mut self.programs) {
            let name = program.name.clone();
            self.children.push(Child::start(program)?);
            // What the services need is ready before they start.
            match name.as_str() {
                "nats-server" => {
                    self.wait_until_ready(format!("http://{}/healthz", self.monitor), deadline)
                        .await?;
                }
                "kisi-simulator" => {
                    let control = format!("{}/_simulator/state", self.kisi_url);
                    self.wait_until_ready(control, deadline).await?;
                }
                _ => {}
            }
        }
        for url in self.health_urls() {
            self.wait_until_ready(format!("{url}/readyz"), deadline)
                .await?;
        }
        Ok(())
    }

    /// Puts the demo gym in, and, with the simulator, sets its integration up.
    pub async fn prepare(&mut self) -> anyhow::Result<()> {
        seed::memberships(self).await?;
        set_up::integrations(self).await
    }

    /// Watches the processes until a stop signal, and starts again what dies.
    pub async fn supervise(&mut self, stop: &mut StopSignals) -> anyhow::Result<()> {
        let mut watch = tokio::time::interval(WATCH_EVERY);
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.wait() => return Ok(()),
                _ = watch.tick() => self.start_dead_again()?,
            }
        }
    }

    /// One look at every process.
    pub fn start_dead_again(&mut self) -> anyhow::Result<()> {
        let mut changed = false;
        for child in &mut self.children {
            if child.has_ended() {
                eprintln!(
                    "{} ended and is started again; see {}",
                    child.program.name,
                    child.program.log.display()
                );
                child.start_again()?;
                changed = true;
            }
        }
        if changed {
            self.write_stack_file()
        } else {
            Ok(())
        }
    }

    /// Stops everything, last started first, and waits until nothing runs.
    pub async fn stop(&mut self) {
        let _ = std::fs::remove_file(self.folder.path("stack.json"));
        // The services drain side by side; what they lean on stays until they are done.
        let (services, bases): (Vec<_>, Vec<_>) = self
            .children
            .iter_mut()
            .partition(|child| is_service(&child.program.name));
        futures_util::future::join_all(services.into_iter().map(Child::stop)).await;
        for child in bases.into_iter().rev() {
            child.stop().await;
        }
        self.children.clear();
    }

    /// Kills everything outright, as a power cut would.
    pub async fn kill(&mut self) {
        for child in &mut self.children {
            child.kill().await;
        }
        self.children.clear();
    }

    /// A process by its name in `stack.json`.
    pub fn child(&mut self, name: &str) -> anyhow::Result<&mut Child> {
        self.children
            .iter_mut()
            .find(|child| child.program.name == name)
            .with_context(|| format!("no process {name}"))
    }

    /// Process ids by name.
    pub fn pids(&self) -> BTreeMap<String, u32> {
        self.children
            .iter()
            .filter_map(|child| Some((child.program.name.clone(), child.id()?)))
            .collect()
    }

    /// Addresses of the first replica of `service`.
    pub fn first(&self, service: &str) -> anyhow::Result<&Addresses> {
        self.addresses
            .get(service)
            .and_then(|replicas| replicas.first())
            .with_context(|| format!("no service {service}"))
    }

    /// Writes `stack.json`: what scripts read.
    pub fn write_stack_file(&self) -> anyhow::Result<()> {
        self.folder
            .write("stack.json", &stack_file::render(self, Timestamp::now())?)
    }

    fn health_urls(&self) -> Vec<String> {
        let of = |replica: &Addresses| format!("http://{}", replica.health);
        self.addresses.values().flatten().map(of).collect()
    }

    /// Asks `url` until it answers 2xx.
    ///
    /// # Errors
    /// At the deadline, or when a process ended meanwhile, with the end of its log.
    async fn wait_until_ready(&mut self, url: String, deadline: Instant) -> anyhow::Result<()> {
        let mut last = "no answer".to_owned();
        loop {
            for child in &mut self.children {
                if child.has_ended() {
                    bail!(
                        "{} ended while starting:\n{}",
                        child.program.name,
                        tail(&child.program.log)
                    );
                }
            }
            match self
                .http
                .get(&url)
                .timeout(Duration::from_secs(2))
                .send()
                .await
            {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => {
                    last = format!(
                        "{} {}",
                        answer.status(),
                        answer.text().await.unwrap_or_default().trim()
                    );
                }
                Err(error) if !error.is_connect() => last = error.to_string(),
                Err(_) => {}
            }
            if Instant::now() > deadline {
                bail!("{url} is not ready after {READY_WITHIN:?}: {last}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn is_service(name: &str) -> bool {
    SERVICES.iter().any(|service| name.starts_with(service))
}

fn tail(log: &std::path::Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// `bytes` random bytes as lower-case hex.
fn random_hex(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes * 2);
    for _ in 0..bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{:02x}", rand::random::<u8>());
    }
    text
}
