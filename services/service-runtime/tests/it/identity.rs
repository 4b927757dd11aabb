use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use jiff::Timestamp;
use serde_json::{Value, json};
use service_runtime::clock::{Clock, ManualClock, SystemClock};
use service_runtime::http_server;
use service_runtime::identity::{Caller, IdentityError, Role, ServiceToken, Verifier, http};
use testkit::jwt::claims;
use testkit::{TokenIssuer, eventually};
use tokio_util::sync::CancellationToken;

use crate::{identity_settings, verifier};

/// `{"alg":"none"}` before the claims, and an empty signature.
fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| base64url(value.to_string().as_bytes());
    format!(
        "{}.{}.",
        part(&json!({ "alg": "none", "typ": "JWT" })),
        part(claims)
    )
}

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    bytes
        .chunks(3)
        .flat_map(|chunk| {
            let word = chunk
                .iter()
                .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
                << (8 * (3 - chunk.len()));
            (0..=chunk.len())
                .map(move |n| char::from(ALPHABET[(word >> (18 - 6 * n) & 63) as usize]))
        })
        .collect()
}

#[tokio::test]
async fn good_tokens_say_who_is_calling() {
    let issuer = TokenIssuer::new().unwrap();
    let verifier = verifier(&issuer).await;

    let staff = verifier
        .verify(&issuer.staff("demo", "u_1", "read override"))
        .await
        .unwrap();
    assert_eq!(
        (staff.role, staff.gym.as_deref()),
        (Role::Staff, Some("demo"))
    );
    assert_eq!(staff.actor(), "staff:u_1");
    assert!(staff.require_scope("demo", "override").is_ok());
    assert!(staff.require_scope("demo", "configure").is_err());
    assert!(staff.require_scope("other", "override").is_err());
    assert!(staff.require_member("demo", "m_1").is_ok());

    let member = verifier
        .verify(&issuer.member("demo", "m_1"))
        .await
        .unwrap();
    assert!(member.require_member("demo", "m_1").is_ok());
    for (gym, member_id) in [("demo", "m_2"), ("other", "m_1")] {
        assert_eq!(
            member.require_member(gym, member_id),
            Err(IdentityError::Forbidden("this is another member's"))
        );
    }
    assert!(member.require_scope("demo", "read").is_err());

    let service = verifier.verify(&issuer.service("crm")).await.unwrap();
    assert!(service.require_service().is_ok());
    assert!(service.require_member("any", "m_1").is_ok());
}

