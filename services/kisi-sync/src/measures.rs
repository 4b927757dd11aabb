//! What is counted about settling members. Labels come from closed sets.

use metrics::{counter, gauge, histogram};
use service_runtime::metrics as registry;

const SETTLED: &str = "kisi_sync_settled_total";
const PENDING: &str = "kisi_sync_pending_members";
const OLDEST: &str = "kisi_sync_oldest_pending_seconds";
const ON_ITS_WAY: &str = "kisi_sync_received_to_applied_seconds";
const SYNCS: &str = "kisi_sync_reconciles_total";

/// Every metric with its sentence of help, at zero.
pub fn register() {
    registry::register_counter_by(
        SETTLED,
        "Members settled, by outcome.",
        "outcome",
        &[
            "granted",
            "revoked",
            "unchanged",
            "held",
            "failed",
            "erased",
        ],
    );
    registry::register_counter_by(
        SYNCS,
        "Reconcile passes, by how they ended.",
        "state",
        &["done", "done_with_failures", "held", "failed"],
    );
    registry::register_gauge(
        PENDING,
        "Members with work at Kisi that is due and not done, in the gyms worked on here.",
    );
    registry::register_gauge(
        OLDEST,
        "How long the oldest of them has waited; beyond 120 somebody should look.",
    );
    registry::register_histogram(
        ON_ITS_WAY,
        "From the arrival of a cause to Kisi's answer, for events that changed something.",
    );
}

/// One member was settled.
pub fn settled(outcome: &'static str, on_its_way: Option<f64>) {
    counter!(SETTLED, "outcome" => outcome).increment(1);
    if let Some(seconds) = on_its_way {
        histogram!(ON_ITS_WAY).record(seconds);
    }
}

/// One pass has ended.
pub fn reconciled(state: &str) {
    let state = match state {
        "done" => "done",
        "done_with_failures" => "done_with_failures",
        "held" => "held",
        _ => "failed",
    };
    counter!(SYNCS, "state" => state).increment(1);
}

/// What waits, over all gyms worked on here.
pub fn waiting(members: u64, oldest_seconds: f64) {
    gauge!(PENDING).set(members as f64);
    gauge!(OLDEST).set(oldest_seconds);
}
