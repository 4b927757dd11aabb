//! Who works on a gym: one replica per Kisi user, by a lease in the database.
//!
//! A lease elects and does not exclude: Kisi checks no fencing token. So a holder stops sending
//! well before its lease ends by its own monotonic clock, a request's time limit is shorter than
//! that margin, every write is checked against the version it was made for, and a lost answer is
//! settled by a look. The lease is asked for once more as a request's bytes are about to be written.
//! Still, a process may be held in the microseconds from there to the socket, or a request on its way
//! to Kisi, and comes after its successor's. So nothing is written down under a
//! lease that has changed hands, and whoever finds that out asks the successor to look at that member
//! again. The database's clock decides who may take over, so that replicas need not agree on the
//! time.
//!
//! Replicas share the leases evenly: each takes free ones up to its share of those there are, gives
//! back what lies above it when another replica comes, and takes more when one goes. What stays free
//! for the length of a lease is taken by anybody.
//!
//! On SQLite there is one replica, and it takes every lease at once. The epoch still grows, so
//! that rows intended before a restart are looked for and not sent again.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, EntityTrait, QueryResult, Statement,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::leases;

mod share;

/// This replica's leases.
pub struct Leases {
    db: DatabaseConnection,
    replica: String,
    address: String,
    ttl: Duration,
    held: RwLock<HashMap<String, LeaseProof>>,
    /// When all were renewed. Two statements that do it at once could wait for each other.
    renewed: tokio::sync::Mutex<Option<Instant>>,
    /// One lease is taken at a time.
    taking: tokio::sync::Mutex<()>,
    /// The process is about to end.
    leaving: AtomicBool,
}

/// The right to write to Kisi for one Kisi user's gyms. Asked for by whatever sends.
#[derive(Debug, Clone)]
pub struct LeaseProof {
    key: String,
    epoch: i64,
    valid_until: Arc<Mutex<Instant>>,
    /// It is about to be given back.
    going: Arc<AtomicBool>,
    lost: CancellationToken,
}

impl LeaseProof {
    /// Whether it holds for at least as long as a request may take.
    pub fn covers(&self, request: Duration) -> bool {
        !self.lost.is_cancelled() && self.left() > request
    }

    /// Whether it holds now.
    pub fn is_held(&self) -> bool {
        self.covers(Duration::ZERO)
    }

    /// Whether it is about to be given back: what was begun under it goes on, and nothing else begins.
    pub fn is_going(&self) -> bool {
        self.going.load(Ordering::SeqCst)
    }

    /// Keeps the lease in the same hands until the transaction ends; false when others have it. It is
    /// renewed meanwhile: of its row only what others would change is locked.
    pub async fn keep<C: ConnectionTrait>(&self, txn: &C) -> Result<bool, DbErr> {
        if txn.get_database_backend() == DbBackend::Sqlite {
            return Ok(true);
        }
        let sql = "SELECT 1 FROM leases WHERE lease_key = $1 AND epoch = $2 FOR KEY SHARE";
        let values = [self.key.clone().into(), self.epoch.into()];
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
        Ok(txn.query_one_raw(statement).await?.is_some())
    }

