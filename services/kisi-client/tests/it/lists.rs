//! Lists: page by page, to their end or to the offset that Kisi allows.

use kisi_client::model::AssignmentFilter;
use kisi_client::{KisiError, KisiRead, Lane};
use serde_json::{Value, json};
use wiremock::matchers::{path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::scripted::{answering, assignment, client, requests};

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
async fn all_users_are_read_only_where_there_are_few_enough() {
    let rows: Vec<Value> = (0..100)
        .map(|id| json!({"id": id, "email": format!("m{id}@example.com"), "name": null}))
        .collect();
    for (total, at_most, asked) in [(100, 100, 1), (101, 100, 1), (20_101, 30_000, 1)] {
        let answer = ResponseTemplate::new(200)
            .insert_header("X-Collection-Range", format!("0-99/{total}"))
            .set_body_json(&rows);
        let (server, kisi) = answering("GET", "/users", answer).await;
        let listed = kisi
            .list_all_users(Lane::Reconcile, at_most)
            .await
            .expect("an answer");
        assert_eq!(listed.is_some(), total == 100, "{total} of {at_most}");
        assert_eq!(requests(&server).await.len(), asked);
    }
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
