//! A simulator with one gym in it, and requests to it.

use kisi_simulator::settings::Settings;
use kisi_simulator::{Simulator, SimulatorConfig};
use reqwest::Method;
use serde_json::{Value, json};

/// The owner's key.
pub const KEY: &str = "owner-key";

/// An answer, read.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub range: Option<String>,
    pub retry_after: Option<String>,
    pub body: Value,
    pub text: String,
}

impl Answer {
    pub fn id(&self) -> i64 {
        self.body["id"]
            .as_i64()
            .unwrap_or_else(|| panic!("no id: {self:?}"))
    }

    pub fn rows(&self) -> &Vec<Value> {
        self.body
            .as_array()
            .unwrap_or_else(|| panic!("no list: {self:?}"))
    }
}

pub struct Kisi {
    pub simulator: Simulator,
    pub http: reqwest::Client,
    pub owner: i64,
    pub place: i64,
    /// An organization group with the front door.
    pub group: i64,
    /// A place group with both doors.
    pub place_group: i64,
    pub front_door: i64,
}

impl Kisi {
    /// Without a limit, everything else at its default.
    pub async fn start() -> Self {
        Self::with(json!({})).await
    }

    /// With these settings besides.
    pub async fn with(settings: Value) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut all = serde_json::to_value(Settings::default()).expect("settings");
        all["limiter"] = json!("off");
        for (name, value) in settings.as_object().expect("an object") {
            all[name] = value.clone();
        }
        let settings = serde_json::from_value(all).expect("settings");
        let config = SimulatorConfig {
            settings,
            ..SimulatorConfig::default()
        };
        Self::of(Simulator::start(config).await.expect("a simulator")).await
    }

    pub async fn of(simulator: Simulator) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        let mut kisi = Self {
            simulator,
            http,
            owner: 0,
            place: 0,
            group: 0,
            place_group: 0,
            front_door: 0,
        };
        let made = kisi
            .control(Method::POST, "/seed", json!({ "organizations": [{
                "name": "Iron House",
                "owner": { "email": "owner@iron.example.com", "name": "Olive", "api_key": KEY },
                "places": [{ "name": "Main", "locks": [{ "name": "Front" }, { "name": "Studio" }],
                    "groups": [{ "name": "Classes", "locks": ["Front", "Studio"] }] }],
                "groups": [{ "name": "24/7", "locks": ["Front"] }],
            }]}))
            .await;
        let made = &made["organizations"][0];
        let id = |value: &Value| value.as_i64().expect("an id");
        kisi.owner = id(&made["owner_id"]);
        kisi.place = id(&made["places"][0]["id"]);
        kisi.front_door = id(&made["places"][0]["locks"][0]["id"]);
        kisi.place_group = id(&made["groups"][0]["id"]);
        kisi.group = id(&made["groups"][1]["id"]);
        kisi
    }

    pub async fn control(&self, method: Method, path: &str, body: Value) -> Value {
        let url = format!("{}/_simulator{path}", self.simulator.base_url());
        let answer = self
            .http
            .request(method, url)
            .json(&body)
            .send()
            .await
            .expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    pub async fn set(&self, settings: Value) {
        self.control(Method::PUT, "/settings", settings).await;
    }

    pub async fn advance(&self, seconds: i64) {
        self.control(
            Method::POST,
            "/clock",
            json!({ "advance_seconds": seconds }),
        )
        .await;
    }

    pub async fn hands(&self, change: Value) -> Value {
        self.control(Method::POST, "/hands", change).await
    }

    /// As the owner.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.call_as(Some(KEY), method, path, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    pub async fn call_as(
        &self,
        key: Option<&str>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        self.try_call(key, method, path, body)
            .await
            .expect("an answer")
    }

    pub async fn try_call(
        &self,
        key: Option<&str>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.simulator.base_url()))
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .header("x-kisi-integration-identifier", "gymflow")
            .header("x-kisi-integration-contact", "dev@gymflow.example");
        if let Some(key) = key {
            request = request.header("authorization", format!("KISI-LOGIN {key}"));
        }
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await?;
        let header = |name: &str| {
            answer
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let (range, retry_after) = (header("x-collection-range"), header("retry-after"));
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer {
            status,
            range,
            retry_after,
            body,
            text,
        })
    }

    /// A managed user.
    pub async fn user(&self, email: &str) -> i64 {
        let body = json!({ "user": { "email": email, "name": email, "send_emails": false, "confirm": true } });
        let answer = self.post("/users", body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.id()
    }

    /// Grants the group, without a window.
    pub async fn grant(&self, user: i64) -> Answer {
        self.post("/role_assignments", self.grant_body(user)).await
    }

    pub fn grant_body(&self, user: i64) -> Value {
        json!({ "role_assignment": {
            "applies_to_type": "Group", "applies_to_id": self.group, "assignee_type": "User",
            "assignee_id": user, "role_id": "group_basic", "notify": false,
        }})
    }

    /// A login made for a member by the admin: its id and secret.
    pub async fn login(&self, email: &str) -> (i64, String) {
        let body = json!({ "login": {
            "type": "device", "email": email, "device_brand": "Gymflow", "device_model": "app",
            "os_name": "iOS", "expire": false,
        }});
        let answer = self.post("/logins", body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        (
            answer.id(),
            answer.body["secret"].as_str().expect("a secret").to_owned(),
        )
    }
}
