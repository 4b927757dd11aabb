//! billing-webhook: bodies to events, and the entrance over real HTTP and a real nats-server.

mod catchup;
mod catchup_api;
mod catchup_faults;
mod endpoints_file;
mod entrance;
mod fixtures;
#[path = "../../fuzz/src/lib.rs"]
mod fuzz;
mod fuzzed;
mod gocardless;
mod harness;
mod official;
mod outage;
mod process;
mod shapes;
mod silence;
mod standard;
mod strangers;
mod stripe;
