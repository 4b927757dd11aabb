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
            owner_role: "organization_administrator".to_owned(),
            dedicated_account: true,
            other_integrations: vec![wire::OtherIntegration {
                id: 61,
                r#type: "jumpcloud_user_import".to_owned(),
                enabled: true,
            }],
            changes: vec![wire::KeyChange {
                what: "owner_role".to_owned(),
                from: "organization_owner".to_owned(),
                to: "organization_administrator".to_owned(),
                at: at(1_700_000_000),
            }],
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
            who: "staff".to_owned(),
        }],
        policies: Some(wire::Policies {
            unmanaged: "leave".to_owned(),
            member_resume: "request".to_owned(),
            user_mode: "managed".to_owned(),
        }),
        unmanaged: 2,
        last_reconciled_at: at(1_700_000_100),
        version: 1_700_000_000_000_000,
        other_rights: Some(wire::OtherRights {
            read_at: at(1_700_000_100),
            teams: 1,
            links: 2,
            members: 1,
            member_ids: vec!["m_7".to_owned()],
            complete: true,
            ..Default::default()
        }),
        sign_ups_needed: 3,
        ..Default::default()
    }
}

fn integration_json() -> Value {
    json!({
        "state": "active",
        "key": {
            "status": "ok", "organization_id": 3, "organization_name": "Iron",
            "checked_at": "2023-11-14T22:13:20Z", "advice": [],
            "owner_role": "organization_administrator", "owner_is_owner": false,
            "dedicated_account": true,
            "other_integrations": [{"id": 61, "type": "jumpcloud_user_import", "enabled": true}],
            "changes": [{
                "what": "owner_role", "from": "organization_owner",
                "to": "organization_administrator", "at": "2023-11-14T22:13:20Z",
            }],
        },
        "place_id": 7,
        "associations": [{"plan_id": "gold", "group_id": 11}],
        "plans_without_group": [{"plan_id": "silver", "members": 4}],
        "conflicts": [{"member_ids": ["m_1"], "what": "same_email", "who": "staff"}],
        "attention": [],
        "policies": {"unmanaged": "leave", "member_resume": "request", "user_mode": "managed"},
        "unmanaged": 2,
        "last_reconciled_at": "2023-11-14T22:15:00Z",
        "groups": [],
        "version": 1_700_000_000_000_000_i64,
        "other_rights": {
            "read_at": "2023-11-14T22:15:00Z", "people": 0, "teams": 1, "guests": 0, "links": 2,
            "staff": 0, "member_ids": ["m_7"], "members": 1, "complete": true,
        },
        "sign_ups_needed": 3,
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
            requests: 9,
            members_in: 3,
            member_ids_in: vec!["m_1".to_owned()],
            members_out: 1,
            member_ids_out: vec!["m_2".to_owned()],
            members_in_by_others: 1,
            member_ids_in_by_others: vec!["m_3".to_owned()],
            other_rights: Some(wire::OtherRights {
                guests: 1,
                ..Default::default()
            }),
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
        "conflicts": [], "plans_without_group": [], "seconds": 2, "requests": 9,
        "members_in": 3, "member_ids_in": ["m_1"], "members_out": 1, "member_ids_out": ["m_2"],
        "members_in_by_others": 1, "member_ids_in_by_others": ["m_3"],
        "other_rights": {
            "people": 0, "teams": 0, "guests": 1, "links": 0, "staff": 0, "member_ids": [],
            "members": 0, "complete": false,
        },
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
async fn rights_of_others_are_listed_page_by_page_and_read_anew_when_asked() -> anyhow::Result<()> {
    let world = World::start().await?;
    let upstream = &world.upstream;
    let right = |holder: &str| wire::OtherRight {
        id: 900,
        holder: holder.to_owned(),
        holder_id: 5,
        target: "group".to_owned(),
        target_id: 12,
        groups: vec![11],
        ..Default::default()
    };
    let page = wire::ListOtherRightsResponse {
        rights: vec![
            wire::OtherRight {
                team_name: "Coaches".to_owned(),
                role_id: "group_basic".to_owned(),
                ..right("team")
            },
            wire::OtherRight {
                member_id: Some("m_1".to_owned()),
                ..right("link")
            },
        ],
        next_page_token: "2".to_owned(),
        read_at: None,
    };
    upstream.answer("list_other_rights", &page);
    let staff = world.staff();
    let shown = json!({
        "rights": [
            {
                "id": 900, "holder": "team", "holder_id": 5, "team_name": "Coaches",
                "target": "group", "target_id": 12, "role_id": "group_basic", "groups": [11],
            },
            {
                "id": 900, "holder": "link", "holder_id": 5, "member_id": "m_1",
                "target": "group", "target_id": 12, "groups": [11],
            },
        ],
        "next_page_token": "2",
    });
    for (query, message) in [
        ("", json!({"gymId": GYM})),
        (
            "?refresh=true&page_size=2&page_token=1",
            json!({"gymId": GYM, "refresh": true, "pageSize": 2, "pageToken": "1"}),
        ),
    ] {
        let path = format!("/{GYM}/integration/rights{query}");
        let answer = world.get(&staff, &path).await;
        assert_eq!((answer.status.as_u16(), &answer.body), (200, &shown));
        let calls = upstream.calls("list_other_rights");
        assert_eq!(calls.last().expect("passed on").message, message);
    }
    for (query, field) in [
        ("?refresh=yes", "refresh"),
        ("?page_size=0", "page_size"),
        ("?page_size=1001", "page_size"),
    ] {
        let path = format!("/{GYM}/integration/rights{query}");
        let answer = world.get(&staff, &path).await;
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.fields(), [field], "{query}");
    }
    let without = world.tokens.staff(GYM, "u_1", "configure");
    let path = format!("/{GYM}/integration/rights");
    assert_eq!(world.get(&without, &path).await.status, 403);
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
    let unfit = Status::invalid_argument("api_key: Kisi refuses the key");
    world.upstream.refuse("enable_integration", unfit);
    let body = json!({"api_key": "k_1"});
    let answer = world
        .post(&staff, &format!("/{GYM}/integration"), body)
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.fields()),
        (400, vec!["api_key"])
    );
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
