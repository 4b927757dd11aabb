//! Two clients that grant, side by side: one that believes Kisi, and one that looks. In each mode
//! that tells them apart the first is shown to fail, so that a test of a real client against that
//! mode can fail too.

use serde_json::{Value, json};

use crate::harness::{Answer, Kisi};

const DUPLICATES: [&str; 4] = ["409", "422", "new_row", "new_row_if_window_differs"];
const UNTIL: &str = "2099-01-01T00:00:00Z";

/// What there is of this user in the group, as Kisi lists it.
async fn rows(kisi: &Kisi, user: i64) -> Vec<Value> {
    let path = format!("/role_assignments?assignee_type=User&assignee_id={user}&limit=250");
    kisi.get(&path).await.rows().clone()
}

fn id(row: &Value) -> i64 {
    row["id"].as_i64().expect("an id")
}

async fn post(kisi: &Kisi, user: i64, until: Option<&str>) -> Answer {
    let mut body = kisi.grant_body(user);
    body["role_assignment"]["valid_until"] = json!(until);
    kisi.post("/role_assignments", body).await
}

async fn delete(kisi: &Kisi, id: i64) {
    let status = kisi.delete(&format!("/role_assignments/{id}")).await.status;
    assert!([204, 404].contains(&status), "{status}");
}

/// Wrong: does not look before it grants, and takes a refusal for a failure.
async fn grant_blindly(kisi: &Kisi, user: i64) -> Result<(), u16> {
    match post(kisi, user, None).await.status {
        200 => Ok(()),
        status => Err(status),
    }
}

/// Right: looks, accepts every answer, and leaves one row.
async fn grant(kisi: &Kisi, user: i64) -> Result<(), u16> {
    let mut found = rows(kisi, user).await;
    if found.is_empty() {
        let status = post(kisi, user, None).await.status;
        found = rows(kisi, user).await;
        if found.is_empty() {
            return Err(status);
        }
    }
    for extra in &found[1..] {
        delete(kisi, id(extra)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_does_not_look_fails_or_leaves_a_second_row_where_one_that_looks_does_not() {
    for mode in DUPLICATES {
        let kisi = Kisi::with(json!({ "duplicate_assignments": mode })).await;
        let user = kisi.user("ada@example.com").await;
        for _ in 0..2 {
            assert_eq!(grant(&kisi, user).await, Ok(()), "{mode}");
            assert_eq!(rows(&kisi, user).await.len(), 1, "{mode}");
        }
        let outcome = grant_blindly(&kisi, user).await;
        let left = rows(&kisi, user).await.len();
        match mode {
            "new_row" => assert_eq!((outcome, left), (Ok(()), 2)),
            "422" => assert_eq!((outcome, left), (Err(422), 1)),
            _ => assert_eq!((outcome, left), (Err(409), 1), "{mode}"),
        }
        // What the wrong one left behind, the right one tidies up.
        assert_eq!(grant(&kisi, user).await, Ok(()), "{mode}");
        assert_eq!(rows(&kisi, user).await.len(), 1, "{mode}");
    }
}

/// Wrong: takes 204 for a yes, and 422 for the end of the matter.
async fn move_blindly(kisi: &Kisi, row: i64, until: &str) -> Result<(), u16> {
    let change = json!({ "role_assignment": { "valid_until": until } });
    let path = format!("/role_assignments/{row}");
    match kisi.patch(&path, change).await.status {
        204 => Ok(()),
        status => Err(status),
    }
}

/// Right: reads back, and replaces what did not move: the new first, so that the door stays open,
/// and the old first only where Kisi does not have both.
async fn move_window(kisi: &Kisi, user: i64, row: i64, until: &str) -> Result<(), u16> {
    let path = format!("/role_assignments/{row}");
    let change = json!({ "role_assignment": { "valid_until": until } });
    kisi.patch(&path, change).await;
    if kisi.get(&path).await.body["valid_until"] == until {
        return Ok(());
    }
    let made = post(kisi, user, Some(until)).await.status;
    delete(kisi, row).await;
    if made == 200 {
        return Ok(());
    }
    match post(kisi, user, Some(until)).await.status {
        200 => Ok(()),
        status => Err(status),
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_back_believes_in_a_window_that_did_not_move() {
    for patch in ["apply", "ignore", "422"] {
        for duplicates in DUPLICATES {
            let settings = json!({ "patch_window": patch, "duplicate_assignments": duplicates });
            let kisi = Kisi::with(settings).await;
            let user = kisi.user("ada@example.com").await;
            let row = kisi.grant(user).await.id();
            let outcome = move_blindly(&kisi, row, UNTIL).await;
            let held = rows(&kisi, user).await[0]["valid_until"].clone();
            match patch {
                "apply" => assert_eq!((outcome, held), (Ok(()), json!(UNTIL))),
                "ignore" => assert_eq!((outcome, held), (Ok(()), Value::Null)),
                _ => assert_eq!((outcome, held), (Err(422), Value::Null)),
            }
            let later = "2099-06-01T00:00:00Z";
            let outcome = move_window(&kisi, user, row, later).await;
            assert_eq!(outcome, Ok(()), "{patch}, {duplicates}");
            let windows: Vec<_> = rows(&kisi, user)
                .await
                .iter()
                .map(|row| row["valid_until"].clone())
                .collect();
            assert_eq!(windows, [json!(later)], "{patch}, {duplicates}");
        }
    }
}

/// Wrong: grants what it once granted and does not find.
async fn reconcile_blindly(kisi: &Kisi, user: i64, until: &str) -> Result<(), u16> {
    if !rows(kisi, user).await.is_empty() {
        return Ok(());
    }
    match post(kisi, user, Some(until)).await.status {
        200 => Ok(()),
        status => Err(status),
    }
}

/// Right: a row past its end is as good as none, found or not.
async fn reconcile(kisi: &Kisi, user: i64, until: &str, now: &str) -> Result<(), u16> {
    let wanted = until > now;
    match (wanted, rows(kisi, user).await.is_empty()) {
        (true, true) => match post(kisi, user, Some(until)).await.status {
            200 => Ok(()),
            status => Err(status),
        },
        _ => Ok(()),
    }
}

#[tokio::test]
async fn a_client_that_misses_an_expired_row_grants_it_again_in_vain() {
    for (mode, blindly) in [
        ("stays", Ok(())),
        ("hidden", Err(422)),
        ("deleted", Err(422)),
    ] {
        let kisi = Kisi::with(json!({ "expired_listing": mode })).await;
        let user = kisi.user("ada@example.com").await;
        assert_eq!(post(&kisi, user, Some(UNTIL)).await.status, 200);
        assert_eq!(reconcile_blindly(&kisi, user, UNTIL).await, Ok(()));
        assert_eq!(
            reconcile(&kisi, user, UNTIL, "2026-01-01T00:00:00Z").await,
            Ok(())
        );
        kisi.control(
            reqwest::Method::POST,
            "/clock",
            json!({ "now": "2099-01-02T00:00:00Z" }),
        )
        .await;
        assert_eq!(
            reconcile_blindly(&kisi, user, UNTIL).await,
            blindly,
            "{mode}"
        );
        assert_eq!(
            reconcile(&kisi, user, UNTIL, "2099-01-02T00:00:00Z").await,
            Ok(()),
            "{mode}"
        );
    }
}
