//! The service as its neighbours meet it: over gRPC and the bus, on both databases, with a real
//! NATS server.

mod billing;
mod concurrency;
mod concurrency_limits;
mod decisions;
mod erasure;
mod erasure_of_payers;
mod explain;
mod faults;
mod faults_cut_off;
mod faults_outbox;
mod faults_random;
mod health;
mod history;
mod interleavings;
mod large_gym;
mod linking;
mod midnight;
mod migrations;
mod proxy;
mod random;
mod raw_call;
mod requests;
mod resume_requests;
mod roster;
mod rule_changes;
mod steered;
mod stories;
mod timers;
mod together;
mod together_writes;
mod watch;
mod workload;
mod world;
mod writes;
