//! How many leases are one replica's share, and giving back what lies above it.

use std::ops::Deref;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use sea_orm::{DbBackend, DbErr};

use super::{LeaseProof, Leases};

/// Leases given back at a time.
const AT_ONCE: usize = 50;

/// Leases that are about to be given back. Those that were not when this is dropped are worked on again:
/// they would be renewed for ever, and nothing would begin under them.
#[derive(Debug)]
pub struct Surplus(Vec<LeaseProof>);

impl Deref for Surplus {
    type Target = [LeaseProof];

    fn deref(&self) -> &[LeaseProof] {
        &self.0
    }
}

impl Drop for Surplus {
    fn drop(&mut self) {
        for proof in &self.0 {
            // What the database could not take back yet is, by the next round.
            let is_given = proof.lost.is_cancelled();
            proof.going.store(is_given, Ordering::SeqCst);
        }
    }
}

impl Leases {
    /// Says that this replica lives; answers its share of so many leases.
    pub(super) async fn share(&self, leases: usize) -> Result<usize, DbErr> {
        if self.db.get_database_backend() == DbBackend::Sqlite {
            return Ok(leases);
        }
        let now = self.database_now();
        // Before any lease is renewed: whoever dies is gone from here no later than its leases are.
        let sql = format!(
            "INSERT INTO replicas (replica, expires_at) VALUES ($1, {now} + $2) \
             ON CONFLICT (replica) DO UPDATE SET expires_at = excluded.expires_at"
        );
        let values = [self.replica.clone().into(), self.ttl_micros().into()];
        self.execute(&sql, values).await?;
        let sql = format!("DELETE FROM replicas WHERE expires_at < {now} - 3600000000");
        self.execute(&sql, []).await?;
        let sql = format!("SELECT count(*) AS live FROM replicas WHERE expires_at >= {now}");
        let row = self.find(&sql, []).await?;
        let live: i64 = row.map_or(Ok(1), |row| row.try_get("", "live"))?;
        Ok(leases.div_ceil(usize::try_from(live).unwrap_or(1).max(1)))
    }

    /// Leases above this replica's share, of those that `may_go`, to be given back. From now on nothing
    /// begins under them: who asks for such a gym while its workers stop would start another one.
    pub async fn surplus(
        &self,
        wanted: usize,
        may_go: impl Fn(&str) -> bool,
    ) -> Result<Surplus, DbErr> {
        let share = self.share(wanted).await?;
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let above = held.len().saturating_sub(share).min(AT_ONCE);
        let may_go = held.values().filter(|proof| may_go(proof.key()));
        let surplus: Vec<LeaseProof> = may_go.take(above).cloned().collect();
        for proof in &surplus {
            proof.going.store(true, Ordering::SeqCst);
        }
        Ok(Surplus(surplus))
    }

    /// Gives one lease to whoever takes it first. Its workers have stopped.
    pub async fn give_back(&self, proof: &LeaseProof) -> Result<(), DbErr> {
        proof.lost.cancel();
        // Until the database has it back the next round tries again: it is renewed with all others.
        self.free(proof).await?;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held
            .get(&proof.key)
            .is_some_and(|held| held.epoch == proof.epoch)
        {
            held.remove(&proof.key);
            tracing::info!(lease.key = %proof.key, "Another replica works on {} from now on", proof.key);
        }
        Ok(())
    }

    pub(super) async fn free(&self, proof: &LeaseProof) -> Result<(), DbErr> {
        // As of now, and not of long ago: others below their share come first.
        let sql = format!(
            "UPDATE leases SET holder = '', address = '', expires_at = {} \
             WHERE lease_key = $1 AND holder = $2 AND epoch = $3",
            self.database_now()
        );
        self.execute(&sql, self.values_of(proof)).await
    }

    /// This replica counts no more.
    pub(super) async fn depart(&self) -> Result<(), DbErr> {
        let sql = "DELETE FROM replicas WHERE replica = $1";
        self.execute(sql, [self.replica.clone().into()]).await
    }
}
