//! kisi-sync's side of a member's timeline, from the audit log: what changed at Kisi, what was held
//! or failed, and unlocks; newest first.
//!
//! A page ends with the number of its last row, and the next begins below it: what is written
//! meanwhile moves no row of a page to come. Rows are in the order of their instants, so that the
//! gateway can merge page by page.

use contracts::access::v1::{GetTimelineRequest, GetTimelineResponse, TimelineEntry};
use contracts::wire;
use tonic::Status;

use crate::audit::{Entry, MOVED, UNDONE};
use crate::desired::is_id;
use crate::refusal;
use crate::shared::Shared;
use crate::store::audit::Model;
use crate::store::integrations::GroupDoors;
use crate::store::{audit, instant, integrations, members, senseless};

const USUAL: u64 = 50;
const MOST: u64 = 200;

/// One page.
pub async fn page(
    shared: &Shared,
    request: &GetTimelineRequest,
) -> Result<GetTimelineResponse, Status> {
    let (gym, member) = (&request.gym_id, &request.member_id);
    if !is_id(member) {
        return Err(refusal::invalid("member_id", "it is no id"));
    }
    let before = match request.page_token.as_str() {
        "" => i64::MAX,
        token => token
            .parse()
            .map_err(|_| refusal::invalid("page_token", "it is of no page"))?,
    };
    let size = match u64::try_from(request.page_size) {
        Ok(0) => USUAL,
        Ok(size) => size.min(MOST),
        Err(_) => return Err(refusal::invalid("page_size", "0 to 200 is expected")),
    };
    members::find(&shared.db, gym, member)
        .await
        .map_err(refusal::store)?
        .ok_or_else(|| Status::not_found("there is no such member"))?;
    let row = integrations::find(&shared.db, gym)
        .await
        .map_err(refusal::store)?;
    let groups = match row {
        Some(row) => row.groups().map_err(refusal::store)?,
        None => Vec::new(),
    };
    let rows = audit::list_of_member(&shared.db, gym, member, before, size)
        .await
        .map_err(refusal::store)?;
    let next_page_token = match rows.last() {
        Some(last) if rows.len() as u64 == size => last.seq.to_string(),
        _ => String::new(),
    };
    let entries: Result<Vec<TimelineEntry>, Status> =
        rows.iter().map(|row| told(row, &groups)).collect();
    Ok(GetTimelineResponse {
        entries: entries?,
        next_page_token,
    })
}

fn told(row: &Model, groups: &[GroupDoors]) -> Result<TimelineEntry, Status> {
    let entry: Entry = serde_json::from_str(&row.entry)
        .map_err(|_| refusal::store(senseless("audit", "entry", &row.seq.to_string())))?;
    Ok(TimelineEntry {
        at: Some(wire::timestamp(instant(row.at))),
        message: message(&entry, groups),
        cause: match entry.cause.id.as_str() {
            "" => entry.cause.kind.clone(),
            id => format!("{}:{id}", entry.cause.kind),
        },
        actor: entry.cause.actor.unwrap_or_default(),
        version: entry.version,
        kind: entry.action,
    })
}

/// In words. Ids where a name is not known any more.
fn message(entry: &Entry, groups: &[GroupDoors]) -> String {
    let group = entry.group.map_or_else(String::new, |id| {
        let known = groups.iter().find(|group| group.group_id == id);
        known.map_or_else(|| format!("group {id}"), |group| group.name.clone())
    });
    let door = entry.object.map_or_else(String::new, |id| {
        let doors = groups.iter().flat_map(|group| &group.doors);
        let known = doors.into_iter().find(|door| door.lock_id == id);
        known.map_or_else(|| format!("door {id}"), |door| door.name.clone())
    });
    let detail = entry.detail.as_str();
    match entry.action.as_str() {
        "granted" => format!("Kisi accepted the right for {group}."),
        "revoked" if detail == "gone_before" => {
            format!("The right for {group} was to be taken back, and was gone at Kisi.")
        }
        "revoked" => format!("Kisi accepted that the right for {group} is taken back."),
        "window_changed" => format!("Kisi accepted another time for the right for {group}."),
        "replaced" => format!("The right for {group} was taken away to be given anew."),
        "duplicate_removed" => format!("A second right for {group} was removed."),
        UNDONE => format!("The right for {group} was taken away at Kisi by others."),
        MOVED => format!("The time of the right for {group} was changed at Kisi by others."),
        "unanswered" => {
            "Kisi did not answer a request; it was looked at what came of it.".to_owned()
        }
        "user_created" => "The member was made known to Kisi.".to_owned(),
        "user_changed" => "The member's entry at Kisi was changed.".to_owned(),
        "user_deleted" => "The member's entry at Kisi was deleted.".to_owned(),
        "login_made" => "A login was made for opening doors from the app.".to_owned(),
        "device_enrolled" => "A phone was enrolled.".to_owned(),
        "device_primary" => "A phone was made the primary one.".to_owned(),
        "device_withdrawn" => "A phone was withdrawn.".to_owned(),
        "held" => "The change is held until staff decide on it.".to_owned(),
        "failed" => format!("The change could not be made: {detail}."),
        "unlocked" => format!("{door} was opened."),
        "unlock_refused" => format!("{door} was not opened: {detail}."),
        other => other.replace('_', " "),
    }
}
