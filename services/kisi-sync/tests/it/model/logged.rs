//! The audit log against what Kisi did: each right that our key made or removed has its row, with who
//! it was for and what caused it, and no row tells of what never was.
//!
//! Where the answer was lost there are two forms. A right that is found later has a row `granted`
//! "found", one that is found gone a row `revoked` "found_gone" or "gone_before"; and where nobody
//! ever found out, the row `unanswered` of the request stands for it.

use std::collections::{BTreeMap, BTreeSet};

use kisi_simulator::request_log::Entry as Request;
use kisi_sync::audit::Entry;
use serde_json::Value;

use super::truth::Truth;
use super::watch::Seen;

const MADE: [&str; 2] = ["granted", "window_changed"];
const REMOVED: [&str; 3] = ["revoked", "replaced", "duplicate_removed"];

/// What Kisi did for our key.
#[derive(Debug, Default)]
pub struct Done {
    /// Each right that was made: on which group, and of whom; where it went with its user before it
    /// was seen, nobody knows.
    pub made: BTreeMap<i64, (i64, Option<String>)>,
    /// Rights of which Kisi said that it removed them.
    pub removed: BTreeSet<i64>,
    /// Those that it removed, and whose answer was lost.
    pub removed_unheard: BTreeSet<i64>,
    /// Rights that open something: Kisi may say of one that has ended that it is not there.
    pub standing: BTreeSet<i64>,
}

impl Done {
    /// From the log of requests, and from what was seen: an answer that says 503 names no right.
    pub fn of<'a>(truth: &Truth, seen: &Seen, log: impl Iterator<Item = &'a Request>) -> Self {
        let mut done = Self::default();
        for right in super::judge::ours(truth, seen) {
            let member = truth.member_of(&right.email).map(str::to_owned);
            done.made.insert(right.row.id, (right.group, member));
            if super::judge::stands(right) {
                done.standing.insert(right.row.id);
            }
        }
        for request in log {
            let is_done = request.status.is_none_or(|it| (200..300).contains(&it));
            match (request.method.as_str(), request.route.as_str()) {
                ("POST", "/role_assignments") if is_done => {
                    let made = &request.response_body;
                    if let (Some(id), Some(group)) =
                        (made["id"].as_i64(), made["applies_to_id"].as_i64())
                    {
                        done.made.entry(id).or_insert((group, None));
                    }
                }
                // A refusal has a body.
                ("DELETE", "/role_assignments/{id}")
                    if is_done && request.response_body == Value::Null =>
                {
                    let id: Option<i64> = request
                        .path
                        .rsplit('/')
                        .next()
                        .and_then(|id| id.parse().ok());
                    let removed = match request.status {
                        Some(_) => &mut done.removed,
                        None => &mut done.removed_unheard,
                    };
                    removed.extend(id);
                }
                _ => {}
            }
        }
        done
    }
}

