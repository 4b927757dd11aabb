//! The listener.

use std::time::Duration;

use service_runtime::http_server;
use tokio::net::TcpStream;

#[tokio::test]
async fn a_burst_of_connections_waits_to_be_accepted_and_none_is_turned_away() {
    let listener = http_server::bind("HTTP_ADDR", ([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let addr = http_server::local_addr(&listener).unwrap();
    // Nobody accepts them yet.
    let mut waiting = Vec::new();
    for _ in 0..400 {
        let connecting = tokio::time::timeout(Duration::from_secs(10), TcpStream::connect(addr));
        waiting.push(connecting.await.expect("room for one more").unwrap());
    }
    for _ in &waiting {
        listener.accept().await.unwrap();
    }
}
