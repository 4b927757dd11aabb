//! The fuzz targets without a fuzzer: every seed, fixture and regression goes through them, and some
//! thousand neighbours of theirs. What `make fuzz` finds is kept in `fuzz/regressions/` and so stays
//! found, with or without a nightly toolchain.

mod neighbour;

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use billing_webhook::body::MAX_BODY;
use billing_webhook::provider::Refusal;
use contracts::billing::v1::BillingEvent;

use neighbour::{Dice, neighbour};

use crate::fuzz::{TARGETS, input, published, run, said};

/// How many neighbours each target gets.
const NEIGHBOURS: usize = 500;

fn folder(sub: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(sub)
}

/// The files of a folder with their bytes, in order; none where there is no such folder.
fn inputs_in(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut inputs: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            let bytes = std::fs::read(&path).expect("an input");
            (path.display().to_string(), bytes)
        })
        .collect();
    inputs.sort();
    inputs
}

/// The folders that the target's corpus begins with. `fuzz/run.sh` has the same.
fn folders(target: &str) -> Vec<String> {
    let mut folders = vec![
        format!("fuzz/seeds/{target}"),
        format!("fuzz/regressions/{target}"),
    ];
    if let Some(provider) = target.strip_suffix("_payload") {
        for of_provider in match provider {
            "stripe" => &["stripe", "more", "stripe_intents"][..],
            "gocardless" => &["gocardless", "gocardless_more"],
            _ => &["standard"],
        } {
            folders.push(format!("tests/fixtures/{of_provider}"));
        }
    }
    folders
}

fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let folders = folders(target);
    let inputs: Vec<_> = folders
        .iter()
        .flat_map(|sub| inputs_in(&folder(sub)))
        .collect();
    assert!(
        inputs.len() >= 3,
        "{target} has too few seeds in {folders:?}"
    );
    inputs
}

/// Runs the input; where it fails, the input is left behind to be kept as a regression.
fn run_or_keep(target: &str, input: &[u8], from: &str) {
    if catch_unwind(|| run(target, input)).is_err() {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{target}.failed"));
        std::fs::write(&kept, input).expect("written");
        panic!(
            "{target} fails on {from}; the input is in {}",
            kept.display()
        );
    }
}

#[test]
fn every_seed_fixture_and_regression_passes_its_target() {
    for (target, _) in TARGETS {
        for (name, input) in inputs(target) {
            run_or_keep(target, &input, &name);
        }
    }
}

#[test]
fn some_thousand_neighbours_of_the_seeds_pass_too() {
    for (target, _) in TARGETS {
        let seeds = inputs(target);
        let mut dice = Dice(7);
        for n in 0..NEIGHBOURS {
            let (name, seed) = &seeds[dice.below(seeds.len())];
            let (_, other) = &seeds[dice.below(seeds.len())];
            let input = neighbour(seed, other, &mut dice);
            run_or_keep(target, &input, &format!("neighbour {n}, of {name}"));
        }
    }
}

/// Else what a target asserts of an accepted post would be asserted of none.
#[test]
fn the_official_vectors_are_among_the_seeds_and_accepted() {
    for (provider, names) in [
        ("stripe", &["stripe-signature"][..]),
        ("gocardless", &["webhook-signature"]),
        (
            "standard",
            &["webhook-id", "webhook-timestamp", "webhook-signature"],
        ),
    ] {
        let seed = folder(&format!("fuzz/seeds/{provider}_signature/official_vector"));
        let seed = std::fs::read(seed).expect("a seed");
        let mut lines = Vec::new();
        let mut body = seed.as_slice();
        for name in names {
            let (line, rest) = input::first_line(body);
            lines.push((*name, line));
            body = rest;
        }
        let accepted = input::accepted(input::at(provider, "main"), &lines, body);
        assert!(accepted, "{provider}");
    }
}

