//! What the set-up calls ask of their fields, before anything is passed on.

use contracts::integration::v1 as wire;

use crate::permit::check_ids;
use crate::refusal::{FieldError, Refusal};

const MOST_ASSOCIATIONS: usize = 1_000;
const MOST_KEY: usize = 512;
const MOST_RIGHTS: i32 = 1_000;

pub(super) fn check_key(key: &str) -> Result<(), Refusal> {
    if !key.is_empty() && key.len() <= MOST_KEY && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Refusal::field(
        "api_key",
        "a Kisi API key is expected: printable ASCII without spaces",
    ))
}

pub(super) fn check_associations(associations: &[wire::Association]) -> Result<(), Refusal> {
    if associations.len() > MOST_ASSOCIATIONS {
        return Err(Refusal::field(
            "associations",
            format!("at most {MOST_ASSOCIATIONS} are expected"),
        ));
    }
    let mut bad = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (index, association) in associations.iter().enumerate() {
        let plan = format!("associations[{index}].plan_id");
        match check_ids(&[(&plan, &association.plan_id)]) {
            Err(Refusal::Invalid(fields)) => bad.extend(fields),
            _ if !seen.insert(&association.plan_id) => bad.push(FieldError {
                field: plan,
                message: "a plan has one group; this one is here twice".to_owned(),
            }),
            _ => {}
        }
        if association.group_id <= 0 {
            bad.push(FieldError {
                field: format!("associations[{index}].group_id"),
                message: "a Kisi id above 0 is expected".to_owned(),
            });
        }
    }
    if bad.is_empty() {
        Ok(())
    } else {
        Err(Refusal::Invalid(bad))
    }
}

pub(super) fn check_page(size: i32) -> Result<(), Refusal> {
    match size {
        0..=MOST_RIGHTS => Ok(()),
        _ => Err(Refusal::field("page_size", "1 to 1000 is expected")),
    }
}

pub(super) fn check_decision(request: &wire::DecidePlanRequest) -> Result<(), Refusal> {
    check_ids(&[("id", &request.id)])?;
    if request.digest.is_empty() {
        return Err(Refusal::field("digest", "the digest shown is expected"));
    }
    Ok(())
}

pub(super) fn check_policies(policies: Option<&wire::Policies>) -> Result<(), Refusal> {
    let Some(policies) = policies else {
        return Err(Refusal::field("policies", "they are missing"));
    };
    // An empty word is proto3's way to leave a policy at its default.
    let resume = ["", "request", "immediate", "off"];
    check_word("unmanaged", &policies.unmanaged, &["", "leave", "adopt"])?;
    check_word("member_resume", &policies.member_resume, &resume)?;
    check_word(
        "user_mode",
        &policies.user_mode,
        &["", "managed", "regular"],
    )
}

pub(super) fn check_word(field: &str, word: &str, words: &[&str]) -> Result<(), Refusal> {
    if words.contains(&word) {
        return Ok(());
    }
    let named: Vec<&str> = words
        .iter()
        .copied()
        .filter(|word| !word.is_empty())
        .collect();
    Err(Refusal::field(
        field,
        format!("one of {} is expected", named.join(", ")),
    ))
}