#[tokio::test]
async fn every_kind_of_bad_token_is_refused() {
    let issuer = TokenIssuer::new().unwrap();
    let forger = TokenIssuer::new().unwrap();
    let stranger = TokenIssuer::with_key_id("unknown").unwrap();
    let verifier = verifier(&issuer).await;
    let good = claims("staff", "u_1", Some("demo"), Some("read"));
    assert!(verifier.verify(&issuer.sign(&good)).await.is_ok());
    let with = |field: &str, value: Value| {
        let mut changed = good.clone();
        changed[field] = value;
        issuer.sign(&changed)
    };
    let without = |field: &str| {
        let mut changed = good.clone();
        changed.as_object_mut().unwrap().remove(field);
        issuer.sign(&changed)
    };
    let now = SystemClock.now().as_second();
    let mut tampered = issuer.sign(&good);
    tampered.replace_range(40..41, if &tampered[40..41] == "A" { "B" } else { "A" });

    let cases = [
        ("forged with the same key id", forger.sign(&good)),
        ("of an unknown key", stranger.sign(&good)),
        ("tampered", tampered),
        ("unsigned", unsigned(&good)),
        ("expired", with("exp", json!(now - 120))),
        ("not valid yet", with("nbf", json!(now + 120))),
        ("for another audience", with("aud", json!("shop"))),
        ("of another issuer", with("iss", json!("https://evil.test"))),
        ("without exp", without("exp")),
        ("without aud", without("aud")),
        ("without iss", without("iss")),
        ("without sub", without("sub")),
        ("staff without a gym", without("gym")),
        ("of an unknown role", with("role", json!("admin"))),
        ("with a gym that is no id", with("gym", json!("demo.>"))),
        ("no token", "x".to_owned()),
        ("empty", String::new()),
    ];
    for (what, token) in cases {
        let answer = verifier.verify(&token).await;
        assert!(
            matches!(answer, Err(IdentityError::Unauthenticated(_))),
            "{what}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn a_token_ends_by_the_clock_with_a_little_leeway() {
    let issuer = TokenIssuer::new().unwrap();
    let clock = ManualClock::at(SystemClock.now());
    let verifier = Verifier::start(
        &identity_settings(&issuer),
        Arc::new(clock.clone()),
        CancellationToken::new(),
    )
    .await
    .unwrap();
    let token = issuer.member("demo", "m_1");
    clock.advance(Duration::from_secs(3_600 + 20));
    assert!(verifier.verify(&token).await.is_ok(), "within the leeway");
    clock.advance(Duration::from_secs(20));
    assert_eq!(
        verifier.verify(&token).await,
        Err(IdentityError::Unauthenticated("the token has expired"))
    );
    clock.set(Timestamp::UNIX_EPOCH);
    assert!(
        verifier.verify(&token).await.is_ok(),
        "exp alone is looked at"
    );
}

#[tokio::test]
async fn a_token_begins_by_the_clock_however_often_it_was_good() {
    let issuer = TokenIssuer::new().unwrap();
    let clock = ManualClock::at(SystemClock.now());
    let verifier = Verifier::start(
        &identity_settings(&issuer),
        Arc::new(clock.clone()),
        CancellationToken::new(),
    )
    .await
    .unwrap();
    let mut claims = claims("member", "m_1", Some("demo"), None);
    claims["nbf"] = json!(clock.now().as_second());
    let token = issuer.sign(&claims);
    let caller = verifier.verify(&token).await.unwrap();
    assert_eq!(verifier.verify(&token).await, Ok(caller));
    clock.set(Timestamp::UNIX_EPOCH);
    assert_eq!(
        verifier.verify(&token).await,
        Err(IdentityError::Unauthenticated("the token is not valid yet"))
    );
}

#[tokio::test]
async fn a_missing_key_file_stops_the_start_and_is_named() {
    let issuer = TokenIssuer::new().unwrap();
    let mut settings = identity_settings(&issuer);
    settings.jwt_jwks.push_str(".missing");
    let error = Verifier::start(&settings, Arc::new(SystemClock), CancellationToken::new())
        .await
        .unwrap_err();
    assert!(
        error.to_string().starts_with("bad setting JWT_JWKS: "),
        "{error}"
    );
}

#[tokio::test]
async fn rotated_keys_are_picked_up_and_a_withdrawn_one_stops_counting() {
    let old = TokenIssuer::with_key_id("old").unwrap();
    let new = TokenIssuer::with_key_id("new").unwrap();
    let verifier = verifier(&old).await;
    assert!(verifier.verify(&old.member("demo", "m_1")).await.is_ok());
    std::fs::copy(new.jwks_path(), old.jwks_path()).unwrap();
    eventually(
        "only the new key counts",
        Duration::from_secs(15),
        async || {
            verifier.verify(&new.member("demo", "m_1")).await.is_ok()
                && verifier.verify(&old.member("demo", "m_1")).await.is_err()
        },
    )
    .await;
}

#[tokio::test]
async fn a_token_that_was_good_ends_with_its_key() {
    // Another key under the same id.
    let (old, new) = (TokenIssuer::new().unwrap(), TokenIssuer::new().unwrap());
    let verifier = verifier(&old).await;
    let (token, of_new) = (old.member("demo", "m_1"), new.member("demo", "m_1"));
    for _ in 0..2 {
        assert!(verifier.verify(&token).await.is_ok());
        assert!(verifier.verify(&of_new).await.is_err());
    }
    std::fs::copy(new.jwks_path(), old.jwks_path()).unwrap();
    eventually("the new key counts", Duration::from_secs(15), async || {
        verifier.verify(&of_new).await.is_ok()
    })
    .await;
    assert_eq!(
        verifier.verify(&token).await,
        Err(IdentityError::Unauthenticated(
            "the token's signature is wrong"
        ))
    );
}

#[tokio::test]
async fn no_other_token_passes_for_one_that_was_good() {
    let (issuer, forger) = (TokenIssuer::new().unwrap(), TokenIssuer::new().unwrap());
    let verifier = verifier(&issuer).await;
    let good = claims("staff", "u_1", Some("demo"), Some("read"));
    let token = issuer.sign(&good);
    let caller = verifier.verify(&token).await.unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let others = |scope: &str| {
        let mut claims = good.clone();
        claims["scope"] = json!(scope);
        claims
    };
    let forged = forger.sign(&good);
    let more = issuer.sign(&others("read override"));
    let (more_signed, more_signature) = more.rsplit_once('.').unwrap();
    let mut elsewhere = good.clone();
    elsewhere["aud"] = json!("shop");
    for (what, other) in [
        ("signed by another", forged.clone()),
        (
            "with the signature of another",
            format!("{signed}.{}", forged.rsplit_once('.').unwrap().1),
        ),
        (
            "with the signature of other claims",
            format!("{signed}.{more_signature}"),
        ),
        (
            "with more scopes and the same signature",
            format!("{more_signed}.{signature}"),
        ),
        ("without a signature", format!("{signed}.")),
        (
            "with a part of the signature",
            token[..token.len() - 4].to_owned(),
        ),
        ("for another audience", issuer.sign(&elsewhere)),
    ] {
        for time in ["once", "twice"] {
            let answer = verifier.verify(&other).await;
            assert!(
                matches!(answer, Err(IdentityError::Unauthenticated(_))),
                "{what}, {time}: {answer:?}"
            );
        }
        assert_eq!(verifier.verify(&token).await.as_ref(), Ok(&caller));
    }
    assert!(caller.require_scope("demo", "override").is_err());
    let more = verifier.verify(&more).await.unwrap();
    assert!(more.require_scope("demo", "override").is_ok());
}

#[tokio::test]
async fn keys_can_come_from_an_address_that_is_not_there_yet() {
    let issuer = TokenIssuer::new().unwrap();
    let addr = format!("127.0.0.1:{}", testkit::free_port());
    let mut settings = identity_settings(&issuer);
    settings.jwt_jwks = format!("http://{addr}/jwks.json");
    let verifier = Verifier::start(&settings, Arc::new(SystemClock), CancellationToken::new())
        .await
        .unwrap();
    let token = issuer.member("demo", "m_1");
    assert_eq!(verifier.verify(&token).await, Err(IdentityError::NoKeys));

    let jwks = std::fs::read_to_string(issuer.jwks_path()).unwrap();
    let router = Router::new().route("/jwks.json", get(async move || jwks));
    let listener = tokio::net::TcpListener::bind(&addr).await.unwrap();
    tokio::spawn(http_server::serve(
        listener,
        router,
        CancellationToken::new(),
    ));
    eventually("the keys are there", Duration::from_secs(15), async || {
        verifier.verify(&token).await.is_ok()
    })
    .await;
}

async fn served() -> (TokenIssuer, String) {
    let issuer = TokenIssuer::new().unwrap();
    let verifier = verifier(&issuer).await;
    let router = Router::new()
        .route(
            "/member",
            get(async |caller: Caller| {
                caller.require_member("demo", "m_1")?;
                Ok::<_, service_runtime::problem::Problem>(caller.actor())
            }),
        )
        .layer(axum::middleware::from_fn_with_state(
            verifier,
            http::authenticate,
        ));
    let forgotten = Router::new().route("/forgotten", get(async |caller: Caller| caller.actor()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let router = router.merge(forgotten);
    tokio::spawn(http_server::serve(
        listener,
        router,
        CancellationToken::new(),
    ));
    (issuer, format!("http://{addr}"))
}

async fn call(url: &str, token: Option<&str>, actor: Option<&str>) -> (u16, String, String) {
    service_runtime::tls::install_crypto_provider();
    let mut request = reqwest::Client::new().get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(actor) = actor {
        request = request.header("x-gymflow-actor", actor);
    }
    let answer = request.send().await.unwrap();
    let media = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    (
        answer.status().as_u16(),
        media,
        answer.text().await.unwrap(),
    )
}

#[tokio::test]
async fn http_answers_401_without_and_403_with_somebody_elses_token() {
    let (issuer, base) = served().await;
    let url = format!("{base}/member");
    let (status, media, body) = call(&url, None, None).await;
    assert_eq!((status, &*media), (401, "application/problem+json"));
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&problem["code"], &problem["status"]),
        (&json!("unauthenticated"), &json!(401))
    );

    let other = issuer.member("demo", "m_2");
    assert_eq!(call(&url, Some(&other), None).await.0, 403);
    let own = issuer.member("demo", "m_1");
    let (status, _, body) = call(&url, Some(&own), None).await;
    assert_eq!((status, &*body), (200, "member:m_1"));
    let token = issuer.service("crm");
    let forgotten = format!("{base}/forgotten");
    assert_eq!(
        call(&forgotten, Some(&token), None).await.0,
        401,
        "no middleware, no entry"
    );
}

#[tokio::test]
async fn the_actor_header_counts_only_from_a_service() {
    let (issuer, base) = served().await;
    let url = format!("{base}/member");
    let own = issuer.member("demo", "m_1");
    assert_eq!(
        call(&url, Some(&own), Some("staff:u_9")).await.2,
        "member:m_1"
    );
    let service = issuer.service("access-gateway");
    assert_eq!(
        call(&url, Some(&service), Some("staff:u_9")).await.2,
        "staff:u_9"
    );
    assert_eq!(
        call(&url, Some(&service), None).await.2,
        "service:access-gateway"
    );
    assert_eq!(call(&url, Some(&service), Some("root")).await.0, 401);
}

#[tokio::test]
async fn a_service_token_is_read_again_when_its_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    assert!(ServiceToken::from_file(&path).is_err());
    std::fs::write(&path, "one\n").unwrap();
    let token = ServiceToken::from_file(&path).unwrap();
    let presented = || token.authorization().unwrap().to_str().unwrap().to_owned();
    assert_eq!(presented(), "Bearer one");
    std::fs::write(&path, "two\n").unwrap();
    eventually(
        "the new one is presented",
        Duration::from_secs(5),
        async || presented() == "Bearer two",
    )
    .await;
    std::fs::write(&path, "").unwrap();
    assert_eq!(presented(), "Bearer two", "the last good one stays");
}
