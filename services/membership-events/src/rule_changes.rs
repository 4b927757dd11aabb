//! A gym's rules have changed: another zone, grace or scope. Everybody is decided about again.
//!
//! That is a page at a time, each in its own transaction, each gym in its turn, and the next one
//! only when few messages are on their way: calls and live events have their turn in between. The
//! first page is the caller's ([`crate::writes::put_gym`]), which for a small gym is everybody. The
//! place is in a row, so that any replica goes on from there; a change that comes meanwhile begins
//! at the first again.
//!
//! Whoever is decided about in between is decided about by the new rules: they are read after the
//! member is locked.

use std::collections::BTreeSet;
use std::time::Duration;

use access_domain::ids::{GymId, MemberId};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::cause::CauseOf;
use crate::error::Error;
use crate::store::entity::rule_changes::Model as RuleChange;
use crate::store::{self, StoreError, from_micros, rule_changes};
use crate::unit::{Decisions, Unit};

/// Between two looks while nothing is to be done here; another replica may have been asked.
const LOOK: Duration = Duration::from_secs(5);
/// After a failure, and while another replica is at it.
const PAUSE: Duration = Duration::from_millis(250);
/// Members per transaction: other writers get their turn in between.
pub(crate) const AT_ONCE: u64 = 100;

/// Goes on with changes of rules until `shutdown`.
pub async fn run(decisions: Decisions, shutdown: CancellationToken) {
    loop {
        let wait = match round(&decisions, &shutdown).await {
            Ok(wait) => wait,
            Err(error) => {
                error!(
                    "A change of rules could not go on: {}",
                    service_runtime::lifecycle::chain(&error)
                );
                PAUSE
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = decisions.rule_changes().notified() => {}
        }
    }
}

/// Of each gym one page. Answers how long to wait for the next.
async fn round(decisions: &Decisions, shutdown: &CancellationToken) -> Result<Duration, Error> {
    let (mut left, mut done) = (false, false);
    for gym in rule_changes::list_gyms(decisions.store().reads()).await? {
        left = true;
        let stood_back = shutdown.run_until_cancelled(decisions.stand_back());
        if stood_back.await.is_none() {
            break;
        }
        done |= go_on(decisions, &gym.0).await?;
    }
    Ok(match (left, done) {
        (true, true) => Duration::ZERO,
        (true, false) => PAUSE,
        (false, _) => LOOK,
    })
}

/// Decides about one page; false where another replica does.
async fn go_on(decisions: &Decisions, gym: &GymId) -> Result<bool, Error> {
    let page = || async {
        let mut unit = decisions.begin(CauseOf::Timer).await?;
        let Some(row) = rule_changes::claim(unit.db(), gym).await? else {
            return Ok(false);
        };
        unit.set_cause(cause(&row));
        decide_page(&mut unit, gym, &row.after).await?;
        unit.commit().await?;
        Ok(true)
    };
    match decisions.retrying(page).await {
        Err(error) if !matches!(error, Error::Store(StoreError::Database { .. })) => {
            error!(
                gym.id = %gym,
                "A page of gym {gym} is decided about one by one: {}",
                service_runtime::lifecycle::chain(&error)
            );
            one_by_one(decisions, gym).await
        }
        done => done,
    }
}

/// Decides about the members after `after`, a page of them, and keeps how far that is. The gym's row
/// must be locked.
pub(crate) async fn decide_page(
    unit: &mut Unit<'_>,
    gym: &GymId,
    after: &str,
) -> Result<(), Error> {
    let page = list_page(unit, gym, after).await?;
    unit.decide(gym, &page.iter().cloned().collect()).await?;
    Ok(keep_place(unit, gym, &page).await?)
}

async fn list_page(unit: &Unit<'_>, gym: &GymId, after: &str) -> Result<Vec<MemberId>, StoreError> {
    let page = store::members::list_ids(unit.db(), gym, after, AT_ONCE).await?;
    Ok(page.into_iter().map(|key| key.0).collect())
}

async fn keep_place(unit: &Unit<'_>, gym: &GymId, page: &[MemberId]) -> Result<(), StoreError> {
    match page.last() {
        Some(last) if page.len() as u64 == AT_ONCE => {
            rule_changes::advance(unit.db(), gym, last).await
        }
        _ => rule_changes::delete(unit.db(), gym).await,
    }
}

/// A row that makes no sense keeps nobody else from being decided about.
async fn one_by_one(decisions: &Decisions, gym: &GymId) -> Result<bool, Error> {
    let unit = decisions.begin(CauseOf::Timer).await?;
    let Some(row) = rule_changes::claim(unit.db(), gym).await? else {
        return Ok(false);
    };
    let page = list_page(&unit, gym, &row.after).await?;
    drop(unit);
    for member in &page {
        let one: BTreeSet<MemberId> = [member.clone()].into();
        let decided = decisions.retrying(|| async {
            let mut unit = decisions.begin(cause(&row)).await?;
            unit.decide(gym, &one).await?;
            unit.commit().await.map(drop)
        });
        match decided.await {
            Err(error) if !matches!(error, Error::Store(StoreError::Database { .. })) => error!(
                gym.id = %gym, member.id = %member,
                "Member {member} of gym {gym} could not be decided about: {}",
                service_runtime::lifecycle::chain(&error)
            ),
            decided => decided?,
        }
    }
    let unit = decisions.begin(CauseOf::Timer).await?;
    let held = rule_changes::claim(unit.db(), gym).await?;
    // Unless the rules have changed again meanwhile.
    if held.is_some_and(|held| held == row) {
        keep_place(&unit, gym, &page).await?;
        unit.commit().await?;
    }
    Ok(true)
}

fn cause(row: &RuleChange) -> CauseOf {
    CauseOf::Call {
        rpc: "PutGym",
        actor: row.actor.clone(),
        at: from_micros(row.changed_at),
        confirmed: false,
        traceparent: row.traceparent.clone(),
    }
}
