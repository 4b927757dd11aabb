//! People are forgotten, whichever process dies meanwhile and wherever it was.

use std::path::{Path, PathBuf};
use std::time::Duration;

use contracts::membership::v1 as wire;
use contracts::subjects;
use dev_stack::demo::Demo;
use dev_stack::roster::Person;
use dev_stack::seed;
use dev_stack::simulated_kisi::Control;
use dev_stack::stack::{SERVICES, Stack};
use dev_stack::stripe;
use jiff::Timestamp;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};
use testkit::eventually;

use crate::harness::{DEADLINE, folder, settings, start};
use crate::observed;

/// How long after the call a process dies: before the tombstone is out, on its way to Kisi, between
/// the answer and the purge.
const AFTER: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(60),
    Duration::from_millis(600),
];

#[tokio::test]
async fn people_are_forgotten_whoever_is_killed_meanwhile() {
    let folder = folder();
    let mut stack = start(&settings(&folder)).await;
    stack.prepare().await.expect("prepared");
    let processes = SERVICES.iter().copied().chain(["nats-server"]);
    // One moment of each process; at full length, all.
    let at_full_length = std::env::var_os("STORM_WEBHOOKS").is_some();
    let kills: Vec<(&str, Duration)> = processes
        .enumerate()
        .flat_map(|(index, process)| {
            let moments = AFTER.into_iter().enumerate();
            moments
                .filter(move |(nth, _)| at_full_length || *nth == index % AFTER.len())
                .map(move |(_, after)| (process, after))
        })
        .collect();
    let mut people: Vec<_> = stack
        .demo
        .rows()
        .filter(|(_, contract)| contract.holders.len() == 1)
        .map(|(person, contract)| (person.clone(), contract.clone()))
        .take(kills.len())
        .collect();
    for (person, _) in &mut people {
        // Nobody else is called so.
        person.name = format!("Canary {}", person.member_id);
        put(&stack, person).await;
    }
    let kisi = async |stack: &Stack| {
        let control = Control::of(stack).expect("the simulator");
        control.state().await.expect("its state")
    };
    let before = kisi(&stack).await;
    let before: Vec<&Person> = people
        .iter()
        .map(|(person, _)| person)
        .filter(|person| before.user(&person.email).is_some())
        .collect();
    assert_eq!(before.len(), people.len(), "everybody is at Kisi");

    for ((person, contract), (process, after)) in people.iter().zip(&kills) {
        // Something of theirs is on its way, too.
        let event = format!("evt_{}", person.member_id);
        let now = Timestamp::now();
        let body = stripe::invoice_event("invoice.payment_failed", contract, &event, &event, now);
        let demo = Demo::new(&stack).expect("the simulator");
        eventually("the webhook is accepted", DEADLINE, async || {
            demo.post(body.clone()).await.is_ok()
        })
        .await;
        delete(&stack, person).await;
        tokio::time::sleep(*after).await;
        stack.child(process).expect("it").kill().await;
        stack
            .child(process)
            .expect("it")
            .start_again()
            .expect("started");
        // A repeat is harmless, and what a caller does who got no answer.
        delete(&stack, person).await;
        let what = format!("{} is forgotten over a killed {process}", person.member_id);
        eventually(&what, DEADLINE, async || is_forgotten(&stack, person).await).await;
    }
    let after = kisi(&stack).await;
    for (person, _) in &people {
        assert_eq!(after.user(&person.email), None, "{}", person.member_id);
    }
    let canaries: Vec<&str> = people
        .iter()
        .flat_map(|(person, _)| [person.email.as_str(), person.name.as_str()])
        .collect();
    let bus = observed::jetstream(&stack).await;
    for stream in [
        "BILLING",
        "MEMBERSHIP",
        "ACCESS",
        "INTEGRATION",
        "NOTIFY",
        "DEAD_LETTER",
    ] {
        let stream = bus.get_stream(stream).await.expect("a stream");
        let state = stream.cached_info().state.clone();
        for sequence in state.first_sequence..=state.last_sequence {
            let Ok(message) = stream.get_raw_message(sequence).await else {
                continue;
            };
            let text = format!(
                "{:?} {}",
                message.headers,
                String::from_utf8_lossy(&message.payload)
            );
            let found = canaries.iter().find(|canary| names(&text, canary));
            assert_eq!(found, None, "on {}", message.subject);
        }
    }
    for (person, contract) in &people {
        let subject = subjects::membership("demo", &person.member_id);
        let stream = bus
            .get_stream(subjects::MEMBERSHIP)
            .await
            .expect("a stream");
        let last = stream.get_last_raw_message_by_subject(&subject).await;
        let last: wire::MembershipStatusChanged =
            serde_json::from_slice(&last.expect("a tombstone").payload).expect("a state");
        assert!(last.erased, "{}", contract.membership_id);
    }
    stack.stop().await;
    let tables = tables(folder.path()).await;
    for table in &tables {
        let found = canaries.iter().find(|canary| names(&table.text, canary));
        assert_eq!(found, None, "in {}", table.name);
    }
    // What was done stays, and says whom by the id alone.
    for proof in ["erasures of ", "audit of "] {
        let table = tables.iter().find(|table| table.name.starts_with(proof));
        let text = &table.expect("a table").text;
        for (person, _) in &people {
            assert!(
                names(text, &person.member_id),
                "{proof}{}",
                person.member_id
            );
        }
    }
}

