//! The gyms' audit logs against what Kisi did: each right that was made or removed has its row, with
//! who it was for and what caused it; no row tells of what never was; and the chains are whole.
//!
//! Where the sender heard no answer, a row `unanswered` may say so; but here everybody is looked at
//! again before the end, so the row that says "found", "found_gone" or "gone_before" is asked for too.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use dev_stack::settings::Settings;
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::ledger::{Ledger, Write};

const ROWS: &str = "select gym_id, entry from audit order by gym_id, seq";
const MADE: [&str; 2] = ["granted", "window_changed"];
const REMOVED: [&str; 3] = ["revoked", "replaced", "duplicate_removed"];

/// A row of the log.
#[derive(Debug)]
struct Row {
    gym: String,
    entry: Value,
}

impl Row {
    fn is(&self, actions: &[&str]) -> bool {
        let action = self.entry["action"].as_str().unwrap_or_default();
        actions.contains(&action)
    }

    fn right(&self) -> Option<i64> {
        self.entry["object"].as_i64()
    }

    /// It is about this very right, and says why.
    fn tells_of(&self, write: &Write) -> bool {
        self.right() == Some(write.right)
            && self.gym == write.member.0
            && self.entry["member"] == *write.member.1
            && self.entry["group"] == write.group
            && self.entry["cause"]["kind"] != ""
    }
}

/// Of what the simulator's whole log has told.
pub async fn check(settings: &Settings, ledger: &Ledger) {
    let url = match &settings.kisi_sync_database_url {
        Some(url) => url.clone(),
        None => format!(
            "sqlite://{}",
            settings.data_dir().join("kisi_sync.sqlite").display()
        ),
    };
    let rows = rows(&url).await.expect("the audit log");
    let wrong = complaints(ledger, &rows);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let program = settings.bin_dir.as_ref().expect("the programs");
    let output = Command::new(program.join("kisi-sync"))
        .args(["audit", "verify"])
        .env("DATABASE_URL", &url)
        .output()
        .expect("kisi-sync");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let gyms: BTreeSet<&str> = rows.iter().map(|row| row.gym.as_str()).collect();
    for gym in gyms {
        let whole = format!("gym {gym}: rows 1 to ");
        assert!(said.contains(&whole), "{said}");
    }
    eprintln!(
        "{} rows of the audit log tell of {} writes",
        rows.len(),
        ledger.writes.len()
    );
}

async fn rows(url: &str) -> sqlx::Result<Vec<Row>> {
    let rows: Vec<(String, String)> = if url.starts_with("postgres:") {
        let mut tables = PgConnection::connect(url).await?;
        sqlx::query_as(ROWS).fetch_all(&mut tables).await?
    } else {
        let options = SqliteConnectOptions::from_str(url)?.busy_timeout(Duration::from_secs(5));
        let mut tables = options.read_only(true).connect().await?;
        sqlx::query_as(ROWS).fetch_all(&mut tables).await?
    };
    let row = |(gym, entry): (String, String)| Row {
        gym,
        entry: serde_json::from_str(&entry).expect("an entry"),
    };
    Ok(rows.into_iter().map(row).collect())
}

fn complaints(ledger: &Ledger, rows: &[Row]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut made: BTreeMap<i64, &Write> = BTreeMap::new();
    let mut removed = BTreeSet::new();
    for write in &ledger.writes {
        let forms = match write.opens {
            true => &MADE[..],
            false => &REMOVED[..],
        };
        let mut told = rows.iter().filter(|row| row.is(forms));
        if !told.any(|row| row.tells_of(write)) {
            let about = rows
                .iter()
                .filter(|row| row.entry["member"] == *write.member.1);
            let about: Vec<&Row> = about.filter(|row| row.gym == write.member.0).collect();
            wrong.push(format!("no row tells of {write:?}: {about:#?}"));
        }
        match write.opens {
            true => drop(made.insert(write.right, write)),
            false => drop(removed.insert(write.right)),
        }
    }
    for right in &ledger.unheard {
        let mut told = rows.iter().filter(|row| row.right() == Some(*right));
        if !told.any(|row| row.is(&REMOVED)) {
            let about = rows.iter().filter(|row| row.right() == Some(*right));
            let about: Vec<&Row> = about.collect();
            wrong.push(format!("no row tells that {right} is gone: {about:#?}"));
        }
    }
    for row in rows {
        let is_true = match row.right() {
            Some(right) if row.is(&MADE) => made.get(&right).is_some_and(|it| row.tells_of(it)),
            Some(right) if row.is(&REMOVED) => {
                removed.contains(&right) || ledger.unheard.contains(&right)
            }
            _ => !row.is(&MADE) && !row.is(&REMOVED),
        };
        if !is_true {
            wrong.push(format!("that never was: {row:?}"));
        }
    }
    wrong
}
