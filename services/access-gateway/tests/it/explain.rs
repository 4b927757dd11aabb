//! Why a member is let in or not, at an instant.

use contracts::membership::v1::{Cause, ExplainMemberResponse};
use contracts::wire::timestamp;
use jiff::Timestamp;
use serde_json::json;
use tonic::Status;

use crate::world::{GYM, World, decision};

const AT: &str = "2026-03-01T06:00:00Z";

fn cause(kind: &str, id: &str, actor: &str) -> Cause {
    Cause {
        kind: kind.to_owned(),
        id: id.to_owned(),
        actor: actor.to_owned(),
        received_at: Some(timestamp(AT.parse().expect("an instant"))),
    }
}

#[tokio::test]
async fn what_held_and_what_brought_it_about_is_told() -> anyhow::Result<()> {
    let world = World::start().await?;
    let since: Timestamp = "2026-02-28T05:00:00Z".parse()?;
    let explained = ExplainMemberResponse {
        state: Some(decision("m_1", 17, &["missed_payment"])),
        since: Some(timestamp(since)),
        causes: vec![
            cause("billing_event", "stripe/acct_a/evt_1", "provider:stripe"),
            cause("call", "PutMembership", "staff:u_7"),
        ],
    };
    world.upstream.answer("explain_member", &explained);
    let path = format!("/{GYM}/members/m_1/explain?at={AT}");
    let answer = world.get(&world.staff(), &path).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.body,
        json!({
            "allowed": false,
            "reasons": ["missed_payment"],
            "since": "2026-02-28T05:00:00Z",
            "entries": [
                {"at": AT, "kind": "decided", "message": "The payment provider reported something.",
                 "cause": "billing_event:stripe/acct_a/evt_1", "actor": "provider:stripe", "version": 17},
                {"at": AT, "kind": "decided", "message": "The membership was changed (PutMembership).",
                 "cause": "call:PutMembership", "actor": "staff:u_7"},
            ],
        })
    );
    let asked = &world.upstream.calls("explain_member")[0].message;
    let at: Timestamp = asked["at"].as_str().expect("an instant").parse()?;
    assert_eq!(at, AT.parse()?);

    // A member is told their own story, and not who of the staff it was.
    let member = world.tokens.member(GYM, "m_1");
    let answer = world.get(&member, &path).await;
    assert_eq!(answer.body["entries"][1]["actor"], "staff");
    assert_eq!(answer.body["entries"][0]["actor"], "provider");
    world.stop().await
}

#[tokio::test]
async fn nobody_is_explained_to_others_and_unknown_members_are_404() -> anyhow::Result<()> {
    let world = World::start().await?;
    let path = format!("/{GYM}/members/m_1/explain");
    let other = world.tokens.member(GYM, "m_2");
    assert_eq!(world.get(&other, &path).await.status, 403);
    assert!(world.upstream.calls("explain_member").is_empty());
    let unknown = Status::not_found("there is no such member");
    world.upstream.refuse("explain_member", unknown);
    let answer = world.get(&world.staff(), &path).await;
    assert_eq!(answer.status, 404);
    // Now is meant where nothing is said.
    let calls = world.upstream.calls("explain_member");
    assert_eq!(calls[0].message, json!({"gymId": GYM, "memberId": "m_1"}));
    world.stop().await
}
