//! Free TCP ports on loopback.
//!
//! Ports are drawn from below the kernel's ephemeral range, because a port from inside it can be
//! taken by any outgoing connection between the moment it is found and the moment it is used.
//! A port is handed out once per process; other processes are kept apart by chance, and starters
//! of servers try again.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

static HANDED_OUT: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A TCP port on 127.0.0.1 that nobody listens on now.
///
/// # Panics
/// When some thousands of ports in a row are taken, which means the machine is broken.
pub fn free_port() -> u16 {
    let mut guard = HANDED_OUT.lock().unwrap_or_else(|e| e.into_inner());
    let handed_out = guard.get_or_insert_with(HashSet::new);
    for _ in 0..5_000 {
        let port = rand::random_range(15_000..32_000);
        if !handed_out.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            handed_out.insert(port);
            return port;
        }
    }
    panic!("no free port between 15000 and 32000");
}
