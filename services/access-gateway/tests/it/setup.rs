//! Setting an integration up through kisi-sync: shapes, actors, errors.

use contracts::integration::v1 as wire;
use reqwest::Method;
use serde_json::{Value, json};
use tonic::Status;

use crate::world::{GYM, World, gym};

fn integration() -> wire::Integration {
    let at = |second| {
        Some(pbjson_types::Timestamp {
            seconds: second,
            nanos: 0,
        })
    };
    wire::Integration {
        gym_id: GYM.to_owned(),
        state: "active".to_owned(),
        key: Some(wire::KeyHealth {
            status: "ok".to_owned(),
            organization_id: Some(3),
            organization_name: "Iron".to_owned(),
            checked_at: at(1_700_000_000),
            ..Default::default()
        }),
        place_id: Some(7),
        associations: vec![wire::Association {
            plan_id: "gold".to_owned(),
            group_id: 11,
        }],
        plans_without_group: vec![wire::PlanWithoutGroup {
            plan_id: "silver".to_owned(),
            members: 4,
        }],
        conflicts: vec![wire::Conflict {
            member_ids: vec!["m_1".to_owned()],
            what: "same_email".to_owned(),
        }],
        policies: Some(wire::Policies {
            unmanaged: "leave".to_owned(),
            member_resume: "request".to_owned(),
            user_mode: "managed".to_owned(),
        }),
        unmanaged: 2,
        last_reconciled_at: at(1_700_000_100),
        version: 1_700_000_000_000_000,
        ..Default::default()
    }
}

fn integration_json() -> Value {
    json!({
        "state": "active",
        "key": {
            "status": "ok", "organization_id": 3, "organization_name": "Iron",
            "checked_at": "2023-11-14T22:13:20Z", "advice": [],
        },
        "place_id": 7,
        "associations": [{"plan_id": "gold", "group_id": 11}],
        "plans_without_group": [{"plan_id": "silver", "members": 4}],
        "conflicts": [{"member_ids": ["m_1"], "what": "same_email"}],
        "attention": [],
        "policies": {"unmanaged": "leave", "member_resume": "request", "user_mode": "managed"},
        "unmanaged": 2,
        "last_reconciled_at": "2023-11-14T22:15:00Z",
        "groups": [],
        "version": 1_700_000_000_000_000_i64,
    })
}

#[tokio::test]
async fn each_step_passes_through_with_its_actor_and_answers_the_integration() -> anyhow::Result<()>
{
    let world = World::start().await?;
    let upstream = &world.upstream;
    for method in [
        "get_integration",
        "enable_integration",
        "select_place",
        "set_associations",
        "rotate_api_key",
        "set_policies",
        "disable_integration",
    ] {
        upstream.answer(method, &integration());
    }
    let staff = world.staff();
    let path = |rest: &str| format!("/{GYM}/integration{rest}");
    let set = json!([{"plan_id": "gold", "group_id": 11}]);
    for (method, rest, body, status, rpc, message) in [
        (
            "GET",
            "",
            None,
            200,
            "get_integration",
            json!({"gymId": GYM}),
        ),
        (
            "POST",
            "",
            Some(json!({"api_key": "k_1"})),
            201,
            "enable_integration",
            json!({"gymId": GYM, "apiKey": "k_1"}),
        ),
        (
            "PUT",
            "/place",
            Some(json!({"place_id": 7})),
            200,
            "select_place",
            json!({"gymId": GYM, "placeId": "7"}),
        ),
        (
            "PUT",
            "/associations",
            Some(json!({"associations": set, "digest": "d_1"})),
            200,
            "set_associations",
            json!({"gymId": GYM, "associations": [{"planId": "gold", "groupId": "11"}], "digest": "d_1"}),
        ),
        (
            "PUT",
            "/api-key",
            Some(json!({"api_key": "k_2"})),
            200,
            "rotate_api_key",
            json!({"gymId": GYM, "apiKey": "k_2"}),
        ),
        (
            "DELETE",
            "?access=revoke&digest=d_2",
            None,
            200,
            "disable_integration",
            json!({"gymId": GYM, "access": "revoke", "digest": "d_2"}),
        ),
        // What is absent stays as it is.
        (
            "PUT",
            "/policies",
            Some(json!({"member_resume": "off"})),
            200,
            "set_policies",
            json!({"gymId": GYM, "policies": {"unmanaged": "leave", "memberResume": "off", "userMode": "managed"}}),
        ),
    ] {
        let method: Method = method.parse()?;
        let answer = world
            .call(method.clone(), Some(&staff), &path(rest), body)
            .await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{method} {rest}: {}",
            answer.body
        );
        assert_eq!(answer.body, integration_json(), "{method} {rest}");
        let calls = upstream.calls(rpc);
        let call = calls.last().expect("passed on");
        assert_eq!(call.message, message, "{rpc}");
        assert_eq!(call.actor.as_deref(), Some("staff:u_1"), "{rpc}");
        // Our own token, not the caller's.
        assert!(call.authorization.starts_with("Bearer "), "{rpc}");
        assert!(!call.authorization.ends_with(&staff), "{rpc}");
    }
    let answer = world.get(&staff, &path("/policies")).await;
    assert_eq!(answer.body, integration_json()["policies"]);
    world.stop().await
}

