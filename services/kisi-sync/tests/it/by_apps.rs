//! An app of Kisi's marketplace that gives rights in our groups is another writer, from its first one on.

use crate::harness::{On, Stage};
use crate::kisi::{GATE_ONLY, GROUP};

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_gives_rights_in_our_groups_is_shown_as_another_writer() {
    let stage = Stage::set(On::Sqlite).await;
    let mut replica = stage.start().await;
    stage.in_sync(&mut replica, 2).await;
    // What people give, and what apps give elsewhere, is no sign of one.
    stage.kisi.add_by_hand("guest@example.com", GROUP).await;
    stage
        .kisi
        .add_by_an_app("guest@example.com", GATE_ONLY)
        .await;
    replica.sync().await;
    let shown = replica.integration().await.attention;
    assert!(shown.is_empty(), "{shown:?}");

    stage.kisi.add_by_an_app("visitor@example.com", GROUP).await;
    let report = replica.sync().await.report.unwrap();
    let shown = replica.integration().await.attention;
    let what: Vec<_> = shown
        .iter()
        .map(|one| (one.what.as_str(), one.who.as_str()))
        .collect();
    assert_eq!(what, [("another_writer", "staff")]);
    // It is left, as all that is not ours.
    assert_eq!((report.unmanaged, report.revoked), (2, 0));
    assert_eq!(stage.kisi.group_rows(GROUP).await.len(), 4);
    replica.stop().await;
}
