//! Parts of statements that are written out. Those that a door waits for are: to build a query anew
//! each time takes longer than to run it.
//!
//! Databases keep what they have prepared by its text, and to prepare it takes longer than to run
//! it. So lists of ids and rows come in a few lengths, whatever their number: they are filled up
//! with nulls, which equal nothing.

use std::fmt::Write;

use sea_orm::{DbBackend, EntityTrait, IdenStatic, Iterable, Value};

/// More rows than these are written in several statements: SQLite takes 32,766 values in one.
pub(crate) const PORTION: usize = 1_024;

/// `count` placeholders from `$first` on.
pub(crate) fn placeholders(first: usize, count: usize) -> String {
    let mut text = String::with_capacity(count * 6);
    push_placeholders(&mut text, first, count);
    text
}

fn push_placeholders(text: &mut String, first: usize, count: usize) {
    for n in first..first + count {
        let comma = if n == first { "" } else { ", " };
        // To a string it never fails.
        let _ = write!(text, "{comma}${n}");
    }
}

/// `rows` rows of `columns` placeholders each, from `$first` on.
fn tuples(first: usize, columns: usize, rows: usize) -> String {
    let mut text = String::with_capacity(rows * (columns * 6 + 4));
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        push_placeholders(&mut text, first + row * columns, columns);
        text.push(')');
    }
    text
}

/// Ids for an `in`, from `$first` on, and as values.
pub(crate) fn in_list(
    first: usize,
    ids: impl IntoIterator<Item: Into<Value>>,
) -> (String, Vec<Value>) {
    let mut values: Vec<Value> = ids.into_iter().map(Into::into).collect();
    let nothing = values.first().map(Value::as_null);
    if let Some(nothing) = nothing.filter(|_| values.len() <= PORTION) {
        values.resize(values.len().next_power_of_two(), nothing);
    }
    (placeholders(first, values.len()), values)
}

/// Rows for one statement.
#[derive(Debug)]
pub(crate) struct Portion {
    /// The rows' placeholders, the first in the statement.
    pub tuples: String,
    /// What stands for them.
    pub values: Vec<Value>,
    is_one: bool,
    is_numbered: bool,
}

impl Portion {
    /// A value more, which stands behind all others in the statement.
    pub fn add(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        if self.is_numbered {
            format!("${}", self.values.len())
        } else {
            "?".to_owned()
        }
    }

    /// What an `insert` is to write, as what follows its columns: one text for each length. The first
    /// column of a row is never null.
    pub fn inserted(&self) -> String {
        let tuples = &self.tuples;
        if self.is_one {
            format!("values {tuples}")
        } else {
            format!("select * from (values {tuples}) as v where v.column1 is not null")
        }
    }
}

/// Rows, a thousand for a statement.
pub(crate) fn portions<const N: usize>(
    backend: DbBackend,
    rows: Vec<[Value; N]>,
) -> impl Iterator<Item = Portion> {
    let mut rows = rows.into_iter();
    std::iter::from_fn(move || {
        let taken = rows.len().min(PORTION);
        if taken == 0 {
            return None;
        }
        let length = taken.next_power_of_two();
        let mut values: Vec<Value> = Vec::with_capacity(length * N + 1);
        values.extend(rows.by_ref().take(taken).flatten());
        // Of its column's type: PostgreSQL is told one for each value.
        let nothing: Vec<Value> = values.iter().take(N).map(Value::as_null).collect();
        values.extend(nothing.iter().cycle().take((length - taken) * N).cloned());
        let is_numbered = backend == DbBackend::Postgres;
        Some(Portion {
            tuples: if is_numbered {
                tuples(1, N, length)
            } else {
                unnumbered(N, length)
            },
            values,
            is_one: length == 1,
            is_numbered,
        })
    })
}

/// As [`tuples`], for SQLite, where a value is given by the name of its placeholder, and each name is
/// looked for among all of them: of a thousand that takes longer than to write the rows.
fn unnumbered(columns: usize, rows: usize) -> String {
    let mut row = "?, ".repeat(columns);
    row.truncate(row.len().saturating_sub(2));
    let mut text = format!("({row}), ").repeat(rows);
    text.truncate(text.len().saturating_sub(2));
    text
}

