//! What staff do about money: a payment taken at the desk, a debt written off.
//!
//! Both are facts like a provider's, with the caller's id under the provider `gymflow` and the gym
//! as the account: harmless to repeat, never stale, joined in any order.

use std::collections::BTreeMap;

use access_domain::billing::{BillingEventKind, DebtKey};
use access_domain::ids::{GymId, MembershipId};
use contracts::billing::v1::BillingEvent;
use contracts::wire;

use crate::error::Error;
use crate::fields::Fields;
use crate::requests::{ForgiveInvoice, RecordPayment};
use crate::rows;
use crate::writes::{Change, Facts, Outcome, Verdict};

/// The provider of facts that staff make.
pub const PROVIDER: &str = "gymflow";

/// Money taken at the desk.
pub(crate) fn weigh_payment(payment: &RecordPayment, facts: &Facts) -> Result<Verdict, Error> {
    facts.membership(&payment.membership)?;
    if let Some(currency) = foreign_currency(payment, facts)
        && !facts.is_held(payment)
    {
        let problem = format!("the invoice is in {currency}");
        let mut fields = Fields::new();
        fields.fault("currency", &problem);
        return Err(fields.into_refusal(&problem).into());
    }
    let mut event = staff_event(
        &payment.gym,
        payment.payment.as_str(),
        BillingEventKind::PaymentSucceeded,
        payment.received_at,
    );
    event.payment_id = Some(payment.payment.to_string());
    event.amount_minor = Some(payment.amount_minor);
    event.currency = Some(payment.currency.clone());
    owe(&mut event, debt_of(payment, facts));
    told(event, &payment.membership, facts)
}

/// The debt that is paid: the one named, or the oldest that is open.
fn debt_of(payment: &RecordPayment, facts: &Facts) -> Option<DebtKey> {
    let named = payment.invoice.clone().map(DebtKey::Invoice);
    named.or_else(|| {
        let open = facts.billing(&payment.membership)?.open_debts();
        open.first().map(|(key, _)| (*key).clone())
    })
}

/// The currency of the debt that is paid, where the money is in another one.
pub(crate) fn foreign_currency<'a>(payment: &RecordPayment, facts: &'a Facts) -> Option<&'a str> {
    let key = debt_of(payment, facts)?;
    let debt = facts.billing(&payment.membership)?.debts.get(&key)?;
    let currency = debt.currency.as_deref()?;
    (!currency.eq_ignore_ascii_case(&payment.currency)).then_some(currency)
}

/// A debt written off.
pub(crate) fn weigh_forgive(forgive: &ForgiveInvoice, facts: &Facts) -> Result<Verdict, Error> {
    facts.membership(&forgive.membership)?;
    // What a provider without invoices says is known by the payment's or subscription's id.
    let debts = facts.billing(&forgive.membership);
    let key = debts
        .into_iter()
        .flat_map(|billing| billing.debts.keys())
        .find(|key| debt_id(key) == forgive.invoice.as_str())
        .cloned()
        .unwrap_or_else(|| DebtKey::Invoice(forgive.invoice.clone()));
    let mut event = staff_event(
        &forgive.gym,
        forgive.forgiveness.as_str(),
        BillingEventKind::InvoiceForgiven,
        forgive.forgiven_at.unwrap_or(facts.now),
    );
    event.reason = Some(forgive.reason.clone()).filter(|reason| !reason.is_empty());
    owe(&mut event, Some(key));
    told(event, &forgive.membership, facts)
}

fn told(event: BillingEvent, membership: &MembershipId, facts: &Facts) -> Result<Verdict, Error> {
    let concerned = rows::people(facts.membership(membership)?)?;
    let mut change = Change::about(concerned, Outcome::applied(0, BTreeMap::new()));
    change.fact = Some(event);
    Ok(change.into())
}

fn staff_event(gym: &GymId, id: &str, kind: BillingEventKind, at: jiff::Timestamp) -> BillingEvent {
    BillingEvent {
        event_id: id.to_owned(),
        provider: PROVIDER.to_owned(),
        account: gym.to_string(),
        kind: kind.to_string(),
        occurred_at: Some(wire::timestamp(at)),
        ..BillingEvent::default()
    }
}

/// Says which debt the fact is about.
fn owe(event: &mut BillingEvent, key: Option<DebtKey>) {
    match key {
        Some(DebtKey::Invoice(id)) => event.invoice_id = Some(id.to_string()),
        Some(DebtKey::Payment(id)) => event.payment_id = Some(id.to_string()),
        Some(DebtKey::Subscription(id)) => {
            event.subscription_id = Some(id.to_string());
            event.payment_id = None;
        }
        None => {}
    }
}

fn debt_id(key: &DebtKey) -> &str {
    match key {
        DebtKey::Invoice(id) => id.as_str(),
        DebtKey::Payment(id) => id.as_str(),
        DebtKey::Subscription(id) => id.as_str(),
    }
}
