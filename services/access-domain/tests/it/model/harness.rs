//! Walks through the days of random stories, and compares a decider with the reference.

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::days::Days;
use super::generate::a_story;
use super::reference::Known;
use super::story::{Minute, Story};
use super::told::{Decider, Told, answer, instant};

/// Stories of one run.
pub fn cases() -> u32 {
    number("MODEL_CASES", 192)
}

/// What the stories follow from.
pub fn seed() -> u32 {
    number("MODEL_SEED", 20_260_310)
}

fn number(variable: &str, otherwise: u32) -> u32 {
    let set = std::env::var(variable).ok();
    set.map_or(otherwise, |text| text.parse().expect("a number"))
}

/// A story, as short as it gets where `shrinks`, of which `decider` thinks otherwise than the
/// reference.
pub fn find_difference(decider: Decider, cases: u32, shrinks: bool) -> Option<String> {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed().to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: if shrinks { 2_000 } else { 0 },
        ..Config::default()
    };
    let played = TestRunner::new_with_rng(config, rng).run(&a_story(), |story| {
        compare(&story, decider).map_err(TestCaseError::fail)
    });
    match played {
        Ok(()) => None,
        Err(TestError::Fail(difference, story)) => Some(format!("{difference}\nof {story:#?}")),
        Err(TestError::Abort(why)) => panic!("no stories: {why}"),
    }
}

fn compare(story: &Story, decider: Decider) -> Result<(), String> {
    let days = Days::of(story);
    for now in instants(story, &days) {
        let known = Known::at(story, &days, now);
        for member in 0..3 {
            let expected = (known.answer(member, now), known.changes_at(member, now));
            let decided = answer(&decider(&Told::at(story, member, now), instant(now)));
            if decided != expected {
                let zone = &story.zone;
                let at = instant(now);
                return Err(format!(
                    "m{member} at {at} ({now}, {zone})\n decided {decided:?}\nexpected {expected:?}"
                ));
            }
        }
    }
    Ok(())
}

/// The beginning of every day, some minutes on, and whenever something is heard.
fn instants(story: &Story, days: &Days) -> Vec<Minute> {
    let heard = story.contracts.iter().flat_map(|contract| &contract.said);
    let last = story.first + story.days + 2;
    let mut instants: Vec<Minute> = (story.first..last)
        .flat_map(|day| [days.begins(day), days.begins(day) + 30])
        .chain(heard.map(|saying| saying.heard))
        .chain(story.overrides.iter().map(|held| held.until))
        .collect();
    instants.sort_unstable();
    instants.dedup();
    instants
}
