//! Pauses and the end of subscriptions, by the provider's time.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{BillingEventKind as Kind, Fact};
use crate::ids::SubscriptionId;

/// A pause that the provider says is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderPause {
    pub since: Timestamp,
    /// When it was last said: staff who resumed before that are overruled by it.
    pub said_at: Timestamp,
    /// When it ends by itself; `None`: when resumed.
    pub until: Option<Timestamp>,
}

/// What a provider said of one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionState {
    pub pause: Option<ProviderPause>,
    /// Final: nothing comes after it.
    pub cancelled_at: Option<Timestamp>,
    /// The latest that any fact said of it, payments included.
    pub last_heard: Timestamp,
}

/// The state of each subscription. In the same instant paused beats resumed: closed is safe, and
/// staff can open.
pub(super) fn read<'a>(
    facts: impl Iterator<Item = &'a Fact>,
) -> BTreeMap<SubscriptionId, SubscriptionState> {
    let mut by_subscription: BTreeMap<&SubscriptionId, Vec<&Fact>> = BTreeMap::new();
    for fact in facts {
        if let Some(id) = &fact.subscription {
            by_subscription.entry(id).or_default().push(fact);
        }
    }
    by_subscription
        .into_iter()
        .map(|(id, mut facts)| {
            let last_heard = facts
                .iter()
                .map(|fact| fact.occurred_at)
                .max()
                .unwrap_or(Timestamp::MIN);
            facts.retain(|fact| {
                matches!(
                    fact.kind,
                    Kind::SubscriptionPaused
                        | Kind::SubscriptionResumed
                        | Kind::SubscriptionCancelled
                )
            });
            facts.sort_by_key(|fact| {
                (
                    fact.occurred_at,
                    fact.kind == Kind::SubscriptionPaused,
                    fact.key(),
                )
            });
            let cancelled_at = facts
                .iter()
                .filter(|fact| fact.kind == Kind::SubscriptionCancelled)
                .map(|fact| fact.occurred_at)
                .min();
            let last = facts
                .iter()
                .rev()
                .find(|fact| fact.kind != Kind::SubscriptionCancelled);
            let pause = last
                .filter(|fact| fact.kind == Kind::SubscriptionPaused)
                .map(|fact| {
                    // Edited while in force, it is as old as its first word.
                    let resumed = facts
                        .iter()
                        .filter(|fact| fact.kind == Kind::SubscriptionResumed)
                        .map(|fact| fact.occurred_at)
                        .max();
                    let since = facts
                        .iter()
                        .filter(|fact| fact.kind == Kind::SubscriptionPaused)
                        .map(|fact| fact.occurred_at)
                        .filter(|at| resumed.is_none_or(|resumed| *at >= resumed))
                        .min()
                        .unwrap_or(fact.occurred_at);
                    ProviderPause {
                        since,
                        said_at: fact.occurred_at,
                        until: fact.ends_at,
                    }
                });
            (
                id.clone(),
                SubscriptionState {
                    pause,
                    cancelled_at,
                    last_heard,
                },
            )
        })
        .collect()
}
