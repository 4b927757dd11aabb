//! The part of the stack that a webhook waits for: nats-server and billing-webhook, once as it is
//! and once without group commit. Nothing reads what they store.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::child::{Child, Program};
use crate::folder::Folder;
use crate::ports::Ports;
use crate::programs;
use crate::settings::Settings;

const READY_WITHIN: Duration = Duration::from_secs(30);

/// The running processes.
pub struct WebhookServers {
    pub nats: SocketAddr,
    /// billing-webhook as it is.
    pub in_groups: SocketAddr,
    /// With `GROUP_COMMIT=false`.
    pub singly: SocketAddr,
    /// Signs webhooks for either.
    pub secret: String,
    children: Vec<Child>,
}

impl WebhookServers {
    /// Starts them on `folder`, which is fresh, and waits until they are ready.
    pub async fn start(folder: &Folder, settings: &Settings) -> anyhow::Result<Self> {
        let mut ports = Ports::new(false);
        let mut port = || ports.take(0);
        let (nats, monitor) = (port()?, port()?);
        let secret = folder.keep("stripe.secret", || "whsec_bench".into())?;
        folder.write(
            "billing-endpoints.yaml",
            &programs::billing_endpoints(&secret, "whsec_YmVuY2g="),
        )?;
        folder.write("nats.conf", &programs::nats_conf(folder, nats, monitor))?;

        let bin = programs::folder_of_binaries(settings)?;
        let (in_groups, singly) = (port()?, port()?);
        let mut all = vec![(
            program(folder, "nats-server", settings.nats_server.clone()),
            format!("http://{monitor}/healthz"),
        )];
        for (name, group_commit, http) in [
            ("billing-webhook", "true", in_groups),
            ("billing-webhook-singly", "false", singly),
        ] {
            let health = port()?;
            let mut program = program(folder, name, bin.join("billing-webhook"));
            let endpoints = folder.path("billing-endpoints.yaml");
            program.environment = [
                ("HTTP_ADDR", http.to_string()),
                ("HEALTH_ADDR", health.to_string()),
                ("NATS_URL", format!("nats://{nats}")),
                ("NATS_MONITOR_URLS", format!("http://{monitor}")),
                ("BILLING_ENDPOINTS_FILE", endpoints.display().to_string()),
                ("GROUP_COMMIT", group_commit.to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
            all.push((program, format!("http://{health}/readyz")));
        }
        drop(ports);

        let mut servers = Self {
            nats,
            in_groups,
            singly,
            secret,
            children: Vec::new(),
        };
        for (program, ready) in all {
            let log = program.log.clone();
            servers.children.push(Child::start(program)?);
            wait_until_ready(&ready)
                .await
                .with_context(|| format!("see {}", log.display()))?;
        }
        Ok(servers)
    }

    /// Stops them, last started first.
    pub async fn stop(&mut self) {
        for child in self.children.iter_mut().rev() {
            child.stop().await;
        }
        self.children.clear();
    }
}

pub(super) fn program(folder: &Folder, name: &str, binary: PathBuf) -> Program {
    Program {
        log: folder.path("logs").join(format!("{name}.log")),
        name: name.to_owned(),
        binary,
        arguments: match name {
            "nats-server" => vec![
                "--config".into(),
                folder.path("nats.conf").display().to_string(),
            ],
            _ => Vec::new(),
        },
        environment: BTreeMap::new(),
    }
}

pub(super) async fn wait_until_ready(url: &str) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let asked = http.get(url).timeout(Duration::from_secs(2)).send().await;
        if asked.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{url} is not ready after {READY_WITHIN:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
