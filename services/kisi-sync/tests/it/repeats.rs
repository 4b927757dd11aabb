//! Kisi repeats an event that was answered late, and anybody a recording of one.

use crate::harness::{GYM, On, Stage};
use crate::kisi::GROUP;
use crate::kisi_events::listening;

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_others_gave_is_asked_for_once() {
    let stage = Stage::set(On::Sqlite).await;
    let (mut replica, inlet) = listening(&stage, 1).await;
    stage.directory.decide(GYM, "m1", 2, &[]).await;
    stage.answer("m1", |answer| answer.version == 2).await;
    let of_member = stage.kisi.add_by_hand("m1@example.com", GROUP).await;
    let of_stranger = stage.kisi.add_by_hand("staff@example.com", GROUP).await;
    stage
        .answer("m1", |answer| answer.groups_opened_by_others == [GROUP])
        .await;
    for right in [of_member, of_stranger] {
        inlet.has_passed_of("role_assignment.create", right).await;
    }
    for right in [of_member, of_stranger] {
        let event = inlet.has_passed_of("role_assignment.create", right).await;
        stage.kisi.forget_requests().await;
        let again = replica.client.pass_kisi_event(event).await.unwrap();
        assert!(!again.into_inner().looked_again);
        assert_eq!(stage.kisi.requests().await, [""; 0], "{right}");
    }
    replica.stop().await;
}
