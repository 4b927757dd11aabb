//! Clients that read: those that take what they get for all there is, and for the one they meant,
//! beside those that count and compare. The first are shown to fail in the mode that is theirs.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Kisi};

/// A gym of so many members of one name, all in the group.
async fn crowd(settings: Value, members: usize) -> Kisi {
    let kisi = Kisi::with(settings).await;
    for n in 0..members {
        let email = format!("u{n}@example.com");
        let body = json!({ "user": { "email": email, "name": "Same Name", "send_emails": false } });
        let user = kisi.post("/users", body).await.id();
        kisi.grant(user).await;
    }
    kisi
}

fn ids(page: &Answer) -> impl Iterator<Item = i64> {
    page.rows().iter().filter_map(|row| row["id"].as_i64())
}

fn total(page: &Answer) -> Option<usize> {
    page.range.as_deref()?.split('/').nth(1)?.parse().ok()
}

/// Wrong: one request, without or with any `limit`.
async fn read_once(kisi: &Kisi, path: &str) -> Option<BTreeSet<i64>> {
    let page = kisi.get(path).await;
    (page.status == 200).then(|| ids(&page).collect())
}

/// Wrong: pages, until as many rows came as there are.
async fn read_by_rows(kisi: &Kisi, path: &str, limit: usize) -> Option<BTreeSet<i64>> {
    let (mut found, mut rows) = (BTreeSet::new(), 0);
    loop {
        let page = kisi
            .get(&format!("{path}&limit={limit}&offset={rows}"))
            .await;
        rows += page.rows().len();
        found.extend(ids(&page));
        if page.rows().len() < limit || Some(rows) == total(&page) {
            return Some(found);
        }
    }
}

/// Right: pages, and believes a pass only if it saw as many different rows as there are.
async fn read(kisi: &Kisi, path: &str, limit: usize) -> Option<BTreeSet<i64>> {
    let (mut found, mut offset) = (BTreeSet::new(), 0);
    loop {
        let page = kisi
            .get(&format!("{path}&limit={limit}&offset={offset}"))
            .await;
        let total = total(&page)?;
        found.extend(ids(&page));
        offset += limit;
        if offset >= total {
            return (found.len() == total).then_some(found);
        }
    }
}

#[tokio::test]
async fn a_client_without_limit_or_with_too_much_sees_a_part_of_it() {
    let kisi = crowd(json!({}), 130).await;
    let of_group = format!(
        "/role_assignments?applies_to_type=Group&applies_to_id={}",
        kisi.group
    );
    let seen = |found: Option<BTreeSet<i64>>| found.map(|found| found.len());
    assert_eq!(seen(read_once(&kisi, &of_group).await), Some(10));
    assert_eq!(seen(read(&kisi, &of_group, 250).await), Some(130));
    assert_eq!(seen(read(&kisi, &of_group, 50).await), Some(130));

    // 131 with the owner. More than the maximum is refused, or quietly made less.
    assert_eq!(seen(read_once(&kisi, "/users?limit=1000").await), None);
    kisi.set(json!({ "over_maximum": "clamp" })).await;
    assert_eq!(seen(read_once(&kisi, "/users?limit=1000").await), Some(100));
    let all = "/users?sort=name";
    assert_eq!(seen(read(&kisi, all, 100).await), Some(131));
}

#[tokio::test]
async fn a_client_that_counts_rows_takes_a_short_unstable_listing_for_whole() {
    let kisi = crowd(json!({ "unstable_order": true }), 40).await;
    let path = format!(
        "/role_assignments?applies_to_type=Group&applies_to_id={}",
        kisi.group
    );
    let mut deceived = 0;
    for _ in 0..10 {
        let blind = read_by_rows(&kisi, &path, 10).await.expect("a listing");
        deceived += usize::from(blind.len() < 40);
        // The right one says nothing rather than something short.
        if let Some(found) = read(&kisi, &path, 10).await {
            assert_eq!(found.len(), 40);
        }
    }
    assert!(deceived > 0, "pages never overlapped");
    let whole = read(&kisi, &path, 250).await;
    assert_eq!(
        whole.map(|found| found.len()),
        Some(40),
        "one page is whole"
    );
}

/// Wrong: the first hit of the search.
async fn find_first(kisi: &Kisi, email: &str) -> Option<i64> {
    let page = kisi.get(&format!("/users?query={email}&limit=100")).await;
    ids(&page).next()
}

/// Right: the filter, and then the e-mail itself, without case.
async fn find(kisi: &Kisi, email: &str) -> Option<i64> {
    let page = kisi.get(&format!("/users?email={email}&limit=100")).await;
    page.rows()
        .iter()
        .find(|row| {
            row["email"]
                .as_str()
                .is_some_and(|found| found.eq_ignore_ascii_case(email))
        })
        .and_then(|row| row["id"].as_i64())
}

#[tokio::test]
async fn a_client_that_takes_the_first_hit_gets_a_lookalike() {
    let kisi = Kisi::start().await;
    let lookalike = kisi.user("leanne@example.com").await;
    assert_eq!(find_first(&kisi, "anne@example.com").await, Some(lookalike));
    assert_eq!(find(&kisi, "anne@example.com").await, None);
    let anne = kisi.user("Anne@example.com").await;
    assert_eq!(find_first(&kisi, "anne@example.com").await, Some(lookalike));
    assert_eq!(find(&kisi, "anne@example.com").await, Some(anne));
}

async fn create(kisi: &Kisi, email: &str) -> Result<i64, u16> {
    let body = json!({ "user": { "email": email, "send_emails": false, "confirm": true } });
    let made = kisi.call(Method::POST, "/users", Some(body)).await;
    match made.status {
        200 => Ok(made.id()),
        status => Err(status),
    }
}

/// Wrong: searches, and creates whoever it does not find.
async fn ensure_blindly(kisi: &Kisi, email: &str) -> Result<i64, u16> {
    match find_first(kisi, email).await {
        Some(user) => Ok(user),
        None => create(kisi, email).await,
    }
}

/// Right: "already there" means to look again.
async fn ensure(kisi: &Kisi, email: &str) -> Result<i64, u16> {
    match create(kisi, email).await {
        Err(status @ (409 | 422)) => find(kisi, email).await.ok_or(status),
        other => other,
    }
}

#[tokio::test]
async fn a_client_that_trusts_the_search_fails_on_whoever_was_just_created() {
    for (mode, refused) in [("409", 409), ("422", 422)] {
        let settings = json!({ "duplicate_users": mode, "query_lag_ms": 60_000 });
        let kisi = Kisi::with(settings).await;
        let ada = kisi.user("Ada@example.com").await;
        let blind = ensure_blindly(&kisi, "ada@example.com").await;
        assert_eq!(blind, Err(refused), "{mode}");
        assert_eq!(ensure(&kisi, "ada@example.com").await, Ok(ada), "{mode}");
        kisi.advance(61).await;
        let later = ensure_blindly(&kisi, "ada@example.com").await;
        assert_eq!(later, Ok(ada), "the search has caught up");
    }
}
