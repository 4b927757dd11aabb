//! What a request carries, what is read from an answer, and what is kept from logs.

use std::sync::Arc;

use kisi_client::model::{NewGroupAssignment, NewUser, UserPatch, Window};
use kisi_client::{
    ConnectionSettings, Deletion, HttpKisi, KisiConnection, KisiError, KisiRead, KisiWrite, Lane,
    Pacer, PacerSettings, ReadOnly,
};
use serde_json::{Value, json};
use wiremock::matchers::header;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::scripted::{answering, assignment, client, grant, requests};

#[tokio::test]
async fn every_request_carries_the_credential_the_partner_headers_and_json() {
    let server = MockServer::start().await;
    Mock::given(header("authorization", "KISI-LOGIN s3cret"))
        .and(header("x-kisi-integration-identifier", "gymflow"))
        .and(header("x-kisi-integration-contact", "access@example.com"))
        .and(header("accept", "application/json"))
        .and(header("content-type", "application/json"))
        .respond_with(ResponseTemplate::new(204))
        .expect(3)
        .mount(&server)
        .await;
    let kisi = client(&server.uri());
    let patch = UserPatch {
        access_enabled: Some(true),
        ..UserPatch::default()
    };
    let slot = || Lane::Grant.into();
    kisi.update_user(slot(), 1, &patch).await.expect("204");
    // Kisi refuses an empty patch, so none is sent.
    kisi.update_user(slot(), 1, &UserPatch::default())
        .await
        .expect("nothing to do");
    kisi.promote_login(slot(), 32).await.expect("204");
    let deleted = kisi.delete_role_assignment(slot(), 1).await.expect("204");
    assert_eq!(deleted, Deletion::Deleted);
}

#[tokio::test]
async fn a_grant_is_sent_without_mail_and_its_answer_is_read_past_what_is_new_or_null() {
    let answer = ResponseTemplate::new(200).set_body_json(assignment(900_001));
    let (server, kisi) = answering("POST", "/role_assignments", answer).await;
    let until = "2026-04-01T00:00:00Z".parse().expect("an instant");
    let window = Window {
        valid_from: None,
        valid_until: Some(until),
    };
    let granted = kisi
        .create_role_assignment(
            Lane::Grant.into(),
            &NewGroupAssignment::basic(45274, 5001, window),
        )
        .await
        .expect("a row");
    assert_eq!(
        (granted.id, granted.user_on_group(45274)),
        (900_001, Some(5001))
    );
    assert_eq!(granted.window().to_string(), "until 2026-04-01T00:00:00.5Z");
    let sent: Value = requests(&server).await[0].body_json().expect("JSON");
    assert_eq!(
        sent,
        json!({"role_assignment": {
            "applies_to_type": "Group", "applies_to_id": 45274,
            "assignee_type": "User", "assignee_id": 5001,
            "role_id": "group_basic", "notify": false, "valid_until": "2026-04-01T00:00:00Z",
        }})
    );
}

#[tokio::test]
async fn an_error_shows_no_address_and_no_key() {
    let kisi = client("http://127.0.0.1:1");
    let error = kisi
        .list_users_by_email(Lane::Grant, "ada@example.com")
        .await
        .expect_err("nobody listens");
    let shown = format!("{error} {error:?} {kisi:?}");
    assert!(
        !shown.contains("ada") && !shown.contains("s3cret"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_key_that_no_header_can_carry_is_an_error_and_nothing_is_sent() {
    let (server, _) = answering("GET", "/login", ResponseTemplate::new(200)).await;
    let settings = ConnectionSettings::new(server.uri().parse().expect("a URL"), "a", "b");
    let kisi = HttpKisi::new(
        KisiConnection::new(settings).expect("a connection"),
        "two\nlines".to_owned().into(),
        Pacer::new(PacerSettings::default()),
    );
    let error = kisi
        .current_login(Lane::SetUp)
        .await
        .expect_err("no header");
    assert!(matches!(error, KisiError::Settings(_)));
    assert!(requests(&server).await.is_empty());
}

#[tokio::test]
async fn a_dry_run_looks_but_tells_and_keeps_back_what_it_would_change() {
    let answer = ResponseTemplate::new(200).set_body_json(assignment(7));
    let (server, kisi) = answering("GET", "/role_assignments/7", answer).await;
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let lines = Arc::clone(&told);
    let dry = ReadOnly::new(kisi, move |line| {
        lines.lock().expect("lines").push(line.to_owned());
    });
    assert!(
        dry.find_role_assignment(Lane::SetUp, 7)
            .await
            .expect("a look")
            .is_some()
    );
    let user = NewUser::managed("ada@example.com", None, serde_json::Map::new());
    let error = dry
        .create_user(Lane::Grant.into(), &user)
        .await
        .expect_err("kept back");
    assert!(matches!(error, KisiError::NotSent { .. }) && !error.is_outcome_unknown());
    dry.create_role_assignment(Lane::Grant.into(), &grant())
        .await
        .expect_err("kept back");
    dry.delete_role_assignment(Lane::Revoke.into(), 7)
        .await
        .expect_err("kept back");
    assert_eq!(
        *told.lock().expect("lines"),
        [
            "create a user with 0 metadata keys",
            "grant group_basic on group 45274 to user 5001, open-ended",
            "revoke assignment 7",
        ]
    );
    assert_eq!(requests(&server).await.len(), 1);
}
