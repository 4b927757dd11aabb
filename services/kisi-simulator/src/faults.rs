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
    #[serde(rename = "404")]
    NotFound,
    /// This one thing is refused.
    #[serde(rename = "409")]
    Conflict,
    #[serde(rename = "500")]
    Internal,
    #[serde(rename = "502")]
    BadGateway,
    #[serde(rename = "503")]
    Unavailable,
    /// No answer until the client gives up; nothing is applied.
    #[serde(rename = "hang")]
    Hang,
    /// It arrives only when the faults are cleared, and is then answered as any other.
    #[serde(rename = "wait")]
    Wait,
    /// Applied, and then no answer until the client gives up.
    #[serde(rename = "hang_after_applying")]
    HangAfterApplying,
    /// Applied, and answered only when the faults are cleared.
    #[serde(rename = "wait_after_applying")]
    WaitAfterApplying,
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
                | Self::WaitAfterApplying
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
    /// As many that match go past it first.
    #[serde(default)]
    pub skip: u64,
}

impl Fault {
    /// Whether it is this request that meets it; one that goes past it is counted.
    fn meets(&mut self, method: &str, route: &str) -> bool {
        let matches = self
            .method
            .as_deref()
            .is_none_or(|m| m.eq_ignore_ascii_case(method))
            && self.route.as_deref().is_none_or(|r| r == route)
            && self.count != Some(0);
        if matches && self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        matches
    }
}

/// Those in force.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    list: Vec<Fault>,
    /// Requests that were made to wait.
    held_back: u64,
}

impl Faults {
    pub fn add(&mut self, fault: Fault) {
        self.list.push(fault);
    }

    pub fn clear(&mut self) {
        self.list.clear();
    }

    pub fn list(&self) -> &[Fault] {
        &self.list
    }

    /// The fault that this request meets, counted down.
    pub fn take(&mut self, method: &str, route: &str) -> Option<FaultKind> {
        let index = self
            .list
            .iter_mut()
            .position(|fault| fault.kind != FaultKind::Wait && fault.meets(method, route))?;
        let fault = &mut self.list[index];
        if let Some(count) = &mut fault.count {
            *count -= 1;
        }
        let kind = fault.kind;
        if kind == FaultKind::WaitAfterApplying {
            // It stays in the list: until it is cleared it keeps the answer.
            self.held_back += 1;
        } else if fault.count == Some(0) {
            self.list.remove(index);
        }
        Some(kind)
    }

    /// Whether this request has to wait, asked once when it comes.
    pub fn holds_back(&mut self, method: &str, route: &str) -> bool {
        let mut list = self.list.iter_mut();
        let waits = |fault: &Fault| fault.kind == FaultKind::Wait;
        let Some(index) = list.position(|fault| waits(fault) && fault.meets(method, route)) else {
            return false;
        };
        let fault = &mut self.list[index];
        if let Some(count) = &mut fault.count {
            *count -= 1;
        }
        self.held_back += 1;
        true
    }

    /// Whether those that wait for this kind to be cleared still have to.
    pub fn hold(&self, kind: FaultKind) -> bool {
        self.list.iter().any(|fault| fault.kind == kind)
    }

    /// How many requests were made to wait so far.
    pub fn held_back(&self) -> u64 {
        self.held_back
    }
}
