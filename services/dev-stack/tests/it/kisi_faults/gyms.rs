//! Gyms of some members each, every one with a Kisi organization and a key of its own, in a stack of
//! real processes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dev_stack::seed;
use dev_stack::set_up;
use dev_stack::settings::Settings;
use dev_stack::simulated_kisi::Control;
use dev_stack::stack::Stack;
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::eventually;

use super::desk::{Desk, Member, PLANS, email};
use crate::harness::{DEADLINE, start};

/// Kisi's state is large, so it is not looked at all the time.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Gyms that are set up at once.
const AT_ONCE: usize = 8;

pub struct Gym {
    pub id: String,
    pub members: Vec<String>,
    /// Kisi's group by plan.
    pub groups: BTreeMap<&'static str, i64>,
}

/// What is asked for.
pub struct Plan<'a> {
    pub gyms: usize,
    pub members: usize,
    /// What the member of this number has at first.
    pub has: &'a (dyn Fn(usize) -> &'static [&'static str] + Sync),
    /// People who are in the group of the first plan by other hands.
    pub strangers: usize,
}

/// The stack, and the gyms in it.
pub struct Gyms {
    pub stack: Stack,
    pub all: Vec<Gym>,
    pub desk: Desk,
}

impl Gyms {
    /// Starts the stack, opens the gyms, and brings each in sync with its Kisi.
    pub async fn start(settings: &Settings, plan: &Plan<'_>) -> Self {
        let stack = start(settings).await;
        let desk = Desk::new(seed::client(&stack).await.expect("membership-events"));
        let organizations = organizations(&stack, plan).await;
        let mut all = Vec::new();
        for (number, made) in organizations.iter().enumerate() {
            let groups = made["groups"].as_array().expect("groups");
            let group = |plan: &&'static str| {
                let group = groups.iter().find(|group| group["name"] == **plan);
                (
                    *plan,
                    group.expect("a group")["id"].as_i64().expect("an id"),
                )
            };
            all.push(Gym {
                id: gym_id(number),
                members: (0..plan.members).map(|n| format!("m{n:03}")).collect(),
                groups: PLANS.iter().map(group).collect(),
            });
        }
        for gym in &all {
            desk.open_gym(&gym.id).await;
            stream::iter(gym.members.iter().enumerate())
                .for_each_concurrent(AT_ONCE, async |(number, member)| {
                    desk.take_on(&gym.id, member).await;
                    for held in (plan.has)(number) {
                        desk.set(&gym.id, member, held, true).await;
                    }
                })
                .await;
        }
        let gyms = Self { stack, all, desk };
        stream::iter(gyms.all.iter().zip(&organizations))
            .for_each_concurrent(AT_ONCE, async |(gym, made)| gyms.set_up(gym, made).await)
            .await;
        gyms.until_doors_are_right("the first sync").await;
        gyms
    }

    async fn set_up(&self, gym: &Gym, made: &Value) {
        let call = async |method, path, body| {
            let answer = set_up::call(&self.stack, &gym.id, method, path, Some(body)).await;
            answer.unwrap_or_else(|error| panic!("{path}: {error:#}"))
        };
        let key = json!({ "api_key": key(&gym.id) });
        call(Method::POST, "/integration", key).await;
        let place = json!({ "place_id": made["places"][0]["id"] });
        call(Method::PUT, "/integration/place", place).await;
        let associations: Vec<Value> = gym
            .groups
            .iter()
            .map(|(plan, group)| json!({ "plan_id": plan, "group_id": group }))
            .collect();
        let associations = json!({ "associations": associations });
        call(Method::PUT, "/integration/associations", associations).await;
        // On a busy machine short leases and short time limits may run out in the first one.
        eventually("the first sync is done", DEADLINE * 2, async || {
            set_up::sync(&self.stack, &gym.id).await.is_ok()
        })
        .await;
    }

    pub fn kisi(&self) -> Control<'_> {
        Control::of(&self.stack).expect("the simulator")
    }

    /// Who has which plan's group at Kisi by our hands, and how often.
    pub async fn doors(&self) -> BTreeMap<(Member, &'static str), usize> {
        let state = self.kisi().call(Method::GET, "/state", None).await;
        let state = state.expect("Kisi's state");
        let rows = |name: &str| state[name].as_array().cloned().unwrap_or_default();
        let emails: BTreeMap<i64, String> = rows("users")
            .iter()
            .filter_map(|user| Some((user["id"].as_i64()?, user["email"].as_str()?.to_owned())))
            .collect();
        let mut doors = BTreeMap::new();
        for row in rows("role_assignments") {
            let group = row["applies_to_id"].as_i64();
            let found = self.plan_of_group(group.filter(|_| row["applies_to_type"] == "Group"));
            let holder = row["assignee_id"].as_i64().and_then(|id| emails.get(&id));
            if let (Some((gym, plan)), Some(holder)) = (found, holder)
                && let Some(member) = gym.member_of(holder)
            {
                *doors.entry((member, plan)).or_default() += 1;
            }
        }
        doors
    }

    /// The gym and the plan that this group is of.
    pub fn plan_of_group(&self, group: Option<i64>) -> Option<(&Gym, &'static str)> {
        self.all.iter().find_map(|gym| {
            let mut groups = gym.groups.iter();
            let (plan, _) = groups.find(|(_, id)| Some(**id) == group)?;
            Some((gym, *plan))
        })
    }

    /// Waits until Kisi holds what was decided, no more, no less, nothing twice.
    pub async fn until_doors_are_right(&self, after: &str) {
        let deadline = std::time::Instant::now() + DEADLINE;
        loop {
            let doors = self.doors().await;
            let held: BTreeSet<_> = doors.keys().cloned().collect();
            let wanted = self.desk.wanted();
            if held == wanted && doors.values().all(|rows| *rows == 1) {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "after {after}: missing {:?}, unwanted {:?}, twice {:?}",
                wanted.difference(&held).collect::<Vec<_>>(),
                held.difference(&wanted).collect::<Vec<_>>(),
                doors.iter().filter(|(_, n)| **n > 1).collect::<Vec<_>>()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Gym {
    /// The member with this e-mail.
    pub fn member_of(&self, holder: &str) -> Option<Member> {
        let mut members = self.members.iter();
        let member = members.find(|member| email(&self.id, member) == holder)?;
        Some((self.id.clone(), member.clone()))
    }
}

fn gym_id(number: usize) -> String {
    format!("gym-{number}")
}

fn key(gym: &str) -> String {
    format!("key-of-{gym}")
}

async fn organizations(stack: &Stack, plan: &Plan<'_>) -> Vec<Value> {
    let groups: Vec<Value> = PLANS
        .iter()
        .map(|plan| json!({ "name": plan, "locks": ["Door"] }))
        .collect();
    let organization = |number: usize| {
        let gym = gym_id(number);
        let strangers: Vec<Value> = (0..plan.strangers)
            .map(|n| json!({ "email": format!("s{n}@{gym}.example.com"), "groups": [PLANS[0]] }))
            .collect();
        json!({
            "name": gym,
            "owner": { "email": format!("owner@{gym}.example.com"), "api_key": key(&gym) },
            "places": [{ "name": gym, "locks": [{ "name": "Door" }] }],
            "groups": groups,
            "users": strangers,
        })
    };
    let seed: Vec<Value> = (0..plan.gyms).map(organization).collect();
    let made = Control::of(stack)
        .expect("the simulator")
        .call(
            Method::POST,
            "/seed",
            Some(json!({ "organizations": seed })),
        )
        .await
        .expect("seeded");
    made["organizations"].as_array().cloned().expect("made")
}
