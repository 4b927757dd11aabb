//! Linking by hand: what staff know of a billing event that nothing else says.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::linking::{self, Touched};
use crate::requests::LinkBilling;
use crate::store::billing::Keys;
use crate::store::{self, locks};
use crate::unit::Decisions;
use crate::writes::{By, Outcome, lock_membership};

/// Gives an event that waits, or that only its mandate or customer links, to a membership, and with
/// it what is said of the same invoice or payment. A repeat changes nothing.
///
/// # Errors
/// [`Error::Unknown`] for an unknown gym, membership or event; [`Error::Refused`] when the account
/// is not the gym's or the event is another membership's for certain.
pub async fn link_billing(
    decisions: &Decisions,
    by: &By,
    link: LinkBilling,
) -> Result<Outcome, Error> {
    decisions
        .retrying(|| link_billing_once(decisions, by, &link))
        .await
}

async fn link_billing_once(
    decisions: &Decisions,
    by: &By,
    link: &LinkBilling,
) -> Result<Outcome, Error> {
    let mut unit = decisions.begin(by.cause(decisions)).await?;
    let (provider, account) = (link.provider.as_str(), link.account.as_str());
    let row = store::billing::find(unit.db(), provider, account, link.event.as_str())
        .await?
        .ok_or(Error::Unknown("billing event"))?;
    let keys = Keys::of_row(&row);
    // What an event is known by never changes: the locks may be taken by what was just read.
    locks::take(
        unit.db(),
        linking::lock_names(&keys),
        [
            linking::gym_lock(&link.gym),
            linking::account_lock(provider, account),
        ]
        .into(),
    )
    .await?;
    lock_membership(&unit, &link.gym, &link.membership).await?;
    let accounts = store::gyms::list_accounts(unit.db(), &link.gym).await?;
    if !accounts
        .iter()
        .any(|(p, a)| (p.as_str(), a.as_str()) == (provider, account))
    {
        return Err(Error::Refused(
            "the event's account is not one of the gym's billing_accounts".to_owned(),
        ));
    }
    let held = store::billing::list_tied(unit.db(), &keys, &row.event_id)
        .await?
        .into_iter()
        .find(|held| held.row.event_id == row.event_id)
        .ok_or(Error::Unknown("billing event"))?;
    let pair = ((&link.gym).into(), (&link.membership).into());
    if !held.is_loose() && held.links != BTreeSet::from([pair.clone()]) {
        return Err(Error::Refused(
            "the event is another membership's: only one that waits can be linked by hand"
                .to_owned(),
        ));
    }
    let mut touched =
        Touched::from([(link.gym.clone(), BTreeSet::from([link.membership.clone()]))]);
    let now = unit.now();
    linking::settle_by_hand(unit.db(), &held, pair, now, &mut touched).await?;
    linking::decide_touched(&mut unit, &touched).await?;
    let members = unit.commit().await?;
    Ok(Outcome::applied(0, members))
}
