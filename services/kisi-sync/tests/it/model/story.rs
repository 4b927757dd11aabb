//! A random story: what memberships, mappings, hands in Kisi's pages, a failing Kisi and dying
//! replicas do to one gym, one step at a time, written down in [`Truth`] as it happens.

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::membership::v1::{Cause, Member, MembershipStatusChanged, PlanAccess};
use contracts::{integration::v1 as api, wire};
use jiff::Timestamp;
use kisi_sync::audit::Entry;
use kisi_sync::audit::verify::{Verdict, verify};
use kisi_sync::store::{applied_grants, audit};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sea_orm::EntityTrait;
use testkit::eventually;
use tokio::time::timeout;

use super::judge::{self, Complaint};
use super::logged::{self, Done};
use super::replicas::Replicas;
use super::truth::{Decision, Mapping, Micros, Person, Truth, now};
use super::watch::Watch;
use crate::harness::{GYM, On, PLAN, Stage, set};
use crate::kisi::{GROUP, OTHER_GROUP};

pub const PLANS: [&str; 3] = [PLAN, "classes", "pool"];
const MEMBERS: usize = 12;
/// Long, because machines are shared; reached only when something is wrong.
const QUIET: Duration = Duration::from_secs(60);
/// How long a call of staff's may take while Kisi fails.
const CALL: Duration = Duration::from_secs(20);
pub(super) const HOUR: Micros = 3_600_000_000;

/// What a stretch of the story may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Nothing fails: what is decided has to be done at once.
    Calm,
    /// Kisi fails, and replicas die.
    Storm,
}

pub struct Story {
    pub stage: Stage,
    pub truth: Truth,
    pub watch: Watch,
    pub replicas: Replicas,
    pub dice: StdRng,
    /// What happened, for whoever reads of a failure.
    pub told: Vec<(Micros, String)>,
}

impl Story {
    /// The gym in sync, with everybody decided about.
    pub async fn begin(on: On, seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let stage = Stage::set(on).await;
        super::troubles::manners(&stage, &mut dice);
        let watch = Watch::start(&stage).await;
        let mut replicas = Replicas::start(&stage, on).await;
        let process = replicas.first().unwrap();
        stage.set_up(&mut process.running).await;
        let first = BTreeMap::from([
            (PLAN.to_owned(), GROUP),
            ("classes".to_owned(), OTHER_GROUP),
        ]);
        let mut story = Self {
            stage,
            truth: Truth::default(),
            watch,
            replicas,
            dice,
            told: Vec::new(),
        };
        story.truth.mappings.push(Mapping {
            made: Micros::MIN,
            told: Micros::MIN,
            groups: first,
        });
        for number in 1..=MEMBERS {
            story.join(&format!("m{number}")).await;
        }
        story.stage.consumed().await;
        story.sync_until_in_sync().await;
        story
    }

    pub fn say(&mut self, what: impl Into<String>) {
        self.told.push((now(), what.into()));
    }

    pub async fn play(&mut self, steps: usize, weather: Weather) {
        self.say(format!("-- {weather:?}"));
        for _ in 0..steps {
            self.step(weather).await;
            let breath = self.dice.random_range(0..60);
            tokio::time::sleep(Duration::from_millis(breath)).await;
        }
    }

    async fn step(&mut self, weather: Weather) {
        let storms = weather == Weather::Storm;
        match self.dice.random_range(0..100) {
            0..=14 if storms => self.fail(),
            15..=20 if storms => self.strike().await,
            0..=44 => {
                let member = self.somebody();
                self.decide(&member, true).await;
            }
            45..=51 => self.burst().await,
            52..=55 => {
                let member = self.somebody();
                self.decide(&member, false).await;
            }
            56..=60 => self.repeat().await,
            61..=68 => self.give_by_hand().await,
            69..=74 => self.take_ours_by_hand().await,
            75..=78 => self.take_back_by_hand().await,
            79..=81 => self.move_an_end_by_hand().await,
            82..=83 => self.change_a_person(),
            84 => self.erase().await,
            85..=88 => self.map().await,
            89..=94 if storms => self.start_a_sync().await,
            89..=91 => {
                self.sync().await;
            }
            _ => {
                let member = self.somebody();
                self.decide(&member, true).await;
            }
        }
    }

