//! What the gyms tell membership-events, and what was decided of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::harness::DEADLINE;
use contracts::membership::v1 as wire;
use dev_stack::roster::{STARTS_ON, TIME_ZONE};
use dev_stack::seed::Client;

/// The plans that everybody may have, each with a group of its own.
pub const PLANS: [&str; 2] = [DAY, NIGHT];
pub const DAY: &str = "day";
pub const NIGHT: &str = "night";

/// A membership that has ended has ended then.
const ENDED_ON: &str = "2026-01-06";

/// Gym and member.
pub type Member = (String, String);

/// What was decided of one member.
#[derive(Clone, Debug)]
pub struct Decision {
    /// By the clock: microseconds since 1970, as far as no other version came first.
    pub version: i64,
    pub plans: BTreeSet<&'static str>,
}

/// Every decision, oldest first.
pub type Decisions = BTreeMap<Member, Vec<Decision>>;

/// Where memberships are written. Each member is written by one task at a time.
#[derive(Clone)]
pub struct Desk {
    client: Client,
    decisions: Arc<Mutex<Decisions>>,
    source_version: Arc<AtomicI64>,
}

impl Desk {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            decisions: Arc::default(),
            source_version: Arc::default(),
        }
    }

    pub async fn open_gym(&self, gym: &str) {
        let request = wire::PutGymRequest {
            gym_id: gym.into(),
            name: gym.into(),
            time_zone: TIME_ZONE.into(),
            source_version: 1,
            ..Default::default()
        };
        let mut client = self.client.clone();
        client.put_gym(request).await.expect("a gym");
    }

    pub async fn take_on(&self, gym: &str, member: &str) {
        let request = wire::PutMemberRequest {
            gym_id: gym.into(),
            member_id: member.into(),
            email: email(gym, member),
            name: member.into(),
            source_version: 1,
        };
        let mut client = self.client.clone();
        client.put_member(request).await.expect("a member");
    }

    /// The member has this plan from now on, or has it no more.
    pub async fn set(&self, gym: &str, member: &str, plan: &'static str, has: bool) {
        // An ordinary loop: a task is to run it.
        let deadline = Instant::now() + DEADLINE;
        let members = loop {
            let request = wire::PutMembershipRequest {
                gym_id: gym.into(),
                membership_id: format!("{member}_{plan}"),
                plan_id: plan.into(),
                member_ids: vec![member.into()],
                starts_on: STARTS_ON.to_string(),
                ends_on: (!has).then(|| ENDED_ON.into()),
                // Another one each time: what was sent before may have been done.
                source_version: self.source_version.fetch_add(1, Ordering::SeqCst) + 1,
                ..Default::default()
            };
            match self.client.clone().put_membership(request).await {
                Ok(answer) => break answer.into_inner().members,
                Err(status) => assert!(Instant::now() < deadline, "not taken: {status}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let held = members.iter().find(|it| it.member_id == member);
        let version = held.expect("the holder").version;
        let mut decisions = self.decisions();
        let of_member = decisions.entry((gym.into(), member.into())).or_default();
        let last = of_member.last();
        let mut plans = last.map(|last| last.plans.clone()).unwrap_or_default();
        match has {
            true => plans.insert(plan),
            false => plans.remove(plan),
        };
        if last.is_none_or(|last| last.version < version) {
            of_member.push(Decision { version, plans });
        }
    }

    pub fn decisions(&self) -> MutexGuard<'_, Decisions> {
        self.decisions.lock().expect("no panic")
    }

    /// Whether the member has this plan, as decided last.
    pub fn has(&self, gym: &str, member: &str, plan: &str) -> bool {
        let decisions = self.decisions();
        let of_member = decisions.get(&(gym.to_owned(), member.to_owned()));
        let last = of_member.and_then(|decisions| decisions.last());
        last.is_some_and(|last| last.plans.contains(plan))
    }

    /// The member's last version.
    pub fn version(&self, gym: &str, member: &str) -> i64 {
        let decisions = self.decisions();
        let of_member = decisions.get(&(gym.to_owned(), member.to_owned()));
        let last = of_member.and_then(|decisions| decisions.last());
        last.map_or(0, |last| last.version)
    }

    /// Who has which plan, as decided last.
    pub fn wanted(&self) -> BTreeSet<(Member, &'static str)> {
        let decisions = self.decisions();
        let last = decisions
            .iter()
            .filter_map(|(member, all)| Some((member, &all.last()?.plans)));
        last.flat_map(|(member, plans)| plans.iter().map(|plan| (member.clone(), *plan)))
            .collect()
    }

    /// What was written here is what membership-events holds.
    pub async fn check(&self) {
        let wanted = self.wanted();
        let members: Vec<Member> = self.decisions().keys().cloned().collect();
        let answered = crate::observed::answered(self.client.clone(), members.iter()).await;
        for (member, (_, seen)) in answered {
            let has = |plan: &&&str| wanted.contains(&(member.clone(), **plan));
            let ours: BTreeSet<String> = PLANS
                .iter()
                .filter(has)
                .map(|&plan| plan.to_owned())
                .collect();
            assert_eq!(seen.plans, ours, "{member:?}");
        }
    }
}

pub fn email(gym: &str, member: &str) -> String {
    format!("{member}@{gym}.example.com")
}
