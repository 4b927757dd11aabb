//! The Kisi of a test: the simulator, strict, with one gym's organization in it.

use kisi_simulator::rows::{Assignee, Assignment, Target};
use kisi_simulator::settings::{DuplicateAssignment, PatchWindow, Settings};
use kisi_simulator::state::Shared;
use kisi_simulator::{Simulator, SimulatorConfig};
use serde_json::{Value, json};

mod faults;
mod hands;

pub use faults::Fault;

pub const PLACE: i64 = 812;
/// A group of the place.
pub const GROUP: i64 = 10;
/// A group of the organization that holds a door of the place.
pub const OTHER_GROUP: i64 = 11;
/// Another place's group, which is not offered.
pub const ELSEWHERE: i64 = 12;

/// A group of the organization without a door of the place.
pub const GATE_ONLY: i64 = 13;
/// The organization.
pub const ORGANIZATION: i64 = 3289;

const KEY: &str = "owner-key-00000000000000000000000001";
const SECOND_KEY: &str = "second-key-0000000000000000000000002";

/// A running simulator.
pub struct Kisi {
    simulator: Simulator,
    http: reqwest::Client,
}

/// Whatever the test was about: nothing was sent that openapi.yaml does not allow.
impl Drop for Kisi {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let state = self.simulator.shared().lock();
        for entry in state.log.since(0) {
            assert_eq!(entry.note, None, "{} {}", entry.method, entry.path);
        }
    }
}

