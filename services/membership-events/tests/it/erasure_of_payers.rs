//! What providers said of somebody who pays no more, or of whom they cannot say for what, is
//! forgotten with the person.

use contracts::billing::v1::BillingEvent;
use contracts::membership::v1 as wire;
use contracts::membership::v1::import_roster_request::Part;
use contracts::message::BusMessage;
use testkit::eventually;

use crate::erasure::{CANARY, answer, delete, personal, traces};
use crate::roster::{AS_OF, applied, whole};
use crate::world::{ACCOUNT, DEADLINE, GYM, World, on_both};

/// In what is said of who pays next.
const OF_DAD: &str = "Dads-Own";

on_both! {
    async fn what_was_said_while_a_person_paid_is_forgotten_when_another_pays(world: World) {
        family(world).await;
        world.put_membership("ms", "kid", |put| pays(put, "mum")).await;
        owes(world).await;
        world.put_membership("ms", "kid", |put| pays(put, "dad")).await;
        mum_is_forgotten_and_dad_is_not(world).await;
    }

    async fn what_was_said_of_a_first_holder_is_forgotten_when_the_next_one_is_the_first(
        world: World
    ) {
        family(world).await;
        let share = |put: &mut wire::PutMembershipRequest| {
            put.member_ids = vec!["mum".into(), "dad".into(), "kid".into()];
            known_as(put, "mum");
        };
        world.put_membership("ms", "mum", share).await;
        owes(world).await;
        let left = |put: &mut wire::PutMembershipRequest| {
            put.member_ids = vec!["dad".into(), "kid".into()];
            known_as(put, "dad");
        };
        world.put_membership("ms", "dad", left).await;
        mum_is_forgotten_and_dad_is_not(world).await;
    }

    async fn what_was_said_while_a_person_paid_is_forgotten_when_a_roster_names_another(
        world: World
    ) {
        family(world).await;
        world.put_membership("ms", "kid", |put| pays(put, "mum")).await;
        owes(world).await;
        let mut put = world.membership("ms", "kid");
        pays(&mut put, "dad");
        put.gym_id = String::new();
        applied(world, whole(AS_OF, [Part::Membership(put)])).await;
        mum_is_forgotten_and_dad_is_not(world).await;
    }

    async fn what_waits_for_its_membership_is_forgotten_too(world: World) {
        family(world).await;
        for id in ["gym", "pool"] {
            let alike = |put: &mut wire::PutMembershipRequest| known_as(put, "mum");
            let named = |put: &mut wire::PutMembershipRequest| {
                alike(put);
                put.billing.as_mut().expect("a reference").subscription_id = Some(format!("s_{id}"));
            };
            world.put_membership(id, "mum", named).await;
        }
        // It could be for either.
        let event = BillingEvent {
            subscription_id: None,
            customer_id: Some("cus_mum".into()),
            ..personal("evt_9", "payment_failed", "in_9")
        };
        let parked = world.unmatched().await;
        world.publish_as(&event, event.id()).await;
        world.until_unmatched(parked + 1).await;
        forget_mum(world).await;
        assert_eq!(traces(world).await, [] as [&str; 0]);
        // One that comes after it is forgotten as well.
        let event = BillingEvent {
            event_id: "evt_10".into(),
            invoice_id: Some("in_10".into()),
            ..event
        };
        world.publish_as(&event, event.id()).await;
        world.until_unmatched(parked + 2).await;
        until_no_trace(world).await;
    }
}

/// Mum, of whom everything personal is said, dad and their child.
async fn family(world: &mut World) {
    world.put_gym(|_| {}).await;
    world.put_member("kid").await;
    world.put_member("dad").await;
    let request = wire::PutMemberRequest {
        gym_id: GYM.into(),
        member_id: "mum".into(),
        email: format!("{CANARY}@example.com"),
        name: format!("Mum {CANARY}"),
        source_version: world.next(),
    };
    world.client().put_member(request).await.expect("a member");
}

fn pays(put: &mut wire::PutMembershipRequest, payer: &str) {
    put.payer_member_id = Some(payer.into());
    known_as(put, payer);
}

/// The provider knows the membership as this payer's.
fn known_as(put: &mut wire::PutMembershipRequest, payer: &str) {
    let billing = put.billing.as_mut().expect("a reference");
    billing.subscription_id = Some(format!("sub_{payer}"));
    billing.customer_id = Some(format!("cus_{payer}"));
}

fn of_mum(id: &str, kind: &str) -> BillingEvent {
    BillingEvent {
        subscription_id: Some("sub_mum".into()),
        customer_id: Some("cus_mum".into()),
        ..personal(id, kind, "in_1")
    }
}

/// Mum's payment fails, and the child stands before the door.
async fn owes(world: &World) {
    world.until_allowed("kid", true).await;
    let failed = of_mum("evt_1", "payment_failed");
    world.publish_as(&failed, failed.id()).await;
    world.until_allowed("kid", false).await;
}

async fn mum_is_forgotten_and_dad_is_not(world: &World) {
    let mut failed = personal("evt_dad", "payment_failed", "in_dad");
    failed.subscription_id = Some("sub_dad".into());
    failed.customer_id = Some("cus_dad".into());
    failed.payment_url = Some(format!("https://pay.example.com/{OF_DAD}"));
    failed.metadata = [("note".to_owned(), OF_DAD.to_owned())].into();
    world.publish_as(&failed, failed.id()).await;
    world.until_billing_is_quiet().await;
    let found = traces(world).await;
    for place in ["members", "billing_events", "BILLING"] {
        assert!(found.contains(&place.to_owned()), "{place}: {found:?}");
    }
    forget_mum(world).await;
    assert_eq!(traces(world).await, [] as [&str; 0]);
    let store = world.store().await;
    let held = store_event(&store, "evt_dad").await;
    assert!(held.contains(OF_DAD), "{held}");
    // What is said later of what she owed.
    let paid = of_mum("evt_2", "payment_succeeded");
    world.publish_as(&paid, paid.id()).await;
    let taken = async || !store_event(&store, "evt_2").await.is_empty();
    eventually("it is taken in", DEADLINE, taken).await;
    until_no_trace(world).await;
}

async fn store_event(store: &membership_events::store::Store, id: &str) -> String {
    let found = membership_events::store::billing::find(store.reads(), "stripe", ACCOUNT, id).await;
    found
        .expect("an answer")
        .map_or_else(String::new, |row| row.event)
}

async fn forget_mum(world: &World) {
    delete(world, "mum").await;
    let tombstone = world
        .until("a tombstone", "mum", |state| state.erased)
        .await;
    answer(world, "mum", "erased", tombstone.version).await;
    world.until_erased("mum").await;
}

async fn until_no_trace(world: &World) {
    let gone = async || traces(world).await.is_empty();
    eventually("no trace is left", DEADLINE, gone).await;
}