    /// Nothing fails any more, every replica runs, and every version told has its answer.
    pub async fn calm_down(&mut self) {
        self.stage.kisi.shared().lock().faults.clear();
        self.stage.kisi.set(|settings| {
            (settings.latency_ms, settings.jitter_ms) = (0, 0);
        });
        self.replicas.all_up(&self.stage).await;
        self.stage.consumed().await;
        eventually("every version is answered and done", QUIET, async || {
            let seen = self.watch.seen();
            self.truth.people.iter().all(|(member, person)| {
                let heard = person.decisions.iter().filter(|one| one.is_on_bus);
                let heard = heard.map(|one| one.version).max();
                seen.last_answer(member).is_some_and(|answer| {
                    let waits = ["kisi_unreachable", "not_set_up"];
                    let waits = waits.map(Some).contains(&answer.failure.as_deref());
                    Some(answer.version) >= heard && !waits
                })
            })
        })
        .await;
        self.say("-- calmed down");
    }

    /// The end: quiet, and passes until one finds nothing left.
    pub async fn end(mut self) -> Result<(), String> {
        self.calm_down().await;
        self.sync_until_in_sync().await;
        let wrong = self.judged_in_the_end().await;
        let unlogged = self.audited().await;
        let report = match wrong.is_empty() && unlogged.is_empty() {
            true => Ok(()),
            false => Err(format!("{unlogged:#?}\n") + &self.report(&wrong) + &self.tables().await),
        };
        self.replicas.end().await;
        report
    }

