//! What the bus counts, under one prefix. Registered at zero before the first event.

pub(crate) const DELIVERIES: &str = "gymflow_bus_deliveries_total";
pub(crate) const HANDLING: &str = "gymflow_bus_handling_seconds";
pub(crate) const RESTARTS: &str = "gymflow_bus_stream_restarts_total";
pub(crate) const PUBLISHES: &str = "gymflow_bus_publishes_total";
pub(crate) const BATCHES: &str = "gymflow_bus_batches_total";
pub(crate) const BATCH_SIZE: &str = "gymflow_bus_batch_messages";

/// How a delivery ended.
pub(crate) const OUTCOMES: [&str; 4] = ["done", "retry", "dead_letter", "stuck"];

/// Registers the metrics that belong to no consumer. [`crate::Bus::start`] calls it.
pub fn register() {
    metrics::describe_counter!(
        DELIVERIES,
        "Deliveries by consumer and outcome; stuck means that the dead letter could not be written and the message will come again"
    );
    metrics::describe_histogram!(
        HANDLING,
        "Time a handler took for one delivery, by consumer"
    );
    metrics::describe_counter!(
        RESTARTS,
        "Times a consumer or projection had to start reading anew, by name"
    );
    metrics::describe_counter!(PUBLISHES, "Publishes by outcome");
    for outcome in ["stored", "duplicate", "failed"] {
        metrics::counter!(PUBLISHES, "outcome" => outcome).increment(0);
    }
    metrics::describe_counter!(
        BATCHES,
        "Batches by outcome; refused and unknown ones are sent again message by message"
    );
    metrics::describe_histogram!(BATCH_SIZE, "Messages in a batch");
    for outcome in ["stored", "refused", "unknown"] {
        metrics::counter!(BATCHES, "outcome" => outcome).increment(0);
    }
}

pub(crate) fn register_consumer(name: &str) {
    for outcome in OUTCOMES {
        metrics::counter!(DELIVERIES, "consumer" => name.to_owned(), "outcome" => outcome)
            .increment(0);
    }
    register_reader(name);
}

pub(crate) fn register_reader(name: &str) {
    metrics::counter!(RESTARTS, "consumer" => name.to_owned()).increment(0);
}
