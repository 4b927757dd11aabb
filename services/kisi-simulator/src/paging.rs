//! Lists: filter by `ids`, order, cut a page, say the range.
//!
//! `X-Collection-Range` names the range asked for, not the one returned, and `*/0` when there is
//! nothing. Without a `sort` rows come by id; with `unstable_order` equal keys come in another
//! order on each request, so that reading several pages may miss or repeat rows.

use std::cmp::Ordering;

use rand::seq::SliceRandom;
use serde_json::Value;

use crate::answer::Answer;
use crate::context::Call;
use crate::settings::Settings;

/// A row in a list: its id, and the text it is ordered by for a `sort` of this name.
pub trait Listed {
    fn id(&self) -> i64;
    /// `sort` comes without its `-`; an empty one stands for the default key.
    fn key(&self, sort: &str) -> String;
}

/// One page of `rows`, rendered.
pub fn page<T: Listed>(
    call: &Call,
    settings: &Settings,
    mut rows: Vec<&T>,
    render: impl Fn(&T) -> Value,
) -> Answer {
    if let Some(ids) = call.parameters.text("ids") {
        let ids: Vec<i64> = ids
            .split(',')
            .filter_map(|id| id.trim().parse().ok())
            .collect();
        rows.retain(|row| ids.contains(&row.id()));
    }
    order(
        &mut rows,
        call.parameters.text("sort"),
        settings.unstable_order,
    );
    let total = rows.len();
    let offset = call.parameters.integer("offset").unwrap_or(0).max(0);
    let limit = call.parameters.integer("limit").unwrap_or(10).max(1);
    let range = match total {
        0 => "*/0".to_owned(),
        _ => format!("{offset}-{}/{total}", offset + limit - 1),
    };
    let skip = usize::try_from(offset).unwrap_or(usize::MAX);
    let take = usize::try_from(limit).unwrap_or(usize::MAX);
    let page: Vec<Value> = rows.into_iter().skip(skip).take(take).map(render).collect();
    Answer::ok(&Value::Array(page)).with_header("x-collection-range", range)
}

/// A page without its second half; the range owns up to it only where `told`. What is no list stays.
pub fn shortened(answer: Answer, told: bool) -> Answer {
    let Ok(Value::Array(mut rows)) = serde_json::from_slice(&answer.body) else {
        return answer;
    };
    rows.truncate(rows.len() / 2);
    let count = rows.len();
    let mut short = Answer::json(answer.status, &Value::Array(rows));
    for (name, value) in answer.headers {
        if name != "x-collection-range" {
            continue;
        }
        let range = match (told, count) {
            (false, _) => value,
            (true, 0) => "*/0".to_owned(),
            (true, count) => format!("0-{}/{count}", count - 1),
        };
        short = short.with_header(name, range);
    }
    short
}

fn order<T: Listed>(rows: &mut [&T], sort: Option<&str>, unstable: bool) {
    if unstable {
        rows.shuffle(&mut rand::rng());
    } else {
        rows.sort_by_key(|row| row.id());
    }
    if sort.is_none() && !unstable {
        return;
    }
    let sort = sort.unwrap_or_default();
    let (name, reverse) = match sort.strip_prefix('-') {
        Some(name) => (name, true),
        None => (sort, false),
    };
    rows.sort_by_cached_key(|row| Reversible {
        key: row.key(name),
        reverse,
    });
}

#[derive(PartialEq, Eq)]
struct Reversible {
    key: String,
    reverse: bool,
}

impl Ord for Reversible {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.key.cmp(&other.key);
        if self.reverse { order.reverse() } else { order }
    }
}

impl PartialOrd for Reversible {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
