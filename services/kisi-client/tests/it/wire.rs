//! What goes over the wire, against a server that answers as scripted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kisi_client::model::{AssignmentFilter, NewGroupAssignment, NewUser, UserPatch, Window};
use kisi_client::{
    ConnectionSettings, Deletion, HttpKisi, KisiConnection, KisiError, KisiRead, KisiWrite, Lane,
    Pacer, PacerSettings, ReadOnly,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wiremock::matchers::{header, method, path, query_param};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

/// A client that need not wait long for its pacer.
fn client(base_url: &str) -> HttpKisi {
    let mut settings = ConnectionSettings::new(
        base_url.parse().expect("a URL"),
        "gymflow",
        "access@example.com",
    );
    settings.request_timeout = Duration::from_secs(2);
    let connection = KisiConnection::new(settings).expect("a connection");
    let pacer = Pacer::new(PacerSettings {
        requests_per_second: 500.0,
    });
    HttpKisi::new(connection, "s3cret".to_owned().into(), pacer)
}

async fn answering(verb: &str, route: &str, answer: ResponseTemplate) -> (MockServer, HttpKisi) {
    let server = MockServer::start().await;
    Mock::given(method(verb))
        .and(path(route))
        .respond_with(answer)
        .mount(&server)
        .await;
    let kisi = client(&server.uri());
    (server, kisi)
}

async fn requests(server: &MockServer) -> Vec<Request> {
    server.received_requests().await.expect("recorded requests")
}

fn grant() -> NewGroupAssignment {
    NewGroupAssignment::basic(45274, 5001, Window::default())
}

/// A server that takes every request and closes the socket in the middle of its answer, until
/// `losses` requests were lost; then it answers a role assignment. Gives how many came.
async fn losing_answers(losses: usize) -> (String, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let came = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&came);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            if socket.read(&mut buffer).await.unwrap_or(0) == 0 {
                continue;
            }
            let lost = counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < losses;
            let body = if lost {
                "{".to_owned()
            } else {
                assignment(900_001).to_string()
            };
            let length = if lost { 512 } else { body.len() };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            socket.write_all(answer.as_bytes()).await.ok();
        }
    });
    (format!("http://{address}"), came)
}

