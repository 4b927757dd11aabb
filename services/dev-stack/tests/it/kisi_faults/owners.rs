//! Which replica works on which gym, as the tables of kisi-sync on PostgreSQL say.

use std::collections::BTreeMap;
use std::time::Duration;

use dev_stack::stack::Stack;
use sqlx::{Connection, PgConnection};
use testkit::eventually;

use crate::harness::DEADLINE;

const OWNERS: &str = "select i.gym_id, l.address from integrations i
    join leases l on l.lease_key = i.lease_key
    where l.holder <> '' and l.expires_at > extract(epoch from clock_timestamp()) * 1000000";

/// Transactions that nothing has been heard of for a while.
const HELD: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and state like 'idle in transaction%'
    and state_change < clock_timestamp() - interval '200 milliseconds'";

pub struct Owners {
    pub database_url: String,
}

impl Owners {
    async fn tables(&self) -> PgConnection {
        PgConnection::connect(&self.database_url)
            .await
            .expect("PostgreSQL")
    }

    /// The name of the process that works on each gym.
    pub async fn find(&self, stack: &Stack) -> BTreeMap<String, String> {
        let mut tables = self.tables().await;
        let rows: Vec<(String, String)> = sqlx::query_as(OWNERS)
            .fetch_all(&mut tables)
            .await
            .expect("the leases");
        let replicas = &stack.addresses["kisi-sync"];
        let name = |address: &str| {
            let mut replicas = replicas.iter();
            let found = replicas.position(|it| address == format!("http://{}", it.grpc));
            match found.expect("a replica of the stack") {
                0 => "kisi-sync".to_owned(),
                other => format!("kisi-sync-{}", other + 1),
            }
        };
        rows.into_iter()
            .map(|(gym, address)| (gym, name(&address)))
            .collect()
    }

    /// Waits until each of so many replicas has its share of the gyms.
    pub async fn until_shared(&self, stack: &Stack, replicas: usize, gyms: usize) {
        let most = gyms.div_ceil(replicas);
        eventually("the gyms are shared evenly", DEADLINE, async || {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let owners = self.find(stack).await;
            let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
            for owner in owners.values() {
                *counts.entry(owner).or_default() += 1;
            }
            owners.len() == gyms && counts.len() == replicas && counts.values().all(|n| *n <= most)
        })
        .await;
    }

    /// Whether somebody holds a transaction open and does nothing.
    pub async fn is_held(&self) -> bool {
        let mut tables = self.tables().await;
        let held: i64 = sqlx::query_scalar(HELD)
            .fetch_one(&mut tables)
            .await
            .expect("the activity");
        held > 0
    }
}
