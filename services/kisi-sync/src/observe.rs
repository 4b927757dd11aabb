//! Looking at all of a gym's groups: what stands, how far it can be believed, and what of ours is
//! really gone.
//!
//! A listing is believed when it is whole and does not lack more of ours than accidents explain;
//! a row of ours that it lacks is fetched by its id before anybody calls it gone. Rows touched
//! since the look began are left for the next pass.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use access_domain::grant::{Holder, ObservedGrant, ObservedGrants, Window};
use access_domain::ids::{GroupId, MemberId};
use kisi_client::model::{AssignmentFilter, NewGroupAssignment, RoleAssignment};
use kisi_client::{HttpKisi, KisiError, KisiRead, Lane, Listing};

use crate::brake::Brake;
use crate::error::is_of_one_request;
use crate::sharing::Elsewhere;
use crate::steps;
use crate::store::applied_grants::{self, STANDING};
use crate::store::{instant, members, micros};

/// How often a list is read before it is not believed.
const READINGS: usize = 3;

/// What is there.
#[derive(Debug, Default)]
pub struct Observed {
    pub grants: ObservedGrants,
    /// Rows of ours that Kisi does not know any more.
    pub gone: Vec<applied_grants::Model>,
    /// Rows of ours of which Kisi has another window.
    pub moved: Vec<Moved>,
    /// Rows of ours that stand for a user whom Kisi does not name.
    pub of_nobody: Vec<applied_grants::Model>,
    /// Kisi names users whose rights these are.
    pub names_users: bool,
    /// Member to the groups that others opened, each with the right, for the groups that were believed.
    pub opened_by_others: BTreeMap<String, BTreeSet<(i64, i64)>>,
    /// Rights that others gave.
    pub unmanaged: Vec<Unmanaged>,
    /// Groups that are there.
    pub groups_found: BTreeSet<i64>,
    /// Groups that are gone.
    pub groups_missing: Vec<i64>,
    /// Groups whose listing is not believed.
    pub distrusted: Vec<i64>,
    /// Groups that could not be looked at.
    pub failed: Vec<(i64, KisiError)>,
    /// The lists that were believed, by group, where they are kept.
    pub lists: Lists,
    /// Some of them were given by an integration of Kisi's own.
    pub by_integration: bool,
    pub requests: i64,
}

impl Observed {
    /// Groups with more rights than Kisi lets anyone list. No pass will ever see one whole, so what is
    /// ours there is known by our own table alone.
    pub fn too_long(&self) -> BTreeSet<i64> {
        let failed = self.failed.iter();
        let too_long = failed.filter(|(_, error)| is_too_long(error));
        too_long.map(|(group, _)| *group).collect()
    }

    /// Where not one group could be looked at, it may be no matter of a group: which failure tells.
    pub fn saw_nothing(&self) -> Option<usize> {
        let seen = self.grants.groups.len() + self.groups_missing.len() + self.distrusted.len();
        let answered = self.failed.iter().any(|(_, error)| is_too_long(error));
        if seen > 0 || answered || self.failed.is_empty() {
            return None;
        }
        // It may be the key where each of them is forbidden.
        let mut failed = self.failed.iter();
        let other = failed.position(|(_, error)| !error.is_key_dead());
        Some(other.unwrap_or_default())
    }

    /// Groups of which nothing is concluded, and why.
    pub fn unseen(&self) -> Vec<(i64, String)> {
        let missing = self.groups_missing.iter();
        let missing = missing.map(|group| (*group, "group_missing".to_owned()));
        let distrusted = self.distrusted.iter();
        let distrusted = distrusted.map(|group| (*group, "listing_distrusted".to_owned()));
        let failed = self.failed.iter();
        let failed = failed.map(|(group, error)| (*group, error.to_string()));
        missing.chain(distrusted).chain(failed).collect()
    }
}

fn is_too_long(error: &KisiError) -> bool {
    matches!(error, KisiError::BeyondOffsetLimit { .. })
}

/// Every right on each of some groups.
pub type Lists = BTreeMap<i64, Vec<RoleAssignment>>;