impl Kisi {
    pub async fn start(settings: Settings) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = SimulatorConfig {
            addr: "127.0.0.1:0".parse().unwrap(),
            state_file: None,
            settings,
        };
        let kisi = Self {
            simulator: Simulator::start(config).await.unwrap(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        kisi.control("seed", &seed()).await;
        kisi
    }

    pub fn url(&self) -> String {
        self.simulator.base_url()
    }

    pub fn api_key(&self) -> String {
        KEY.to_owned()
    }

    /// Another administrator's key to the same organization.
    pub fn second_key(&self) -> String {
        SECOND_KEY.to_owned()
    }

    /// Another key of the same administrator's.
    pub fn key_of_the_same(&self) -> String {
        let secret = "owner-key-0000000000000000000000004".to_owned();
        let mut state = self.simulator.shared().lock();
        let held = state.world.login_by_secret(KEY).cloned();
        let mut login = held.unwrap();
        login.id = state.world.next_id();
        login.secret.clone_from(&secret);
        state.world.insert_login(login);
        secret
    }

    /// All that it holds.
    pub fn shared(&self) -> &Shared {
        self.simulator.shared()
    }

    pub async fn control(&self, route: &str, body: &Value) -> Value {
        let (is_done, text) = self.ask(route, body).await;
        assert!(is_done, "{route}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// The same for what may have become impossible.
    pub async fn try_control(&self, route: &str, body: &Value) {
        self.ask(route, body).await;
    }

    async fn ask(&self, route: &str, body: &Value) -> (bool, String) {
        let answer = self
            .http
            .post(format!("{}/_simulator/{route}", self.url()))
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        (answer.status().is_success(), answer.text().await.unwrap())
    }

    pub async fn forget_requests(&self) {
        self.assert_nothing_was_refused().await;
        self.simulator.shared().lock().log.clear();
    }

    /// What Kisi refused was meant to be.
    pub fn overlook_refusals(&self) {
        self.simulator.shared().lock().log.clear();
    }

    /// `METHOD /path` of each request since the log was emptied.
    pub async fn requests(&self) -> Vec<String> {
        let state = self.simulator.shared().lock();
        state
            .log
            .since(0)
            .map(|entry| format!("{} {}", entry.method, entry.path))
            .collect()
    }

    /// Those of them that change something.
    pub async fn writes(&self) -> Vec<String> {
        let mut requests = self.requests().await;
        requests.retain(|request| !request.starts_with("GET"));
        requests
    }

    /// How often all rights of one user were listed.
    pub fn looks_at(&self, user: i64) -> usize {
        let state = self.simulator.shared().lock();
        let of_user = format!("assignee_id={user}");
        let listings = state.log.since(0).filter(|entry| {
            entry.method == "GET"
                && entry.route == "/role_assignments"
                && entry.query.split('&').any(|part| part == of_user)
        });
        listings.count()
    }

    /// The key that event webhooks are signed with.
    pub fn signature_keys(&self) -> Vec<String> {
        let state = self.simulator.shared().lock();
        let rows = state.world.integrations.values();
        rows.filter_map(|row| row.signature_key.clone()).collect()
    }

    /// The secrets of every login that was ever made here and stands.
    pub fn secrets(&self) -> Vec<String> {
        let state = self.simulator.shared().lock();
        let logins = state.world.logins.values();
        logins.map(|login| login.secret.clone()).collect()
    }

    /// An app of Kisi's marketplace gives somebody a right.
    pub async fn add_by_an_app(&self, email: &str, group: i64) {
        let right = self.add_by_hand(email, group).await;
        let mut state = self.simulator.shared().lock();
        let row = state.world.assignments.get_mut(&right).unwrap();
        row.created_by_type = Some("MarketplaceInstallation".to_owned());
    }

    /// What the user's metadata says, by key.
    pub fn metadata_of(&self, email: &str) -> Value {
        let state = self.simulator.shared().lock();
        let user = state.world.users.values().find(|user| user.email == email);
        Value::Object(user.unwrap().metadata.clone())
    }

    /// What the write asked for that came next after this was deleted.
    pub fn write_after(&self, deleted: &str) -> Value {
        let state = self.simulator.shared().lock();
        let mut writes = state.log.since(0).filter(|entry| entry.method != "GET");
        let found = writes.find(|entry| entry.method == "DELETE" && entry.path == deleted);
        assert!(found.is_some(), "{deleted} was not deleted");
        writes.next().unwrap().request_body.clone()
    }

    /// Which of the writes gave this user a right.
    pub fn made_for(&self, user: &Value) -> Option<usize> {
        let state = self.simulator.shared().lock();
        let mut writes = state.log.since(0).filter(|entry| entry.method != "GET");
        writes.position(|entry| {
            entry.method == "POST" && entry.request_body["role_assignment"]["assignee_id"] == *user
        })
    }

    /// How many rights were gone at once, of those that were taken away and given anew.
    pub fn most_shut(&self) -> i32 {
        let state = self.simulator.shared().lock();
        let done = state
            .log
            .since(0)
            .filter(|entry| entry.status.is_some_and(|status| status < 300));
        let shut = done.scan(0, |shut, entry| {
            *shut += match entry.method.as_str() {
                "DELETE" => 1,
                "POST" => -1,
                _ => 0,
            };
            Some(*shut)
        });
        shut.max().unwrap_or_default()
    }

    /// Every exchange was valid against openapi.yaml, and none came too fast.
    pub async fn assert_nothing_was_refused(&self) {
        let state = self.simulator.shared().lock();
        for entry in state.log.since(0) {
            assert_eq!(entry.note, None, "{} {}", entry.method, entry.path);
            assert!(!entry.refused_by_limiter, "{} {}", entry.method, entry.path);
        }
    }

    /// The rights that stand on a group.
    pub async fn group_rows(&self, group: i64) -> Vec<Value> {
        let state = self.simulator.shared().lock();
        state
            .world
            .assignments
            .values()
            .filter(|row| row.applies_to == Target::Group(group))
            .map(|row| kisi_simulator::render::assignment(&state.world, row))
            .collect()
    }

    /// Others get more rights on this group than Kisi lets anyone list: it pages no further than 20,250.
    pub fn overfill(&self, group: i64) {
        let nobody = self.user_of("nobody@example.com");
        let mut state = self.simulator.shared().lock();
        let known = state.world.assignments.values();
        let like = known.min_by_key(|row| row.id).unwrap().clone();
        let like = Assignment {
            role_id: "group_basic".to_owned(),
            assignee: Assignee::User(nobody),
            applies_to: Target::Group(group),
            ..like
        };
        for _ in 0..20_251 {
            let row = Assignment {
                id: state.world.next_id(),
                ..like.clone()
            };
            state.world.insert_assignment(row);
        }
    }

    /// The id of the user with this e-mail.
    pub fn user_of(&self, email: &str) -> i64 {
        let state = self.simulator.shared().lock();
        let mut users = state.world.users.values();
        users.find(|user| user.email == email).unwrap().id
    }

    /// No right names this user any more, who is there.
    pub fn unname(&self, user: i64) {
        self.simulator.shared().lock().world.unnamed.insert(user);
    }

    /// The ids of all users.
    pub fn users(&self) -> Vec<i64> {
        let state = self.simulator.shared().lock();
        state.world.users.keys().copied().collect()
    }

    /// The device logins of the user with this e-mail, in the order they were made.
    pub fn logins(&self, email: &str) -> Vec<i64> {
        let state = self.simulator.shared().lock();
        let users = state.world.users.values();
        let users: Vec<i64> = users.filter(|u| u.email == email).map(|u| u.id).collect();
        let logins = state.world.logins.values();
        let of_user = logins.filter(|login| users.contains(&login.user_id));
        of_user.map(|login| login.id).collect()
    }

    pub fn secret_of(&self, login: i64) -> String {
        self.simulator.shared().lock().world.logins[&login]
            .secret
            .clone()
    }

    /// The group opens nothing from now on.
    pub fn take_doors_away(&self, group: i64) {
        let mut state = self.simulator.shared().lock();
        state
            .world
            .group_locks
            .retain(|_, held| held.group_id != group);
    }

    pub fn name_of(&self, email: &str) -> String {
        let state = self.simulator.shared().lock();
        let user = state.world.users.values().find(|user| user.email == email);
        user.unwrap().name.clone()
    }

    pub fn emails_of_users(&self) -> Vec<String> {
        let state = self.simulator.shared().lock();
        state
            .world
            .users
            .values()
            .map(|user| user.email.clone())
            .collect()
    }

    /// Name of each event webhook, and whether it is on.
    pub fn webhooks(&self) -> Vec<(String, bool)> {
        let state = self.simulator.shared().lock();
        let rows = state.world.integrations.values();
        rows.map(|row| (row.name.clone(), row.enabled)).collect()
    }

    /// As Kisi does when deliveries fail.
    pub fn switch_webhooks_off(&self) {
        let mut state = self.simulator.shared().lock();
        for row in state.world.integrations.values_mut() {
            row.enabled = false;
        }
    }

    pub fn delete_webhooks(&self) {
        self.simulator.shared().lock().world.integrations.clear();
    }

    /// A door that no plan opens.
    pub fn other_door(&self) -> i64 {
        let state = self.simulator.shared().lock();
        let gate = state.world.locks.values().find(|lock| lock.name == "Gate");
        gate.unwrap().id
    }

    /// The status of an unlock with this secret, past us.
    pub async fn unlock_as(&self, secret: &str, lock: i64) -> u16 {
        let answer = self
            .http
            .post(format!("{}/locks/{lock}/unlock", self.url()))
            .header("authorization", format!("KISI-LOGIN {secret}"))
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .body("{}")
            .send()
            .await
            .unwrap();
        answer.status().as_u16()
    }

    /// The key is dead from now on; answers another one of the same organization.
    pub async fn revoke_key(&self) -> String {
        let change = json!({ "action": "revoke_key", "secret": KEY });
        self.control("hands", &change).await;
        SECOND_KEY.to_owned()
    }

    /// E-mails that Kisi would have sent.
    pub async fn emails(&self) -> usize {
        self.simulator.shared().lock().world.emails.len()
    }

    /// Changes settings while it runs.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.simulator.shared().lock().settings);
    }

    /// From now on a window is another one only by another right, and only when the former one is gone.
    pub fn moves_no_window(&self) {
        self.set(|settings| {
            settings.patch_window = PatchWindow::Ignore;
            settings.duplicate_assignments = DuplicateAssignment::Conflict;
        });
    }
}

fn seed() -> Value {
    json!({ "organizations": [{
        "id": ORGANIZATION,
        "name": "Iron House",
        "owner": { "email": "owner@example.com", "name": "Olive Owner", "api_key": KEY },
        "users": [
            {
                "email": "second@example.com", "name": "Second Key",
                "role": "organization_administrator", "api_key": SECOND_KEY,
            },
            { "email": "nobody@example.com", "name": "No Body", "api_key": "member-key-000000000000000003" },
        ],
        "places": [
            {
                "id": PLACE, "name": "Main street",
                "locks": [{ "name": "Front door" }, { "name": "Studio" }],
                "groups": [{ "id": GROUP, "name": "Members", "locks": ["Front door"] }],
            },
            {
                "name": "Quay",
                "locks": [{ "name": "Gate" }],
                "groups": [{ "id": ELSEWHERE, "name": "Quay", "locks": ["Gate"] }],
            },
        ],
        "groups": [
            { "id": OTHER_GROUP, "name": "Classes", "locks": ["Studio"] },
            { "id": GATE_ONLY, "name": "Gate only", "locks": ["Gate"] },
        ],
    }] })
}
