//! The simulator's side of the demo: an organization for each gym, and its control routes.

use anyhow::Context;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use crate::roster::{CLASSES, OPEN_GYM};
use crate::stack::Stack;

/// The groups by plan, by their names at Kisi.
pub const GROUP_OF_PLAN: [(&str, &str); 2] =
    [(OPEN_GYM, "Open gym, all day"), (CLASSES, "Classes")];
/// The door that every group of the demo gym opens.
pub const FRONT_DOOR: &str = "Front door";

/// API keys of the two gyms.
pub struct Keys {
    pub demo: String,
    pub small: String,
}

/// Makes an organization for each gym, unless an earlier run on this folder did.
///
/// Answers the API keys: the stack's own, and one made from it.
pub async fn seed(stack: &Stack) -> anyhow::Result<Keys> {
    let keys = Keys {
        demo: stack.kisi_key.clone(),
        small: format!("{}-two", stack.kisi_key),
    };
    let control = Control::of(stack)?;
    if !control.state().await?.is_empty() {
        return Ok(keys);
    }
    let owner = |name: &str, email: &str, key: &str| json!({ "name": name, "email": email, "api_key": key });
    let demo = json!({
        "name": stack.demo.name, "domain": "harbour-street", "time_zone": crate::roster::TIME_ZONE,
        "owner": owner("Gym owner", "owner@harbour-street.example.com", &keys.demo),
        "places": [{
            "id": 1, "name": "Harbour Street",
            "locks": [{ "name": FRONT_DOOR }, { "name": "Studio" }],
            "groups": [{ "name": GROUP_OF_PLAN[1].1, "locks": [FRONT_DOOR, "Studio"] }],
        }],
        "groups": [{ "name": GROUP_OF_PLAN[0].1, "locks": [FRONT_DOOR] }],
        // Given by hand, before Gymflow: not ours to take.
        "users": [{
            "name": "Trainer", "email": "trainer@harbour-street.example.com",
            "groups": [GROUP_OF_PLAN[1].1],
        }],
    });
    let small = json!({
        "name": stack.small.name, "domain": "quay-yard", "time_zone": crate::roster::TIME_ZONE,
        "owner": owner("Gym owner", "owner@quay-yard.example.com", &keys.small),
        "places": [{
            "name": "Quay Yard", "locks": [{ "name": FRONT_DOOR }],
            "groups": [{ "name": GROUP_OF_PLAN[0].1, "locks": [FRONT_DOOR] }],
        }],
    });
    control
        .call(
            Method::POST,
            "/seed",
            Some(json!({ "organizations": [demo, small] })),
        )
        .await?;
    Ok(keys)
}

/// The simulator's control side.
pub struct Control<'a> {
    http: &'a reqwest::Client,
    url: String,
}

impl<'a> Control<'a> {
    /// # Errors
    /// With another Kisi than the simulator.
    pub fn of(stack: &'a Stack) -> anyhow::Result<Self> {
        let url = stack
            .simulator
            .as_ref()
            .context("this Kisi is not the simulator")?;
        Ok(Self {
            http: &stack.http,
            url: format!("{url}/_simulator"),
        })
    }

    /// Of the simulator at this address.
    pub fn at(http: &'a reqwest::Client, url: &str) -> Self {
        Self {
            http,
            url: format!("{url}/_simulator"),
        }
    }

    /// Everything that Kisi holds.
    pub async fn state(&self) -> anyhow::Result<State> {
        Ok(State(self.call(Method::GET, "/state", None).await?))
    }

    /// Whether this person opens this door now.
    pub async fn opens(&self, email: &str, door: &str) -> anyhow::Result<bool> {
        let doors = self
            .call(Method::GET, &format!("/doors?email={email}"), None)
            .await?;
        let doors = doors["doors"].as_array().context("no doors")?;
        Ok(doors
            .iter()
            .any(|row| row["name"] == door && row["opens"] == true))
    }

    /// The number of the newest request.
    pub async fn last_request(&self) -> anyhow::Result<u64> {
        let log = self
            .call(Method::GET, &format!("/requests?since={}", u64::MAX), None)
            .await?;
        log["last"].as_u64().context("the request log has no end")
    }