/// A right that others gave.
#[derive(Debug, Clone)]
pub struct Unmanaged {
    pub assignment: i64,
    pub group: i64,
    pub user: Option<i64>,
    pub member: Option<String>,
}

/// A right of ours whose window is not what it was.
#[derive(Debug)]
pub struct Moved {
    /// As the tables have it.
    pub row: applied_grants::Model,
    /// As Kisi has it.
    pub window: steps::Window,
}

/// What the tables say, as of the beginning of the look.
pub struct Known<'a> {
    pub rows: &'a [applied_grants::Model],
    pub members: &'a [members::Model],
    /// What other gyms of the organization have.
    pub elsewhere: &'a Elsewhere,
    /// When all this was read from the tables.
    pub read_at: i64,
    pub now: i64,
    /// The gym's counts, where it is worked on here.
    pub brake: Option<&'a Brake>,
    /// Groups that are known to be there, or not to be.
    pub groups: &'a GroupsSeen,
    /// Groups that were gone when they were last asked for.
    pub suspected: BTreeSet<i64>,
    /// Groups that somebody should be in.
    pub wanted: BTreeSet<i64>,
    /// Whether the lists are kept. They are as long as the gym is large.
    pub keeps_lists: bool,
}

/// Groups that were asked for just now.
#[derive(Debug, Default, Clone)]
pub struct GroupsSeen {
    pub found: BTreeSet<i64>,
    pub missing: BTreeSet<i64>,
}

impl Known<'_> {
    fn writes(&self, group: i64) -> u64 {
        self.brake.map_or(0, |brake| brake.writes(group))
    }
}

