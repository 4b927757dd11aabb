//! How many requests the previewed sync takes: the pages that a pass reads, and its writes.

use std::collections::{BTreeMap, BTreeSet};

use access_domain::plan::Step;

use super::preview::Planned;
use super::previewed::{Previewed, find};

/// The key's owner: her role, her user, her logins; and the organization's integrations.
const KEY: u64 = 4;
/// Users on a page.
const USERS_PAGE: u64 = 100;
/// A window is changed, and read back.
const WINDOW: u64 = 2;

/// An estimate in so far as others go on with their work, and as nobody can know how many are at Kisi
/// already without any right.
pub(super) fn requests(
    planned: &Planned,
    shown: &Previewed<'_>,
    set: &BTreeMap<String, i64>,
    registers_webhook: bool,
) -> i64 {
    let groups: BTreeSet<i64> = set.values().copied().collect();
    let doors = 1 + 2 * groups.len() as u64;
    let pages = u64::try_from(planned.observed.requests).unwrap_or(0);
    let webhook = match (registers_webhook, planned.view.integration.synced) {
        (false, _) => 0,
        (true, true) => 1,
        // Looked for by its name, and made.
        (true, false) => 2,
    };
    let requests = KEY + doors + pages + webhook + writes(planned, shown);
    i64::try_from(requests).unwrap_or(i64::MAX)
}

fn writes(planned: &Planned, shown: &Previewed<'_>) -> u64 {
    let mut requests = 0;
    let mut gaining = BTreeSet::new();
    for step in &planned.plan.steps {
        match step {
            Step::Grant { member, .. } => {
                gaining.insert(member.as_str());
            }
            Step::ChangeWindow { .. } => requests += WINDOW,
            step if step.writes() => requests += 1,
            _ => {}
        }
    }
    let mut searches = 0;
    for member in gaining {
        let row = find(&planned.view.members, member);
        if let Some(row) = row.filter(|row| row.kisi_user_id.is_some()) {
            requests += u64::from(!row.looked);
            continue;
        }
        searches += 1;
        let is_another_s = shown.is_left_out(member) && !shown.is_seen(member);
        // Looked at, or made.
        requests += u64::from(!is_another_s);
    }
    requests + found(searches) + shown.grants().count() as u64
}

/// Many are found by reading all users, of whom at least those who are looked for may be there.
fn found(searches: u64) -> u64 {
    searches.div_ceil(USERS_PAGE)
}
