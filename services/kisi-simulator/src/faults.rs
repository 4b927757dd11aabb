//! Faults of the network and of Kisi, counted down.

use serde::{Deserialize, Serialize};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    #[serde(rename = "429")]
    TooMany,
    /// The key may not do this.
    #[serde(rename = "403")]
    Forbidden,
    #[serde(rename = "500")]
    Internal,
    #[serde(rename = "502")]
    BadGateway,
    #[serde(rename = "503")]
    Unavailable,
    /// No answer until the client gives up; nothing is applied.
    #[serde(rename = "hang")]
    Hang,
    /// Applied, and then no answer until the client gives up.
    #[serde(rename = "hang_after_applying")]
    HangAfterApplying,
    /// The connection ends without an answer; nothing is applied.
    #[serde(rename = "reset")]
    Reset,
    /// Applied, and the answer lost.
    #[serde(rename = "reset_after_applying")]
    ResetAfterApplying,
    /// Applied, and answered 503 all the same.
    #[serde(rename = "503_after_applying")]
    UnavailableAfterApplying,
    /// 500 without a body.
    #[serde(rename = "empty_body")]
    EmptyBody,
    /// A proxy's page.
    #[serde(rename = "html")]
    Html,
    /// The second half of the page is missing; the range names the whole total.
    #[serde(rename = "short_page")]
    ShortPage,
    /// The same, and the range says that there is no more: nothing in the answer betrays it.
    #[serde(rename = "short_list")]
    ShortList,
}

impl FaultKind {
    /// Whether the request takes effect.
    pub fn applies(self) -> bool {
        matches!(
            self,
            Self::HangAfterApplying
                | Self::ResetAfterApplying
                | Self::UnavailableAfterApplying
                | Self::ShortPage
                | Self::ShortList
        )
    }
}

/// A fault for the next `count` requests that match.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Such as `DELETE`; any without it.
    pub method: Option<String>,
    /// Such as `/role_assignments/{id}`; any without it.
    pub route: Option<String>,
    pub kind: FaultKind,
    /// How many requests; without it until the faults are cleared.
    pub count: Option<u64>,
}

/// Those in force.
#[derive(Clone, Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn list(&self) -> &[Fault] {
        &self.0
    }

    /// The fault that this request meets, counted down.
    pub fn take(&mut self, method: &str, route: &str) -> Option<FaultKind> {
        let index = self.0.iter().position(|fault| {
            fault
                .method
                .as_deref()
                .is_none_or(|m| m.eq_ignore_ascii_case(method))
                && fault.route.as_deref().is_none_or(|r| r == route)
                && fault.count != Some(0)
        })?;
        let fault = &mut self.0[index];
        if let Some(count) = &mut fault.count {
            *count -= 1;
        }
        let kind = fault.kind;
        if fault.count == Some(0) {
            self.0.remove(index);
        }
        Some(kind)
    }
}