/// Lists every group once. An answer that is about one group leaves the others; what is about the key
/// or the way to Kisi ends the look.
pub async fn observe(
    kisi: &HttpKisi,
    lane: Lane,
    groups: &BTreeSet<i64>,
    known: &Known<'_>,
) -> Result<Observed, KisiError> {
    let mut observed = Observed {
        groups_found: known.groups.found.clone(),
        ..Observed::default()
    };
    let mut members = HashMap::new();
    for member in known.members {
        if let Some(user) = member.kisi_user_id {
            members.entry(user).or_insert(member);
        }
    }
    for group in groups {
        match look_at_group(kisi, lane, *group, known, &members, &mut observed).await {
            Ok(()) => {}
            // The others may be seen all the same.
            Err(error) if is_of_one_request(&error) => observed.failed.push((*group, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(observed)
}

async fn look_at_group(
    kisi: &HttpKisi,
    lane: Lane,
    group: i64,
    known: &Known<'_>,
    members: &HashMap<i64, &members::Model>,
    observed: &mut Observed,
) -> Result<(), KisiError> {
    let ours: Vec<&applied_grants::Model> = known
        .rows
        .iter()
        .filter(|row| row.group_id == group && row.state == STANDING)
        .collect();
    let is_gone = known.groups.missing.contains(&group)
        || (known.suspected.contains(&group) && !is_there(kisi, lane, group, observed).await?);
    if is_gone {
        observed.groups_missing.push(group);
        return Ok(());
    }
    let Some(listed) = list(kisi, lane, group, known, observed).await? else {
        return Ok(());
    };
    let ids: BTreeSet<i64> = listed.iter().map(|row| row.id).collect();
    // Past its end a row may be listed, hidden or deleted: its absence says nothing. Its id is kept
    // until it is not wanted any more, because a hidden one stands in the way of another.
    let has_ended =
        |row: &applied_grants::Model| row.valid_until.is_some_and(|until| until <= known.now);
    let lacking: Vec<&applied_grants::Model> = ours
        .iter()
        .filter(|row| row.assignment_id.is_some_and(|id| !ids.contains(&id)))
        .filter(|row| !has_ended(row))
        .copied()
        .collect();
    let lacks_many = lacking.len() > (ours.len() / 20).max(10);
    // The list of a group that is gone may be an empty one.
    let lacks_all = listed.is_empty() && (!lacking.is_empty() || known.wanted.contains(&group));
    if lacks_many || lacks_all {
        if !is_there(kisi, lane, group, observed).await? {
            observed.groups_missing.push(group);
            return Ok(());
        }
        if lacks_many {
            observed.distrusted.push(group);
            return Ok(());
        }
    }
    let mut still_there = Vec::new();
    let mut gone = Vec::new();
    for row in lacking {
        observed.requests += 1;
        let id = row.assignment_id.unwrap_or_default();
        match kisi.find_role_assignment(lane, id).await? {
            Some(found) => still_there.push(found),
            None => gone.push(row.clone()),
        }
    }
    observed.gone.extend(gone);
    if !listed.is_empty() {
        observed.groups_found.insert(group);
    }
    observed.grants.groups.insert(GroupId(group));
    let by_id = ours
        .iter()
        .filter_map(|row| Some((row.assignment_id?, *row)));
    let ours: HashMap<i64, &applied_grants::Model> = by_id.collect();
    for row in listed.iter().chain(&still_there) {
        sort_in(row, group, &ours, known, members, observed);
    }
    if known.keeps_lists {
        observed.lists.insert(group, listed);
    }
    Ok(())
}

/// Whether Kisi knows the group. It is asked once.
async fn is_there(
    kisi: &HttpKisi,
    lane: Lane,
    group: i64,
    observed: &mut Observed,
) -> Result<bool, KisiError> {
    if observed.groups_found.contains(&group) {
        return Ok(true);
    }
    observed.requests += 1;
    let found = kisi.find_group(lane, group).await?.is_some();
    if found {
        observed.groups_found.insert(group);
    }
    Ok(found)
}

/// The group's rows; None when the listing is not whole, or the group is gone.
async fn list(
    kisi: &HttpKisi,
    lane: Lane,
    group: i64,
    known: &Known<'_>,
    observed: &mut Observed,
) -> Result<Option<Vec<RoleAssignment>>, KisiError> {
    let mut earlier = BTreeSet::new();
    for _ in 0..READINGS {
        let written = known.writes(group);
        let listed = kisi
            .list_role_assignments(lane, AssignmentFilter::Group(group))
            .await;
        match listed {
            Ok(mut listing) => {
                observed.requests += i64::try_from(listing.total / 250).unwrap_or(0) + 1;
                let own = known.writes(group).saturating_sub(written);
                let is_whole = listing.complete
                    || is_explained(&listing, own)
                    || fill(kisi, lane, &mut listing, &mut earlier, own, observed).await?;
                if is_whole {
                    return Ok(Some(listing.items));
                }
                earlier.extend(listing.items.iter().map(|row| row.id));
            }
            Err(error) if error.is_not_found() => {
                observed.requests += 1;
                observed.groups_missing.push(group);
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    observed.distrusted.push(group);
    Ok(None)
}

/// Whether writes meanwhile, our own and as many of others as the total tells, explain what the
/// listing lacks or repeats: each moves the total, and one row past a page's edge. What of ours is
/// lacking is fetched by its id before it counts, and what others gave is seen by the next pass.
fn is_explained(listing: &Listing<RoleAssignment>, own: u64) -> bool {
    let distinct = listing.items.len() as u64;
    let writes = own + theirs(listing);
    writes > 0 && distinct.abs_diff(listing.total) <= writes && listing.duplicates <= writes
}

/// How many writes of others the total tells of. A leap is no work of theirs.
fn theirs(listing: &Listing<RoleAssignment>) -> u64 {
    match listing.total_moved {
        moved if moved <= few(listing.total) => moved,
        _ => 0,
    }
}

/// So many rows may be lacking by accident.
fn few(total: u64) -> u64 {
    (total / 20).max(10)
}

/// Rights that others replace move rows past a page's edge and leave the total where it is. What an
/// earlier reading had and this one lacks is fetched by its id; answers whether nothing lacks then.
async fn fill(
    kisi: &HttpKisi,
    lane: Lane,
    listing: &mut Listing<RoleAssignment>,
    earlier: &mut BTreeSet<i64>,
    own: u64,
    observed: &mut Observed,
) -> Result<bool, KisiError> {
    for row in &listing.items {
        earlier.remove(&row.id);
    }
    if earlier.is_empty() || earlier.len() as u64 > few(listing.total) {
        return Ok(false);
    }
    for id in std::mem::take(earlier) {
        observed.requests += 1;
        listing
            .items
            .extend(kisi.find_role_assignment(lane, id).await?);
    }
    let distinct = listing.items.len() as u64;
    Ok(distinct + own + theirs(listing) >= listing.total)
}

fn sort_in(
    row: &RoleAssignment,
    group: i64,
    ours: &HashMap<i64, &applied_grants::Model>,
    known: &Known<'_>,
    members: &HashMap<i64, &members::Model>,
    observed: &mut Observed,
) {
    let window = Window {
        from: row.valid_from,
        until: row.valid_until,
    };
    let user = row.user_on_group(group);
    observed.names_users |= user.is_some() && row.assignee.is_some();
    if let Some(mine) = ours.get(&row.id) {
        if user.is_some() && row.assignee.is_none() {
            observed.of_nobody.push((*mine).clone());
        }
        if let Ok(member) = MemberId::parse(&mine.member_id) {
            observed.grants.grants.push(ObservedGrant {
                assignment: row.id,
                holder: Holder::Member(member),
                group: GroupId(group),
                window,
                ours: true,
                plain: true,
            });
        }
        let kept = Window {
            from: mine.valid_from.map(instant),
            until: mine.valid_until.map(instant),
        };
        if !kept.opens_like(&window, instant(known.now)) {
            observed.moved.push(Moved {
                row: (*mine).clone(),
                window: steps::Window {
                    from: row.valid_from.map(micros),
                    until: row.valid_until.map(micros),
                },
            });
        }
        return;
    }
    if known.elsewhere.has(row) || known.elsewhere.may_have(row, known.read_at) {
        return;
    }
    let member = user.and_then(|user| members.get(&user));
    // What has ended opens nothing.
    let is_open = window.until.is_none_or(|until| until > instant(known.now));
    if let Some(member) = member.filter(|_| is_open) {
        observed
            .opened_by_others
            .entry(member.member_id.clone())
            .or_default()
            .insert((group, row.id));
    }
    let holder = member
        .and_then(|member| MemberId::parse(&member.member_id).ok())
        .map_or(Holder::Stranger(row.assignee_id), Holder::Member);
    observed.grants.grants.push(ObservedGrant {
        assignment: row.id,
        holder,
        group: GroupId(group),
        window,
        ours: false,
        plain: row.role_id == NewGroupAssignment::BASIC_ROLE,
    });
    observed.by_integration |= row.created_by_type.as_deref() == Some("MarketplaceInstallation");
    observed.unmanaged.push(Unmanaged {
        assignment: row.id,
        group,
        user,
        member: member.map(|member| member.member_id.clone()),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_explain_as_many_rows_as_they_are() {
        let moved = |rows: i64, total: u64, duplicates: u64, total_moved: u64| Listing {
            items: (1..=rows).map(of_nobody).collect(),
            total,
            complete: false,
            duplicates,
            total_moved,
        };
        let listing = |rows, total, duplicates| moved(rows, total, duplicates, 0);
        let cases = [
            (listing(299, 300, 0), 1, true),
            (listing(299, 300, 0), 0, false),
            (listing(297, 300, 0), 2, false),
            (listing(300, 300, 2), 1, false),
            (listing(300, 300, 2), 2, true),
            (moved(298, 300, 0, 2), 0, true),
            (moved(297, 300, 0, 2), 0, false),
            (moved(297, 300, 0, 2), 1, true),
            // Half a page is missing.
            (moved(275, 275, 0, 25), 0, false),
        ];
        for (listing, own, explained) in cases {
            assert_eq!(is_explained(&listing, own), explained, "{listing:?} {own}");
        }
    }

    fn of_nobody(id: i64) -> RoleAssignment {
        let text = format!(
            r#"{{"id":{id},"role_id":"group_basic","applies_to_type":"Group","applies_to_id":1,
                "assignee_type":"User","assignee_id":1}}"#
        );
        serde_json::from_str(&text).unwrap()
    }
}
