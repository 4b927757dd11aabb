//! A power cut: what was acked in groups is on the disk, and not only in the kernel's memory.
//!
//! The store is on an ext4 image of its own. In the middle of a storm the server is killed and the
//! image copied as it is: what nobody flushed is not in the copy. The same with the server's
//! default of a flush every two minutes must lose something, or this proves nothing.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use event_bus::topology::{self, BILLING};
use event_bus::{Bus, GroupPublisher, NatsSettings};
use serde_json::json;
use tempfile::TempDir;
use testkit::{eventually, free_port};

use crate::{DEADLINE, envelope};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acked_in_groups_survives_a_power_cut() {
    let Some((acked, kept)) = cut_the_power("always").await else {
        return;
    };
    assert!(acked > 1_000);
    assert_eq!(kept, acked);
    let (acked, kept) = cut_the_power("2m").await.expect("as before");
    assert!(kept < acked, "the control lost none of {acked}");
}

/// (how many were acked, how many of these are on the disk); `None` where nothing can be mounted.
async fn cut_the_power(sync_interval: &str) -> Option<(usize, usize)> {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(folder.path(), "disk") else {
        eprintln!(
            "SKIPPED: no power cut was tried, because no image can be mounted here; it takes root, \
             mkfs.ext4 and a loop device"
        );
        return None;
    };
    let mut nats = Nats::start(&folder, "disk", sync_interval);
    let bus = nats.connect().await;
    topology::declare(bus.jetstream(), 1).await.unwrap();
    run("sync", &[]);
    let publisher = GroupPublisher::new(bus.publisher().with_time_limit(Duration::from_secs(2)));
    let count = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..64)
        .map(|sender| tokio::spawn(storm(publisher.clone(), sender, Arc::clone(&count))))
        .collect();
    eventually("the storm is on", 3 * DEADLINE, async || {
        count.load(Ordering::Relaxed) > 1_000
    })
    .await;
    nats.kill();
    let copy = disk.copy(folder.path(), "copy");
    drop(disk);
    let mut acked = Vec::new();
    for sender in senders {
        acked.extend(sender.await.unwrap());
    }
    let _copy = copy.expect("a copy of the image");
    let mut nats = Nats::start(&folder, "copy", "always");
    let bus = nats.connect().await;
    let (mut kept, mut in_batches) = (0, 0);
    // Without its flushes not even the stream may be there.
    if let Ok(stream) = bus.jetstream().get_stream(BILLING).await {
        for (id, sequence) in &acked {
            if let Ok(message) = stream.get_raw_message(*sequence).await {
                let found = message.headers.get("ce-id").map(|id| id.to_string());
                kept += usize::from(found.as_ref() == Some(id));
                in_batches += usize::from(message.headers.get("Nats-Batch-Id").is_some());
            }
        }
    }
    nats.kill();
    eprintln!(
        "sync_interval {sync_interval}: {} acked, {kept} kept, {in_batches} of them in batches",
        acked.len()
    );
    assert!(kept < 1_000 || in_batches > 0);
    Some((acked.len(), kept))
}

/// Publishes until the server is gone; what was acked, with its sequence.
async fn storm(
    publisher: GroupPublisher,
    sender: usize,
    count: Arc<AtomicUsize>,
) -> Vec<(String, u64)> {
    let mut acked = Vec::new();
    for n in 0.. {
        let id = format!("evt_{sender}_{n}");
        let subject = "billing.v1.stripe.acct_a.payment_failed";
        let body = json!({ "text": "x".repeat(700) });
        match publisher.publish(subject, &envelope(&id), &body).await {
            Ok(ack) => acked.push((id, ack.sequence)),
            Err(_) => break,
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    acked
}

/// An ext4 image, mounted. Dropping it unmounts it.
struct Disk {
    image: std::path::PathBuf,
    mount: std::path::PathBuf,
}

impl Disk {
    fn mount(folder: &Path, name: &str) -> Option<Self> {
        let image = folder.join(format!("{name}.img"));
        if !image.exists() {
            let size = 512 * 1024 * 1024;
            std::fs::File::create(&image)
                .and_then(|file| file.set_len(size))
                .ok()?;
            tried("mkfs.ext4", &["-qF", image.to_str()?])?;
        }
        let mount = folder.join(name);
        std::fs::create_dir(&mount).ok()?;
        let (from, to) = (image.to_str()?, mount.to_str()?);
        // The journal commits by itself after five seconds, which would spoil the control.
        tried("mount", &["-o", "loop,commit=300", from, to])?;
        Some(Self { image, mount })
    }

    /// The image as it is on the disk now, mounted beside this one.
    fn copy(&self, folder: &Path, name: &str) -> Option<Self> {
        let copy = folder.join(format!("{name}.img"));
        tried(
            "cp",
            &["--sparse=always", self.image.to_str()?, copy.to_str()?],
        )?;
        Self::mount(folder, name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
    }
}

fn tried(program: &str, arguments: &[&str]) -> Option<()> {
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.ok().filter(|status| status.success()).map(drop)
}

fn run(program: &str, arguments: &[&str]) {
    assert!(tried(program, arguments).is_some(), "{program}");
}

/// A server with its store in a folder that outlives it. Killed when dropped.
struct Nats {
    child: Child,
    port: u16,
}

impl Nats {
    fn start(folder: &TempDir, disk: &str, sync_interval: &str) -> Self {
        let port = free_port();
        let store = folder.path().join(disk).join("store");
        let config = folder.path().join(format!("{disk}.conf"));
        let text = format!(
            "listen: 127.0.0.1:{port}\njetstream {{ store_dir: \"{}\", sync_interval: {sync_interval}, max_file_store: 300M }}\n",
            store.display()
        );
        std::fs::write(&config, text).unwrap();
        let program = std::env::var_os("NATS_SERVER_BIN").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/nats/bin/nats-server"),
            Into::into,
        );
        let child = Command::new(program)
            .arg("-c")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, port }
    }

    async fn connect(&mut self) -> Bus {
        let settings = NatsSettings::for_testing(&format!("nats://127.0.0.1:{}", self.port), "");
        let bus = Bus::connect(&settings, "test").await.unwrap();
        eventually("JetStream answers", 3 * DEADLINE, async || {
            bus.check().await.is_ok()
        })
        .await;
        bus
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}