    /// Requests after `seq`, oldest first.
    pub async fn requests(&self, seq: u64) -> anyhow::Result<Vec<Value>> {
        let log = self
            .call(Method::GET, &format!("/requests?since={seq}"), None)
            .await?;
        Ok(log["requests"].as_array().cloned().unwrap_or_default())
    }

    /// When Kisi answered the request after `seq` that changed this right: took the row that
    /// stood, or made one.
    pub async fn change_since(&self, seq: u64, right: &Right) -> anyhow::Result<Option<Timestamp>> {
        let requests = self.requests(seq).await?;
        let changed = requests.iter().rev().find(|request| {
            let ok = matches!(request["status"].as_u64(), Some(200..=299));
            let made = &request["response_body"];
            let is_about = match right.assignment {
                Some(id) => {
                    request["method"] == "DELETE"
                        && request["path"] == format!("/role_assignments/{id}")
                }
                None => {
                    request["method"] == "POST"
                        && request["route"] == "/role_assignments"
                        && made["assignee_id"] == json!(right.user)
                        && made["applies_to_id"] == right.group
                }
            };
            ok && is_about
        });
        let at = changed.and_then(|request| request["answered_at"].as_str());
        at.map(|at| at.parse().context("a time")).transpose()
    }

    /// Gives somebody a group by hand; the assignment's id.
    pub async fn grant_by_hand(&self, email: &str, group: i64) -> anyhow::Result<i64> {
        let change = json!({ "action": "add_assignment", "email": email, "group_id": group });
        let made = self.call(Method::POST, "/hands", Some(change)).await?;
        made["assignment_id"]
            .as_i64()
            .context("no assignment was made")
    }

    /// Takes somebody's group by hand; the id of the assignment that went.
    pub async fn revoke_by_hand(&self, email: &str, group: i64) -> anyhow::Result<i64> {
        let state = self.state().await?;
        let id = state
            .assignment(email, group)
            .with_context(|| format!("{email} has no right"))?;
        let change = json!({ "action": "remove_assignment", "assignment_id": id });
        self.call(Method::POST, "/hands", Some(change)).await?;
        Ok(id)
    }

    /// One call to the control side.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request
            .send()
            .await
            .context("the simulator does not answer")?;
        let status = answer.status();
        let text = answer.text().await?;
        anyhow::ensure!(status.is_success(), "{method} {path}: {status} {text}");
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}

/// One person's right to one group, as it stood.
#[derive(Clone, Debug)]
pub struct Right {
    user: Option<i64>,
    group: i64,
    assignment: Option<i64>,
}

/// What Kisi holds, as it prints it.
pub struct State(Value);

impl State {
    fn rows(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.0[name].as_array().into_iter().flatten()
    }

    fn is_empty(&self) -> bool {
        self.rows("organizations").next().is_none()
    }

    /// The user with this e-mail.
    pub fn user(&self, email: &str) -> Option<i64> {
        self.rows("users").find(|row| row["email"] == email)?["id"].as_i64()
    }

    /// This person's right to this group.
    pub fn right(&self, email: &str, group: i64) -> Right {
        Right {
            user: self.user(email),
            group,
            assignment: self.assignment(email, group),
        }
    }

    /// The assignment by which this person has this group.
    pub fn assignment(&self, email: &str, group: i64) -> Option<i64> {
        let user = self.user(email)?;
        let row = self.rows("role_assignments").find(|row| {
            row["assignee_id"] == user
                && row["assignee_type"] == "User"
                && row["applies_to_type"] == "Group"
                && row["applies_to_id"] == group
        })?;
        row["id"].as_i64()
    }

    /// Whether this person has this group.
    pub fn is_in_group(&self, email: &str, group: Option<&i64>) -> bool {
        group.is_some_and(|group| self.assignment(email, *group).is_some())
    }

    /// Whether this assignment stands.
    pub fn has_assignment(&self, id: i64) -> bool {
        self.rows("role_assignments").any(|row| row["id"] == id)
    }
}
