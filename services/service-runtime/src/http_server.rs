//! Serving an axum router: bind first, so that a port clash is a clear error, then serve until
//! shutdown and let open requests finish.

mod guarded;

pub use guarded::{Guards, serve_guarded};

use std::net::SocketAddr;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

/// Connections that may wait to be accepted. With the usual 128 a burst of senders overflows it,
/// and whoever does not fit tries again after a whole second.
const BACKLOG: u32 = 1024;

/// Why a listener does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be bound, most often because another process has it.
    #[error("{setting}={addr} cannot be bound")]
    Bind {
        /// The setting that named the address.
        setting: &'static str,
        /// The address.
        addr: SocketAddr,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The listener broke.
    #[error("the listener failed")]
    Listener(#[source] std::io::Error),
    /// The gRPC side broke.
    #[error("the gRPC server failed")]
    Grpc(#[source] tonic::transport::Error),
    /// The file descriptors for reflection make no sense, which is a bug of ours.
    #[error("gRPC reflection cannot be built")]
    Reflection(#[source] tonic_reflection::server::Error),
}

/// Binds `addr`; `setting` is the variable to name when that fails.
pub async fn bind(setting: &'static str, addr: SocketAddr) -> Result<TcpListener, ServeError> {
    listen(addr).map_err(|source| ServeError::Bind {
        setting,
        addr,
        source,
    })
}

fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // The port of a process that ended just now is free again.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// The bound address, with the port the system chose for port 0.
pub fn local_addr(listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(ServeError::Listener)
}

/// Serves until `shutdown`, then lets open requests finish.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let listener = listener.tap_io(|connection| {
        // Small answers must not wait for more bytes.
        let _ = connection.set_nodelay(true);
    });
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .map_err(ServeError::Listener)
}
