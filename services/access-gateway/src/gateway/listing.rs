//! Members of a gym with their access, a page at a time.
//!
//! Names and searching are membership-events'; statuses are ours. While membership-events is down a
//! list without a search is answered from memory, without names. A page token says which of the two
//! gave it, so that a page never continues the other's.

use std::time::Duration;

use contracts::access::v1::{ListMembersAccessRequest, ListMembersAccessResponse, MemberAccess};
use contracts::membership::v1::ListMembersRequest;
use service_runtime::identity::Caller;
use tonic::Code;

use super::Gateway;
use crate::decide::{self, Status};
use crate::facts::{GymFacts, MemberFacts};
use crate::permit::{self, Scope};
use crate::refusal::Refusal;
use crate::upstream::{membership_refused, within};

const LIMIT: Duration = Duration::from_secs(5);
/// Upstream pages looked through for one page of ours, so that a rare status cannot hold a call.
const MOST_PAGES: usize = 20;
const DEFAULT_SIZE: i32 = 100;
const MOST_SIZE: i32 = 500;
const MOST_QUERY: usize = 200;
const FROM_MEMORY: &str = "m.";
const FROM_EVENTS: &str = "e.";

impl Gateway {
    /// A page of members.
    pub async fn list_members(
        &self,
        caller: &Caller,
        request: &ListMembersAccessRequest,
    ) -> Result<ListMembersAccessResponse, Refusal> {
        permit::staff(caller, &request.gym_id, Scope::Read)?;
        let size = match request.page_size {
            0 => DEFAULT_SIZE,
            size @ 1..=MOST_SIZE => size,
            _ => {
                return Err(Refusal::field("page_size", "1 to 500 is expected"));
            }
        };
        if request.query.len() > MOST_QUERY {
            return Err(Refusal::field("query", "at most 200 bytes are expected"));
        }
        let status = match request.status.as_str() {
            "" => None,
            word => Some(Status::parse(word).ok_or_else(|| {
                let words = Status::WORDS.join(", ");
                Refusal::field("status", format!("one of {words} is expected"))
            })?),
        };
        self.caught_up()?;
        let token = request.page_token.as_str();
        if let Some(after) = token.strip_prefix(FROM_MEMORY) {
            return Ok(self.page_from_memory(&request.gym_id, Some(after), size, status));
        }
        let upstream_token = match token {
            "" => "",
            token => token.strip_prefix(FROM_EVENTS).ok_or_else(|| {
                Refusal::field("page_token", "a next_page_token of this list is expected")
            })?,
        };
        match self
            .page_from_events(caller, request, upstream_token, size, status)
            .await
        {
            Err(Refusal::Upstream { status: down, .. })
                if token.is_empty()
                    && request.query.is_empty()
                    && matches!(down.code(), Code::Unavailable | Code::DeadlineExceeded) =>
            {
                Ok(self.page_from_memory(&request.gym_id, None, size, status))
            }
            answer => answer,
        }
    }

    async fn page_from_events(
        &self,
        caller: &Caller,
        request: &ListMembersAccessRequest,
        token: &str,
        size: i32,
        status: Option<Status>,
    ) -> Result<ListMembersAccessResponse, Refusal> {
        let mut membership = self.upstream.membership();
        let mut members = Vec::new();
        let mut page_token = token.to_owned();
        for _ in 0..MOST_PAGES {
            let missing = size - i32::try_from(members.len()).unwrap_or(i32::MAX);
            let ask = ListMembersRequest {
                gym_id: request.gym_id.clone(),
                query: request.query.clone(),
                // Never more than fit: a page of theirs cannot be cut in two.
                page_size: missing,
                page_token: std::mem::take(&mut page_token),
                ..Default::default()
            };
            let page = membership
                .list_members(within(LIMIT, caller, ask))
                .await
                .map_err(membership_refused)?
                .into_inner();
            let now = self.clock.now();
            for found in page.members.into_iter().filter(|found| !found.erased) {
                let row = match self.projection.member(&request.gym_id, &found.member_id) {
                    Some((gym, facts)) => row(&found.member_id, gym.as_deref(), &facts, now),
                    None => None,
                };
                // A member without a decision yet has no access, and is shown.
                let mut row = row.unwrap_or_else(|| MemberAccess {
                    member_id: found.member_id,
                    status: Status::Denied.as_str().to_owned(),
                    ..Default::default()
                });
                row.name = found.name;
                row.email = found.email;
                if status.is_none_or(|status| status.as_str() == row.status) {
                    members.push(row);
                }
            }
            page_token = page.next_page_token;
            if page_token.is_empty() || i32::try_from(members.len()).is_ok_and(|len| len >= size) {
                break;
            }
        }
        let next_page_token = if page_token.is_empty() {
            String::new()
        } else {
            format!("{FROM_EVENTS}{page_token}")
        };
        Ok(ListMembersAccessResponse {
            members,
            next_page_token,
        })
    }

    fn page_from_memory(
        &self,
        gym: &str,
        after: Option<&str>,
        size: i32,
        status: Option<Status>,
    ) -> ListMembersAccessResponse {
        let now = self.clock.now();
        let limit = usize::try_from(size).unwrap_or_default();
        let mut members = self
            .projection
            .members(gym, after, limit + 1, |id, gym, facts| {
                row(id, gym, facts, now)
                    .filter(|row| status.is_none_or(|status| status.as_str() == row.status))
            });
        let more = members.len() > limit;
        members.truncate(limit);
        let last = members.last().filter(|_| more);
        ListMembersAccessResponse {
            next_page_token: last
                .map(|row| format!("{FROM_MEMORY}{}", row.member_id))
                .unwrap_or_default(),
            members,
        }
    }
}

fn row(
    member: &str,
    gym: Option<&GymFacts>,
    facts: &MemberFacts,
    now: jiff::Timestamp,
) -> Option<MemberAccess> {
    let access = decide::access(gym, facts, None, now)?;
    Some(MemberAccess {
        member_id: member.to_owned(),
        status: access.status.as_str().to_owned(),
        reasons: facts
            .known()?
            .reasons
            .iter()
            .map(|reason| reason.as_str().to_owned())
            .collect(),
        ..Default::default()
    })
}
