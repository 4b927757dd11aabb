//! What others did to a right of ours, as the audit log tells it. What they undo again and again makes
//! them another writer.

use crate::audit::{Entry, MOVED};
use crate::steps::{Window, row_window};
use crate::store::applied_grants;

/// That they changed when a right of ours holds, where that is put back: what was found, and what is
/// wanted. None where Kisi has what is wanted, or rounds what it was told.
pub fn window(
    row: &applied_grants::Model,
    found: Window,
    wanted: Option<Window>,
    now: i64,
) -> Option<Entry> {
    let wanted = wanted?;
    if found.is_close(wanted, now) || found.is_close(row_window(row), now) {
        return None;
    }
    let detail = format!("found {found}, put back {wanted}");
    let entry = Entry::new(MOVED).group(row.group_id).detail(&detail);
    Some(entry.object(row.assignment_id?))
}
