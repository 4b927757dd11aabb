//! Real processes that fail on the way to Kisi: replicas of kisi-sync that are killed, stopped and
//! held still while members change, a Kisi that is down, everything killed at once, and a gym whose
//! lists never stand still.
//!
//! What happened is read from the simulator's log of requests and held against what was decided:
//! each write must have been right at its time, and the doors right in the end.
//!
//! At full length, by `make soak`: `KISI_FAULTS_ROUNDS` (1) of kills and stops under the leases that
//! are usual (they are shorter here), an outage of `KISI_OUTAGE_SECONDS` (6), and
//! `KISI_BUSY_PASSES` (3). `KISI_FAULTS_SEED` says what changes when.

mod answers;
mod audit;
mod busy;
mod desk;
mod gyms;
mod ledger;
mod outage;
mod owners;
mod replicas;
mod restart;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: a number")))
}
