//! `Stripe-Signature` and Stripe's events.

use axum::http::HeaderMap;
use billing_webhook::provider::Translated;

use super::input::{self, NOW, TOLERANCE, accepted, at, hmac, number};
use super::published::translated;

const SECRETS: [&str; 2] = ["whsec_test_secret", "whsec_older_secret"];
const HEADER: &str = "stripe-signature";

fn sign(secret: &str, seconds: &str, body: &[u8]) -> String {
    hex::encode(hmac(secret.as_bytes(), &[seconds.as_bytes(), b".", body]))
}

/// The header's line, then the body.
pub fn signature(input: &[u8]) {
    let (header, body) = input::first_line(input);
    let check = |header: &str, body: &[u8]| {
        accepted(at("stripe", "main"), &[(HEADER, header.as_bytes())], body)
    };
    if accepted(at("stripe", "main"), &[(HEADER, header)], body) {
        let header = str::from_utf8(header).expect("text").to_ascii_lowercase();
        assert!(is_signed(&header, body), "nobody signed this: {header}");
    }

    let number = number(input);
    let secret = SECRETS[usize::from(number.is_multiple_of(2))];
    let away = i64::try_from(number % 1_201).expect("small") - 600;
    let seconds = (NOW + away).to_string();
    let good = sign(secret, &seconds, body);
    let in_time = away.abs() <= TOLERANCE;
    let alone = format!("t={seconds},v1={good}");
    assert_eq!(check(&alone, body), in_time, "{alone}");
    // Whatever else stands in the header, unless it tells another time.
    let noise = header.split(|byte| *byte == b',').filter(|element| {
        let scheme = element
            .split(|byte| *byte == b'=')
            .next()
            .unwrap_or_default();
        scheme.trim_ascii() != b"t"
    });
    let noise = noise.collect::<Vec<_>>().join(&b',');
    if let Ok(noise) = str::from_utf8(&noise)
        && noise.bytes().all(|byte| matches!(byte, b' '..=b'~'))
    {
        let among = format!("{noise},t={seconds},v1={good},{noise}");
        assert_eq!(check(&among, body), in_time, "{among}");
    }
    let now = NOW.to_string();
    let good = sign(secret, &now, body);
    assert!(check(&format!("t={now},v1={good}"), body));
    for (what, bad) in [
        ("two times", format!("t={now},t={now},v1={good}")),
        ("no time", format!("v1={good}")),
        ("a longer time", format!("t=0{now},v1={good}")),
        ("a sign", format!("t=+{now},v1={good}")),
        ("another scheme", format!("t={now},v0={good}")),
        ("half a signature", format!("t={now},v1={}", &good[..32])),
        ("no signature", format!("t={now},v1=")),
    ] {
        assert!(!check(&bad, body), "{what}");
    }
    let header = format!("t={now},v1={good}");
    assert!(!check(&header, &input::altered(body, number)));
    assert!(!check(&header, &[body, b"\n"].concat()));
    let other = at("stripe", "other");
    assert!(!accepted(other, &[(HEADER, header.as_bytes())], body));
    let twice = [(HEADER, header.as_bytes()), (HEADER, header.as_bytes())];
    assert!(!accepted(at("stripe", "main"), &twice, body));
}

/// Whether a signature of ours over a time that the header tells, near now, stands in it.
fn is_signed(header: &str, body: &[u8]) -> bool {
    let numbers = header.split(|c: char| !c.is_ascii_digit());
    let mut times = numbers.filter(|digits| {
        let seconds: Option<i64> = digits.parse().ok();
        seconds.is_some_and(|seconds| seconds.abs_diff(NOW) <= TOLERANCE.unsigned_abs())
    });
    times.any(|seconds| {
        SECRETS
            .iter()
            .any(|secret| header.contains(&sign(secret, seconds, body)))
    })
}

/// The body.
pub fn payload(body: &[u8]) {
    let headers = HeaderMap::new();
    let [live, test, one] =
        ["main", "test", "one"].map(|id| translated(at("stripe", id), &headers, body));
    let event = |all: &Vec<Translated>| {
        assert_eq!(all.len(), 1, "one body is one event");
        assert!(!all[0].event_type.is_empty());
        all[0].event.clone()
    };
    if let (Ok(live), Ok(test)) = (&live, &test) {
        let both = event(live).is_some() && event(test).is_some();
        assert!(!both, "an event is live or a test");
    }
    if let Ok(Some(few)) = one.as_ref().map(event) {
        // An endpoint that takes fewer accounts takes no other event.
        assert_eq!(live.as_ref().map(event), Ok(Some(few)));
    }
}
