//! What kisi-sync says is done, as it is heard on `ACCESS`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use contracts::access::v1::AccessApplied;
use contracts::subjects;
use dev_stack::stack::Stack;
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::task::JoinHandle;

use super::desk::Member;
use crate::observed;

/// Version and when its answer was heard, microseconds since 1970; by member.
pub type Heard = BTreeMap<Member, Vec<(i64, i64)>>;

/// Listens until it is dropped.
pub struct Answers {
    heard: Arc<Mutex<Heard>>,
    task: JoinHandle<()>,
}

impl Answers {
    pub async fn listen(stack: &Stack) -> Self {
        let client = observed::jetstream(stack).await.client();
        let answers = client.subscribe(subjects::ACCESS_ALL).await;
        let mut answers = answers.expect("ACCESS");
        client.flush().await.expect("NATS");
        let heard = Arc::<Mutex<Heard>>::default();
        let shared = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Some(message) = answers.next().await {
                let answer: AccessApplied =
                    serde_json::from_slice(&message.payload).expect("an answer");
                if !["granted", "revoked", "unchanged"].contains(&answer.outcome.as_str()) {
                    continue;
                }
                let mut heard = shared.lock().expect("no panic");
                let of_member = heard.entry((answer.gym_id, answer.member_id)).or_default();
                of_member.push((answer.version, Timestamp::now().as_microsecond()));
            }
        });
        Self { heard, task }
    }

    /// Whether this version was answered.
    pub fn has(&self, gym: &str, member: &str, version: i64) -> bool {
        let heard = self.heard.lock().expect("no panic");
        let of_member = heard.get(&(gym.to_owned(), member.to_owned()));
        of_member.is_some_and(|all| all.iter().any(|(it, _)| *it == version))
    }

    pub fn heard(&self) -> Heard {
        self.heard.lock().expect("no panic").clone()
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.task.abort();
    }
}
