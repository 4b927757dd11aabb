//! Why a member is let in or not, at an instant: what membership-events keeps of its decisions.
//!
//! It tells what was decided. What Kisi made of it is on the member's page.

use std::time::Duration;

use contracts::access::v1 as wire;
use contracts::membership::v1::{Cause, ExplainMemberRequest};
use service_runtime::identity::{Caller, Role};

use super::Gateway;
use crate::permit::{self, Scope};
use crate::refusal::Refusal;
use crate::upstream::{membership_refused, within};

const LIMIT: Duration = Duration::from_secs(10);

impl Gateway {
    /// What held at `at` (absent: now), since when, and what brought it about, newest first.
    pub async fn explain(
        &self,
        caller: &Caller,
        request: wire::ExplainAccessRequest,
    ) -> Result<wire::ExplainAccessResponse, Refusal> {
        permit::member(caller, &request.gym_id, &request.member_id, Scope::Read)?;
        let own = format!("member:{}", request.member_id);
        let ask = ExplainMemberRequest {
            gym_id: request.gym_id,
            member_id: request.member_id,
            at: request.at,
        };
        let mut membership_events = self.upstream.membership();
        let answer = membership_events
            .explain_member(within(LIMIT, caller, ask))
            .await
            .map_err(membership_refused)?
            .into_inner();
        let state = answer.state.unwrap_or_default();
        let version = state.version;
        let entries = answer.causes.into_iter().enumerate().map(|(place, cause)| {
            // The version is known of the newest alone.
            let version = if place == 0 { version } else { 0 };
            entry(cause, version, caller.role, &own)
        });
        Ok(wire::ExplainAccessResponse {
            allowed: state.allowed,
            reasons: state.reasons,
            since: answer.since,
            entries: entries.collect(),
        })
    }
}

fn entry(cause: Cause, version: i64, asks: Role, own: &str) -> wire::TimelineEntry {
    let message = message(&cause);
    // Who of the staff it was is the staff's to know.
    let actor = match cause.actor.split_once(':') {
        Some((kind, _)) if asks == Role::Member && cause.actor != own => kind.to_owned(),
        _ => cause.actor,
    };
    wire::TimelineEntry {
        at: cause.received_at,
        kind: "decided".to_owned(),
        message,
        cause: match cause.id.as_str() {
            "" => cause.kind,
            id => format!("{}:{id}", cause.kind),
        },
        actor,
        version,
    }
}

/// In words.
fn message(cause: &Cause) -> String {
    match cause.kind.as_str() {
        "billing_event" => "The payment provider reported something.".to_owned(),
        "call" => format!("The membership was changed ({}).", cause.id),
        "timer" => "A date was reached.".to_owned(),
        "import" => "The gym's roster was imported.".to_owned(),
        "confirmed_import" => {
            "A roster without this membership was imported, and confirmed.".to_owned()
        }
        "override" => "Staff let the member in, barred them, or took that back.".to_owned(),
        "erasure" => "The member was erased.".to_owned(),
        other => other.replace('_', " "),
    }
}