fn assignment(id: i64) -> Value {
    json!({
        "id": id, "role_id": "group_basic", "a_new_field": {"of": "kisi"}, "notify": null,
        "applies_to_type": "Group", "applies_to_id": 45274,
        "assignee_type": "User", "assignee_id": 5001,
        "created_by_id": 17, "valid_from": null, "valid_until": "2026-04-01T01:00:00.5+01:00",
    })
}

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
async fn a_lost_answer_to_a_write_is_an_unknown_outcome_and_is_not_sent_again() {
    let (url, came) = losing_answers(usize::MAX).await;
    let error = client(&url)
        .create_role_assignment(Lane::Grant.into(), &grant())
        .await
        .expect_err("no whole answer");
    assert!(
        error.is_outcome_unknown() && error.is_transient(),
        "{error:?}"
    );
    assert_eq!(came.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_lost_answer_to_a_read_is_read_again() {
    let (url, came) = losing_answers(1).await;
    let found = client(&url)
        .find_role_assignment(Lane::Reconcile, 900_001)
        .await
        .expect("the second answer");
    assert_eq!(found.map(|row| row.id), Some(900_001));
    assert_eq!(came.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_server_that_is_not_there_has_certainly_applied_nothing() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let error = client(&url)
        .create_role_assignment(Lane::Grant.into(), &grant())
        .await
        .expect_err("nobody listens");
    assert!(
        error.is_transient() && !error.is_outcome_unknown(),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_an_unknown_outcome() {
    let late = ResponseTemplate::new(204).set_delay(Duration::from_secs(30));
    let (_server, kisi) = answering("DELETE", "/role_assignments/1", late).await;
    let error = kisi
        .delete_role_assignment(Lane::Revoke.into(), 1)
        .await
        .expect_err("too late");
    assert!(error.is_outcome_unknown(), "{error:?}");
}

#[tokio::test]
async fn a_refused_write_is_sent_again_after_the_time_that_kisi_named() {
    let server = MockServer::start().await;
    Mock::given(method("DELETE"))
        .respond_with(ResponseTemplate::new(429).insert_header("retry-after", "1"))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    Mock::given(method("DELETE"))
        .respond_with(ResponseTemplate::new(204))
        .mount(&server)
        .await;
    let began = Instant::now();
    let deletion = client(&server.uri())
        .delete_role_assignment(Lane::Revoke.into(), 1)
        .await
        .expect("accepted the second time");
    assert_eq!(deletion, Deletion::Deleted);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(requests(&server).await.len(), 2);
}

#[tokio::test]
async fn a_write_in_a_held_turn_comes_back_refused_and_the_pacer_pauses() {
    let refusal = ResponseTemplate::new(429)
        .insert_header("retry-after", "40")
        .set_body_string("<html>Too many</html>");
    let (server, kisi) = answering("DELETE", "/role_assignments/1", refusal).await;
    let turn = kisi.pacer().turn(Lane::Revoke).await;
    let error = kisi
        .delete_role_assignment(turn.into(), 1)
        .await
        .expect_err("429");
    let forty = Duration::from_secs(40);
    assert!(
        matches!(error, KisiError::RateLimited { retry_after: Some(wait), .. } if wait == forty)
    );
    assert!(!error.is_outcome_unknown());
    assert_eq!(requests(&server).await.len(), 1);
    assert!(kisi.pacer().expected_wait(Lane::Revoke) > Duration::from_secs(30));
}

#[tokio::test]
async fn a_failing_kisi_is_read_again_but_never_written_again() {
    let gateway = || ResponseTemplate::new(502).set_body_string("<html>Bad Gateway</html>");
    let (server, kisi) = answering("GET", "/login", gateway()).await;
    let error = kisi.current_login(Lane::SetUp).await.expect_err("502");
    assert_eq!((error.status(), error.code()), (Some(502), None));
    assert_eq!(requests(&server).await.len(), 3);

    let (server, kisi) = answering("DELETE", "/users/5001", gateway()).await;
    let error = kisi
        .delete_user(Lane::Reconcile.into(), 5001)
        .await
        .expect_err("502");
    assert!(error.is_outcome_unknown());
    assert_eq!(requests(&server).await.len(), 1);
}

#[tokio::test]
async fn a_refusal_is_not_hammered_and_not_followed_elsewhere() {
    for status in [400, 401, 403, 409, 422, 301] {
        let answer = ResponseTemplate::new(status).insert_header("location", "/login?again");
        let (server, kisi) = answering("GET", "/login", answer).await;
        let error = kisi.current_login(Lane::SetUp).await.expect_err("refused");
        assert_eq!(error.status(), Some(status));
        assert_eq!(error.is_key_dead(), matches!(status, 401 | 403));
        assert_eq!(requests(&server).await.len(), 1, "{status}");
    }
}

#[tokio::test]
async fn what_is_gone_is_a_value() {
    let gone = || {
        ResponseTemplate::new(404).set_body_json(json!({"code": "000404", "error": "Not found."}))
    };
    let (_server, kisi) = answering("GET", "/users/5001", gone()).await;
    assert_eq!(
        kisi.find_user(Lane::SetUp, 5001).await.expect("an answer"),
        None
    );
    let (_server, kisi) = answering("DELETE", "/role_assignments/1", gone()).await;
    let deletion = kisi.delete_role_assignment(Lane::Revoke.into(), 1).await;
    assert_eq!(deletion.expect("an answer"), Deletion::AlreadyGone);
    let (_server, kisi) = answering("POST", "/role_assignments", gone()).await;
    let error = kisi
        .create_role_assignment(Lane::Grant.into(), &grant())
        .await
        .expect_err("no such user");
    assert!(error.is_not_found() && !error.is_outcome_unknown());
}

#[tokio::test]
async fn a_list_is_read_in_pages_of_250_until_its_total() {
    let server = MockServer::start().await;
    for (offset, ids) in [(0, 0..250), (250, 250..412)] {
        let rows: Vec<Value> = ids.map(assignment).collect();
        Mock::given(path("/role_assignments"))
            .and(query_param("applies_to_type", "Group"))
            .and(query_param("applies_to_id", "45274"))
            .and(query_param("limit", "250"))
            .and(query_param("offset", offset.to_string()))
            .respond_with(
                ResponseTemplate::new(200)
                    .insert_header(
                        "X-Collection-Range",
                        format!("{offset}-{}/412", offset + 249),
                    )
                    .set_body_json(rows),
            )
            .expect(1)
            .mount(&server)
            .await;
    }
    let listing = client(&server.uri())
        .list_role_assignments(Lane::Reconcile, AssignmentFilter::Group(45274))
        .await
        .expect("both pages");
    assert!(listing.complete);
    assert_eq!((listing.items.len(), listing.total), (412, 412));
}

#[tokio::test]
async fn an_empty_list_is_one_request_and_whole() {
    let answer = ResponseTemplate::new(200)
        .insert_header("X-Collection-Range", "*/0")
        .set_body_json(json!([]));
    let (server, kisi) = answering("GET", "/places", answer).await;
    let listing = kisi.list_places(Lane::SetUp).await.expect("an empty list");
    assert!(listing.complete && listing.items.is_empty());
    assert_eq!(requests(&server).await.len(), 1);
}

#[tokio::test]
async fn a_list_past_the_largest_offset_is_an_error_before_eighty_pages_are_read() {
    let rows: Vec<Value> = (0..250).map(assignment).collect();
    let answer = ResponseTemplate::new(200)
        .insert_header("X-Collection-Range", "0-249/20251")
        .set_body_json(rows);
    let (server, kisi) = answering("GET", "/role_assignments", answer).await;
    let error = kisi
        .list_role_assignments(Lane::Reconcile, AssignmentFilter::Group(45274))
        .await
        .expect_err("row 20251 cannot be read");
    assert!(
        matches!(
            error,
            KisiError::BeyondOffsetLimit {
                total: 20_251,
                readable: 20_250,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(requests(&server).await.len(), 1);
}

#[tokio::test]
async fn only_the_very_e_mail_is_found_whatever_its_case() {
    let row = |id: i64, email: &str| json!({"id": id, "email": email, "name": null});
    let answer = ResponseTemplate::new(200)
        .insert_header("X-Collection-Range", "0-99/3")
        .set_body_json(json!([
            row(1, "ada@example.com.au"),
            row(2, "Ada@Example.com"),
            row(3, "not-ada@example.com"),
        ]));
    let (server, kisi) = answering("GET", "/users", answer).await;
    let found = kisi
        .list_users_by_email(Lane::Grant, "ada@example.com")
        .await
        .expect("a list");
    assert_eq!(found.iter().map(|user| user.id).collect::<Vec<_>>(), [2]);
    let url = requests(&server).await[0].url.clone();
    assert_eq!(
        url.query(),
        Some("email=ada%40example.com&limit=100&offset=0")
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
