//! The whole product as processes: the demo on both databases, kills between webhook and Kisi,
//! restarts on the same data, people forgotten over killed
//! processes, a storm of webhooks over killed processes, power cuts, another Kisi
//! that a script sets up, and everything on the way to Kisi that fails.

#![allow(clippy::disallowed_methods, reason = "the stack runs in real time")]

mod another_kisi;
mod demo;
mod disk;
mod erasure;
mod faults;
mod gocardless_bodies;
mod harness;
mod history;
mod kisi_faults;
mod observed;
mod plot;
mod post;
mod power_cut;
mod processes;
mod reference;
mod sender;
mod storm;
mod stripe_bodies;
mod tables;
mod watch;
