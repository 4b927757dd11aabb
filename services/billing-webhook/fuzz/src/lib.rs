//! What each fuzz target does with an input, and what must hold whatever the input is.
//!
//! A target checks more than that nothing panics: what nobody signed is never accepted and what was
//! signed always is, what comes out of a body can be published and read, and what is said about bad
//! input repeats none of it. `tests/it/fuzzed.rs` has the same files by path, so that without a
//! nightly toolchain every seed, fixture and regression still goes through them. For that they call
//! nothing of libFuzzer, and each other by `super`.

mod endpoints_file;
mod gocardless;
pub mod input;
pub mod published;
pub mod said;
mod standard;
mod stripe;

/// A target: its name, which is also that of its seeds, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 7] = [
    ("endpoints_file", endpoints_file::read),
    ("gocardless_payload", gocardless::payload),
    ("gocardless_signature", gocardless::signature),
    ("standard_payload", standard::payload),
    ("standard_signature", standard::signature),
    ("stripe_payload", stripe::payload),
    ("stripe_signature", stripe::signature),
];

/// Gives an input to the target of this name.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, run) = target.expect("a target of this name");
    run(input);
}
