//! Which fields of a member are read.

use contracts::membership::v1::Member;
use pbjson_types::FieldMask;

use crate::fields::Fields;

/// The fields of `Member`.
const FIELDS: [&str; 8] = [
    "gym_id",
    "member_id",
    "email",
    "name",
    "source_version",
    "state",
    "open_invoices",
    "erased",
];

/// The fields asked for; without any, all of them. Ids are always there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberMask(Vec<String>);

impl MemberMask {
    /// Names every path that is not a field of `Member`.
    pub fn parse(fields: &mut Fields, mask: Option<FieldMask>) -> Self {
        let paths = mask.unwrap_or_default().paths;
        for (i, path) in paths.iter().enumerate() {
            if !FIELDS.contains(&path.as_str()) {
                let problem = format!("must be one of {}", FIELDS.join(", "));
                fields.fault(format!("read_mask.paths[{i}]"), problem);
            }
        }
        Self(paths)
    }

    /// Whether a field is asked for.
    pub fn has(&self, field: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|path| path == field)
    }

    /// What is asked for of a member.
    pub fn shown(&self, mut member: Member) -> Member {
        if !self.has("email") {
            member.email.clear();
        }
        if !self.has("name") {
            member.name.clear();
        }
        if !self.has("source_version") {
            member.source_version = 0;
        }
        if !self.has("state") {
            member.state = None;
        }
        if !self.has("open_invoices") {
            member.open_invoices.clear();
        }
        if !self.has("erased") {
            member.erased = false;
        }
        member
    }
}
