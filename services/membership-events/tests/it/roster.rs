//! Whole rosters: compared, guarded, applied, and never half known.

mod side_by_side;

use std::time::Duration;

use contracts::billing::v1::BillingEvent;
use contracts::membership::v1 as wire;
use contracts::membership::v1::import_roster_request::Part;
use contracts::wire as convert;
use futures_util::stream;
use jiff::Timestamp;
use membership_events::store::Store;
use sea_orm::{ConnectionTrait, Statement};
use testkit::eventually;
use tonic::{Code, Status};

use crate::raw_call::{Cut, RawCall};
use crate::world::{ACCOUNT, GYM, World, faults, invoice, on_both};

pub(crate) const AS_OF: &str = "2026-03-10T11:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

fn header(as_of: &str) -> Part {
    Part::Header(wire::RosterHeader {
        gym_id: GYM.into(),
        as_of: Some(convert::timestamp(at(as_of))),
        confirm_digest: None,
        parts: None,
    })
}

fn member(id: &str) -> Part {
    Part::Member(wire::RosterMember {
        member_id: id.into(),
        email: format!("{id}@example.org"),
        name: format!("Person {id}"),
        source_version: 1,
    })
}

/// A membership `ms_{member}` on `gold` with subscription `sub_ms_{member}`.
fn membership(member: &str) -> wire::PutMembershipRequest {
    wire::PutMembershipRequest {
        gym_id: String::new(),
        membership_id: format!("ms_{member}"),
        plan_id: "gold".into(),
        member_ids: vec![member.into()],
        starts_on: "2026-01-01".into(),
        billing: Some(wire::BillingReference {
            provider: "stripe".into(),
            account: ACCOUNT.into(),
            subscription_id: Some(format!("sub_ms_{member}")),
            customer_id: Some(format!("cus_{member}")),
            mandate_id: None,
        }),
        source_version: 1,
        ..wire::PutMembershipRequest::default()
    }
}

pub(crate) fn name(n: usize) -> String {
    format!("m_{n:06}")
}

/// A roster of `members` people, each with a membership, as a stream makes it: nothing is held.
pub(crate) fn roster(
    members: std::ops::Range<usize>,
) -> impl Iterator<Item = Part> + Send + 'static {
    members.flat_map(|n| {
        let id = name(n);
        [member(&id), Part::Membership(membership(&id))]
    })
}

pub(crate) fn whole(as_of: &str, parts: impl IntoIterator<Item = Part>) -> Vec<Part> {
    std::iter::once(header(as_of)).chain(parts).collect()
}

fn requests(
    parts: impl IntoIterator<Item = Part>,
) -> impl Iterator<Item = wire::ImportRosterRequest> {
    parts
        .into_iter()
        .map(|part| wire::ImportRosterRequest { part: Some(part) })
}

/// Sends a roster and reads every answer.
async fn import<P>(world: &World, parts: P) -> Result<Vec<wire::ImportRosterProgress>, Status>
where
    P: IntoIterator<Item = Part>,
    P::IntoIter: Send + 'static,
{
    let sent = stream::iter(requests(parts.into_iter().collect::<Vec<_>>()));
    let mut answers = world.client().import_roster(sent).await?.into_inner();
    let mut told = Vec::new();
    while let Some(answer) = answers.message().await? {
        told.push(answer);
    }
    Ok(told)
}

pub(crate) async fn applied<P>(world: &World, parts: P) -> wire::ImportRosterProgress
where
    P: IntoIterator<Item = Part>,
    P::IntoIter: Send + 'static,
{
    let told = import(world, parts).await.expect("imported");
    let last = told.last().expect("an answer").clone();
    assert_eq!(last.state, "applied", "{last:?}");
    last
}

/// Messages that were ever put on `MEMBERSHIP`.
async fn published(world: &World) -> u64 {
    let stream = world.bus.jetstream().get_stream("MEMBERSHIP").await;
    let mut stream = stream.expect("a stream");
    stream.info().await.expect("its state").state.last_sequence
}