    /// Whose lease it is.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Rows intended under another epoch may have been sent by somebody else.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Cancelled when the lease is lost or given back.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    fn left(&self) -> Duration {
        let until = *self
            .valid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        until.saturating_duration_since(Instant::now())
    }

    fn extend(&self, until: Instant) {
        *self
            .valid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// Where a gym is worked on.
#[derive(Debug, Clone)]
pub enum Owner {
    Here(LeaseProof),
    /// The gRPC address of the replica that does.
    There(String),
}

impl Leases {
    pub fn new(db: DatabaseConnection, replica: String, address: String, ttl: Duration) -> Self {
        Self {
            db,
            replica,
            address,
            ttl,
            held: RwLock::default(),
            renewed: tokio::sync::Mutex::default(),
            taking: tokio::sync::Mutex::default(),
            leaving: AtomicBool::new(false),
        }
    }

    /// The lease of a Kisi user.
    pub fn key_of_user(user: i64) -> String {
        format!("kisi-user:{user}")
    }

    /// This replica's proof, if it holds the lease and is to go on with it.
    pub fn held(&self, key: &str) -> Option<LeaseProof> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let proof = held.get(key)?;
        (proof.is_held() && !proof.is_going()).then(|| proof.clone())
    }

    /// Whether the lease is held, or was and has not been given back yet.
    fn knows(&self, key: &str) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.contains_key(key)
    }

    /// Who works on it; takes the lease when nobody does.
    pub async fn owner(&self, key: &str) -> Result<Owner, DbErr> {
        if let Some(proof) = self.held(key) {
            return Ok(Owner::Here(proof));
        }
        // Of another's gym nobody waits for those who take.
        if let Some(address) = self.elsewhere(key).await? {
            return Ok(Owner::There(address));
        }
        if let Some(proof) = self.take(key, false).await? {
            return Ok(Owner::Here(proof));
        }
        let row = leases::Entity::find_by_id(key.to_owned()).one(&self.db);
        match self.in_time(row).await? {
            Some(row) if !row.address.is_empty() => Ok(Owner::There(row.address)),
            _ => Err(DbErr::RecordNotFound(format!("leases {key}"))),
        }
    }

    /// The address of the other replica that works on it, if one does. Nothing is taken.
    pub async fn elsewhere(&self, key: &str) -> Result<Option<String>, DbErr> {
        if self.db.get_database_backend() == DbBackend::Sqlite {
            return Ok(None);
        }
        let sql = format!(
            "SELECT address FROM leases WHERE lease_key = $1 AND holder NOT IN ('', $2) \
             AND expires_at >= {}",
            self.database_now()
        );
        let values = [key.to_owned().into(), self.replica.clone().into()];
        let row = self.find(&sql, values).await?;
        row.map(|row| row.try_get("", "address")).transpose()
    }

    /// Renews what is held, and takes what is free of `wanted`, up to this replica's share.
    pub async fn tick(&self, wanted: &BTreeSet<String>) -> Result<(), DbErr> {
        let share = self.share(wanted.len()).await?;
        for proof in self.all_held() {
            if !wanted.contains(&proof.key) {
                self.drop_lease(&proof);
                self.disown(&proof).await?;
            } else if proof.lost.is_cancelled() {
                self.give_back(&proof).await?;
            }
        }
        let mut holds = self.renew_held(&mut *self.renewed.lock().await).await?;
        for key in wanted {
            if self.held(key).is_none() && self.take(key, holds >= share).await?.is_some() {
                holds += 1;
            }
        }
        Ok(())
    }

    /// Renews what is held, unless that was done within `since`.
    pub async fn renew_after(&self, since: Duration) -> Result<(), DbErr> {
        let mut renewed = self.renewed.lock().await;
        if renewed.is_some_and(|at| at.elapsed() < since) {
            return Ok(());
        }
        self.renew_held(&mut renewed).await.map(drop)
    }

    /// Renews what is held; what others have by now is dropped. Answers how many it is.
    async fn renew_held(&self, renewed_at: &mut Option<Instant>) -> Result<usize, DbErr> {
        let began = Instant::now();
        let held = self.all_held();
        let renewed = self.renew().await?;
        let mut holds = 0;
        for proof in held {
            match renewed.get(&proof.key) {
                Some((epoch, until)) if *epoch == proof.epoch => {
                    proof.extend(*until);
                    holds += 1;
                }
                _ => self.drop_lease(&proof),
            }
        }
        *renewed_at = Some(began);
        Ok(holds)
    }

    fn all_held(&self) -> Vec<LeaseProof> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.values().cloned().collect()
    }

    /// From now on none is taken; answers those that are held, to be given back.
    pub fn leave(&self) -> Vec<LeaseProof> {
        self.leaving.store(true, Ordering::SeqCst);
        self.all_held()
    }

    /// Whether everything is given back, because the process ends.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// The others need not wait for their next round to take what was given back.
    pub async fn tell_others(&self) -> Result<(), DbErr> {
        if self.db.get_database_backend() != DbBackend::Postgres {
            return Ok(());
        }
        let sql = "SELECT pg_notify('kisi_sync', 'leases')";
        self.execute(sql, []).await
    }

    /// Gives every lease back, so that another replica need not wait for them to run out.
    pub async fn release(&self) -> Result<(), DbErr> {
        let keys: Vec<LeaseProof> = {
            let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
            held.drain().map(|(_, proof)| proof).collect()
        };
        for proof in keys {
            proof.lost.cancel();
            self.free(&proof).await?;
        }
        self.depart().await?;
        self.tell_others().await
    }

    /// No gym wants it any more: it runs out by itself.
    async fn disown(&self, proof: &LeaseProof) -> Result<(), DbErr> {
        let sql = "UPDATE leases SET holder = '' \
             WHERE lease_key = $1 AND holder = $2 AND epoch = $3";
        self.execute(sql, self.values_of(proof)).await
    }

    /// Renews all that this replica has, in one statement however many they are: the epoch of each,
    /// and until when it holds.
    async fn renew(&self) -> Result<HashMap<String, (i64, Instant)>, DbErr> {
        let until = Instant::now() + self.ttl;
        let sql = format!(
            "UPDATE leases SET expires_at = {now} + $1 WHERE holder = $2 \
             RETURNING lease_key, epoch",
            now = self.database_now()
        );
        let values = [self.ttl_micros().into(), self.replica.clone().into()];
        let rows = self.db.query_all_raw(self.statement(&sql, values));
        let rows = self.in_time(rows).await?;
        rows.iter()
            .map(|row| {
                let epoch = row.try_get("", "epoch")?;
                Ok((row.try_get("", "lease_key")?, (epoch, until)))
            })
            .collect()
    }

    /// Above its share a replica takes only what nobody else has taken for a while.
    async fn take(&self, key: &str, above: bool) -> Result<Option<LeaseProof>, DbErr> {
        // Two of this process would find the lease taken: the later one by somebody else, it seems.
        let _alone = self.taking.lock().await;
        if let Some(proof) = self.held(key) {
            return Ok(Some(proof));
        }
        if self.is_leaving() {
            return Ok(None);
        }
        let asked = Instant::now();
        // On SQLite nobody else can hold it.
        let free = match self.db.get_database_backend() {
            DbBackend::Sqlite => "1 = 1".to_owned(),
            _ if above => format!(
                "leases.expires_at < {} - {}",
                self.database_now(),
                self.ttl_micros()
            ),
            _ => format!("leases.expires_at < {}", self.database_now()),
        };
        // Taken by a call that was given up before it knew, it would be renewed for ever and nobody's.
        let free = match self.knows(key) {
            true => free,
            false => format!("({free} OR leases.holder = $2)"),
        };
        let sql = format!(
            // Who lives is not even waited for.
            "INSERT INTO leases (lease_key, holder, address, epoch, expires_at) \
             SELECT $1, $2, $3, 1, {now} + $4 WHERE NOT EXISTS \
             (SELECT 1 FROM leases WHERE lease_key = $1 AND NOT ({free})) \
             ON CONFLICT (lease_key) DO UPDATE SET holder = excluded.holder, \
             address = excluded.address, epoch = leases.epoch + 1, \
             expires_at = excluded.expires_at WHERE {free} RETURNING epoch",
            now = self.database_now()
        );
        let values = [
            key.to_owned().into(),
            self.replica.clone().into(),
            self.address.clone().into(),
            self.ttl_micros().into(),
        ];
        let Some(row) = self.find(&sql, values).await? else {
            return Ok(None);
        };
        let proof = LeaseProof {
            key: key.to_owned(),
            epoch: row.try_get("", "epoch")?,
            valid_until: Arc::new(Mutex::new(asked + self.ttl)),
            going: Arc::default(),
            lost: CancellationToken::new(),
        };
        tracing::info!(lease.key = %key, lease.epoch = proof.epoch, "This replica works on {key} now");
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = held.insert(key.to_owned(), proof.clone()) {
            before.lost.cancel();
        }
        Ok(Some(proof))
    }

    fn drop_lease(&self, proof: &LeaseProof) {
        proof.lost.cancel();
        let key = &proof.key;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        // It may have been given back meanwhile, or taken anew.
        if held.get(key).is_some_and(|held| held.epoch == proof.epoch) {
            held.remove(key);
            tracing::warn!(lease.key = %key, "This replica does not work on {key} any more");
        }
    }

    fn ttl_micros(&self) -> i64 {
        i64::try_from(self.ttl.as_micros()).unwrap_or(i64::MAX / 4)
    }

    fn database_now(&self) -> &'static str {
        match self.db.get_database_backend() {
            DbBackend::Postgres => {
                "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
            }
            _ => "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
        }
    }

    /// What the database answers, if that still helps a lease. A connection whose other end is gone says
    /// nothing for minutes, and the next statement has another one.
    pub async fn in_time<T>(
        &self,
        asked: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        if self.db.get_database_backend() == DbBackend::Sqlite {
            return asked.await;
        }
        let answer = tokio::time::timeout(self.ttl / 3, asked).await;
        let late = || DbErr::Custom("the database has not answered in time".to_owned());
        answer.unwrap_or_else(|_| Err(late()))
    }

    async fn execute<const N: usize>(
        &self,
        sql: &str,
        values: [sea_orm::Value; N],
    ) -> Result<(), DbErr> {
        let done = self.db.execute_raw(self.statement(sql, values));
        self.in_time(done).await.map(drop)
    }

    async fn find<const N: usize>(
        &self,
        sql: &str,
        values: [sea_orm::Value; N],
    ) -> Result<Option<QueryResult>, DbErr> {
        let found = self.db.query_one_raw(self.statement(sql, values));
        self.in_time(found).await
    }

    /// Its key, this replica, its epoch.
    fn values_of(&self, proof: &LeaseProof) -> [sea_orm::Value; 3] {
        [
            proof.key.clone().into(),
            self.replica.clone().into(),
            proof.epoch.into(),
        ]
    }

    fn statement<const N: usize>(&self, sql: &str, values: [sea_orm::Value; N]) -> Statement {
        Statement::from_sql_and_values(self.db.get_database_backend(), sql, values)
    }
}
