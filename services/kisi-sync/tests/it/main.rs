//! kisi-sync with a real nats-server, a real database and a stateful Kisi.

mod drift;
mod harness;
mod kisi;
mod membership_events;
mod outages;
mod pace;
mod people;
mod replicas;
mod set_up;
mod settling;
mod windows;