async fn versions(world: &World) -> Vec<wire::MemberVersion> {
    let request = wire::ListMemberVersionsRequest {
        gym_id: GYM.into(),
        page_size: 10_000,
        page_token: String::new(),
    };
    let answer = world.client().list_member_versions(request).await;
    answer.expect("versions").into_inner().members
}

async fn count(store: &Store, table: &str) -> i64 {
    let db = store.reads();
    let sql = format!("select count(*) as rows from {table}");
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let row = db.query_one_raw(statement).await.expect("a count");
    row.expect("a row").try_get("", "rows").expect("a number")
}

async fn until_nothing_is_staged(world: &World) {
    let store = world.store().await;
    // The import goes after its rows, and until then another is refused.
    eventually("nothing is staged", Duration::from_secs(20), async || {
        count(&store, "roster_rows").await == 0
            && count(&store, "roster_imports where state = 'receiving'").await == 0
    })
    .await;
}

async fn state_of(world: &World, member: &str) -> wire::Member {
    let request = wire::GetMemberRequest {
        gym_id: GYM.into(),
        member_id: member.into(),
        read_mask: None,
    };
    let answer = world.client().get_member(request).await;
    answer.expect("a member").into_inner()
}

on_both! {
    async fn a_first_roster_makes_everybody_and_the_same_again_costs_nothing(world: World) {
        world.put_gym(|_| {}).await;
        let first = applied(world, whole(AS_OF, roster(0..40))).await;
        assert_eq!((first.received, first.changed, first.unchanged), (80, 80, 0));
        assert_eq!((first.missing, first.ending, first.left_alone), (0, 0, 0));
        for n in [0, 17, 39] {
            let state = world.until_allowed(&name(n), true).await;
            let cause = state.cause.expect("a cause");
            assert_eq!((cause.kind.as_str(), cause.actor.as_str()), ("import", "service:dev-stack"));
        }
        assert_eq!(state_of(world, &name(3)).await.email, "m_000003@example.org");
        eventually("all are published", Duration::from_secs(20), async || {
            published(world).await >= 40
        })
        .await;
        let (messages, held) = (published(world).await, versions(world).await);
        assert_eq!(held.len(), 40);
        // What the roster's own numbers say, and in any order.
        let mut parts: Vec<Part> = roster(0..40).collect();
        parts.reverse();
        let again = applied(world, whole("2026-03-10T11:30:00Z", parts)).await;
        assert_eq!((again.received, again.changed, again.unchanged), (80, 0, 80));
        let renumbered = roster(0..40).map(|part| match part {
            Part::Member(one) => Part::Member(wire::RosterMember { source_version: 9, ..one }),
            Part::Membership(one) => Part::Membership(wire::PutMembershipRequest {
                source_version: 9,
                ..one
            }),
            other => other,
        });
        let again = applied(world, whole("2026-03-10T11:40:00Z", renumbered)).await;
        assert_eq!((again.changed, again.unchanged), (0, 80));
        assert_eq!(versions(world).await, held);
        assert_eq!(published(world).await, messages);
        assert_eq!(state_of(world, &name(3)).await.source_version, 9);
        until_nothing_is_staged(world).await;
    }

    async fn a_roster_changes_what_differs_and_nothing_else(world: World) {
        world.put_gym(|_| {}).await;
        applied(world, whole(AS_OF, roster(0..6))).await;
        let held = versions(world).await;
        let parts = roster(0..7).map(|part| match part {
            Part::Member(mut one) if one.member_id == name(1) => {
                one.email = "new@example.org".into();
                Part::Member(one)
            }
            Part::Membership(mut one) if one.membership_id == "ms_m_000002" => {
                one.plan_id = "silver".into();
                Part::Membership(one)
            }
            Part::Membership(mut one) if one.membership_id == "ms_m_000003" => {
                one.member_ids.push(name(4));
                Part::Membership(one)
            }
            other => other,
        });
        let last = applied(world, whole(AS_OF, parts)).await;
        // Two rows of the new member, and three that differ.
        assert_eq!((last.changed, last.unchanged), (5, 9));
        assert_eq!(state_of(world, &name(1)).await.email, "new@example.org");
        world.until("silver", &name(2), |state| state.plans[0].plan_id == "silver").await;
        world.until("two", &name(4), |state| state.memberships.len() == 2).await;
        world.until_allowed(&name(6), true).await;
        let changed: Vec<String> = versions(world)
            .await
            .into_iter()
            .filter(|version| !held.contains(version))
            .map(|version| version.member_id)
            .collect();
        assert_eq!(changed, [name(2), name(4), name(6)]);
    }

    async fn members_whom_a_roster_lacks_are_ended_and_a_later_one_brings_them_back(world: World) {
        world.put_gym(|_| {}).await;
        applied(world, whole(AS_OF, roster(0..12))).await;
        let later = "2026-03-10T11:30:00Z";
        let last = applied(world, whole(later, roster(0..9))).await;
        assert_eq!((last.missing, last.ending, last.allowed_missing), (3, 3, 10));
        for n in 9..12 {
            let gone = world.until_allowed(&name(n), false).await;
            assert_eq!(gone.reasons, ["membership_ended"]);
            assert_eq!(gone.cause.expect("a cause").kind, "import");
        }
        world.until_allowed(&name(8), true).await;
        // Who has ended is not missing again.
        let again = applied(world, whole(later, roster(0..9))).await;
        assert_eq!((again.missing, again.changed), (0, 0));
        let back = applied(world, whole("2026-03-10T11:45:00Z", roster(0..11))).await;
        assert_eq!((back.missing, back.changed), (0, 2));
        world.until_allowed(&name(10), true).await;
        world.until_allowed(&name(11), false).await;
    }

    async fn one_of_two_memberships_that_is_missing_is_ended_alone(world: World) {
        world.put_gym(|_| {}).await;
        let second = Part::Membership(wire::PutMembershipRequest {
            membership_id: "second".into(),
            plan_id: "pool".into(),
            billing: None,
            ..membership(&name(0))
        });
        applied(world, whole(AS_OF, roster(0..2).chain([second]))).await;
        let last = applied(world, whole(AS_OF, roster(0..2))).await;
        assert_eq!((last.missing, last.ending), (1, 1));
        let state = world.until("one ended", &name(0), |state| state.plans.len() == 1).await;
        assert!(state.allowed);
        assert_eq!(state.plans[0].plan_id, "gold");
    }

    async fn too_many_missing_are_held_until_their_digest_is_confirmed(world: World) {
        world.put_gym(|_| {}).await;
        applied(world, whole(AS_OF, roster(0..30))).await;
        world.until_allowed(&name(29), true).await;
        eventually("all are published", Duration::from_secs(20), async || {
            published(world).await >= 30
        })
        .await;
        let (messages, held) = (published(world).await, versions(world).await);
        let later = "2026-03-10T11:30:00Z";
        let with_change = |digest: Option<String>| {
            let mut parts = whole(later, roster(0..19).map(|part| match part {
                Part::Membership(mut one) if one.membership_id == "ms_m_000000" => {
                    one.plan_id = "silver".into();
                    Part::Membership(one)
                }
                other => other,
            }));
            if let Part::Header(header) = &mut parts[0] {
                header.confirm_digest = digest;
            }
            parts
        };
        let told = import(world, with_change(None)).await.expect("held");
        let summary = told.last().expect("an answer").clone();
        assert_eq!(summary.state, "held");
        assert_eq!((summary.missing, summary.ending, summary.allowed_missing), (11, 11, 10));
        assert_eq!((summary.received, summary.changed, summary.unchanged), (38, 1, 37));
        assert_eq!(summary.digest.len(), 64);
        assert_eq!(versions(world).await, held);
        assert_eq!(published(world).await, messages);
        until_nothing_is_staged(world).await;

        // A digest of another set is refused with the new one.
        let other = import(world, with_change(Some("0".repeat(64)))).await;
        let refused = other.expect_err("another set");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains(&summary.digest), "{refused:?}");
        use tonic_types::StatusExt;
        let info = refused.get_details_error_info().expect("details");
        assert_eq!(info.reason, "ROSTER_CHANGED");
        assert_eq!(info.metadata.get("digest"), Some(&summary.digest));
        assert_eq!(versions(world).await, held);

        // The set changed since it was shown.
        world.put_membership("ms_m_000029", &name(29), |put| put.plan_id = "gold".into()).await;
        let changed = import(world, with_change(Some(summary.digest.clone()))).await;
        assert_eq!(changed.expect_err("another set").code(), Code::FailedPrecondition);

        world.put_membership("ms_m_000028", &name(28), |put| put.plan_id = "gold".into()).await;
        let told = import(world, with_change(None)).await.expect("nine may be missing");
        assert_eq!(told.last().expect("an answer").state, "applied");
        let rest: Vec<Part> = with_change(None).into_iter().take(1 + 2 * 3).collect();
        let told = import(world, rest.clone()).await.expect("held");
        let summary = told.last().expect("an answer").clone();
        assert_eq!((summary.state.as_str(), summary.missing), ("held", 16));
        let mut rest = rest;
        if let Part::Header(header) = &mut rest[0] {
            header.confirm_digest = Some(summary.digest.clone());
        }
        let last = applied(world, rest).await;
        assert_eq!((last.missing, last.ending), (16, 16));
        assert_eq!(last.digest, summary.digest);
        // What a person has confirmed says so, and no one else asks about it again.
        let gone = world.until_allowed(&name(18), false).await;
        assert_eq!(gone.cause.expect("a cause").kind, "confirmed_import");
        world.until_allowed(&name(2), true).await;
        world.until_allowed(&name(28), true).await;
    }

    async fn an_empty_roster_is_held(world: World) {
        world.put_gym(|_| {}).await;
        applied(world, whole(AS_OF, roster(0..11))).await;
        let told = import(world, [header(AS_OF)]).await.expect("held");
        let last = told.last().expect("an answer");
        assert_eq!((last.state.as_str(), last.missing, last.received), ("held", 11, 0));
        world.until_allowed(&name(0), true).await;
    }

    async fn a_stream_that_breaks_changes_nothing(world: World) {
        world.put_gym(|_| {}).await;
        applied(world, whole(AS_OF, roster(0..8))).await;
        eventually("all are published", Duration::from_secs(20), async || {
            published(world).await >= 8
        })
        .await;
        let (messages, held) = (published(world).await, versions(world).await);
        // Seven of eight are never sent: if the cut were taken for the end of the roster, they
        // would be ended, and the guard would let it pass.
        for cut in [
            Cut::Reset(h2::Reason::CANCEL),
            Cut::Reset(h2::Reason::NO_ERROR),
            Cut::Reset(h2::Reason::INTERNAL_ERROR),
            Cut::Connection,
        ] {
            let token = world.tokens.service("dev-stack");
            let mut call = RawCall::open(world.address(), "ImportRoster", &token).await;
            for request in requests(whole(AS_OF, roster(0..1))) {
                call.send(&request);
            }
            let store = world.store().await;
            eventually("it is received", Duration::from_secs(20), async || {
                count(&store, "roster_rows").await == 2
            })
            .await;
            call.cut(cut).await;
            until_nothing_is_staged(world).await;
        }
        let store = world.store().await;
        eventually("no import is open", Duration::from_secs(20), async || {
            count(&store, "roster_imports where state <> 'applied'").await == 0
        })
        .await;
        assert_eq!(versions(world).await, held);
        assert_eq!(published(world).await, messages);
        // And the next one has its turn.
        applied(world, whole(AS_OF, roster(0..8))).await;
    }

    async fn a_roster_with_a_fault_changes_nothing_and_names_it(world: World) {
        world.put_gym(|_| {}).await;
        let bad_date = Part::Membership(wire::PutMembershipRequest {
            starts_on: "tomorrow".into(),
            ..membership(&name(0))
        });
        let stranger = Part::Membership(membership("nobody"));
        let foreign = Part::OpenInvoice(BillingEvent {
            account: "acct_other".into(),
            ..invoice("evt_1", "payment_failed", "in_1", "2026-03-09T05:00:00Z")
        });
        let cases = [
            (whole(AS_OF, [member("ann"), bad_date]), "messages[2].membership.starts_on"),
            (whole(AS_OF, [member("ann"), member("ann")]), "messages[2].member.member_id"),
            (whole(AS_OF, [member("ann"), stranger]), "messages[2].membership.member_ids[0]"),
            (whole(AS_OF, [foreign]), "messages[1].open_invoice.account"),
            (whole(AS_OF, [header(AS_OF)]), "messages[1].header"),
            (vec![member("ann")], "messages[0].header"),
            (vec![header("2026-03-10T13:00:00Z")], "messages[0].header.as_of"),
        ];
        for (parts, field) in cases {
            let refused = import(world, parts).await.expect_err(field);
            assert_eq!(refused.code(), Code::InvalidArgument, "{field}");
            assert_eq!(faults(&refused), [field]);
        }
        // Far apart, so that the first of them is staged long since.
        let far = whole(AS_OF, roster(0..400).chain([member(&name(2))]));
        let refused = import(world, far).await.expect_err("twice");
        assert_eq!(faults(&refused), ["messages[801].member.member_id"]);
        let counted = |parts: i64| {
            let mut all = whole(AS_OF, roster(0..2));
            if let Part::Header(header) = &mut all[0] {
                header.parts = Some(parts);
            }
            all
        };
        let refused = import(world, counted(5)).await.expect_err("one is missing");
        assert_eq!(faults(&refused), ["messages[0].header.parts"]);
        let unknown = Part::Header(wire::RosterHeader {
            gym_id: "steel".into(),
            as_of: Some(convert::timestamp(at(AS_OF))),
            ..wire::RosterHeader::default()
        });
        assert_eq!(import(world, [unknown]).await.expect_err("no gym").code(), Code::NotFound);
        assert!(versions(world).await.is_empty());
        until_nothing_is_staged(world).await;
        applied(world, counted(4)).await;
    }
}

