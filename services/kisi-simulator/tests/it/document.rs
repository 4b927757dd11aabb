//! Every exchange fits openapi.yaml, by an independent validator.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use kisi_simulator::spec::SPEC;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::Kisi;

/// Runs the validator over exchanges; its verdict and its words.
fn validate(exchanges: &str) -> (bool, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(exchanges.as_bytes()).expect("written");
    let python = std::env::var("GYMFLOW_PYTHON").unwrap_or_else(|_| "python3".into());
    let tools = std::env::var_os("GYMFLOW_PYTHONPATH")
        .map_or_else(|| root.join("../../.tools/py"), PathBuf::from);
    let output = Command::new(python)
        .env("PYTHONPATH", tools)
        .arg(root.join("tests/validate_exchanges.py"))
        .arg(root.join("openapi.yaml"))
        .arg(file.path())
        .output()
        .expect("python3");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        !text.contains("ModuleNotFoundError"),
        "run `make tools`: {text}"
    );
    (output.status.success(), text)
}

#[tokio::test]
async fn every_route_answers_as_the_document_says() {
    let kisi = Kisi::start().await;
    let (group, place, lock) = (kisi.group, kisi.place, kisi.front_door);
    let user = kisi.user("ada@example.com").await;
    kisi.patch(
        &format!("/users/{user}"),
        json!({ "user": { "name": "Ada", "metadata": { "gymflow_member_id": "m_1" } } }),
    )
    .await;
    let row = kisi.grant(user).await.id();
    let (login, secret) = kisi.login("ada@example.com").await;
    kisi.call(Method::POST, &format!("/logins/{login}/promote"), None)
        .await;
    let unlock = Some(
        json!({ "context": { "location": { "latitude": 51.5, "longitude": -0.1 } }, "lock": { "proximity_proof": null } }),
    );
    kisi.call_as(
        Some(&secret),
        Method::POST,
        &format!("/locks/{lock}/unlock"),
        unlock,
    )
    .await;
    let member = kisi
        .get(&format!("/members?user_id={user}&limit=100"))
        .await
        .rows()[0]["id"]
        .clone();
    kisi.patch(
        &format!("/members/{member}"),
        json!({ "member": { "name": "Ada M." } }),
    )
    .await;
    let new_group = kisi
        .post("/groups", json!({ "group": { "name": "New" } }))
        .await
        .id();
    kisi.patch(
        &format!("/groups/{new_group}"),
        json!({ "group": { "description": "x" } }),
    )
    .await;
    let link = kisi
        .post(
            "/group_locks",
            json!({ "group_lock": { "group_id": new_group, "lock_id": lock } }),
        )
        .await
        .id();
    let hook = kisi.post("/integrations", json!({ "integration": { "name": "G", "type": "event_webhook", "url": "https://example.com/h", "enabled": true, "enabled_events": ["lock.unlock"], "signature_key": "k" } })).await.id();
    kisi.patch(
        &format!("/integrations/{hook}"),
        json!({ "integration": { "enabled": false } }),
    )
    .await;
    let other = kisi
        .post(
            "/members",
            json!({ "member": { "email": "bob@example.com", "send_emails": false } }),
        )
        .await
        .id();
    kisi.patch(
        &format!("/role_assignments/{row}"),
        json!({ "role_assignment": { "valid_until": "2099-01-01T00:00:00Z" } }),
    )
    .await;
    let set = kisi
        .post(
            "/event_sets",
            json!({ "event_set": { "interval": "2026-01-01T00:00:00Z/2026-03-01T00:00:00Z" } }),
        )
        .await
        .id();
    for path in [
        "/organizations".into(),
        "/organization".into(),
        "/user".into(),
        "/login".into(),
        "/roles".into(),
        "/roles/group_basic".into(),
        "/places?limit=250".into(),
        format!("/places/{place}"),
        "/groups?scope=organization&limit=250".into(),
        format!("/groups/{group}"),
        format!("/group_locks?group_id={group}&limit=250"),
        format!("/group_locks/{link}"),
        format!("/locks?place_id={place}&limit=250"),
        format!("/locks/{lock}"),
        "/users?limit=100".into(),
        format!("/users/{user}"),
        "/members?limit=100".into(),
        format!("/members/{member}"),
        format!("/role_assignments?applies_to_type=Group&applies_to_id={group}&limit=250"),
        format!("/role_assignments/{row}"),
        "/role_assignments?scope=organization&limit=250".into(),
        "/logins?scope=all&limit=250".into(),
        "/integrations?limit=250".into(),
        format!("/integrations/{hook}"),
        format!("/event_sets/{set}"),
        format!("/event_sets/{set}?limit=50"),
        format!("/group_links?group_id={group}&limit=250"),
        "/users/999999".into(),
        "/users?limit=1000".into(),
    ] {
        kisi.get(&path).await;
    }
    kisi.post("/users", json!({ "user": { "email": "ADA@example.com" } }))
        .await;
    kisi.post("/users", json!({ "user": { "email": "no" } }))
        .await;
    for path in [
        format!("/role_assignments/{row}"),
        format!("/logins/{login}"),
        format!("/group_locks/{link}"),
        format!("/groups/{new_group}"),
        format!("/integrations/{hook}"),
        format!("/members/{other}"),
        format!("/users/{user}"),
    ] {
        assert_eq!(kisi.delete(&path).await.status, 204, "{path}");
    }

    // None of the document's routes is missing here.
    let answered: std::collections::BTreeSet<_> = {
        let state = kisi.simulator.shared().lock();
        let entries = state.log.since(0);
        entries
            .filter(|e| e.status.is_some_and(|s| s < 300))
            .map(|e| (e.method.clone(), e.route.clone()))
            .collect()
    };
    let missing: Vec<_> = SPEC
        .operations()
        .iter()
        .filter(|operation| {
            !answered.contains(&(operation.method.clone(), operation.template.clone()))
        })
        .map(|operation| operation.id.as_str())
        .collect();
    assert!(missing.is_empty(), "not answered: {missing:?}");

    let exchanges = kisi.simulator.exchanges_jsonl();
    let (fits, words) = validate(&exchanges);
    assert!(fits, "{words}");
    every_broken_one_is_found(&exchanges);
}

