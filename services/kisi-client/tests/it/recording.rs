//! A server in Kisi's place that keeps what went through.
//!
//! It answers with the examples that openapi.yaml prints.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use kisi_client::{ConnectionSettings, HttpKisi, KisiConnection, Pacer, PacerSettings};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::contract::Contract;

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub request_headers: HeaderMap,
    pub request_body: Option<Value>,
    pub status: u16,
    pub answer_headers: HeaderMap,
    pub answer_body: Option<Value>,
}

pub struct Recording {
    pub url: String,
    exchanges: Arc<Mutex<Vec<Exchange>>>,
}

#[derive(Clone)]
struct Recorder {
    contract: Arc<Contract>,
    exchanges: Arc<Mutex<Vec<Exchange>>>,
}

impl Recording {
    pub async fn start() -> Self {
        let exchanges = Arc::default();
        let recorder = Recorder {
            contract: Arc::new(Contract::published()),
            exchanges: Arc::clone(&exchanges),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let app = Router::new().fallback(record).with_state(recorder);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, exchanges }
    }

    pub fn exchanges(&self) -> Vec<Exchange> {
        self.exchanges.lock().expect("exchanges").clone()
    }

    /// A client of it, at this rate.
    pub fn client(&self, secret: &str, requests_per_second: f64) -> HttpKisi {
        let url = self.url.parse().expect("a URL");
        let settings = ConnectionSettings::new(url, "gymflow", "access@example.com");
        let connection = KisiConnection::new(settings).expect("a connection");
        let pacer = Pacer::new(PacerSettings {
            requests_per_second,
        });
        HttpKisi::new(connection, secret.to_owned().into(), pacer)
    }
}

async fn record(State(recorder): State<Recorder>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let url = url::Url::parse("http://kisi")
        .and_then(|base| base.join(&parts.uri.to_string()))
        .expect("a URL");
    let mut exchange = Exchange {
        method: parts.method.to_string(),
        path: url.path().to_owned(),
        query: url.query_pairs().into_owned().collect(),
        request_headers: parts.headers.clone(),
        request_body: serde_json::from_slice(&body).ok(),
        status: 0,
        answer_headers: HeaderMap::new(),
        answer_body: None,
    };
    let (status, headers, answer) = example(&recorder.contract, &exchange);
    exchange.status = status.as_u16();
    exchange.answer_headers = headers.clone();
    exchange.answer_body = serde_json::from_slice(&answer).ok();
    recorder.exchanges.lock().expect("exchanges").push(exchange);
    (status, headers, Body::from(answer)).into_response()
}

fn example(contract: &Contract, exchange: &Exchange) -> (StatusCode, HeaderMap, Bytes) {
    let Some((template, operation)) = contract.operation(&exchange.method, &exchange.path) else {
        return (StatusCode::NOT_FOUND, HeaderMap::new(), Bytes::new());
    };
    let Some(success) = operation["responses"].get("200") else {
        return (StatusCode::NO_CONTENT, HeaderMap::new(), Bytes::new());
    };
    let body = match (&success["content"]["application/json"]["example"], template) {
        // The document prints no example for these three.
        (Value::Null, "/user") => json!({
            "id": 17, "resource_type": "User", "name": "Olive Owner", "email": "owner@example.com",
            "image": null, "locale": "en", "notifications_unread_count": 0,
            "otp_required_for_login": false, "otp_enabled_at": null, "primary_login_exists": false,
            "created_at": "2026-03-01T06:00:00Z", "updated_at": "2026-03-01T06:00:00Z",
            "announcements_last_seen_at": null, "last_read_at": null, "notes": null,
            "organization_id": 3289,
            "organization": {"id": 3289, "resource_type": "Organization", "name": "Iron House",
                             "domain": "iron-house"},
        }),
        (Value::Null, "/integrations" | "/group_links") => json!([]),
        (printed, _) => printed.clone(),
    };
    let mut headers = HeaderMap::new();
    if let Some(rows) = body.as_array() {
        let range = match rows.len() {
            0 => "*/0".to_owned(),
            total => format!("0-249/{total}"),
        };
        headers.insert("x-collection-range", range.parse().expect("a header"));
    }
    (StatusCode::OK, headers, body.to_string().into())
}
