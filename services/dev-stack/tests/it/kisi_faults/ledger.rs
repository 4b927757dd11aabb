//! What was written at Kisi, from the simulator's log, held against what was decided.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use super::answers::Heard;
use super::desk::{Decisions, Member};
use super::gyms::Gyms;

/// A write and an answer so close to each other may have passed each other on a busy machine.
const PASSED: i64 = 1_000_000;

/// A right made or removed.
#[derive(Clone, Debug)]
pub struct Write {
    /// The simulator's number of the request.
    pub seq: u64,
    /// When it arrived, microseconds since 1970.
    pub at: i64,
    /// Kisi's id of the right.
    pub right: i64,
    pub member: Member,
    pub group: i64,
    pub plan: &'static str,
    pub opens: bool,
}

/// The log as far as it is about the gyms' members.
#[derive(Debug, Default)]
pub struct Ledger {
    pub writes: Vec<Write>,
    /// Writes that Kisi had done already: harmless, and no more than lost answers explain.
    pub repeated: usize,
    /// Users made, by the number of the request.
    pub people_made: Vec<u64>,
    /// Rights whose removal Kisi did not answer. Of the faults here it is the one that does it first.
    pub unheard: BTreeSet<i64>,
    /// Whose right each assignment is.
    rights: BTreeMap<i64, (i64, i64)>,
}

impl Ledger {
    /// Adds the simulator's log from `seq` on.
    pub async fn read(&mut self, gyms: &Gyms, seq: u64) {
        let kisi = gyms.kisi();
        let state = kisi.call(reqwest::Method::GET, "/state", None).await;
        let state = state.expect("Kisi's state");
        let mut emails = BTreeMap::new();
        for user in state["users"].as_array().into_iter().flatten() {
            if let (Some(id), Some(email)) = (user["id"].as_i64(), user["email"].as_str()) {
                emails.insert(id, email.to_owned());
            }
        }
        for request in kisi.requests(seq).await.expect("the log") {
            self.take(gyms, &emails, &request);
        }
    }

    fn take(&mut self, gyms: &Gyms, emails: &BTreeMap<i64, String>, request: &Value) {
        let (method, route) = (request["method"].as_str(), request["route"].as_str());
        let status = request["status"].as_u64().unwrap_or(0);
        let is_done = (200..300).contains(&status);
        let seq = request["seq"].as_u64().unwrap_or(0);
        let (opens, id, right) = match (method, route) {
            (Some("POST"), Some("/users")) if is_done => {
                self.people_made.push(seq);
                return;
            }
            (Some("POST"), Some("/role_assignments")) => {
                self.repeated += usize::from(status == 409);
                let made = &request["response_body"];
                let (Some(id), true) = (made["id"].as_i64(), is_done) else {
                    return;
                };
                let right = (
                    made["assignee_id"].as_i64().expect("a user"),
                    made["applies_to_id"].as_i64().expect("a group"),
                );
                self.rights.insert(id, right);
                (true, id, right)
            }
            (Some("DELETE"), Some("/role_assignments/{id}")) => {
                self.repeated += usize::from(status == 404);
                let id = request["path"]
                    .as_str()
                    .and_then(|it| it.rsplit('/').next());
                let id: i64 = id.and_then(|id| id.parse().ok()).expect("an id");
                if status == 0 {
                    self.unheard.insert(id);
                }
                let right = self.rights.get(&id).copied();
                let (Some(right), true) = (right, is_done) else {
                    return;
                };
                (false, id, right)
            }
            _ => return,
        };
        let (user, group) = right;
        let Some((gym, plan)) = gyms.plan_of_group(Some(group)) else {
            return;
        };
        let member = emails.get(&user).and_then(|email| gym.member_of(email));
        let at: Timestamp = request["time"]
            .as_str()
            .and_then(|at| at.parse().ok())
            .expect("a time");
        if let Some(member) = member {
            self.writes.push(Write {
                seq,
                at: at.as_microsecond(),
                right: id,
                member,
                group,
                plan,
                opens,
            });
        }
    }

    /// Every write that no decision stands behind which was not overtaken at its time.
    ///
    /// The writes of a member are told off against versions that only grow. A version that was
    /// decided later than the write arrived cannot be behind it, nor one that is older than what had
    /// been answered before.
    pub fn stale(&self, decisions: &Decisions, heard: &Heard) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut floors: BTreeMap<(&Member, &str), i64> = BTreeMap::new();
        for write in &self.writes {
            let floor = floors.entry((&write.member, write.plan)).or_default();
            let answers = heard.get(&write.member).into_iter().flatten();
            let answered = answers
                .filter(|(_, at)| at + PASSED < write.at)
                .map(|(version, _)| *version)
                .max();
            let least = (*floor).max(answered.unwrap_or(0));
            let of_member = decisions.get(&write.member).map_or(&[][..], Vec::as_slice);
            let behind = of_member.iter().find(|decision| {
                decision.version >= least
                    && decision.version <= write.at
                    && decision.plans.contains(write.plan) == write.opens
            });
            match behind {
                Some(decision) => *floor = decision.version,
                None => wrong.push(format!("{write:?} after {least}: {of_member:?}")),
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::desk::{DAY, Decision};
    use super::*;

    fn member() -> Member {
        ("gym".into(), "m".into())
    }

    fn decisions(of: &[(i64, bool)]) -> Decisions {
        let decision = |&(version, has): &(i64, bool)| Decision {
            version,
            plans: if has {
                BTreeSet::from([DAY])
            } else {
                BTreeSet::new()
            },
        };
        BTreeMap::from([(member(), of.iter().map(decision).collect())])
    }

    fn stale(of: &[(i64, bool)], writes: &[(i64, bool)], heard: &[(i64, i64)]) -> usize {
        let write = |&(at, opens): &(i64, bool)| Write {
            seq: 0,
            at,
            right: 0,
            member: member(),
            group: 0,
            plan: DAY,
            opens,
        };
        let ledger = Ledger {
            writes: writes.iter().map(write).collect(),
            ..Ledger::default()
        };
        let heard = Heard::from([(member(), heard.to_vec())]);
        ledger.stale(&decisions(of), &heard).len()
    }

    #[test]
    fn a_write_that_was_overtaken_shows() {
        const S: i64 = 1_000_000;
        let of = [(S, true), (10 * S, false), (20 * S, true)];
        // Each in its time, and one for two that cancel each other out.
        assert_eq!(
            stale(&of, &[(2 * S, true), (11 * S, false), (21 * S, true)], &[]),
            0
        );
        assert_eq!(stale(&of, &[(21 * S, true)], &[]), 0);
        // After the newer one, before it was decided, and after it was answered.
        assert_eq!(
            stale(
                &of[..2],
                &[(2 * S, true), (11 * S, false), (12 * S, true)],
                &[]
            ),
            1
        );
        assert_eq!(stale(&of, &[(2 * S, true), (9 * S, false)], &[]), 1);
        assert_eq!(stale(&of[..2], &[(15 * S, true)], &[(10 * S, 11 * S)]), 1);
        assert_eq!(
            stale(&of[..2], &[(10 * S + 1, true)], &[(10 * S, 10 * S)]),
            0
        );
    }
}
