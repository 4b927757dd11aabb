//! What staff do about money: a payment taken at the desk, a debt written off.
//!
//! Both are facts like a provider's, with the caller's id under the provider `gymflow` and the gym
//! as the account: harmless to repeat, never stale, joined in any order.

use std::collections::BTreeSet;

use access_domain::billing::{BillingEventKind, DebtKey};
use access_domain::ids::{GymId, MembershipId};
use contracts::billing::v1::BillingEvent;
use contracts::wire;

use crate::decide;
use crate::error::Error;
use crate::fields::Fields;
use crate::requests::{ForgiveInvoice, RecordPayment};
use crate::store;
use crate::store::billing::Keys;
use crate::unit::{Decisions, Unit};
use crate::writes::{By, Outcome, decide_membership, lock_membership};

/// The provider of facts that staff make.
pub const PROVIDER: &str = "gymflow";

/// Money taken at the desk.
pub async fn record_payment(
    decisions: &Decisions,
    by: &By,
    payment: RecordPayment,
) -> Result<Outcome, Error> {
    decisions
        .retrying(|| record_payment_once(decisions, by, &payment))
        .await
}

async fn record_payment_once(
    decisions: &Decisions,
    by: &By,
    payment: &RecordPayment,
) -> Result<Outcome, Error> {
    let unit = decisions.begin(by.cause(decisions)).await?;
    lock_membership(&unit, &payment.gym, &payment.membership).await?;
    let billing = decide::billing_of(unit.db(), &payment.gym, &payment.membership).await?;
    let named = payment.invoice.clone().map(DebtKey::Invoice);
    let oldest = || billing.open_debts().first().map(|(key, _)| (*key).clone());
    let key = named.or_else(oldest);
    let debt = key.as_ref().and_then(|key| billing.debts.get(key));
    if let Some(currency) = debt.and_then(|debt| debt.currency.as_ref())
        && !currency.eq_ignore_ascii_case(&payment.currency)
        && !is_held(&unit, &payment.gym, payment.payment.as_str()).await?
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
    owe(&mut event, key);
    take(unit, event, &payment.gym, &payment.membership).await
}

/// A debt written off.
pub async fn forgive_invoice(
    decisions: &Decisions,
    by: &By,
    forgive: ForgiveInvoice,
) -> Result<Outcome, Error> {
    decisions
        .retrying(|| forgive_invoice_once(decisions, by, &forgive))
        .await
}

async fn forgive_invoice_once(
    decisions: &Decisions,
    by: &By,
    forgive: &ForgiveInvoice,
) -> Result<Outcome, Error> {
    let unit = decisions.begin(by.cause(decisions)).await?;
    lock_membership(&unit, &forgive.gym, &forgive.membership).await?;
    let billing = decide::billing_of(unit.db(), &forgive.gym, &forgive.membership).await?;
    // What a provider without invoices says is known by the payment's or subscription's id.
    let key = billing
        .debts
        .keys()
        .find(|key| debt_id(key) == forgive.invoice.as_str())
        .cloned()
        .unwrap_or_else(|| DebtKey::Invoice(forgive.invoice.clone()));
    let mut event = staff_event(
        &forgive.gym,
        forgive.forgiveness.as_str(),
        BillingEventKind::InvoiceForgiven,
        forgive.forgiven_at.unwrap_or_else(|| unit.now()),
    );
    event.reason = Some(forgive.reason.clone()).filter(|reason| !reason.is_empty());
    owe(&mut event, Some(key));
    take(unit, event, &forgive.gym, &forgive.membership).await
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

async fn is_held(unit: &Unit<'_>, gym: &GymId, id: &str) -> Result<bool, Error> {
    let held = store::billing::find(unit.db(), PROVIDER, gym.as_str(), id).await?;
    Ok(held.is_some())
}

/// Keeps the fact under its id; a repeat changes nothing, whatever it would be about by now.
async fn take(
    unit: Unit<'_>,
    event: BillingEvent,
    gym: &GymId,
    membership: &MembershipId,
) -> Result<Outcome, Error> {
    let json = serde_json::to_string(&event).map_err(Error::Json)?;
    if store::billing::insert(unit.db(), &event, json, unit.now()).await? {
        let pairs = BTreeSet::from([(gym.into(), membership.into())]);
        let keys = Keys::of_event(&event);
        store::links::link(unit.db(), &keys, &event.event_id, &pairs).await?;
    }
    let members = decide_membership(unit, gym, membership).await?;
    Ok(Outcome::applied(0, members))
}