/// Whether a text has this name or id, and not only one that begins like it.
fn names(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, found)| {
        let next = text[at + found.len()..].chars().next();
        next.is_none_or(|next| !next.is_ascii_alphanumeric())
    })
}

async fn put(stack: &Stack, person: &Person) {
    let request = wire::PutMemberRequest {
        gym_id: "demo".into(),
        member_id: person.member_id.clone(),
        email: person.email.clone(),
        name: person.name.clone(),
        source_version: i64::MAX,
    };
    let mut client = seed::client(stack).await.expect("a client");
    let written = client.put_member(request).await.expect("written");
    assert!(written.into_inner().applied);
}

async fn delete(stack: &Stack, person: &Person) {
    eventually("the erasure is taken", DEADLINE, async || {
        let Ok(mut client) = seed::client(stack).await else {
            return false;
        };
        let request = wire::DeleteMemberRequest {
            gym_id: "demo".into(),
            member_id: person.member_id.clone(),
        };
        client.delete_member(request).await.is_ok()
    })
    .await;
}

async fn is_forgotten(stack: &Stack, person: &Person) -> bool {
    let Ok(mut client) = seed::client(stack).await else {
        return false;
    };
    let request = wire::GetMemberRequest {
        gym_id: "demo".into(),
        member_id: person.member_id.clone(),
        read_mask: None,
    };
    let Ok(member) = client.get_member(request).await else {
        return false;
    };
    let member = member.into_inner();
    member.erased && member.email.is_empty() && member.name.is_empty()
}

struct Table {
    name: String,
    text: String,
}

/// Every table of every database file below `folder`, as text.
async fn tables(folder: &Path) -> Vec<Table> {
    let mut tables = Vec::new();
    for file in databases(folder) {
        let options = SqliteConnectOptions::new().filename(&file).read_only(true);
        let mut database = options.connect().await.expect("a database");
        let names: Vec<String> =
            sqlx::query_scalar("select name from sqlite_master where type = 'table'")
                .fetch_all(&mut database)
                .await
                .expect("its tables");
        for name in names {
            let columns: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
                "select name from pragma_table_info('{name}')"
            )))
            .fetch_all(&mut database)
            .await
            .expect("its columns");
            let columns: Vec<String> = columns
                .iter()
                .map(|column| format!("quote(\"{column}\")"))
                .collect();
            let sql = format!("select {} from \"{name}\"", columns.join(" || ' ' || "));
            let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
                .fetch_all(&mut database)
                .await
                .expect("its rows");
            let rows: Vec<String> = rows.iter().map(|row| row.get::<String, _>(0)).collect();
            tables.push(Table {
                name: format!("{name} of {}", file.display()),
                text: rows.join("\n"),
            });
        }
        database.close().await.expect("closed");
    }
    assert!(tables.len() > 10, "{}", tables.len());
    tables
}

fn databases(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(databases(&path));
        } else if path.extension().is_some_and(|end| end == "sqlite") {
            found.push(path);
        }
    }
    found
}
