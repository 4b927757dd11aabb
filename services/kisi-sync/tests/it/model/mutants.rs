//! The judge is no judge who finds nothing: here Kisi's rows are changed as a wrong kisi-sync would
//! leave them, and each is complained of by its name.

use std::collections::BTreeMap;
use std::time::Duration;

use kisi_simulator::rows::Assignment;
use testkit::eventually;

use super::judge::{self, ALLOWED, Complaint, IN_FLIGHT};
use super::story::Story;
use super::truth::now;
use crate::harness::{On, PLAN, SOON};
use crate::kisi::GROUP;

const SEED: u64 = 7;

impl Story {
    fn world<T>(&self, change: impl FnOnce(&mut kisi_simulator::world::World) -> T) -> T {
        let done = change(&mut self.stage.kisi.shared().lock().world);
        drop(self.watch.seen());
        done
    }

    async fn let_in(&mut self, member: &str) -> Assignment {
        let plans = BTreeMap::from([(PLAN.to_owned(), None)]);
        self.decide_on(member, plans, true, false).await;
        self.calm_down().await;
        let seen = self.watch.seen();
        let right = judge::ours(&self.truth, &seen)
            .find(|right| right.gone.is_none() && right.email == self.truth.people[member].email());
        right.unwrap().row.clone()
    }

    /// Decided, told, and done.
    async fn shut_out(&mut self, member: &str, right: &Assignment) {
        self.decide_on(member, BTreeMap::new(), true, false).await;
        eventually("the right goes", SOON, async || {
            !self.world(|world| world.assignments.contains_key(&right.id))
        })
        .await;
        self.calm_down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kisi_sync_that_errs_is_complained_of() {
    let mut story = Story::begin(On::Sqlite, SEED).await;
    let mut expected = Vec::new();
    let untold = |member: &str| Complaint::Untold {
        member: member.to_owned(),
        what: "other rights",
    };

    // A revocation told and not made.
    let member = "m1".to_owned();
    let kept = story.let_in(&member).await;
    story.shut_out(&member, &kept).await;
    story.world(|world| world.insert_assignment(kept.clone()));
    expected.push(untold(&member));
    expected.push(Complaint::Unwanted {
        member: member.clone(),
        right: kept.id,
    });
    expected.push(Complaint::Overstays {
        member,
        right: kept.id,
    });

    // One made too late.
    let member = "m2".to_owned();
    let late = story.let_in(&member).await;
    story.shut_out(&member, &late).await;
    story.world(|world| world.insert_assignment(late.clone()));
    let told = now();
    let passed = Duration::from_micros(ALLOWED.unsigned_abs() * 4);
    eventually("what is allowed has passed", passed, async || {
        // And what is excused besides, where the watch had to wait for the machine.
        now() > told + ALLOWED + ALLOWED / 4
    })
    .await;
    story.world(|world| world.remove_assignment(late.id));
    expected.push(Complaint::Overstays {
        member,
        right: late.id,
    });

    // A grant by a version that is no longer the newest, taken back at once.
    let member = "m3".to_owned();
    let first = story.let_in(&member).await;
    story.shut_out(&member, &first).await;
    let told = now();
    eventually("nothing is in flight", SOON, async || {
        now() > told + IN_FLIGHT
    })
    .await;
    let created_at = jiff::Timestamp::now();
    let stale = story.world(|world| {
        let id = world.next_id();
        let row = Assignment {
            id,
            created_at,
            ..first.clone()
        };
        world.insert_assignment(row);
        id
    });
    story.world(|world| world.remove_assignment(stale));
    expected.push(Complaint::Stale {
        member,
        right: stale,
    });

    // A right granted twice, one that was lost, and one with a wrong end.
    let member = "m4".to_owned();
    let once = story.let_in(&member).await;
    story.world(|world| {
        let id = world.next_id();
        world.insert_assignment(Assignment { id, ..once.clone() });
    });
    expected.push(untold(&member));
    expected.push(Complaint::Twice {
        member,
        group: GROUP,
    });
    let member = "m5".to_owned();
    let lost = story.let_in(&member).await;
    story.world(|world| world.remove_assignment(lost.id));
    expected.push(untold(&member));
    expected.push(Complaint::Missing {
        member,
        group: GROUP,
    });
    let member = "m6".to_owned();
    let moved = story.let_in(&member).await;
    story.world(|world| {
        if let Some(row) = world.assignments.get_mut(&moved.id) {
            let later = jiff::Timestamp::from_microsecond(now() + 3_600_000_000);
            row.valid_until = Some(later.unwrap());
        }
    });
    expected.push(untold(&member));
    expected.push(Complaint::Window {
        member,
        right: moved.id,
    });

    // What people gave, taken away.
    story.give_by_hand().await;
    let theirs = *story.truth.by_hand.keys().next().unwrap();
    story.world(|world| world.remove_assignment(theirs));
    expected.push(Complaint::Touched { right: theirs });

    expected.sort();
    let wrong = story.judge();
    assert_eq!(wrong, expected, "{}", story.report(&wrong));
    story.replicas.end().await;
}
