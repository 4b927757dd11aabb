//! A person is forgotten: the doors first, then everything that says who it was.

use contracts::access::v1::AccessApplied;
use contracts::billing::v1::BillingEvent;
use contracts::membership::v1 as wire;
use contracts::message::BusMessage;
use event_bus::Envelope;
use jiff::Timestamp;
use membership_events::store::entity::erasures;
use membership_events::store::keys::{GymKey, MemberKey};
use sea_orm::{ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, Statement};

use crate::world::{DEADLINE, GYM, World, invoice, on_both};

/// In everything that is personal and in nothing else.
pub(crate) const CANARY: &str = "Canary-Yellow";

on_both! {
    async fn a_person_is_forgotten_when_the_doors_have_answered(world: World) {
        with_canary(world).await;
        let found = traces(world).await;
        for place in ["members", "billing_events", "BILLING", "DEAD_LETTER"] {
            assert!(found.contains(&place.to_owned()), "{place}: {found:?}");
        }
        delete(world, "ann").await;
        let tombstone = world.until("a tombstone", "ann", |state| state.erased).await;
        assert!(!tombstone.allowed && tombstone.memberships.is_empty());
        // Whoever removes her at the doors may have to know her; nobody finds her.
        let member = get(world).await;
        assert!(member.erased && member.email.contains(CANARY));
        let listed = list(world).await;
        assert!(listed.iter().all(|member| member.email.is_empty() && member.name.is_empty()));

        answer(world, "ann", "revoked", tombstone.version).await;
        answer(world, "ann", "erased", tombstone.version - 1).await;
        // Who asked after her is done after her.
        world.clock.advance(std::time::Duration::from_secs(1));
        world.put_member("zoe").await;
        delete(world, "zoe").await;
        let of_zoe = world.until("a tombstone", "zoe", |state| state.erased).await;
        answer(world, "zoe", "erased", of_zoe.version).await;
        world.until_erased("zoe").await;
        assert!(get(world).await.email.contains(CANARY), "that was no answer to the tombstone");

        answer(world, "ann", "erased", tombstone.version).await;
        world.until_erased("ann").await;
        assert_eq!(traces(world).await, [] as [&str; 0]);
        let proof = proof(world, "ann").await;
        assert_eq!((proof.version, proof.requested_by.as_str()), (tombstone.version, "service:dev-stack"));
        assert!(Some(proof.requested_at) <= proof.answered_at && proof.answered_at <= proof.purged_at);
        let member = get(world).await;
        assert_eq!((member.email.as_str(), member.name.as_str()), ("", ""));
        assert_eq!(messages(world, "MEMBERSHIP", "membership.v1.iron.ann").await, 1);
        assert_eq!(messages(world, "ACCESS", "access.v1.iron.ann").await, 1);
        assert!(world.published("ann").await.expect("a tombstone").erased);
        // The debt is still there, for whoever shares it.
        let state = world.published("bob").await.expect("a state");
        assert_eq!(state.memberships[0].status, "overdue");
        // A second time says the same.
        delete(world, "ann").await;
        world.until_erased("ann").await;
        // What is said of her later is a fact, and forgotten again.
        let paid = personal("evt_3", "payment_succeeded", "in_1");
        world.publish_as(&paid, paid.id()).await;
        world.until_allowed("bob", true).await;
        let gone = async || traces(world).await.is_empty();
        testkit::eventually("no trace is left", DEADLINE, gone).await;
        assert_eq!(messages(world, "MEMBERSHIP", "membership.v1.iron.ann").await, 1);
    }

    async fn an_erasure_that_a_restart_interrupts_is_finished_by_whoever_is_there(world: World) {
        with_canary(world).await;
        delete(world, "ann").await;
        let tombstone = world.until("a tombstone", "ann", |state| state.erased).await;
        world.stop_all().await;
        answer(world, "ann", "erased", tombstone.version).await;
        world.start_replica().await;
        if world.is_postgres() {
            world.start_replica().await;
        }
        world.until_erased("ann").await;
        assert_eq!(traces(world).await, [] as [&str; 0]);
    }
}

