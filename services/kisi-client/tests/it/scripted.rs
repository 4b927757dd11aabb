//! Servers that answer as scripted, and a client of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kisi_client::model::{NewGroupAssignment, Window};
use kisi_client::{ConnectionSettings, HttpKisi, KisiConnection, Pacer, PacerSettings};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

/// A client that need not wait long for its pacer.
pub fn client(base_url: &str) -> HttpKisi {
    let mut settings = ConnectionSettings::new(
        base_url.parse().expect("a URL"),
        "gymflow",
        "access@example.com",
    );
    settings.request_timeout = Duration::from_secs(2);
    let connection = KisiConnection::new(settings).expect("a connection");
    let pacer = Pacer::new(PacerSettings {
        requests_per_second: 500.0,
    });
    HttpKisi::new(connection, "s3cret".to_owned().into(), pacer)
}

pub async fn answering(
    verb: &str,
    route: &str,
    answer: ResponseTemplate,
) -> (MockServer, HttpKisi) {
    let server = MockServer::start().await;
    Mock::given(method(verb))
        .and(path(route))
        .respond_with(answer)
        .mount(&server)
        .await;
    let kisi = client(&server.uri());
    (server, kisi)
}

pub async fn requests(server: &MockServer) -> Vec<Request> {
    server.received_requests().await.expect("recorded requests")
}

pub fn grant() -> NewGroupAssignment {
    NewGroupAssignment::basic(45274, 5001, Window::default())
}

/// A server that takes every request and closes the socket in the middle of its answer, until
/// `losses` requests were lost; then it answers a role assignment. Gives how many came.
pub async fn losing_answers(losses: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let came = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&came);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            if socket.read(&mut buffer).await.unwrap_or(0) == 0 {
                continue;
            }
            let lost = counter.fetch_add(1, Ordering::SeqCst) < losses;
            let body = if lost {
                "{".to_owned()
            } else {
                assignment(900_001).to_string()
            };
            let length = if lost { 512 } else { body.len() };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            socket.write_all(answer.as_bytes()).await.ok();
        }
    });
    (format!("http://{address}"), came)
}

pub fn assignment(id: i64) -> Value {
    json!({
        "id": id, "role_id": "group_basic", "a_new_field": {"of": "kisi"}, "notify": null,
        "applies_to_type": "Group", "applies_to_id": 45274,
        "assignee_type": "User", "assignee_id": 5001,
        "created_by_id": 17, "valid_from": null, "valid_until": "2026-04-01T01:00:00.5+01:00",
    })
}
