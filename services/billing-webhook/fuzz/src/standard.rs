//! Standard Webhooks: its three headers, and bodies that are billing events already.

use std::sync::LazyLock;

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::signature::Ed25519KeyPair;

use super::input::{self, NOW, TOLERANCE, accepted, at, hmac, number};
use super::published::translated;

/// The shared secret, without its prefix.
const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// The seed of RFC 8032, test 1: its public key is configured.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";

static PAIR: LazyLock<Ed25519KeyPair> = LazyLock::new(|| {
    let seed = hex::decode(SEED).expect("hex");
    Ed25519KeyPair::from_seed_unchecked(&seed).expect("a pair")
});

/// `v1` and `v1a` of a message, as base64 without padding.
fn sign(id: &[u8], seconds: &[u8], body: &[u8]) -> [String; 2] {
    let key = STANDARD.decode(SECRET).expect("base64");
    let parts = [id, b".", seconds, b".", body];
    [
        STANDARD_NO_PAD.encode(hmac(&key, &parts)),
        STANDARD_NO_PAD.encode(PAIR.sign(&parts.concat())),
    ]
}

fn lines<'a>(id: &'a [u8], time: &'a [u8], signature: &'a [u8]) -> [(&'static str, &'a [u8]); 3] {
    [
        ("webhook-id", id),
        ("webhook-timestamp", time),
        ("webhook-signature", signature),
    ]
}

/// The lines of id, timestamp and signature, then the body.
pub fn signature(input: &[u8]) {
    let (id, rest) = input::first_line(input);
    let (time, rest) = input::first_line(rest);
    let (written, body) = input::first_line(rest);
    let main = at("standard", "main");
    if accepted(main, &lines(id, time, written), body) {
        assert!(!id.is_empty() && !id.contains(&b'.'));
        let seconds: i64 = str::from_utf8(time).expect("text").parse().expect("digits");
        assert!(seconds.abs_diff(NOW) <= TOLERANCE.unsigned_abs());
        let written = str::from_utf8(written).expect("text");
        let signed = sign(id, time, body);
        let is_signed = signed.iter().any(|good| written.contains(good.as_str()));
        assert!(is_signed, "nobody signed this: {written}");
    }

    let is_text = |text: &[u8]| text.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let id = match is_text(id) && !id.is_empty() && !id.contains(&b'.') {
        true => id,
        false => b"msg_1",
    };
    let number = number(input);
    let away = i64::try_from(number % 1_201).expect("small") - 600;
    let in_time = away.abs() <= TOLERANCE;
    let seconds = (NOW + away).to_string();
    let seconds = seconds.as_bytes();
    let [v1, v1a] = sign(id, seconds, body);
    // Whatever else stands in the header; of `v1a` only so many are looked at.
    let noise = written.split(|byte| *byte == b' ');
    let noise = noise.filter(|entry| is_text(entry) && !entry.starts_with(b"v1a,"));
    let noise = noise.collect::<Vec<_>>().join(&b' ');
    let noise = str::from_utf8(&noise).expect("text");
    // One of them each time: an asymmetric signature costs as much as a hundred of the others.
    let (good, known, unknown) = match number % 4 {
        0 => (format!("v1,{v1}"), "secret", "public"),
        1 => (format!("v1,{v1}="), "secret", "public"),
        2 => (format!("v1a,{v1a}"), "public", "secret"),
        _ => (format!("v1a,{v1a}=="), "public", "secret"),
    };
    let check = |endpoint: &str, id: &[u8], signature: &str| {
        let lines = lines(id, seconds, signature.as_bytes());
        accepted(at("standard", endpoint), &lines, body)
    };
    assert_eq!(check("main", id, &good), in_time, "{good}");
    let among = format!("{noise} {good} {noise}");
    assert_eq!(check("main", id, &among), in_time, "{among}");
    assert_eq!(check(known, id, &good), in_time, "{good}");
    assert!(!check(unknown, id, &good), "another kind of key");
    assert!(!check("other", id, &good), "another key");
    assert!(!check("main", &[id, b"x"].concat(), &good), "another id");
    assert!(!check("main", &[id, b"."].concat(), &good), "a dot");
    let swapped = match good.strip_prefix("v1,") {
        Some(signature) => format!("v1a,{signature}"),
        None => good.replace("v1a,", "v1,"),
    };
    assert!(!check("main", id, &swapped), "another version");
    let now = NOW.to_string();
    let [v1, v1a] = sign(id, now.as_bytes(), body);
    let both = format!("v1,{v1} v1a,{v1a}");
    let check = |time: &str, body: &[u8]| {
        accepted(main, &lines(id, time.as_bytes(), both.as_bytes()), body)
    };
    assert!(check(&now, body));
    assert!(!check(&format!("0{now}"), body));
    assert!(!check(&format!("+{now}"), body));
    assert!(!check(&now, &input::altered(body, number)));
    assert!(!check(&now, &[body, b"\n"].concat()));
}

/// The body.
pub fn payload(body: &[u8]) {
    let main = at("standard", "main");
    let headers = input::headers(&[("webhook-id", b"msg_1")]).expect("a header");
    let with_id = translated(main, &headers, body);
    let without_id = translated(main, &HeaderMap::new(), body);
    if let Ok(known) = &without_id {
        assert_eq!(with_id.as_ref(), Ok(known), "an event's own id counts");
    }
    let Ok(all) = with_id else { return };
    assert_eq!(all.len(), 1, "one body is one event");
    let event = all[0].event.as_ref().expect("every event is for us");
    assert_eq!(event.account, "acct_desk", "whatever the body says");
    // What was published, sent as a body, becomes itself.
    let sent = serde_json::to_vec(event).expect("JSON");
    assert_eq!(translated(main, &HeaderMap::new(), &sent), Ok(all));
}