/// Ann, who shares her membership with Bob, and everything personal that can be said of her.
pub(crate) async fn with_canary(world: &mut World) {
    world.put_gym(|_| {}).await;
    world.put_member("bob").await;
    let request = wire::PutMemberRequest {
        gym_id: GYM.into(),
        member_id: "ann".into(),
        email: format!("{CANARY}@example.com"),
        name: format!("Ann {CANARY}"),
        source_version: world.next(),
    };
    world.client().put_member(request).await.expect("a member");
    let share = |put: &mut wire::PutMembershipRequest| put.member_ids.push("bob".into());
    world.put_membership("ms", "ann", share).await;
    world.until_allowed("bob", true).await;
    let failed = personal("evt_1", "payment_failed", "in_1");
    world.publish_as(&failed, failed.id()).await;
    world.until_allowed("bob", false).await;
    // One that is set aside, and that no table holds.
    let odd = BillingEvent {
        currency: Some("EUR".into()),
        ..personal("evt_2", "payment_succeeded", "in_1")
    };
    world.publish_as(&odd, odd.id()).await;
    world.until_dead_letters(1).await;
    let until = Timestamp::from_second(world.now().as_second() + 3_600).expect("an instant");
    let let_in = wire::PutOverrideRequest {
        gym_id: GYM.into(),
        member_id: "ann".into(),
        override_id: "o1".into(),
        kind: "let_in".into(),
        until: Some(contracts::wire::timestamp(until)),
        reason: format!("{CANARY} has paid in cash"),
        actor: "staff:eve".into(),
    };
    world
        .client()
        .put_override(let_in)
        .await
        .expect("an override");
    let forgive = wire::ForgiveInvoiceRequest {
        gym_id: GYM.into(),
        membership_id: "ms".into(),
        invoice_id: "in_0".into(),
        forgiveness_id: "f1".into(),
        reason: format!("{CANARY} was ill"),
        actor: "staff:eve".into(),
        forgiven_at: None,
    };
    world
        .client()
        .forgive_invoice(forgive)
        .await
        .expect("forgiven");
}

/// What stays of an erasure.
pub(crate) async fn proof(world: &World, member: &str) -> erasures::Model {
    let key = (
        GymKey(GYM.parse().expect("an id")),
        MemberKey(member.parse().expect("an id")),
    );
    let store = world.store().await;
    let found = erasures::Entity::find_by_id(key).one(store.reads()).await;
    found.expect("an answer").expect("its row stays")
}

/// What a provider says of an invoice, with what is personal in it.
pub(crate) fn personal(id: &str, kind: &str, invoice_id: &str) -> BillingEvent {
    let mut event = invoice(id, kind, invoice_id, "2026-03-10T05:00:00Z");
    event.payment_url = Some(format!("https://pay.example.com/{CANARY}"));
    event.metadata.insert("note".into(), CANARY.into());
    event
}

pub(crate) async fn delete(world: &World, member: &str) {
    let request = wire::DeleteMemberRequest {
        gym_id: GYM.into(),
        member_id: member.into(),
    };
    world
        .client()
        .delete_member(request)
        .await
        .expect("deleted");
}

pub(crate) async fn get(world: &World) -> wire::Member {
    let request = wire::GetMemberRequest {
        gym_id: GYM.into(),
        member_id: "ann".into(),
        read_mask: None,
    };
    world
        .client()
        .get_member(request)
        .await
        .expect("a member")
        .into_inner()
}

async fn list(world: &World) -> Vec<wire::Member> {
    let mut all = Vec::new();
    for query in ["", CANARY] {
        let request = wire::ListMembersRequest {
            gym_id: GYM.into(),
            query: query.into(),
            ..wire::ListMembersRequest::default()
        };
        let answer = world
            .client()
            .list_members(request)
            .await
            .expect("a list")
            .into_inner();
        let anns = answer
            .members
            .into_iter()
            .filter(|member| member.member_id == "ann");
        all.extend(anns);
    }
    assert_eq!(all.len(), 1, "found by id alone");
    all
}

