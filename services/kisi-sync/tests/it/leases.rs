//! Leases by themselves, on a real database.

use std::collections::BTreeSet;
use std::time::Duration;

use kisi_sync::ownership::{Leases, Owner};
use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};

async fn database() -> DatabaseConnection {
    let database = testkit::TestDatabase::create().await.unwrap();
    let url = secrecy::SecretString::from(database.url().to_owned());
    kisi_sync::store::open(&url).await.unwrap()
}

fn replica(db: &DatabaseConnection, name: &str, ttl: Duration) -> Leases {
    Leases::new(db.clone(), name.to_owned(), format!("http://{name}"), ttl)
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_the_gyms_evenly_as_they_come_and_go() {
    let db = database().await;
    let replica = |name: &str| replica(&db, name, Duration::from_secs(600));
    let keys: BTreeSet<String> = (1..=7).map(Leases::key_of_user).collect();
    let holds = |leases: &Leases| keys.iter().filter(|key| leases.held(key).is_some()).count();
    let rounds = async |replicas: &[&Leases]| {
        for _ in 0..2 {
            for leases in replicas {
                leases.tick(&keys).await.unwrap();
                for lease in leases.surplus(keys.len(), |_| true).await.unwrap().iter() {
                    leases.give_back(lease).await.unwrap();
                }
            }
        }
        replicas
            .iter()
            .map(|leases| holds(leases))
            .collect::<Vec<_>>()
    };
    let (first, second, third) = (replica("one"), replica("two"), replica("three"));
    assert_eq!(rounds(&[&first]).await, [7]);
    assert_eq!(rounds(&[&first, &second]).await, [4, 3]);
    assert_eq!(rounds(&[&first, &second, &third]).await, [3, 3, 1]);
    // Nobody has two, and nobody is left out.
    let all = [&first, &second, &third];
    for key in &keys {
        let owners = all
            .iter()
            .filter(|leases| leases.held(key).is_some())
            .count();
        assert_eq!(owners, 1, "{key}");
    }
    second.release().await.unwrap();
    assert_eq!(rounds(&[&first, &third]).await.iter().sum::<usize>(), 7);
    assert!(holds(&first) <= 4 && holds(&third) <= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_the_database_did_not_take_back_is_not_lost() {
    let db = database().await;
    let leases = replica(&db, "one", Duration::from_secs(600));
    let key = Leases::key_of_user(1);
    let keys = BTreeSet::from([key.clone()]);
    leases.tick(&keys).await.unwrap();
    let lease = leases.held(&key).unwrap();
    let rename = async |from: &str, to: &str| {
        let sql = format!("alter table {from} rename to {to}");
        db.execute_unprepared(&sql).await.unwrap();
    };
    rename("leases", "away").await;
    leases.give_back(&lease).await.unwrap_err();
    rename("away", "leases").await;
    assert!(leases.held(&key).is_none());
    // It is given back now, and there is nobody else to take it.
    leases.tick(&keys).await.unwrap();
    assert!(leases.held(&key).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_ask_at_once_for_a_new_lease_are_told_that_it_is_here() {
    let database = testkit::TestDatabase::create().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = format!(
        "sqlite://{}?mode=rwc",
        folder.path().join("sync.sqlite").display()
    );
    for url in [database.url().to_owned(), file] {
        let db = kisi_sync::store::open(&url.into()).await.unwrap();
        let leases = replica(&db, "one", Duration::from_secs(600));
        for user in 1..=20 {
            let key = Leases::key_of_user(user);
            let asked = futures_util::future::join_all((0..8).map(|_| leases.owner(&key))).await;
            for owner in asked {
                let Owner::Here(lease) = owner.unwrap() else {
                    panic!("it is somebody else's");
                };
                assert_eq!(lease.epoch(), 1);
                assert!(!lease.lost().is_cancelled());
            }
        }
    }
}

/// The database took it, and whoever had asked was gone by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_taken_for_nobody_is_taken_up_by_its_holder() {
    let db = database().await;
    let ttl = Duration::from_secs(600);
    let key = Leases::key_of_user(1);
    let keys = BTreeSet::from([key.clone()]);
    // What this one knew of it is forgotten.
    replica(&db, "one", ttl).tick(&keys).await.unwrap();
    let other = replica(&db, "two", ttl);
    other.tick(&keys).await.unwrap();
    assert!(other.held(&key).is_none());
    let holder = replica(&db, "one", ttl);
    holder.tick(&keys).await.unwrap();
    assert_eq!(holder.held(&key).map(|lease| lease.epoch()), Some(2));
}

/// Its workers are about to stop: whoever asks for the gym meanwhile would start one again.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_begins_under_a_lease_that_is_about_to_be_given_back() {
    let db = database().await;
    let ttl = Duration::from_secs(600);
    let keys: BTreeSet<String> = (1..=2).map(Leases::key_of_user).collect();
    let (first, second) = (replica(&db, "one", ttl), replica(&db, "two", ttl));
    first.tick(&keys).await.unwrap();
    second.tick(&keys).await.unwrap();
    let surplus = first.surplus(keys.len(), |_| true).await.unwrap();
    let [lease] = &*surplus else {
        panic!("{surplus:?}");
    };
    // Its last requests are still on their way, and the others are told of other leases.
    assert!(lease.is_held() && lease.is_going());
    first.tick(&keys).await.unwrap();
    assert!(first.held(lease.key()).is_none());
    let owner = first.owner(lease.key()).await.unwrap();
    assert!(matches!(owner, Owner::There(_)), "{owner:?}");
    assert!(lease.is_held(), "it is renewed");
    first.give_back(lease).await.unwrap();
    second.tick(&keys).await.unwrap();
    first.tick(&keys).await.unwrap();
    assert!(second.held(lease.key()).is_some() && first.held(lease.key()).is_none());
}

/// Whoever was to give it back broke off: it would be renewed for ever, and worked on by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_not_given_back_after_all_is_worked_on_again() {
    let db = database().await;
    let ttl = Duration::from_secs(600);
    let keys: BTreeSet<String> = (1..=2).map(Leases::key_of_user).collect();
    let (first, second) = (replica(&db, "one", ttl), replica(&db, "two", ttl));
    first.tick(&keys).await.unwrap();
    second.tick(&keys).await.unwrap();
    let surplus = first.surplus(keys.len(), |_| true).await.unwrap();
    let key = surplus[0].key().to_owned();
    assert!(first.held(&key).is_none());
    drop(surplus);
    assert!(first.held(&key).is_some());
    // One that was given back is not.
    let surplus = first.surplus(keys.len(), |_| true).await.unwrap();
    let lease = surplus[0].clone();
    first.give_back(&lease).await.unwrap();
    drop(surplus);
    assert!(first.held(lease.key()).is_none() && lease.is_going());
}

/// A connection whose other end is gone says nothing, and is not known to be dead for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_is_waited_for_no_longer_than_a_lease_lasts() {
    let db = database().await;
    let ttl = Duration::from_secs(4);
    let leases = replica(&db, "one", ttl);
    let key = Leases::key_of_user(1);
    let keys = BTreeSet::from([key.clone()]);
    leases.tick(&keys).await.unwrap();
    let silence = db.begin().await.unwrap();
    silence
        .execute_unprepared("lock table leases")
        .await
        .unwrap();
    let in_time = |answered: Result<Result<(), sea_orm::DbErr>, _>| {
        let answered: Result<_, tokio::time::error::Elapsed> = answered;
        answered.expect("it is given up").unwrap_err();
    };
    let half = ttl / 2;
    in_time(tokio::time::timeout(half, leases.renew_after(Duration::ZERO)).await);
    in_time(tokio::time::timeout(half, leases.tick(&keys)).await);
    let other = Leases::key_of_user(2);
    let owner = async { leases.owner(&other).await.map(drop) };
    in_time(tokio::time::timeout(half, owner).await);
    silence.rollback().await.unwrap();
    leases.tick(&keys).await.unwrap();
    assert!(leases.held(&key).is_some());
}
