//! The decision against a slow and obvious reference, over random histories.
//!
//! A [`story`] is plain data: contracts and what was said of them, when, and when we heard of it.
//! The [`reference`] replays what was heard by an instant, and steps on from there one gym-day at a
//! time; it has nothing of `access-domain` in it, not even the beginning of a day. [`told`] says
//! the same story in `access-domain`'s words. The [`harness`] walks through the days of a story and
//! compares whatever decides with the reference; the [`mutants`] are deciders that are wrong in one
//! point, and each must be found out.
//!
//! `MODEL_SEED` and `MODEL_CASES` play other stories, and more of them.

mod days;
mod debts;
mod generate;
mod harness;
mod mutants;
mod reference;
mod story;
mod told;

use harness::{cases, find_difference, seed};
use mutants::MUTANTS;

#[test]
fn every_decision_is_what_the_reference_comes_to() {
    if let Some(difference) = find_difference(told::decide, cases(), true) {
        panic!("MODEL_SEED={} shows:\n{difference}", seed());
    }
}

#[test]
fn every_mutant_is_found_out() {
    let alive: Vec<&str> = MUTANTS
        .iter()
        .filter(|(_, mutant)| find_difference(*mutant, 4 * cases(), false).is_none())
        .map(|(name, _)| *name)
        .collect();
    assert!(
        alive.is_empty(),
        "MODEL_SEED={} lets live {alive:?}",
        seed()
    );
}
