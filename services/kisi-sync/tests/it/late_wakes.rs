//! A wake that comes late: what it brings was read before the attempt ended that was under way then.

use std::time::Instant;

use kisi_sync::desired::{self, Desired, Stored};
use kisi_sync::shared::Shared;
use kisi_sync::store::applied_grants::{self, STANDING};
use kisi_sync::store::members::WantedPlan;
use kisi_sync::worker::{self, Job};
use sea_orm::EntityTrait;
use testkit::eventually;

use crate::harness::{GYM, On, PLAN, SOON, Stage};
use crate::kisi::{Fault, GROUP};

const MEMBER: &str = "m1";

fn decided(version: i64, plans: &[&str]) -> Desired {
    let plan = |id: &&str| WantedPlan {
        plan_id: (*id).to_owned(),
        from: None,
        until: None,
    };
    Desired {
        gym: GYM.to_owned(),
        member: MEMBER.to_owned(),
        version,
        plans: plans.iter().map(plan).collect(),
        erased: false,
        cause_kind: "call".to_owned(),
        cause_id: "PutMembership".to_owned(),
        cause_actor: None,
        received_at: None,
        decided_at: None,
        traceparent: None,
    }
}

/// What the intake does with a version, up to its commit.
async fn stored(shared: &Shared, desired: &Desired) -> Job {
    let read_from = Instant::now();
    match desired::store(shared, desired).await {
        Ok(Stored::Intent(snapshot, urgency)) => Job::event(*snapshot, urgency, read_from),
        other => panic!("{other:?}"),
    }
}

/// The second version is stored while the request of the first is on its way, and its wake comes when
/// that has been answered and written down.
async fn a_version_is_carried_out_whose_wake_comes_after_another_s_end(
    first: (&'static str, &[&str]),
    second: &[&str],
) {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    let (method, plans) = first;
    if method == "POST" {
        stage.directory.decide(GYM, MEMBER, 2, &[]).await;
        stage.answer(MEMBER, |told| told.version == 2).await;
    }
    replica.stop().await;

    let shared = stage.parts().await;
    worker::keep_in_step(&shared).await.unwrap();
    // Then its first look at the tables is over.
    let (reply, mut replies) = tokio::sync::mpsc::unbounded_channel();
    assert!(shared.workers.wake(GYM, Job::of_sync(MEMBER, reply)));
    replies.recv().await.unwrap();
    let rows = async |state: Option<&str>| {
        let rows = applied_grants::Entity::find().all(&shared.db).await;
        let rows = rows.unwrap().into_iter();
        let hers = rows.filter(|row| row.member_id == MEMBER);
        hers.filter(|row| state.is_none_or(|state| row.state == state))
            .count()
    };
    let route = match method {
        "POST" => "/role_assignments",
        _ => "/role_assignments/{id}",
    };
    stage.kisi.fail(method, route, 1, Fault::Wait).await;
    let job = stored(&shared, &decided(3, plans)).await;
    assert!(shared.workers.wake(GYM, job));
    eventually("its request is on its way", SOON, async || {
        stage.kisi.held_back() == 1
    })
    .await;
    let late = stored(&shared, &decided(4, second)).await;
    stage.kisi.clear_faults();
    eventually(
        "what came of it is written down",
        SOON,
        async || match method {
            "POST" => rows(Some(STANDING)).await == 1,
            _ => rows(None).await == 0,
        },
    )
    .await;
    assert!(shared.workers.wake(GYM, late));
    eventually("Kisi has what the second version wants", SOON, async || {
        stage.kisi.group_rows(GROUP).await.len() == 1 + second.len()
    })
    .await;
    eventually("and so have the tables", SOON, async || {
        rows(Some(STANDING)).await == second.len() && rows(None).await == second.len()
    })
    .await;
    shared.workers.stop(&[GYM.to_owned()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_is_given_again_whose_wake_comes_after_its_revoke() {
    a_version_is_carried_out_whose_wake_comes_after_another_s_end(("DELETE", &[]), &[PLAN]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_is_taken_back_whose_wake_comes_after_its_grant() {
    a_version_is_carried_out_whose_wake_comes_after_another_s_end(("POST", &[PLAN]), &[]).await;
}
