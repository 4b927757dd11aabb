//! Ports: the usual one where it is free, another where not.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context;

/// Hands out loopback addresses, each once.
pub struct Ports {
    usual: bool,
    // Held until all are chosen, so that no two get the same.
    held: Vec<TcpListener>,
}

impl Ports {
    /// `usual: false` takes free ports only.
    pub fn new(usual: bool) -> Self {
        Self {
            usual,
            held: Vec::new(),
        }
    }

    /// `port` on the loopback address if it is free, else any free one.
    pub fn take(&mut self, port: u16) -> anyhow::Result<SocketAddr> {
        let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = if self.usual {
            bind(port).or_else(|_| bind(0))
        } else {
            bind(0)
        }
        .context("no free port on the loopback address")?;
        let address = listener.local_addr().context("address of a new listener")?;
        self.held.push(listener);
        Ok(address)
    }
}