    /// The last answers are on their way when the pass has ended.
    async fn judged_in_the_end(&mut self) -> Vec<Complaint> {
        let deadline = now() + 10_000_000;
        loop {
            let wrong = self.judge();
            let settles = wrong
                .iter()
                .all(|one| matches!(one, Complaint::Untold { .. }));
            if wrong.is_empty() || !settles || now() > deadline {
                return wrong;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the audit log does not say as it was, or not whole.
    async fn audited(&self) -> Vec<String> {
        let url = self.stage.database_url().into();
        let db = kisi_sync::store::connect(&url).await.unwrap();
        let rows = audit::list_after(&db, GYM, 0, u64::MAX >> 1).await.unwrap();
        let entries = rows.iter().map(|row| serde_json::from_str(&row.entry));
        let entries: Vec<Entry> = entries.collect::<Result<_, _>>().unwrap();
        let done = {
            let seen = self.watch.seen();
            let state = self.stage.kisi.shared().lock();
            Done::of(&self.truth, &seen, state.log.since(0))
        };
        let mut wrong = logged::complaints(&done, &entries);
        let verdict = verify(&db, GYM).await.unwrap();
        if !matches!(verdict, Verdict::Whole { first: 1, .. }) {
            wrong.push(format!("the chain: {verdict:?}"));
        }
        wrong
    }

    pub fn judge(&mut self) -> Vec<Complaint> {
        let seen = self.watch.seen();
        let mut truth = std::mem::take(&mut self.truth);
        let own = truth.excused.len();
        truth.excused.extend(&seen.excused);
        let wrong = judge::complaints(&truth, &seen);
        truth.excused.truncate(own);
        drop(seen);
        self.truth = truth;
        wrong.into_iter().collect()
    }

    fn somebody(&mut self) -> String {
        let people = self.truth.people.iter();
        let living: Vec<&String> = people
            .filter(|(_, person)| !person.is_erased())
            .map(|(member, _)| member)
            .collect();
        (*living.choose(&mut self.dice).unwrap()).clone()
    }

    async fn join(&mut self, member: &str) {
        let person = Person {
            emails: vec![format!("{member}@example.com")],
            decisions: Vec::new(),
        };
        self.truth.people.insert(member.to_owned(), person);
        self.decide(member, true).await;
    }

    fn some_plans(&mut self) -> BTreeMap<String, Option<Micros>> {
        let mut plans = BTreeMap::new();
        // Nothing at all as often as something.
        let count = self.dice.random_range(0..=3_usize).saturating_sub(1);
        for plan in PLANS.choose_multiple(&mut self.dice, count) {
            let ends = self.dice.random_bool(0.2);
            let hours = self.dice.random_range(2..48);
            let until = ends.then(|| (now() / 1_000_000) * 1_000_000 + hours * HOUR);
            plans.insert((*plan).to_owned(), until);
        }
        plans
    }

    async fn decide(&mut self, member: &str, told: bool) {
        let plans = self.some_plans();
        self.decide_on(member, plans, told, false).await;
    }

    pub async fn decide_on(
        &mut self,
        member: &str,
        plans: BTreeMap<String, Option<Micros>>,
        told: bool,
        erases: bool,
    ) {
        let person = &self.truth.people[member];
        let version = person.decisions.last().map_or(1, |last| last.version + 1);
        let state = state_of(member, version, &plans, erases);
        let made = now();
        self.stage.directory.insert(Member {
            gym_id: GYM.to_owned(),
            member_id: member.to_owned(),
            email: person.email().to_owned(),
            name: format!("Member {member} of {}", person.emails.len()),
            state: Some(state.clone()),
            erased: erases,
            ..Member::default()
        });
        if told {
            self.stage.directory.publish(&state).await;
        }
        let decision = Decision {
            version,
            made,
            told: now(),
            is_on_bus: told,
            erases,
            plans,
        };
        self.say(format!("{member}: {decision:?}"));
        let person = self.truth.people.get_mut(member).unwrap();
        person.decisions.push(decision);
    }

    async fn burst(&mut self) {
        let member = self.somebody();
        for _ in 0..self.dice.random_range(3..10) {
            self.decide(&member, true).await;
        }
    }

    /// A version comes again, perhaps one that is long past.
    async fn repeat(&mut self) {
        let member = self.somebody();
        let decisions = &self.truth.people[&member].decisions;
        let again = decisions.choose(&mut self.dice).unwrap().clone();
        if !again.is_on_bus {
            return;
        }
        self.say(format!("{member}: version {} comes again", again.version));
        let state = state_of(&member, again.version, &again.plans, again.erases);
        let id = format!("again-{}", self.told.len());
        self.stage.directory.publish_as(&state, id).await;
    }

    /// Another name and another e-mail; a pass that compares people finds it. What was given by hand
    /// stays with the user of the former one.
    fn change_a_person(&mut self) {
        let member = self.somebody();
        let mut known = self.stage.directory.get(GYM, &member);
        let emails = &self.truth.people[&member].emails;
        let email = format!("{member}-{}@example.com", emails.len() + 1);
        self.say(format!("{member}: {email}"));
        let person = self.truth.people.get_mut(&member).unwrap();
        person.emails.push(email.clone());
        (known.email, known.name) = (email, format!("{} again", known.name));
        self.stage.directory.insert(known);
    }

    async fn erase(&mut self) {
        let people = self.truth.people.values();
        if people.filter(|person| !person.is_erased()).count() <= MEMBERS / 2 {
            return;
        }
        let member = self.somebody();
        self.decide_on(&member, BTreeMap::new(), true, true).await;
    }

    async fn map(&mut self) {
        let mut groups = BTreeMap::new();
        for plan in PLANS {
            let group = [None, Some(GROUP), Some(GROUP), Some(OTHER_GROUP)];
            if let Some(Some(group)) = group.choose(&mut self.dice) {
                groups.insert(plan.to_owned(), *group);
            }
        }
        let Some(mut client) = self.replicas.client() else {
            return;
        };
        let pairs: Vec<(&str, i64)> = groups.iter().map(|(p, g)| (p.as_str(), *g)).collect();
        let request = api::SetAssociationsRequest {
            gym_id: GYM.to_owned(),
            associations: set(&pairs),
            digest: None,
        };
        let made = now();
        let answer = timeout(CALL, client.set_associations(request)).await;
        if !matches!(answer, Ok(Ok(_))) {
            // Whether it was taken is seen by asking.
            self.replicas.all_up(&self.stage).await;
            let held = self.replicas.mapping().await.unwrap();
            let held = held.into_iter().map(|one| (one.plan_id, one.group_id));
            groups = held.collect();
        }
        self.say(format!("mapping {groups:?}"));
        let told = now();
        self.truth.mappings.push(Mapping { made, told, groups });
    }

    async fn start_a_sync(&mut self) {
        self.say("a sync is started");
        if let Some(mut client) = self.replicas.client() {
            let request = api::StartSyncRequest {
                gym_id: GYM.to_owned(),
                digest: None,
            };
            let _ = timeout(CALL, client.start_sync(request)).await;
        }
    }

    /// One pass, waited for; whether it left nothing to do.
    pub async fn sync(&mut self) -> bool {
        let begun = now();
        let ended = timeout(QUIET, self.one_pass()).await;
        let Ok(Some(sync)) = ended else {
            return false;
        };
        self.say(format!("a pass: {sync:?}"));
        if sync.state == "done" {
            self.truth.passes.push((begun, now()));
        }
        sync.in_sync
    }

    async fn one_pass(&self) -> Option<api::Sync> {
        let mut client = self.replicas.client()?;
        let request = api::StartSyncRequest {
            gym_id: GYM.to_owned(),
            digest: None,
        };
        let sync = client.start_sync(request).await.ok()?.into_inner();
        let request = api::GetSyncRequest {
            gym_id: GYM.to_owned(),
            sync_id: sync.sync_id,
        };
        let mut states = client.watch_sync(request).await.ok()?.into_inner();
        let mut last = None;
        while let Ok(Some(state)) = states.message().await {
            last = Some(state);
        }
        last
    }

    async fn sync_until_in_sync(&mut self) {
        let deadline = now() + i64::try_from(QUIET.as_micros()).unwrap();
        // The one that follows finds nothing more to do.
        let mut clean = 0;
        while clean < 2 {
            clean = if self.sync().await { clean + 1 } else { 0 };
            if now() > deadline {
                let wrong = self.judge();
                panic!("no pass is in sync:\n{}", self.report(&wrong));
            }
        }
    }

    /// What kisi-sync has written down.
    async fn tables(&self) -> String {
        let url = self.stage.database_url().into();
        let db = kisi_sync::store::connect(&url).await.unwrap();
        let rows = applied_grants::Entity::find().all(&db).await.unwrap();
        let log = audit::Entity::find().all(&db).await.unwrap();
        let rows = rows.iter().map(|row| format!("{row:?}\n"));
        rows.chain(log.iter().map(|row| format!("{row:?}\n")))
            .collect()
    }

    pub fn report(&self, wrong: &[Complaint]) -> String {
        let mut text = format!("{wrong:#?}\n");
        for (at, what) in &self.told {
            let at = Timestamp::from_microsecond(*at).unwrap();
            text.push_str(&format!("{at} {what}\n"));
        }
        let seen = self.watch.seen();
        for right in judge::ours(&self.truth, &seen) {
            text.push_str(&format!("{right:?}\n"));
        }
        for told in seen.answers.values().flatten() {
            text.push_str(&format!("told: {told:?}\n"));
        }
        let state = self.stage.kisi.shared().lock();
        let about = |route: &str| route.contains("role_assignments");
        for entry in state.log.since(0).filter(|entry| about(&entry.route)) {
            text.push_str(&format!(
                "{} {} {}?{} -> {:?} {}\n",
                entry.time, entry.method, entry.path, entry.query, entry.status, entry.request_body
            ));
        }
        text
    }
}

fn state_of(
    member: &str,
    version: i64,
    plans: &BTreeMap<String, Option<Micros>>,
    erased: bool,
) -> MembershipStatusChanged {
    let at = |micros: Micros| wire::timestamp(Timestamp::from_microsecond(micros).unwrap());
    MembershipStatusChanged {
        gym_id: GYM.to_owned(),
        member_id: member.to_owned(),
        version,
        allowed: !plans.is_empty(),
        plans: plans
            .iter()
            .map(|(plan, until)| PlanAccess {
                plan_id: plan.clone(),
                valid_from: None,
                valid_until: until.map(at),
            })
            .collect(),
        erased,
        decided_at: Some(at(now())),
        cause: Some(Cause {
            kind: "call".to_owned(),
            id: "PutMembership".to_owned(),
            actor: "service:test".to_owned(),
            received_at: Some(at(now())),
        }),
        ..MembershipStatusChanged::default()
    }
}