/// What kisi-sync says.
pub(crate) async fn answer(world: &World, member: &str, outcome: &str, version: i64) {
    let answer = AccessApplied {
        gym_id: GYM.into(),
        member_id: member.into(),
        version,
        applied_seq: version + i64::from(outcome == "erased"),
        outcome: outcome.into(),
        ..AccessApplied::default()
    };
    let envelope = Envelope {
        ce_id: answer.id(),
        ce_type: AccessApplied::TYPE.into(),
        ce_source: "/test".into(),
        ce_time: Timestamp::UNIX_EPOCH,
        ce_subject: answer.about(),
        traceparent: None,
    };
    let publisher = world.bus.publisher();
    publisher
        .publish(&answer.subject(), &envelope, &answer)
        .await
        .expect("published");
}

pub(crate) async fn messages(world: &World, stream: &str, subject: &str) -> usize {
    use futures_util::TryStreamExt;
    let stream = world
        .bus
        .jetstream()
        .get_stream(stream)
        .await
        .expect("a stream");
    let info = stream
        .info_with_subjects(subject)
        .await
        .expect("its subjects");
    let counts: Vec<(String, usize)> = info.try_collect().await.expect("counts");
    counts.iter().map(|(_, count)| count).sum()
}

/// The tables and streams in which the canary is found.
pub(crate) async fn traces(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    let store = world.store().await;
    for table in tables(store.reads()).await {
        if rows(store.reads(), &table).await.contains(CANARY) {
            found.push(table);
        }
    }
    for name in [
        "BILLING",
        "MEMBERSHIP",
        "ACCESS",
        "INTEGRATION",
        "NOTIFY",
        "DEAD_LETTER",
    ] {
        let mut stream = world
            .bus
            .jetstream()
            .get_stream(name)
            .await
            .expect("a stream");
        let state = stream.info().await.expect("its state").state.clone();
        for sequence in state.first_sequence..=state.last_sequence {
            let Ok(message) = stream.get_raw_message(sequence).await else {
                continue;
            };
            let body = String::from_utf8_lossy(&message.payload).into_owned();
            let headers = format!("{:?}", message.headers);
            if body.contains(CANARY) || headers.contains(CANARY) {
                found.push(name.to_owned());
                break;
            }
        }
    }
    found
}

#[derive(FromQueryResult)]
struct Text {
    text: Option<String>,
}

async fn texts(db: &impl ConnectionTrait, sql: String) -> Vec<String> {
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let rows = Text::find_by_statement(statement)
        .all(db)
        .await
        .expect("rows");
    rows.into_iter().filter_map(|row| row.text).collect()
}

async fn tables(db: &impl ConnectionTrait) -> Vec<String> {
    let sql = match db.get_database_backend() {
        DbBackend::Postgres => {
            "select table_name::text as text from information_schema.tables
             where table_schema = current_schema()"
        }
        _ => "select name as text from sqlite_master where type = 'table'",
    };
    texts(db, sql.to_owned()).await
}

/// Everything that a table holds, as text.
async fn rows(db: &impl ConnectionTrait, table: &str) -> String {
    let sql = match db.get_database_backend() {
        DbBackend::Postgres => format!("select t::text as text from \"{table}\" t"),
        _ => {
            let sql = format!("select name as text from pragma_table_info('{table}')");
            let columns: Vec<String> = texts(db, sql)
                .await
                .iter()
                .map(|column| format!("quote(\"{column}\")"))
                .collect();
            format!(
                "select {} as text from \"{table}\"",
                columns.join(" || ' ' || ")
            )
        }
    };
    texts(db, sql).await.join("\n")
}
