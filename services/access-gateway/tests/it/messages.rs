//! Messages of the bus as the other services would publish them.

use contracts::access::v1::{AccessApplied, AppliedGrant, Timings};
use contracts::integration::v1::{
    Association, GroupDoor, GroupDoors, IntegrationChanged, Policies,
};
use contracts::membership::v1::{MembershipState, MembershipStatusChanged, PlanAccess};
use contracts::wire;

use crate::world::{GROUP, GYM, now};

/// A gym whose plan `gold` opens one group with one door.
pub fn gym(version: i64, state: &str, member_resume: &str) -> IntegrationChanged {
    IntegrationChanged {
        gym_id: GYM.to_owned(),
        version,
        state: state.to_owned(),
        place_id: Some(7),
        associations: vec![Association {
            plan_id: "gold".to_owned(),
            group_id: GROUP,
        }],
        groups: vec![GroupDoors {
            group_id: GROUP,
            name: "Front".to_owned(),
            doors: vec![GroupDoor {
                lock_id: 21,
                name: "Front door".to_owned(),
                online: true,
            }],
        }],
        policies: Some(Policies {
            unmanaged: "leave".to_owned(),
            member_resume: member_resume.to_owned(),
            user_mode: "managed".to_owned(),
        }),
        ..Default::default()
    }
}

/// A decision on `member`: lets in by plan `gold` without reasons, refuses with some.
pub fn decision(member: &str, version: i64, reasons: &[&str]) -> MembershipStatusChanged {
    let words: Vec<String> = reasons.iter().map(|word| (*word).to_owned()).collect();
    let paused = reasons.contains(&"membership_paused");
    let plans = match reasons {
        [] => vec![PlanAccess {
            plan_id: "gold".to_owned(),
            ..Default::default()
        }],
        _ => Vec::new(),
    };
    MembershipStatusChanged {
        gym_id: GYM.to_owned(),
        member_id: member.to_owned(),
        version,
        allowed: reasons.is_empty(),
        plans,
        memberships: vec![MembershipState {
            membership_id: format!("ms_{member}"),
            plan_id: "gold".to_owned(),
            status: if paused { "paused" } else { "active" }.to_owned(),
            reasons: words.clone(),
            gives_access: reasons.is_empty(),
            starts_on: "2026-01-01".to_owned(),
            ..Default::default()
        }],
        reasons: words,
        decided_at: Some(wire::timestamp(now())),
        ..Default::default()
    }
}

/// An outcome at Kisi: these groups stand.
pub fn outcome(
    member: &str,
    applied_seq: i64,
    version: i64,
    word: &str,
    groups: &[i64],
) -> AccessApplied {
    AccessApplied {
        gym_id: GYM.to_owned(),
        member_id: member.to_owned(),
        version,
        applied_seq,
        outcome: word.to_owned(),
        grants: groups
            .iter()
            .map(|group| AppliedGrant {
                group_id: *group,
                assignment_id: 100 + group,
                ..Default::default()
            })
            .collect(),
        timings: Some(Timings {
            applied_at: Some(wire::timestamp(now())),
            ..Default::default()
        }),
        ..Default::default()
    }
}
