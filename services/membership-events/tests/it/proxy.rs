//! A way to a server of one replica's own, which a test can cut while all others have theirs.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Connections stand and carry nothing, as when a router is gone.
    Frozen,
    /// Connections are closed, and so are new ones.
    Closed,
}

/// A port that leads to another.
pub struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let way = watch::Sender::new(Way::Open);
        let ways = way.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (way, target) = (ways.subscribe(), target.clone());
                tokio::spawn(carry(near, target, way));
            }
        });
        Self {
            address,
            way,
            accepting,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn freeze(&self) {
        self.way.send_replace(Way::Frozen);
    }

    pub fn close(&self) {
        self.way.send_replace(Way::Closed);
    }

    /// What was frozen goes on.
    pub fn open(&self) {
        self.way.send_replace(Way::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(near: TcpStream, target: String, way: watch::Receiver<Way>) {
    let mut closed = way.clone();
    let carried = async {
        let far = TcpStream::connect(target).await?;
        let (from_near, to_near) = near.into_split();
        let (from_far, to_far) = far.into_split();
        tokio::try_join!(
            copy(from_near, to_far, way.clone()),
            copy(from_far, to_near, way)
        )
    };
    tokio::select! {
        _ = carried => {}
        _ = closed.wait_for(|way| *way == Way::Closed) => {}
    }
}

async fn copy(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    mut way: watch::Receiver<Way>,
) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut some = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut some).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if way.wait_for(|way| *way == Way::Open).await.is_err() {
            return Ok(());
        }
        to.write_all(&some[..read]).await?;
    }
}
