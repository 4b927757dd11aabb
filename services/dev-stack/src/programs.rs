//! The programs and the environment each is given.
//!
//! Only what ties them together is set here (addresses, keys, folders); every other setting of the
//! caller's environment passes through and wins its default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;

use crate::child::Program;
use crate::folder::Folder;
use crate::identity::{AUDIENCE, ISSUER};
use crate::roster::{ACCOUNT, DESK_ACCOUNT, OTHER_ACCOUNT};
use crate::settings::Settings;
use crate::stack::{Addresses, SERVICES, Stack};

/// The simulator takes more than Kisi would, so that a first sync takes seconds.
const SIMULATOR_RATE: &str = "50";
/// What Kisi allows.
const KISI_RATE: &str = "5";

/// Every program, in the order they start.
pub fn all(
    stack: &Stack,
    settings: &Settings,
    simulator: Option<SocketAddr>,
) -> anyhow::Result<Vec<Program>> {
    let bin = folder_of_binaries(settings)?;
    let rate = settings
        .kisi_requests_per_second
        .clone()
        .unwrap_or_else(|| {
            if simulator.is_some() {
                SIMULATOR_RATE
            } else {
                KISI_RATE
            }
            .to_owned()
        });
    let path = |name: &str| stack.folder.path(name).display().to_string();
    let program = |name: &str, binary: PathBuf, arguments: Vec<String>| Program {
        log: stack.folder.path("logs").join(format!("{name}.log")),
        name: name.to_owned(),
        binary,
        arguments,
        environment: BTreeMap::new(),
    };

    let mut all = vec![program(
        "nats-server",
        settings.nats_server.clone(),
        vec!["--config".into(), path("nats.conf")],
    )];
    if let Some(address) = simulator {
        let arguments = [
            "--addr",
            &address.to_string(),
            "--state",
            &path("kisi.json"),
            "--rate",
            &rate,
        ];
        let arguments = arguments.into_iter().map(str::to_owned).collect();
        all.push(program(
            "kisi-simulator",
            bin.join("kisi-simulator"),
            arguments,
        ));
    }
    for service in SERVICES {
        let replicas = stack.addresses.get(service).map_or(&[][..], Vec::as_slice);
        for (index, addresses) in replicas.iter().enumerate() {
            let name = match index {
                0 => service.to_owned(),
                other => format!("{service}-{}", other + 1),
            };
            let mut program = program(&name, bin.join(service), Vec::new());
            program.environment = environment(stack, settings, service, addresses, &rate)?;
            all.push(program);
        }
    }
    Ok(all)
}

/// Where the services' programs are.
pub fn folder_of_binaries(settings: &Settings) -> anyhow::Result<PathBuf> {
    match &settings.bin_dir {
        Some(folder) => Ok(folder.clone()),
        None => std::env::current_exe()
            .ok()
            .and_then(|path| path.parent().map(PathBuf::from))
            .context("the folder of the services' programs: set BIN_DIR"),
    }
}

fn environment(
    stack: &Stack,
    settings: &Settings,
    service: &str,
    addresses: &Addresses,
    rate: &str,
) -> anyhow::Result<BTreeMap<String, String>> {
    let path = |name: &str| stack.folder.path(name).display().to_string();
    let url = |service: &str| anyhow::Ok(format!("http://{}", stack.first(service)?.grpc));
    let database = |given: &Option<String>, name: &str| match given {
        Some(url) => url.clone(),
        None => format!("sqlite://{}?mode=rwc", path(&format!("{name}.sqlite"))),
    };
    let mut set = BTreeMap::from([
        ("NATS_URL", format!("nats://{}", stack.nats)),
        ("NATS_MONITOR_URLS", format!("http://{}", stack.monitor)),
        ("HEALTH_ADDR", addresses.health.to_string()),
        ("JWT_JWKS", path("jwks.json")),
        ("JWT_ISSUER", ISSUER.to_owned()),
        ("JWT_AUDIENCE", AUDIENCE.to_owned()),
        ("SERVICE_TOKEN_FILE", path("service.token")),
    ]);
    match service {
        "billing-webhook" => {
            set.insert("HTTP_ADDR", addresses.http.to_string());
            set.insert("BILLING_ENDPOINTS_FILE", path("billing-endpoints.yaml"));
        }
        "membership-events" => {
            set.insert("GRPC_ADDR", addresses.grpc.to_string());
            set.insert(
                "DATABASE_URL",
                database(
                    &settings.membership_events_database_url,
                    "membership_events",
                ),
            );
        }
        "kisi-sync" => {
            set.insert("GRPC_ADDR", addresses.grpc.to_string());
            set.insert("ADVERTISE_ADDR", format!("http://{}", addresses.grpc));
            set.insert(
                "DATABASE_URL",
                database(&settings.kisi_sync_database_url, "kisi_sync"),
            );
            set.insert("MEMBERSHIP_EVENTS_URL", url("membership-events")?);
            let keys = std::fs::read_to_string(stack.folder.path("sealing.keys"))
                .context("DATA_DIR/sealing.keys")?;
            set.insert("SEALING_KEYS", keys.trim().to_owned());
            set.insert("KISI_BASE_URL", stack.kisi_url.clone());
            // Another Kisi cannot reach this machine.
            if stack.simulator.is_some() && std::env::var_os("KISI_EVENTS_URL").is_none() {
                let gateway = stack.first("access-gateway")?.http;
                set.insert("KISI_EVENTS_URL", format!("http://{gateway}"));
            }
            set.insert("KISI_REQUESTS_PER_SECOND", rate.to_owned());
            set.extend(settings.kisi_sync_environment.clone());
        }
        _ => {
            set.insert("HTTP_ADDR", addresses.http.to_string());
            set.insert("GRPC_ADDR", addresses.grpc.to_string());
            set.insert("MEMBERSHIP_EVENTS_URL", url("membership-events")?);
            set.insert("KISI_SYNC_URL", url("kisi-sync")?);
        }
    }
    Ok(set
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}

/// The billing endpoints: Stripe for both gyms, and a sender of Standard Webhooks.
pub fn billing_endpoints(stripe_secret: &str, standard_secret: &str) -> String {
    format!(
        "endpoints:\n\
         - {{ id: main, provider: stripe, account: {ACCOUNT}, accounts: [{ACCOUNT}, {OTHER_ACCOUNT}], \
         livemode: true, secrets: [{stripe_secret}], tolerance_seconds: 300 }}\n\
         - {{ id: desk, provider: standard, account: {DESK_ACCOUNT}, secrets: ['{standard_secret}'], \
         tolerance_seconds: 300 }}\n"
    )
}

/// nats-server as the product needs it: an ack means that the message is on disk.
pub fn nats_conf(folder: &Folder, client: SocketAddr, monitor: SocketAddr) -> String {
    format!(
        "server_name: dev\n\
         listen: \"{client}\"\n\
         http: \"{monitor}\"\n\
         jetstream {{\n  store_dir: \"{}\"\n  sync_interval: always\n  max_file_store: 4G\n}}\n",
        folder.path("nats").display()
    )
}
