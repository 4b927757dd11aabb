//! Open invoices, as pages and staff are shown them.

use std::collections::BTreeMap;

use access_domain::billing::DebtKey;
use contracts::membership::v1::OpenInvoice;
use contracts::wire;
use jiff::Timestamp;

use crate::decide::{billing_states, fact_of};
use crate::error::Error;
use crate::store::keys::MembershipKey;

/// Open invoices in events given as (membership, event JSON), oldest first.
pub fn list_open(events: Vec<(MembershipKey, String)>) -> Result<Vec<OpenInvoice>, Error> {
    let mut accounts: BTreeMap<String, (String, String)> = BTreeMap::new();
    for (_, json) in &events {
        if let Some(fact) = fact_of(json)
            && fact.provider.as_str() != crate::desk::PROVIDER
        {
            for id in [
                fact.invoice.as_ref().map(|id| id.as_str()),
                fact.payment.as_ref().map(|id| id.as_str()),
                fact.subscription.as_ref().map(|id| id.as_str()),
            ]
            .into_iter()
            .flatten()
            {
                let account = (fact.provider.to_string(), fact.account.to_string());
                accounts.insert(id.to_owned(), account);
            }
        }
    }
    let mut open: Vec<(Timestamp, OpenInvoice)> = Vec::new();
    for (membership, state) in billing_states(events)? {
        for (key, debt) in state.open_debts() {
            let Some(since) = debt.open_since else {
                continue;
            };
            let id = match key {
                DebtKey::Invoice(id) => id.to_string(),
                DebtKey::Payment(id) => id.to_string(),
                DebtKey::Subscription(id) => id.to_string(),
            };
            let (provider, account) = accounts.get(&id).cloned().unwrap_or_default();
            open.push((
                since,
                OpenInvoice {
                    membership_id: membership.to_string(),
                    provider,
                    account,
                    invoice_id: id,
                    open_since: Some(wire::timestamp(since)),
                    amount_due_minor: debt.amount_due_minor,
                    currency: debt.currency.clone(),
                    payment_url: debt.payment_url.clone(),
                    next_attempt_at: debt.next_attempt_at.map(wire::timestamp),
                },
            ));
        }
    }
    open.sort_by(|a, b| (a.0, &a.1.invoice_id).cmp(&(b.0, &b.1.invoice_id)));
    Ok(open.into_iter().map(|(_, invoice)| invoice).collect())
}