#[tokio::test]
async fn places_groups_and_previews_have_their_shapes() -> anyhow::Result<()> {
    let world = World::start().await?;
    let upstream = &world.upstream;
    upstream.answer(
        "list_places",
        &wire::ListPlacesResponse {
            places: vec![wire::Place {
                place_id: 7,
                name: "Iron".to_owned(),
            }],
        },
    );
    upstream.answer(
        "list_groups",
        &wire::ListGroupsResponse {
            groups: vec![wire::Group {
                group_id: 11,
                name: "Front".to_owned(),
                scope: "place".to_owned(),
                users_count: 0,
            }],
        },
    );
    upstream.answer(
        "preview_sync",
        &wire::Preview {
            digest: "d_1".to_owned(),
            grants: 3,
            seconds: 2,
            ..Default::default()
        },
    );
    let staff = world.staff();
    let path = |rest: &str| format!("/{GYM}/integration/{rest}");
    let answer = world.get(&staff, &path("places")).await;
    assert_eq!(
        answer.body,
        json!({"places": [{"place_id": 7, "name": "Iron"}]})
    );
    let answer = world.get(&staff, &path("groups")).await;
    let group = json!({"group_id": 11, "name": "Front", "scope": "place", "users_count": 0});
    assert_eq!(answer.body, json!({"groups": [group]}));
    let preview = json!({
        "digest": "d_1", "grants": 3, "revokes": 0, "unmanaged": 0,
        "conflicts": [], "plans_without_group": [], "seconds": 2,
    });
    for (body, message) in [
        (None, json!({"gymId": GYM})),
        (Some(json!({})), json!({"gymId": GYM})),
        (
            Some(json!({"associations": [{"plan_id": "gold", "group_id": 11}]})),
            json!({"gymId": GYM, "associations": {"associations": [{"planId": "gold", "groupId": "11"}]}}),
        ),
        // An empty set is not the same as none.
        (
            Some(json!({"associations": []})),
            json!({"gymId": GYM, "associations": {}}),
        ),
    ] {
        let answer = world
            .call(Method::POST, Some(&staff), &path("preview"), body)
            .await;
        assert_eq!((answer.status.as_u16(), &answer.body), (200, &preview));
        let calls = upstream.calls("preview_sync");
        assert_eq!(calls.last().expect("passed on").message, message);
    }
    world.stop().await
}

#[tokio::test]
async fn syncs_are_started_followed_and_reported() -> anyhow::Result<()> {
    let world = World::start().await?;
    let upstream = &world.upstream;
    let mut sync = wire::Sync {
        sync_id: "s_1".to_owned(),
        gym_id: GYM.to_owned(),
        state: "queued".to_owned(),
        activation: "first".to_owned(),
        ..Default::default()
    };
    upstream.answer("start_sync", &sync);
    let staff = world.staff();
    let path = |rest: &str| format!("/{GYM}/integration/{rest}");
    let answer = world
        .call(Method::POST, Some(&staff), &path("sync"), None)
        .await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.body["id"], "s_1");
    assert_eq!(answer.body["sync_id"], "s_1");
    assert_eq!(answer.body["state"], "queued");

    sync.state = "done".to_owned();
    sync.in_sync = true;
    sync.report = Some(wire::SyncReport {
        members: 2,
        granted: 2,
        unmanaged_grants: vec![wire::UnmanagedGrant {
            assignment_id: 9,
            group_id: 11,
            ..Default::default()
        }],
        ..Default::default()
    });
    upstream.answer("get_sync", &sync);
    let answer = world.get(&staff, &path("syncs/s_1")).await;
    assert_eq!(answer.body["in_sync"], true);
    assert_eq!(answer.body["report"]["granted"], 2);
    assert_eq!(answer.body["report"]["failed"], 0);
    let unmanaged = &answer.body["report"]["unmanaged_grants"];
    assert_eq!(unmanaged, &json!([{"assignment_id": 9, "group_id": 11}]));

    let outcome = wire::SyncMemberResponse {
        outcome: "queued".to_owned(),
    };
    upstream.answer("sync_member", &outcome);
    let answer = world
        .call(
            Method::POST,
            Some(&staff),
            &format!("/{GYM}/members/m_1/sync"),
            None,
        )
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.body),
        (202, json!({"outcome": "queued"}))
    );
    world.stop().await
}

