//! A call frame by frame, so that it can be cut, or go on, where a client's library would end it.

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

/// A call whose answer nobody reads unless asked for.
pub struct RawCall {
    requests: SendStream<Bytes>,
    connection: JoinHandle<()>,
    response: ResponseFuture,
}

impl RawCall {
    /// Calls an RPC of `MembershipService`.
    pub async fn open(address: SocketAddr, rpc: &str, token: &str) -> Self {
        Self::open_for(address, rpc, token, None).await
    }

    /// As [`Self::open`], of a caller who says how long it waits (`200m` is 200 ms), and waits on.
    pub async fn open_for(
        address: SocketAddr,
        rpc: &str,
        token: &str,
        timeout: Option<&str>,
    ) -> Self {
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
        .header("authorization", format!("Bearer {token}"));
        let request = match timeout {
            Some(timeout) => request.header("grpc-timeout", timeout),
            None => request,
        };
        let request = request.body(()).expect("a request");
        let (response, requests) = client.send_request(request, false).expect("sent");
        Self {
            requests,
            connection,
            response,
        }
    }

    /// Sends one message.
    pub fn send(&mut self, message: &impl Message) {
        self.send_frame(message, false);
    }

    /// Sends the only message, and answers the status of the call (`grpc-status`).
    pub async fn status_of(mut self, message: &impl Message) -> String {
        self.send_frame(message, true);
        let response = self.response.await.expect("an answer");
        let said = |headers: &http::HeaderMap| {
            let status = headers.get("grpc-status")?.to_str().ok()?;
            Some(status.to_owned())
        };
        if let Some(status) = said(response.headers()) {
            return status;
        }
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            let data = data.expect("a frame");
            body.flow_control()
                .release_capacity(data.len())
                .expect("released");
        }
        let trailers = body.trailers().await.expect("an end").expect("trailers");
        said(&trailers).expect("a status")
    }

    fn send_frame(&mut self, message: &impl Message, is_last: bool) {
        let body = message.encode_to_vec();
        let mut frame = BytesMut::with_capacity(body.len() + 5);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(body.len()).expect("a small message"));
        frame.put_slice(&body);
        self.requests
            .send_data(frame.freeze(), is_last)
            .expect("sent");
    }

    /// Ends the call between two messages.
    pub async fn cut(mut self, cut: Cut) {
        match cut {
            Cut::Reset(reason) => {
                self.requests.send_reset(reason);
                // The connection's task sends it, and ends when its client is dropped.
                drop((self.requests, self.response));
                let ended = tokio::time::timeout(Duration::from_secs(10), self.connection).await;
                ended.expect("it was sent").expect("no panic");
            }
            Cut::Connection => self.connection.abort(),
        }
    }
}