/// The same exchanges, each with one field too many in its answer.
fn every_broken_one_is_found(exchanges: &str) {
    let mut broken = Vec::new();
    for line in exchanges.lines() {
        let mut exchange: Value = serde_json::from_str(line).expect("JSON");
        if exchange["response"]["status"] != 200 {
            continue;
        }
        let body = &mut exchange["response"]["body"];
        let row = match body.as_array_mut() {
            Some(rows) => rows.first_mut(),
            None => Some(body).filter(|body| body.is_object()),
        };
        if let Some(row) = row {
            row["shoe"] = json!(42);
            broken.push(exchange.to_string());
        }
    }
    assert!(broken.len() > 30, "{}", broken.len());
    let (fits, words) = validate(&broken.join("\n"));
    assert!(!fits);
    let unseen: Vec<_> = (1..=broken.len())
        .filter(|n| {
            !words
                .lines()
                .any(|line| line.starts_with(&format!("{n}: ")))
        })
        .map(|n| &broken[n - 1])
        .collect();
    assert!(unseen.is_empty(), "{unseen:#?}");
}

/// An exchange as the simulator records them.
fn exchange(
    method: &str,
    path: &str,
    sent: Value,
    status: u16,
    answered: Value,
    range: Option<&str>,
) -> Value {
    let mut headers = vec![json!(["content-type", "application/json"])];
    headers.extend(range.map(|range| json!(["x-collection-range", range])));
    json!({
        "request": { "method": method, "url": format!("https://api.kisi.io{path}"), "body": sent,
            "headers": [["authorization", "KISI-LOGIN …"], ["content-type", "application/json"],
                        ["x-kisi-integration-identifier", "gymflow"],
                        ["x-kisi-integration-contact", "dev@gymflow.example"]] },
        "response": { "status": status, "headers": headers, "body": answered },
    })
}

#[test]
fn the_validator_finds_what_does_not_fit() {
    let error = || json!({ "code": "000409", "error": "Words." });
    let errors = || json!({ "errors": { "email": ["can't be blank"] } });
    let ada = || json!({ "user": { "email": "ada@example.com" } });
    let nothing = Value::Null;
    let get = |path: &str, status: u16, answered: Value, range: Option<&str>| {
        exchange("GET", path, Value::Null, status, answered, range)
    };
    let fitting = [
        get("/users?limit=100", 200, json!([]), Some("*/0")),
        get("/users/1", 404, error(), None),
        get("/sharez", 404, error(), None),
        exchange("POST", "/users", ada(), 409, error(), None),
        exchange("POST", "/users", json!({}), 422, errors(), None),
        exchange(
            "DELETE",
            "/users/1",
            nothing.clone(),
            204,
            nothing.clone(),
            None,
        ),
    ];
    let (fits, words) = validate(&fitting.map(|exchange| exchange.to_string()).join("\n"));
    assert!(fits, "{words}");

    let mut without_credential = exchange(
        "DELETE",
        "/users/1",
        nothing.clone(),
        204,
        nothing.clone(),
        None,
    );
    without_credential["request"]["headers"] = json!([]);
    let mut page = get("/user", 200, json!("<html>"), None);
    page["response"]["headers"] = json!([["content-type", "text/html"]]);
    let misspelt = json!({ "user": { "email": "ada@example.com", "shoe": 42 } });
    let unwrapped = json!({ "email": "ada@example.com" });
    let broken = [
        (
            "a wrong type",
            get("/user", 200, json!({ "id": "17" }), None),
        ),
        ("a page of a proxy", page),
        ("no body", get("/user", 200, Value::Null, None)),
        ("no such status", get("/user", 418, json!({}), None)),
        ("no range", get("/users", 200, json!([]), None)),
        ("a bad range", get("/users", 200, json!([]), Some("none"))),
        (
            "no parameter",
            get("/users?shoe=42", 200, json!([]), Some("*/0")),
        ),
        (
            "too many",
            get("/users?limit=101", 200, json!([]), Some("*/0")),
        ),
        ("the other envelope", get("/users/1", 404, errors(), None)),
        (
            "the other envelope",
            exchange("POST", "/users", ada(), 422, error(), None),
        ),
        ("an unknown route", get("/sharez", 200, json!({}), None)),
        ("an unknown route", get("/sharez", 404, errors(), None)),
        (
            "a body after 204",
            exchange("DELETE", "/users/1", nothing.clone(), 204, json!({}), None),
        ),
        ("no credential", without_credential),
        (
            "a misspelt field",
            exchange("POST", "/users", misspelt, 409, error(), None),
        ),
        (
            "no wrapper",
            exchange("POST", "/users", unwrapped, 409, error(), None),
        ),
        (
            "nothing sent",
            exchange("POST", "/users", nothing, 409, error(), None),
        ),
    ];
    let lines: Vec<_> = broken
        .iter()
        .map(|(_, exchange)| exchange.to_string())
        .collect();
    let (fits, words) = validate(&lines.join("\n"));
    assert!(!fits);
    for (n, (what, _)) in broken.iter().enumerate() {
        let found = format!("{}: ", n + 1);
        let is_found = words.lines().any(|line| line.starts_with(&found));
        assert!(is_found, "{what} was not found:\n{words}");
    }
    assert!(!validate("").0, "nothing validated is nothing shown");
}
