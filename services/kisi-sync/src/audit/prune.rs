//! The log is kept for 13 months. What is older goes from the front of the chain, and a checkpoint
//! at its end says up to where and with which hash, so that what is left can still be verified.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use sea_orm::{
    ColumnTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder, TransactionTrait,
};

use super::{Entry, append};
use crate::store::audit::{Column, Entity};
use crate::store::{instant, members::Cause, micros};

/// Since when rows are kept: 13 months before `now`, by the calendar in UTC.
pub fn kept_since(now: Timestamp) -> Timestamp {
    now.to_zoned_datetime(TimeZone::UTC)
        .checked_sub(13.months())
        .map_or(Timestamp::MIN, |then| then.timestamp())
}

/// Removes the gym's rows that are older; answers how many.
pub async fn prune(db: &DatabaseConnection, gym: &str, now: i64) -> Result<u64, DbErr> {
    let line = micros(kept_since(instant(now)));
    let txn = db.begin().await?;
    let rows = || Entity::find().filter(Column::GymId.eq(gym));
    let oldest = rows().order_by_asc(Column::Seq).one(&txn).await?;
    if oldest.is_none_or(|row| row.at >= line) {
        txn.commit().await?;
        return Ok(0);
    }
    // Rows are in the order of their instants, so what is older is the front of the chain.
    let kept = rows().filter(Column::At.gte(line));
    let kept = kept.order_by_asc(Column::Seq).one(&txn).await?;
    let older = rows().filter(Column::Seq.lt(kept.map_or(i64::MAX, |row| row.seq)));
    let last = older.order_by_desc(Column::Seq).one(&txn).await?;
    let Some(last) = last else {
        txn.commit().await?;
        return Ok(0);
    };
    let checkpoint = Entry::new("checkpoint")
        .detail(&format!("{} {}", last.seq, last.hash))
        .caused_by(Cause::new("retention", "", None));
    append(&txn, gym, &[checkpoint], now).await?;
    let removed = Entity::delete_many()
        .filter(Column::GymId.eq(gym))
        .filter(Column::Seq.lte(last.seq))
        .exec(&txn)
        .await?;
    txn.commit().await?;
    Ok(removed.rows_affected)
}