/// As large as a body may be, in the shapes that cost a reader most. A quadratic one takes minutes.
#[test]
fn the_largest_bodies_take_no_longer_than_their_size_says() {
    let fill = |start: &str, part: &str, end: &str| {
        let parts = (MAX_BODY - start.len() - end.len()) / part.len();
        format!("{start}{}{end}", part.repeat(parts))
    };
    let stripe = r#"{"id":"evt_1","type":"invoice.paid","created":1,"livemode":true,"data":{"object":{"id":"in_1""#;
    for (target, input) in [
        ("stripe_payload", fill("", "[", "")),
        (
            "stripe_payload",
            fill(
                &format!("{stripe},\"lines\":{{\"data\":["),
                "{},",
                "{}]}}}}",
            ),
        ),
        (
            "stripe_payload",
            fill(
                &format!("{stripe},\"metadata\":{{"),
                "\"gymflow_a\":\"b\",",
                "\"c\":\"d\"}}}}",
            ),
        ),
        (
            "gocardless_payload",
            fill(
                "{\"events\":[",
                r#"{"id":"EV1","resource_type":"payments","action":"failed","created_at":"2026-10-01T05:00:07Z","links":{"payment":"PM1"}},"#,
                "{}]}",
            ),
        ),
        ("gocardless_payload", fill("{\"events\":[", "{},", "{}]}")),
        (
            "standard_payload",
            fill("{", "\"x\":null,", "\"kind\":null}"),
        ),
        (
            "standard_payload",
            fill("{\"metadata\":{", "\"gymflow_a\":\"b\",", "\"c\":\"d\"}}"),
        ),
        ("stripe_signature", fill("t=1614265330", ",v1=00", "\n{}")),
        ("stripe_signature", fill("", ",", "\n{}")),
        (
            "standard_signature",
            fill("msg_1\n1614265330\nv1,x", " v1,AAAA", "\n{}"),
        ),
        (
            "standard_signature",
            fill("msg_1\n1614265330\nv1a,x", " v1a,AAAA", "\n{}"),
        ),
        ("gocardless_signature", fill("", "0", "\n{}")),
        (
            "endpoints_file",
            fill(
                "endpoints:\n",
                "- { id: a, provider: stripe, account: a, secrets: [a] }\n",
                "- 1",
            ),
        ),
    ] {
        let started = Instant::now();
        run_or_keep(target, input.as_bytes(), &input[..60.min(input.len())]);
        let took = started.elapsed();
        assert!(
            took < Duration::from_secs(30),
            "{target}: {took:?} for {}",
            &input[..60]
        );
    }
}

/// What the targets assert can fail.
#[test]
fn a_target_notices_what_must_not_be() {
    let good = || BillingEvent {
        event_id: "evt_1".into(),
        provider: "stripe".into(),
        account: "acct_1".into(),
        kind: "payment_failed".into(),
        occurred_at: Some(pbjson_types::Timestamp::default()),
        invoice_id: Some("in_1".into()),
        ..Default::default()
    };
    published::fit(&good());
    let bad: [fn(&mut BillingEvent); 8] = [
        |event| event.kind = "payment_lost".into(),
        |event| event.account = "acct.1".into(),
        |event| event.event_id = "evt_1\r\n".into(),
        |event| event.invoice_id = None,
        |event| event.invoice_id = Some(String::new()),
        |event| event.occurred_at = None,
        |event| event.currency = Some("eur".into()),
        |event| event.payment_url = Some("http://pay.example.com".into()),
    ];
    for (n, change) in bad.into_iter().enumerate() {
        let mut event = good();
        change(&mut event);
        assert!(
            catch_unwind(|| published::fit(&event)).is_err(),
            "change {n}"
        );
    }
    let body = br#"{"note":"of Jane Doe","type":"invoice.paid"}"#;
    let said = |text: &str| {
        let refusal = Refusal::Body(text.to_owned());
        catch_unwind(|| said::of_a_body(&refusal, body)).is_ok()
    };
    assert!(said("`id` must be the event's id"));
    for leak in [
        "`note` must not be of Jane Doe",
        "no https://pay.example.com/i/1",
        "not whsec_test_secret",
        "two\nlines",
        "",
    ] {
        assert!(!said(leak), "{leak}");
    }
}

/// The fuzz crate is no member of this workspace, so nothing else would miss a target.
#[test]
fn every_target_has_its_program_and_every_program_its_target() {
    let names = |folder: &Path| -> BTreeSet<String> {
        std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .map(|path| {
                path.file_stem()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned()
            })
            .collect()
    };
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&folder("fuzz/fuzz_targets")), targets);
    let manifest = std::fs::read_to_string(folder("fuzz/Cargo.toml")).expect("the manifest");
    for target in &targets {
        let program = folder(&format!("fuzz/fuzz_targets/{target}.rs"));
        let program = std::fs::read_to_string(program).expect("a program");
        assert!(program.contains(&format!("\"{target}\"")), "{target}");
        assert!(
            manifest.contains(&format!("name = \"{target}\"")),
            "{target}"
        );
    }
    for with_inputs in ["fuzz/seeds", "fuzz/regressions"] {
        let there = names(&folder(with_inputs));
        let stray: Vec<_> = there
            .difference(&targets)
            .filter(|name| *name != "README")
            .collect();
        assert!(stray.is_empty(), "{with_inputs}: {stray:?}");
    }
}
