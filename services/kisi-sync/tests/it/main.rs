//! kisi-sync with a real nats-server, a real database and a stateful Kisi.

// A test reads the clock as people around the service do.
#![allow(clippy::disallowed_methods)]

mod adoptions;
mod audit;
mod brake;
mod brake_days;
mod bursts;
mod by_apps;
mod confirmed;
mod counted;
mod dead_keys;
mod deleted_users;
mod devices;
mod discards;
mod drift;
mod failing;
mod first_sync;
mod harness;
mod held_sets;
mod key_health;
mod kisi;
mod kisi_events;
mod lasting_faults;
mod late_wakes;
mod leases;
mod looks;
mod lost_groups;
mod membership_events;
mod model;
mod one_owner;
mod outages;
mod pace;
mod people;
mod previews;
mod refusals;
mod refused_revokes;
mod refused_steps;
mod repeats;
mod replicas;
mod restored;
mod rights;
mod sealing_keys;
mod secrets;
mod set_up;
mod settling;
mod sign_up;
mod staff;
mod told;
mod two_gyms;
mod undone;
mod unknowns;
mod unmapped;
mod unwritten;
mod urgency;
mod windows;
