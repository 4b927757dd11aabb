//! Looking at Kisi and at `ACCESS` all the while: every right with the time it was made and the
//! time it went, and every answer with the time it was heard.
//!
//! Besides it notes when Kisi was made to fail, and when this machine stood still: nobody could
//! have acted then.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contracts::access::v1::AccessApplied;
use futures_util::StreamExt;
use kisi_simulator::request_log::Entry;
use kisi_simulator::rows::{Assignee, Assignment, Target};
use kisi_simulator::state::{Shared, State};
use tokio::task::JoinHandle;

use super::truth::{Micros, now};
use crate::harness::{GYM, Stage};

const LOOK_EVERY: Duration = Duration::from_millis(4);
/// Between two looks: more than this and the machine stood still.
const STILL: Micros = 150_000;
/// Kisi not answering is met with a pause, first of this length and then of twice the last.
const FIRST_PAUSE: Micros = 500_000;
/// A request that hangs is given up after this.
const GIVEN_UP: Micros = 1_000_000;
/// How soon after the pause work is under way again.
const TAKEN_UP: Micros = 1_000_000;

/// A right on a group, of a user.
#[derive(Debug, Clone)]
pub struct Right {
    pub row: Assignment,
    pub group: i64,
    pub email: String,
    /// None while it stands.
    pub gone: Option<Micros>,
}

impl Right {
    pub fn made(&self) -> Micros {
        self.row.created_at.as_microsecond()
    }
}

/// An answer, and when it was heard.
#[derive(Debug, Clone)]
pub struct Told {
    pub at: Micros,
    pub answer: AccessApplied,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub rights: BTreeMap<i64, Right>,
    pub answers: BTreeMap<String, Vec<Told>>,
    pub excused: Vec<(Micros, Micros)>,
    read: u64,
    looked: Option<Micros>,
    pauses: Pauses,
}

#[derive(Debug, Default)]
struct Pauses {
    in_a_row: u32,
    until: Micros,
}

/// Looks until it is dropped.
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    kisi: Shared,
    tasks: Vec<JoinHandle<()>>,
}

impl Watch {
    pub async fn start(stage: &Stage) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let kisi = stage.kisi.shared().clone();
        let (shared, looks) = (Arc::clone(&seen), kisi.clone());
        let looking = tokio::spawn(async move {
            let mut tick = tokio::time::interval(LOOK_EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                lock(&shared).look(&looks.lock());
            }
        });
        let client = stage.bus.jetstream().client();
        let subject = contracts::subjects::access(GYM, "*");
        let mut answers = client.subscribe(subject).await.unwrap();
        client.flush().await.unwrap();
        let shared = Arc::clone(&seen);
        let hearing = tokio::spawn(async move {
            while let Some(message) = answers.next().await {
                let answer: AccessApplied = serde_json::from_slice(&message.payload).unwrap();
                let mut seen = lock(&shared);
                let of_member = seen.answers.entry(answer.member_id.clone()).or_default();
                of_member.push(Told { at: now(), answer });
            }
        });
        Self {
            seen,
            kisi,
            tasks: vec![looking, hearing],
        }
    }

    /// What was seen until now, after one more look.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        let mut seen = lock(&self.seen);
        seen.look(&self.kisi.lock());
        seen
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Seen {
    fn look(&mut self, state: &State) {
        let at = state.now().as_microsecond();
        let before = self.looked.replace(at).unwrap_or(at);
        if at - before > STILL || !state.faults.list().is_empty() {
            match self.excused.last_mut() {
                Some(last) if last.1 == before => last.1 = at,
                _ => self.excused.push((before, at)),
            }
        }
        for entry in state.log.since(self.read) {
            if fails(entry) {
                let pause = self.pauses.after(entry.time.as_microsecond());
                self.excused.push(pause);
            }
        }
        self.read = state.log.last();
        for right in self.rights.values_mut() {
            let stands = state.world.assignments.get(&right.row.id);
            match stands {
                Some(row) => right.row.clone_from(row),
                None => right.gone = right.gone.or(Some(at)),
            }
        }
        for row in state.world.assignments.values() {
            let (Assignee::User(user), Target::Group(group)) = (row.assignee, row.applies_to)
            else {
                continue;
            };
            let email = state.world.users.get(&user).map(|user| user.email.clone());
            let known = self.rights.entry(row.id).or_insert_with(|| Right {
                row: row.clone(),
                group,
                email: email.unwrap_or_default(),
                gone: None,
            });
            known.gone = None;
        }
    }

    /// The rights that stand.
    pub fn standing(&self) -> impl Iterator<Item = &Right> {
        self.rights.values().filter(|right| right.gone.is_none())
    }

    /// When it went, or was seen last.
    pub fn end_of(&self, right: &Right) -> Micros {
        right.gone.or(self.looked).unwrap_or(Micros::MAX)
    }

    /// The member's last answer.
    pub fn last_answer(&self, member: &str) -> Option<&AccessApplied> {
        let told = self.answers.get(member)?;
        let answers = told.iter().map(|told| &told.answer);
        answers.max_by_key(|answer| answer.applied_seq)
    }
}

impl Pauses {
    /// From the failure to when work goes on.
    fn after(&mut self, at: Micros) -> (Micros, Micros) {
        if at > self.until + TAKEN_UP + GIVEN_UP {
            self.in_a_row = 0;
        }
        let pause = FIRST_PAUSE << self.in_a_row.min(6);
        let until = at + GIVEN_UP + pause;
        if at >= self.until {
            self.in_a_row += 1;
        }
        self.until = self.until.max(until);
        (at, self.until + TAKEN_UP)
    }
}

fn fails(entry: &Entry) -> bool {
    entry
        .status
        .is_none_or(|status| status == 429 || status >= 500)
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
