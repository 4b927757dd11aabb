//! Two gyms of one Kisi organization, each on a replica of its own: one of them is told of a person's
//! rights as they were before the other one took hers away.

use kisi_sync::record::{self, Change};
use kisi_sync::snapshot::Snapshot;
use kisi_sync::store::members::{self, Cause, SHARED_RIGHT};
use sea_orm::ConnectionTrait;

use crate::harness::{GYM, On, SOON, Stage};
use crate::kisi::{Fault, GROUP};
use crate::two_gyms;
use crate::two_gyms_apart::{Apart, GYMS, OTHER, PATIENT, decide};

/// The next list of rights is answered and does not arrive.
async fn let_the_answer_wait(apart: &Apart) -> u64 {
    let kisi = &apart.stage.kisi;
    let (route, fault) = ("/role_assignments", Fault::WaitAfterApplying);
    kisi.fail("GET", route, 1, fault).await;
    kisi.held_back()
}

/// One gym wants her in and is told what there was before the other one took it away.
async fn wanted_while_the_other_takes(apart: &Apart, wants: (&str, i64), takes: (&str, i64)) {
    let kisi = &apart.stage.kisi;
    let before = let_the_answer_wait(apart).await;
    decide(&apart.stage, wants.0, 0, wants.1, true).await;
    kisi.one_is_held_back(before).await;
    decide(&apart.stage, takes.0, 0, takes.1, false).await;
    assert_eq!(apart.told(takes.0, 0, takes.1).await, "revoked");
    assert!(kisi.group_rows(GROUP).await.is_empty());
    kisi.clear_faults();
    apart.told(wants.0, 0, wants.1).await;
    testkit::eventually("the door is open", SOON, async || {
        kisi.group_rows(GROUP).await.len() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_another_gym_took_since_it_was_listed_is_given_anew() {
    let apart = Apart::with(0, &PATIENT).await;
    decide(&apart.stage, GYM, 0, 1, true).await;
    apart.told(GYM, 0, 1).await;
    // She is looked at for the first time there.
    wanted_while_the_other_takes(&apart, (OTHER, 1), (GYM, 2)).await;
    assert_eq!(apart.told(OTHER, 0, 1).await, "granted");
    apart.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_was_in_the_way_and_went_since_is_given_at_once() {
    let apart = Apart::with(1, &PATIENT).await;
    for gym in GYMS {
        apart.told(gym, 0, 1).await;
    }
    decide(&apart.stage, OTHER, 0, 2, false).await;
    assert_eq!(apart.told(OTHER, 0, 2).await, "revoked");
    // Kisi refuses hers because of the one that is there.
    wanted_while_the_other_takes(&apart, (OTHER, 3), (GYM, 2)).await;
    assert_eq!(apart.told(OTHER, 0, 3).await, "granted");
    apart.end().await;
}

/// A pass of one gym lists the rights while the other gives one.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_another_gym_gives_during_a_pass_is_not_made_by_hand() {
    let mut apart = Apart::with(1, &PATIENT).await;
    for version in [1, 2] {
        for gym in GYMS {
            decide(&apart.stage, gym, 0, version, version == 1).await;
            apart.told(gym, 0, version).await;
        }
    }
    let stage = &apart.stage;
    assert!(stage.kisi.group_rows(GROUP).await.is_empty());
    let before = stage.kisi.held_back();
    // After that of the rights of the key's owner.
    stage.kisi.hold_listings_back(1);
    let [_, theirs] = &mut apart.replicas;
    let sync = tokio::join!(two_gyms::sync(&mut theirs.running, OTHER), async {
        stage.kisi.one_is_held_back(before).await;
        decide(stage, GYM, 0, 3, true).await;
        testkit::eventually("the right is given", SOON, async || {
            stage.kisi.group_rows(GROUP).await.len() == 1
        })
        .await;
        stage.kisi.clear_faults();
    });
    assert_eq!(sync.0.state, "done");
    assert_eq!(apart.told(GYM, 0, 3).await, "granted");
    decide(&apart.stage, OTHER, 0, 3, true).await;
    apart.told(OTHER, 0, 3).await;
    decide(&apart.stage, GYM, 0, 4, false).await;
    assert_eq!(apart.told(GYM, 0, 4).await, "revoked");
    // It was left to her other gym.
    assert_eq!(apart.stage.kisi.group_rows(GROUP).await.len(), 1);
    apart.nothing_is_left_to_do().await;
    apart.end().await;
}

/// The right was given by the gym that wants it again, which has left it to the other one.
async fn a_right_of_our_own_making_that_the_other_gym_took_is_given_anew(is_looked_at: bool) {
    let apart = Apart::with(1, &PATIENT).await;
    for gym in GYMS {
        apart.told(gym, 0, 1).await;
    }
    decide(&apart.stage, GYM, 0, 2, false).await;
    assert_eq!(apart.told(GYM, 0, 2).await, "revoked");
    if is_looked_at {
        let sql = format!("update members set looked = false where gym_id = '{GYM}'");
        apart.db.execute_unprepared(&sql).await.unwrap();
    }
    wanted_while_the_other_takes(&apart, (GYM, 3), (OTHER, 2)).await;
    apart.end().await;
}

/// Kisi refuses another one, and it looks like the answer to this very request.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_was_taken_for_the_answer_is_given_anew() {
    a_right_of_our_own_making_that_the_other_gym_took_is_given_anew(false).await;
}

/// It looks like one that was made by hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_was_taken_for_the_owner_s_is_given_anew() {
    a_right_of_our_own_making_that_the_other_gym_took_is_given_anew(true).await;
}

/// Another look was asked for while one was under way, whose attempt then goes on with something newer.
async fn what_an_earlier_look_saw_is_not_the_last(on: On) {
    let stage = Stage::set(on).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 1).await;
    replica.stop().await;
    let shared = stage.parts().await;
    let (db, now) = (&shared.db, shared.now());
    let load = async || Snapshot::load(db, GYM, "m1", now).await.unwrap().unwrap();
    let mut seen = load().await;
    seen.member.looked = true;
    seen.member.opened_by_others = format!("[{GROUP}]");
    let person = [Change::Person];
    record::write(db, &seen, &person, now).await.unwrap();
    let held = load().await.member;
    assert!(held.looked);
    assert_eq!(held.opened_by_others().unwrap(), [GROUP]);

    let cause = Cause::new(SHARED_RIGHT, "1", None);
    members::look_again(db, GYM, "m1", &cause, now)
        .await
        .unwrap();
    record::write(db, &seen, &person, now).await.unwrap();
    let held = load().await.member;
    assert!(held.pending && !held.looked);
    assert!(held.opened_by_others().unwrap().is_empty());
    // The look that was asked for is the last, unless somebody asks again.
    let seen = Snapshot {
        member: members::Model {
            looked: true,
            ..held
        },
        ..seen
    };
    record::write(db, &seen, &person, now).await.unwrap();
    assert!(load().await.member.looked);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_look_saw_is_not_the_last_on_sqlite() {
    what_an_earlier_look_saw_is_not_the_last(On::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_look_saw_is_not_the_last_on_postgres() {
    what_an_earlier_look_saw_is_not_the_last(On::Postgres).await;
}
