//! `Webhook-Signature` and GoCardless's bodies of events.

use axum::http::HeaderMap;

use super::input::{self, accepted, at, hmac, number};
use super::published::translated;

const SECRETS: [&str; 2] = [
    "ED7D658C-D8EB-4941-948B-3973214F2D49",
    "older_secret_of_ours",
];
const HEADER: &str = "webhook-signature";

/// The header's line, then the body.
pub fn signature(input: &[u8]) {
    let (header, body) = input::first_line(input);
    let check =
        |header: &[u8], body: &[u8]| accepted(at("gocardless", "main"), &[(HEADER, header)], body);
    let signed = SECRETS.map(|secret| hex::encode(hmac(secret.as_bytes(), &[body])));
    let lower = header.to_ascii_lowercase();
    let is_signed = signed.iter().any(|good| good.as_bytes() == lower);
    assert_eq!(check(header, body), is_signed);

    let number = number(input);
    let good = &signed[usize::from(number.is_multiple_of(2))];
    assert!(check(good.as_bytes(), body));
    assert!(check(good.to_ascii_uppercase().as_bytes(), body));
    for (what, bad) in [
        ("half a signature", good[..32].to_owned()),
        ("two", format!("{good}{good}")),
        ("a list", format!("{good},{good}")),
        ("a name", format!("v1={good}")),
        ("none", String::new()),
    ] {
        assert!(!check(bad.as_bytes(), body), "{what}");
    }
    assert!(!check(good.as_bytes(), &input::altered(body, number)));
    assert!(!check(good.as_bytes(), &[body, b"\n"].concat()));
    let other = at("gocardless", "other");
    assert!(!accepted(other, &[(HEADER, good.as_bytes())], body));
    let twice = [(HEADER, good.as_bytes()), (HEADER, good.as_bytes())];
    assert!(!accepted(at("gocardless", "main"), &twice, body));
}

/// The body.
pub fn payload(body: &[u8]) {
    let none = HeaderMap::new();
    let all = translated(at("gocardless", "main"), &none, body);
    let few = translated(at("gocardless", "one"), &none, body);
    if let (Ok(all), Ok(few)) = (&all, &few) {
        assert_eq!(all.len(), few.len());
        for (one, few) in all.iter().zip(few) {
            assert_eq!(one.event_type, few.event_type);
            // An endpoint that takes fewer accounts takes no other event.
            assert!(few.event.is_none() || few.event == one.event);
        }
    }
    let sandbox = [("origin", &b"https://api-sandbox.gocardless.com"[..])];
    let sandbox = input::headers(&sandbox).expect("a header");
    if let Ok(test) = translated(at("gocardless", "main"), &sandbox, body) {
        assert!(test.iter().all(|one| one.event.is_none()), "{test:?}");
    }
}