/// The condition to be in one row of `membership_people` with any of `ids`, which are an [`in_list`]
/// from `$2` on; `$1` is the gym. `wanted` and `known` are the columns of the two.
///
/// PostgreSQL looks for each by itself, and before anything else. As a join, or with all of them at
/// once, it may read all rows of the gym, as long as it has not counted them.
pub(crate) fn paired(backend: DbBackend, wanted: &str, known: &str, ids: &[Value]) -> String {
    match backend {
        DbBackend::Postgres => format!(
            "= any (array(
                 select p.{wanted} from (values {}) as v cross join lateral (
                     select {wanted} from membership_people
                     where gym_id = $1 and {known} = v.column1 offset 0) as p))",
            tuples(2, 1, ids.len())
        ),
        _ => format!(
            "in (select {wanted} from membership_people
                 where gym_id = $1 and {known} in ({}))",
            placeholders(2, ids.len())
        ),
    }
}

/// The columns of a table, by name. A prepared `select *` fails on PostgreSQL in a replica that
/// still runs when a later migration adds a column.
pub(crate) fn columns<E: EntityTrait>(table: &str) -> String {
    let names: Vec<String> = E::Column::iter()
        .map(|column| format!("{table}.{}", column.as_str()))
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_in_a_few_lengths() {
        for (ids, length) in [
            (1, 1),
            (2, 2),
            (3, 4),
            (33, 64),
            (1_024, 1_024),
            (1_025, 1_025),
        ] {
            let (sql, values) = in_list(2, (0..ids).map(|_| "id"));
            assert_eq!(values.len(), length);
            assert!(sql.starts_with("$2") && sql.ends_with(&format!("${}", length + 1)));
        }
        assert_eq!(in_list(2, [""; 0]), (String::new(), Vec::new()));
    }

    fn rows<const N: usize>(count: i32) -> Vec<[Value; N]> {
        (0..count).map(|n| [n; N].map(Value::from)).collect()
    }

    #[test]
    fn rows_come_in_a_few_lengths() {
        for (count, expected) in [
            (0, &[][..]),
            (1, &[1]),
            (3, &[4]),
            (33, &[64]),
            (1_027, &[1_024, 4]),
        ] {
            for backend in [DbBackend::Sqlite, DbBackend::Postgres] {
                let portions = portions(backend, rows::<21>(count));
                let lengths: Vec<_> = portions.map(|some| some.values.len() / 21).collect();
                assert_eq!(lengths, expected);
            }
        }
    }

    #[test]
    fn every_row_is_written_once_and_no_null_for_one() {
        for backend in [DbBackend::Sqlite, DbBackend::Postgres] {
            for count in [1, 2, 3, 37, 64, 100, 1_500] {
                let mut left = rows::<3>(count).into_iter().flatten();
                for some in portions(backend, rows::<3>(count)) {
                    let placeholders = some.tuples.matches(['?', '$']).count();
                    assert_eq!(placeholders, some.values.len());
                    let (nulls, own): (Vec<_>, Vec<_>) = some
                        .values
                        .iter()
                        .partition(|value| **value == Value::Int(None));
                    assert!(
                        own.into_iter()
                            .all(|value| left.next().as_ref() == Some(value))
                    );
                    let is_one = some.inserted() == format!("values {}", some.tuples);
                    assert!(!is_one || nulls.is_empty(), "{count}");
                }
                assert_eq!(left.next(), None);
            }
        }
    }

    #[test]
    fn what_is_added_stands_behind_the_rows() {
        for (backend, tuples, its) in [
            (DbBackend::Sqlite, "(?, ?), (?, ?)", "?"),
            (DbBackend::Postgres, "($1, $2), ($3, $4)", "$5"),
        ] {
            let mut portion = portions(backend, rows::<2>(2)).next().expect("rows");
            assert_eq!(portion.add("gym"), its);
            assert_eq!(portion.tuples, tuples);
            assert_eq!(portion.values.last(), Some(&Value::from("gym")));
        }
    }
}
