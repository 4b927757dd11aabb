//! billing-webhook: bodies to events, and the entrance over real HTTP and a real nats-server.

mod endpoints_file;
mod entrance;
mod fixtures;
mod harness;
mod outage;
mod process;
mod silence;
mod strangers;