mod memberships_of_the_version_before_are_known_to_a_roster {
    use access_domain::ids::GymId;
    use membership_events::store::DatabaseSettings;
    use membership_events::store::migrations::Migrator;
    use membership_events::store::roster::missing;
    use sea_orm::Database;
    use sea_orm_migration::MigratorTrait;
    use testkit::TestDatabase;

    use super::*;

    #[tokio::test]
    async fn on_sqlite() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tables.db");
        migrate(&format!("sqlite://{}?mode=rwc", file.display())).await;
    }

    #[tokio::test]
    async fn on_postgres() {
        let database = TestDatabase::create().await.expect("a database");
        migrate(database.url()).await;
    }

    async fn migrate(url: &str) {
        let before = Migrator::migrations()
            .iter()
            .position(|migration| migration.name() == "m0005_roster")
            .expect("the migration");
        let database = Database::connect(url).await.expect("connected");
        let up = Migrator::up(&database, Some(before as u32)).await;
        up.expect("migrated");
        database
            .execute_unprepared(
                "insert into memberships (gym_id, membership_id, plan_id, holders, starts_on,
                                          pauses, source_version)
                 values ('iron', 'ms', 'gold', '[\"ann\"]', '2026-01-01', '[]', 7)",
            )
            .await
            .expect("a membership");
        database.close().await.expect("closed");
        let settings = DatabaseSettings {
            database_url: url.to_owned(),
            database_pool_size: 3,
            database_statement_timeout: Duration::from_secs(5),
        };
        let store = Store::open(&settings).await.expect("opened");
        let gym: GymId = GYM.parse().expect("an id");
        let rows = missing::list_written(store.reads(), &gym, "", 10).await;
        let rows = rows.expect("rows");
        // Written at no time that is known: any roster may end it.
        assert_eq!((rows.len(), rows[0].written_at), (1, 0));
        assert_eq!(count(&store, "roster_imports").await, 0);
    }
}
