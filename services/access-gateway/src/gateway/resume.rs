//! A member asks to be resumed, by the gym's policy: `request` keeps the wish and access follows
//! billing's answer, `immediate` resumes here, `off` refuses.

use std::time::Duration;

use contracts::access::v1::ResumeAccessRequest;
use contracts::membership::v1::{RequestResumeRequest, ResumeMembershipRequest};
use contracts::wire::timestamp;
use service_runtime::identity::Caller;

use super::{Gateway, unknown_member};
use crate::facts::Decided;
use crate::permit::{self, Scope, check_ids};
use crate::refusal::Refusal;
use crate::upstream::{membership_refused, within};
use crate::words::{MemberResume, Reason};

const LIMIT: Duration = Duration::from_secs(10);

/// What came of the wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    /// Kept; access follows billing's answer.
    Requested,
    /// Resumed.
    Resumed,
}

impl Resumed {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Resumed => "resumed",
        }
    }
}

impl Gateway {
    /// Resumes, or asks for it. Without a membership named, every paused one of the member is
    /// meant; a request, of which a member has one at a time, names the first.
    pub async fn resume(
        &self,
        caller: &Caller,
        request: &ResumeAccessRequest,
    ) -> Result<Resumed, Refusal> {
        let (gym_id, member_id) = (&request.gym_id, &request.member_id);
        permit::member(caller, gym_id, member_id, Scope::Override)?;
        if !request.membership_id.is_empty() {
            check_ids(&[("membership_id", &request.membership_id)])?;
        }
        self.caught_up()?;
        let (gym, facts) = self
            .projection
            .member(gym_id, member_id)
            .ok_or_else(unknown_member)?;
        let decided = facts.known().ok_or_else(unknown_member)?;
        let policy = gym.map_or(MemberResume::default(), |gym| gym.member_resume);
        if policy == MemberResume::Off {
            return Err(Refusal::Forbidden(
                "this gym resumes memberships itself; please talk to the staff".to_owned(),
            ));
        }
        let memberships = meant(decided, &request.membership_id)?;
        let mut membership_events = self.upstream.membership();
        if policy == MemberResume::Request {
            let ask = RequestResumeRequest {
                gym_id: gym_id.clone(),
                membership_id: memberships.into_iter().next().unwrap_or_default(),
                member_id: member_id.clone(),
            };
            membership_events
                .request_resume(within(LIMIT, caller, ask))
                .await
                .map_err(membership_refused)?;
            return Ok(Resumed::Requested);
        }
        for membership_id in memberships {
            let resume = ResumeMembershipRequest {
                gym_id: gym_id.clone(),
                membership_id,
                pause_id: None,
                // The numbers of a membership are its source's own.
                at: Some(timestamp(self.clock.now())),
                source_version: 0,
                unnumbered: true,
            };
            let outcome = membership_events
                .resume_membership(within(LIMIT, caller, resume))
                .await
                .map_err(membership_refused)?
                .into_inner();
            if !outcome.applied {
                return Err(Refusal::Conflict(
                    "a newer change of this membership stands; it was not resumed".to_owned(),
                ));
            }
        }
        Ok(Resumed::Resumed)
    }
}

fn meant(decided: &Decided, named: &str) -> Result<Vec<String>, Refusal> {
    let mut own = decided.memberships.iter();
    if !named.is_empty() {
        let membership = own
            .find(|membership| membership.membership_id.as_ref() == named)
            .ok_or_else(|| Refusal::NotFound("this member has no such membership".to_owned()))?;
        if !is_paused(membership) {
            return Err(Refusal::Conflict(
                "this membership is not paused".to_owned(),
            ));
        }
        return Ok(vec![named.to_owned()]);
    }
    let paused: Vec<String> = own
        .filter(|membership| is_paused(membership))
        .map(|membership| membership.membership_id.to_string())
        .collect();
    if paused.is_empty() {
        return Err(Refusal::Conflict("no membership is paused".to_owned()));
    }
    Ok(paused)
}

fn is_paused(membership: &crate::facts::MembershipFacts) -> bool {
    membership.paused || membership.reasons.contains(Reason::MembershipPaused)
}