/// Everything that the log lacks, or tells and was not.
pub fn complaints(done: &Done, log: &[Entry]) -> Vec<String> {
    let mut wrong = Vec::new();
    let about = |entry: &&Entry| entry.request.contains("/role_assignments");
    let log: Vec<&Entry> = log.iter().filter(about).collect();
    let rows = |actions: &'static [&'static str], right: i64| {
        let rows = log.iter().copied();
        rows.filter(move |row| row.object == Some(right) && actions.contains(&row.action.as_str()))
    };
    let mut unheard: BTreeMap<(Option<&str>, Option<i64>), usize> = BTreeMap::new();
    for row in log.iter().filter(|row| row.action == "unanswered") {
        if row.request.starts_with("POST") {
            *unheard
                .entry((row.member.as_deref(), row.group))
                .or_default() += 1;
        }
    }
    for (right, (group, member)) in &done.made {
        let mut found = rows(&MADE, *right);
        if found.next().is_none() {
            let left = unheard.get_mut(&(member.as_deref(), Some(*group)));
            match left.filter(|left| **left > 0) {
                Some(left) => *left -= 1,
                None => wrong.push(format!(
                    "{right} was made, and no row says so: {group} {member:?}"
                )),
            }
        }
    }
    for right in &done.removed {
        if rows(&REMOVED, *right).next().is_none() {
            wrong.push(format!("{right} was removed, and no row says so"));
        }
    }
    for right in &done.removed_unheard {
        let unanswered = rows(&["unanswered"], *right).next();
        if rows(&REMOVED, *right).chain(unanswered).next().is_none() {
            wrong.push(format!("{right} was removed unheard, and no row says so"));
        }
    }
    for row in &log {
        let action = row.action.as_str();
        let is_known =
            MADE.contains(&action) || REMOVED.contains(&action) || action == "unanswered";
        if !is_known {
            wrong.push(format!("a row of another form: {row:?}"));
        }
        if row.member.is_none() || row.group.is_none() || row.cause.kind.is_empty() {
            wrong.push(format!("a row without who, what or why: {row:?}"));
        }
        let Some(right) = row.object else {
            if action != "unanswered" {
                wrong.push(format!("a row that names no right: {row:?}"));
            }
            continue;
        };
        match done.made.get(&right) {
            Some((group, member)) => {
                let is_hers = member.is_none() || *member == row.member;
                if Some(*group) != row.group || !is_hers {
                    wrong.push(format!("another right than {group} of {member:?}: {row:?}"));
                }
            }
            None => wrong.push(format!("no such right was made by us: {row:?}")),
        }
        if REMOVED.contains(&action) {
            let is_gone = match row.detail.as_str() {
                "found_gone" | "gone_before" => !done.standing.contains(&right),
                _ => done.removed.contains(&right),
            };
            if !is_gone {
                wrong.push(format!("it was not removed: {row:?}"));
            }
        }
    }
    wrong
}

#[test]
fn a_log_that_lacks_or_invents_a_row_is_complained_of() {
    let cause = kisi_sync::store::members::Cause::new("call", "PutMembership", None);
    let row = |action: &str, request: &str, right: Option<i64>| Entry {
        object: right,
        ..Entry::new(action)
            .request(request, &[])
            .group(5)
            .about("m1")
            .caused_by(cause.clone())
    };
    let (post, get) = ("POST /role_assignments", "GET /role_assignments");
    let delete = "DELETE /role_assignments/{id}";
    let of = |id: i64| (id, (5, Some("m1".to_owned())));
    let done = Done {
        made: BTreeMap::from([of(1), of(2), of(3), of(4)]),
        removed: BTreeSet::from([1]),
        removed_unheard: BTreeSet::from([2]),
        standing: BTreeSet::from([3]),
    };
    let whole = [
        row("granted", post, Some(1)),
        row("revoked", delete, Some(1)),
        row("unanswered", post, None),
        row("granted", get, Some(2)),
        row("unanswered", delete, Some(2)),
        row("window_changed", post, Some(3)),
        // Of the fourth the outcome was never found.
    ];
    assert_eq!(complaints(&done, &whole), Vec::<String>::new());
    for lacking in 0..whole.len() {
        let mut log = whole.to_vec();
        log.remove(lacking);
        assert_eq!(complaints(&done, &log).len(), 1, "without row {lacking}");
    }
    let mut nobody = row("granted", get, Some(3));
    nobody.cause.kind.clear();
    let invented = [
        row("granted", post, Some(9)),
        row("revoked", delete, Some(3)),
        row("revoked", delete, Some(3)).detail("found_gone"),
        row("granted", post, Some(3)).about("m2"),
        row("granted", post, Some(3)).group(6),
        nobody,
    ];
    for row in invented {
        let log: Vec<Entry> = whole.iter().cloned().chain([row.clone()]).collect();
        assert_eq!(complaints(&done, &log).len(), 1, "{row:?}");
    }
}
