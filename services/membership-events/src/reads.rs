//! What others may read: people with the decision about each, versions, unmatched billing.
//!
//! Reads see committed rows only and take no locks. Pages go by id, so that a page after another
//! skips nobody who was there all along.

use std::collections::BTreeSet;

use access_domain::ids::{GymId, MemberId, MembershipId};
use contracts::billing::v1::BillingEvent;
use contracts::membership::v1::{Member, OpenInvoice, UnmatchedBilling};
use contracts::wire;

use crate::error::Error;
use crate::invoices;
use crate::rows;
use crate::store::billing::Parked;
use crate::store::entity::{billing_events, members};
use crate::store::members::Wanted;
use crate::store::{self, Store, from_micros};

/// Rows looked at for one page of a filtered list, before the next is asked for.
const SCAN: u64 = 500;

/// One member, with the open invoices where they are wanted; `None` for an unknown one.
pub async fn member(
    store: &Store,
    gym: &GymId,
    member: &MemberId,
    with_invoices: bool,
) -> Result<Option<Member>, Error> {
    let Some(row) = store::members::find(store.reads(), gym, member).await? else {
        return Ok(None);
    };
    let mut found = to_member(&row)?;
    if with_invoices {
        found.open_invoices = open_invoices(store, gym, member).await?;
    }
    Ok(Some(found))
}

/// Open invoices that close doors for this member: of memberships held and of those paid for.
async fn open_invoices(
    store: &Store,
    gym: &GymId,
    member: &MemberId,
) -> Result<Vec<OpenInvoice>, Error> {
    let one = BTreeSet::from([member.clone()]);
    let rows = store::memberships::list_of_people(store.reads(), gym, &one).await?;
    let mut ids: BTreeSet<MembershipId> = BTreeSet::new();
    let mut paid_for: BTreeSet<String> = BTreeSet::new();
    for row in &rows {
        if rows::membership(row)?.payer() == Some(member) {
            paid_for.insert(row.membership_id.0.to_string());
        }
        ids.insert(row.membership_id.0.clone());
    }
    let events = store::links::list_linked(store.reads(), gym, &ids).await?;
    let mut open = invoices::list_open(events)?;
    for invoice in &mut open {
        // Whoever holds the link sees the invoice: it is the payer's alone.
        if !paid_for.contains(&invoice.membership_id) {
            invoice.payment_url = None;
        }
    }
    Ok(open)
}

fn to_member(row: &members::Model) -> Result<Member, Error> {
    Ok(Member {
        gym_id: row.gym_id.to_string(),
        member_id: row.member_id.to_string(),
        email: row.email.clone(),
        name: row.name.clone(),
        source_version: row.source_version,
        state: rows::state(row)?,
        open_invoices: Vec::new(),
        erased: row.erased,
    })
}

/// What a list of members is filtered by.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Part of a name or an e-mail.
    pub query: Option<String>,
    /// A membership has this status.
    pub status: Option<String>,
    /// This reason holds.
    pub reason: Option<String>,
}

impl Filter {
    fn wants(&self, member: &Member) -> bool {
        let state = member.state.as_ref();
        let found = self.query.as_ref().is_none_or(|query| {
            let query = query.to_lowercase();
            [&member.email, &member.name]
                .into_iter()
                .any(|text| text.to_lowercase().contains(&query))
        });
        let status = self.status.as_ref().is_none_or(|status| {
            state.is_some_and(|state| state.memberships.iter().any(|m| m.status == *status))
        });
        let reason = self
            .reason
            .as_ref()
            .is_none_or(|reason| state.is_some_and(|state| state.reasons.contains(reason)));
        found && status && reason
    }
}

/// Looks that a gym is known, where a list came out empty.
pub async fn check_known(store: &Store, gym: &GymId) -> Result<(), Error> {
    match store::gyms::find(store.reads(), gym).await? {
        None => Err(Error::Unknown("gym")),
        Some(_) => Ok(()),
    }
}

/// A page of members, without their invoices, and the id after which the next page begins.
pub async fn list(
    store: &Store,
    gym: &GymId,
    filter: &Filter,
    after: Option<String>,
    page_size: usize,
) -> Result<(Vec<Member>, Option<String>), Error> {
    let mut wanted = Wanted {
        query: filter.query.clone(),
        decided: filter.status.is_some() || filter.reason.is_some(),
        after,
    };
    let mut page = Vec::new();
    loop {
        let scanned = store::members::list(store.reads(), gym, &wanted, SCAN).await?;
        let is_last = (scanned.len() as u64) < SCAN;
        for row in scanned {
            if page.len() == page_size {
                return Ok((page, wanted.after));
            }
            wanted.after = Some(row.member_id.to_string());
            let mut member = to_member(&row)?;
            if member.erased {
                // Only who asks for this very person may still have to know.
                member.email.clear();
                member.name.clear();
            }
            if filter.wants(&member) {
                page.push(member);
            }
        }
        if is_last {
            return Ok((page, None));
        }
    }
}

/// Billing events that nothing claims: of a gym's accounts, or, without a gym, of accounts that no
/// gym claims. Oldest first, with the offset after which the next page begins.
pub async fn list_unmatched(
    store: &Store,
    gym: Option<&GymId>,
    after: Option<Parked>,
    page_size: u64,
) -> Result<Vec<UnmatchedBilling>, Error> {
    let accounts = match gym {
        Some(gym) => Some(store::gyms::list_accounts(store.reads(), gym).await?),
        None => None,
    };
    let rows =
        store::billing::list_parked(store.reads(), accounts.as_deref(), after, page_size).await?;
    rows.into_iter().map(to_unmatched).collect()
}

fn to_unmatched(row: billing_events::Model) -> Result<UnmatchedBilling, Error> {
    let mut event: BillingEvent =
        serde_json::from_str(&row.event).map_err(|_| rows::nonsense_event(&row))?;
    event.payment_url = None;
    Ok(UnmatchedBilling {
        event: Some(event),
        parked_at: row.parked_at.map(|at| wire::timestamp(from_micros(at))),
        why: row.parked_why.unwrap_or_default(),
    })
}
