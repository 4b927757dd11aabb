//! What a replica did whose lease has gone meanwhile: the one that works on the gym now is told.
//!
//! A process that is held still, or a request that takes its time at Kisi, may end after others have
//! looked at that member and believe to know what stands. Nothing of it may go into the tables that
//! they go by. But a right that was given, or may have been, stands there as ours, or nobody would take
//! it back; and the member is looked at again.

use std::collections::BTreeMap;
use std::time::Duration;

use sea_orm::{DbErr, TransactionTrait};

use super::{Attempt, Engine};
use crate::hints;
use crate::record::{self, Change};
use crate::store::applied_grants::{self, STANDING, UNKNOWN};
use crate::store::members::{self, Cause, LEASE_LOST};
use crate::worker::Urgency;

/// A process that was held still finds its connections closed at first.
const TRIES: usize = 4;
const BETWEEN_TRIES: Duration = Duration::from_millis(500);

impl Engine {
    /// Asks for another look at the member. Whoever dies before that leaves it to the next pass.
    pub(super) async fn hand_over(&self, attempt: &Attempt) {
        let (gym, member) = (&self.gym, &attempt.snapshot.member.member_id);
        for _ in 0..TRIES {
            match self.try_hand_over(attempt).await {
                Ok(()) => {
                    tracing::info!(gym.id = %gym, member.id = %member,
                        "Member {member} is looked at again: a request ended after its lease");
                    return;
                }
                Err(error) => {
                    tracing::warn!(gym.id = %gym, member.id = %member, error = %error,
                        "Another look at member {member} cannot be asked for");
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
            }
        }
    }

    async fn try_hand_over(&self, attempt: &Attempt) -> Result<(), DbErr> {
        let (gym, member) = (&self.gym, &attempt.snapshot.member.member_id);
        let txn = self.shared.db.begin().await?;
        for row in given(&attempt.changes) {
            let is_held = match row.assignment_id {
                Some(id) => applied_grants::holders(&txn, row.organization_id, id).await? > 0,
                None => false,
            };
            if !is_held {
                applied_grants::insert(&txn, row.clone()).await?;
            }
        }
        let cause = Cause::new(LEASE_LOST, self.lease.key(), None);
        members::look_again(&txn, gym, member, &cause, self.shared.now()).await?;
        hints::give(&txn, gym, member, Urgency::Revoke).await?;
        record::log(&txn, gym, &attempt.changes, None, self.shared.now()).await?;
        txn.commit().await
    }
}

/// Rows as they were left, of rights that stand or may stand.
fn given(changes: &[Change]) -> impl Iterator<Item = &applied_grants::Model> {
    let rows = changes.iter().filter_map(|change| match change {
        Change::Row(row) => Some((row.id, row)),
        _ => None,
    });
    let last: BTreeMap<i64, &applied_grants::Model> = rows.collect();
    let rows = last.into_values();
    rows.filter(|row| [STANDING, UNKNOWN].contains(&row.state.as_str()))
}