#[tokio::test]
async fn held_plans_are_listed_and_decided_by_digest() -> anyhow::Result<()> {
    let world = World::start().await?;
    let plan = wire::HeldPlan {
        id: "h_1".to_owned(),
        digest: "d_1".to_owned(),
        class: "unexplained".to_owned(),
        causes: vec!["drift".to_owned()],
        revokes: 12,
        state: "held".to_owned(),
        ..Default::default()
    };
    world.upstream.answer(
        "list_held_plans",
        &wire::ListHeldPlansResponse {
            held_plans: vec![plan.clone()],
        },
    );
    world.upstream.answer("approve_plan", &plan);
    world.upstream.answer("discard_plan", &plan);
    let staff = world.staff();
    let path = format!("/{GYM}/integration/held-plans");
    let shown = json!({
        "id": "h_1", "digest": "d_1", "class": "unexplained", "causes": ["drift"],
        "revokes": 12, "grants": 0, "state": "held",
    });
    let answer = world.get(&staff, &path).await;
    assert_eq!(answer.body, json!({"held_plans": [shown]}));
    let digest = json!({"digest": "d_1"});
    let answer = world
        .post(&staff, &format!("{path}/h_1/approve"), digest)
        .await;
    assert_eq!((answer.status.as_u16(), &answer.body), (200, &shown));
    let answer = world
        .call(
            Method::POST,
            Some(&staff),
            &format!("{path}/h_1/discard"),
            None,
        )
        .await;
    assert_eq!(answer.status, 200);
    world.stop().await
}

#[tokio::test]
async fn refusals_of_kisi_sync_keep_their_meaning_and_hide_its_inside() -> anyhow::Result<()> {
    let world = World::start().await?;
    let staff = world.staff();
    for (refusal, status, detail) in [
        (
            Status::already_exists("it is enabled already"),
            409,
            "it is enabled already",
        ),
        (
            Status::failed_precondition("choose a place first"),
            409,
            "choose a place first",
        ),
        (
            Status::aborted("the digest no longer fits"),
            409,
            "the digest no longer fits",
        ),
        (Status::not_found("no such gym"), 404, "no such gym"),
        (
            Status::invalid_argument("the key is not one"),
            400,
            "the key is not one",
        ),
        (
            Status::permission_denied("the key lacks rights"),
            403,
            "the key lacks rights",
        ),
        (
            Status::unavailable("Kisi does not answer"),
            503,
            "Kisi does not answer",
        ),
        (
            Status::unimplemented(""),
            501,
            "kisi-sync does not offer this yet",
        ),
        (
            Status::deadline_exceeded(""),
            503,
            "kisi-sync does not answer now",
        ),
        (
            Status::internal("table keys is gone"),
            500,
            "Something went wrong here; it has been recorded.",
        ),
        (
            Status::unauthenticated("bad service token"),
            500,
            "Something went wrong here; it has been recorded.",
        ),
    ] {
        world.upstream.refuse("enable_integration", refusal);
        let body = json!({"api_key": "k_1"});
        let answer = world
            .post(&staff, &format!("/{GYM}/integration"), body)
            .await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
        assert_eq!(answer.body["detail"], detail);
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503);
    }
    world.stop().await
}

#[tokio::test]
async fn integration_is_answered_from_memory_while_kisi_sync_is_down() -> anyhow::Result<()> {
    let world = World::start().await?;
    world
        .upstream
        .refuse("get_integration", Status::unavailable("down"));
    let staff = world.staff();
    let path = format!("/{GYM}/integration");
    assert_eq!(
        world.get(&staff, &path).await.status,
        503,
        "nothing is known yet"
    );
    world.publish(&gym(4, "active", "request")).await;
    testkit::eventually("the gym is known", crate::world::DEADLINE, async || {
        let answer = world.get(&staff, &path).await;
        answer.status == 200 && answer.body["version"] == 4 && answer.body["place_id"] == 7
    })
    .await;
    world.stop().await
}

#[tokio::test]
async fn kisi_events_are_passed_on_byte_by_byte() -> anyhow::Result<()> {
    let world = World::start().await?;
    let path = format!("/kisi/events/{GYM}");
    let send = |signature: Option<&str>, body: Vec<u8>| {
        let mut request = world.http.post(world.url(&path)).body(body);
        if let Some(signature) = signature {
            request = request.header("X-Signature", signature);
        }
        world.read(Method::POST, &path, request)
    };
    let body = b"{\"type\" : \"lock.unlock\"}\n".to_vec();
    world.upstream.answer(
        "pass_kisi_event",
        &contracts::kisi::v1::PassKisiEventResponse { looked_again: true },
    );
    assert_eq!(send(Some("abc"), body.clone()).await.status, 200);
    let calls = world.upstream.calls("pass_kisi_event");
    let event: contracts::kisi::v1::PassKisiEventRequest =
        serde_json::from_value(calls[0].message.clone())?;
    assert_eq!(
        (event.gym_id.as_str(), event.signature.as_str()),
        (GYM, "abc")
    );
    assert_eq!(event.body, body);
    assert!(event.received_at.is_some());

    assert_eq!(send(None, body.clone()).await.status, 401);
    assert_eq!(send(Some("abc"), vec![b' '; 300_000]).await.status, 413);
    let wrong = Status::permission_denied("the signature does not fit");
    world.upstream.refuse("pass_kisi_event", wrong);
    assert_eq!(send(Some("abc"), body.clone()).await.status, 403);
    world
        .upstream
        .refuse("pass_kisi_event", Status::unavailable("down"));
    assert_eq!(send(Some("abc"), body).await.status, 503);
    world.stop().await
}
