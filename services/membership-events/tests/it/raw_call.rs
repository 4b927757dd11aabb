//! A streaming call frame by frame, so that it can be cut where a client's library would end it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{Reason, SendStream};
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// How a call ends before its end.
pub enum Cut {
    /// The stream is reset, as a client does that cancels.
    Reset(Reason),
    /// The whole connection is gone.
    Connection,
}

/// A call of which no answer is read.
pub struct RawCall {
    requests: SendStream<Bytes>,
    connection: JoinHandle<()>,
    _response: ResponseFuture,
}

impl RawCall {
    /// Calls an RPC of `MembershipService`.
    pub async fn open(address: SocketAddr, rpc: &str, token: &str) -> Self {
        let socket = TcpStream::connect(address).await.expect("a connection");
        let (client, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
        let connection = tokio::spawn(async move {
            // It ends with an error where the test cuts it.
            let _ = connection.await;
        });
        let mut client = client.ready().await.expect("ready");
        let request = http::Request::post(format!(
            "http://{address}/gymflow.membership.v1.MembershipService/{rpc}"
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(())
        .expect("a request");
        let (response, requests) = client.send_request(request, false).expect("sent");
        Self {
            requests,
            connection,
            _response: response,
        }
    }

    /// Sends one message.
    pub fn send(&mut self, message: &impl Message) {
        let body = message.encode_to_vec();
        let mut frame = BytesMut::with_capacity(body.len() + 5);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(body.len()).expect("a small message"));
        frame.put_slice(&body);
        self.requests
            .send_data(frame.freeze(), false)
            .expect("sent");
    }

    /// Ends the call between two messages.
    pub async fn cut(mut self, cut: Cut) {
        match cut {
            Cut::Reset(reason) => {
                self.requests.send_reset(reason);
                // The connection's task sends it, and ends when its client is dropped.
                drop((self.requests, self._response));
                let ended = tokio::time::timeout(Duration::from_secs(10), self.connection).await;
                ended.expect("it was sent").expect("no panic");
            }
            Cut::Connection => self.connection.abort(),
        }
    }
}
