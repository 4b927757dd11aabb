//! Calls that wait at the same time, in one transaction; a lone one is a group of one.
//!
//! All is read before anything is written, in one statement for each kind of row, and what is
//! written is written so. Each call is weighed by itself: an older one, or one that is refused,
//! takes nothing from its neighbours. Left to be taken alone, after the group, is a call that is
//! about somebody whom an earlier one of the group is about, so that a decision has one cause, and
//! a membership that billing events may have waited for. A group that fails is taken one by one.

use std::collections::{BTreeMap, BTreeSet};

use access_domain::ids::{GymId, MemberId, MembershipId};
use tracing::debug;

use super::call::{Call, Write};
use super::membership::wanted;
use super::{Change, Facts, Outcome, Verdict};
use crate::cause::Causes;
use crate::error::Error;
use crate::linking::{self, Touched};
use crate::store::billing::{self, Keys};
use crate::store::entity::billing_events;
use crate::store::links::{self, Pair};
use crate::store::{bulk, former_payers};
use crate::unit::{Decisions, Unit};

/// What comes of a call in a group; `None` where it has to be taken alone.
type Taken = Option<Result<Outcome, Error>>;

/// Takes what can be taken together.
pub(super) async fn take(decisions: &Decisions, calls: &[Call]) -> Vec<Taken> {
    match decisions.retrying(|| take_once(decisions, calls)).await {
        Ok(taken) => taken,
        Err(error) => {
            debug!(calls = calls.len(), "Calls are taken one by one: {error}");
            calls.iter().map(|_| None).collect()
        }
    }
}

/// Takes one call, whatever it is.
pub(super) async fn take_alone(decisions: &Decisions, call: &Call) -> Result<Outcome, Error> {
    let calls = std::slice::from_ref(call);
    let taken = decisions.retrying(|| take_once(decisions, calls)).await?;
    let taken = taken.into_iter().next().flatten();
    taken.unwrap_or(Err(Error::NotTogether))
}

async fn take_once(decisions: &Decisions, calls: &[Call]) -> Result<Vec<Taken>, Error> {
    let Some(first) = calls.first() else {
        return Ok(Vec::new());
    };
    let gym = first.write.gym();
    let causes = match calls {
        [one] => Causes::One((*one.cause).clone()),
        _ => Causes::OfPeople(BTreeMap::new()),
    };
    let mut unit = decisions.begin(causes).await?;
    let Some(mut facts) = Facts::read(&unit, gym, calls).await? else {
        let unknown = |_| Some(Err(Error::Unknown("gym")));
        return Ok(calls.iter().map(unknown).collect());
    };
    let mut group = Group::weigh(calls, &facts)?;
    let claimable = group.find_claimable(&unit, &facts).await?;
    if group.is_about_nothing() {
        return Ok(group.into_taken(&BTreeMap::new()));
    }
    group.write(&unit, gym).await?;
    let concerned = group.concerned();
    if claimable.is_empty() {
        for (call, change) in group.changes() {
            unit.add_cause_of(&change.concerned, &call.cause);
        }
        let people = facts.take_people(&concerned, &group.overrides());
        unit.decide_locked(gym, &people).await?;
    } else {
        let mut touched = Touched::new();
        for rows in claimable {
            linking::settle_held(unit.db(), rows, unit.now(), &mut touched).await?;
        }
        // Other memberships can be touched as well, through invoices that two of them share.
        linking::decide_touched(&mut unit, &touched).await?;
        unit.decide(gym, &concerned).await?;
    }
    let versions = unit.commit().await?;
    Ok(group.into_taken(&versions))
}

/// What a call of a group came to.
enum Weighed {
    /// It is taken alone.
    Left,
    /// Nothing is written for it.
    Answered(Result<Outcome, Error>),
    Change(Box<Change>),
}

struct Group<'a> {
    calls: &'a [Call],
    weighed: Vec<Weighed>,
}

impl<'a> Group<'a> {
    fn weigh(calls: &'a [Call], facts: &Facts) -> Result<Self, Error> {
        let mut taken: BTreeSet<MemberId> = BTreeSet::new();
        let mut weighed = Vec::with_capacity(calls.len());
        for call in calls {
            let mut people = facts.concerned(call)?;
            let is_free = people.is_disjoint(&taken);
            // What is left for later holds the next ones back, too.
            taken.append(&mut people);
            weighed.push(if !is_free {
                Weighed::Left
            } else {
                match call.weigh(facts) {
                    Ok(Verdict::Change(change)) => Weighed::Change(change),
                    Ok(Verdict::Stale(outcome)) => Weighed::Answered(Ok(outcome)),
                    Err(error) => Weighed::Answered(Err(error)),
                }
            });
        }
        Ok(Self { calls, weighed })
    }

    fn changes(&self) -> impl Iterator<Item = (&'a Call, &Change)> {
        self.calls
            .iter()
            .zip(&self.weighed)
            .filter_map(|pair| match pair {
                (call, Weighed::Change(change)) => Some((call, &**change)),
                _ => None,
            })
    }

    fn is_about_nothing(&self) -> bool {
        self.changes().next().is_none()
    }

    fn concerned(&self) -> BTreeSet<MemberId> {
        let concerned = self.changes().flat_map(|(_, change)| &change.concerned);
        concerned.cloned().collect()
    }

    fn overrides(&self) -> Vec<(MemberId, String)> {
        let overrides = self
            .changes()
            .filter_map(|(_, change)| change.overrides.clone());
        overrides.collect()
    }

    /// The events, account by account, that memberships with new references may claim. In a group
    /// such memberships are left to be taken alone, and it answers none.
    async fn find_claimable(
        &mut self,
        unit: &Unit<'_>,
        facts: &Facts,
    ) -> Result<Vec<Vec<billing_events::Model>>, Error> {
        let puts: Vec<_> = self
            .changes()
            .filter(|(_, change)| change.references.is_some())
            .filter_map(|(call, _)| match &call.write {
                Write::Membership(put) => Some(put),
                _ => None,
            })
            .collect();
        let mut accounts: BTreeSet<(&str, &str)> = BTreeSet::new();
        if !puts.is_empty() {
            let own = facts.accounts.iter();
            accounts.extend(own.map(|(provider, account)| (provider.as_str(), account.as_str())));
        }
        let references = puts.iter().filter_map(|put| put.billing.as_ref());
        accounts.extend(references.map(|of| (of.provider.as_str(), of.account.as_str())));
        let mut found = Vec::new();
        for (provider, account) in accounts {
            let all = wanted(puts.iter().copied(), provider, account);
            let rows = bulk::list_claimable(unit.db(), provider, account, &all).await?;
            if !rows.is_empty() {
                found.push(((provider.to_owned(), account.to_owned()), rows));
            }
        }
        if self.calls.len() > 1 {
            for ((provider, account), rows) in found.drain(..) {
                self.leave_claimants(&provider, &account, &rows);
            }
        }
        Ok(found.into_iter().map(|(_, rows)| rows).collect())
    }

    fn leave_claimants(&mut self, provider: &str, account: &str, rows: &[billing_events::Model]) {
        for (call, weighed) in self.calls.iter().zip(&mut self.weighed) {
            let Write::Membership(put) = &call.write else {
                continue;
            };
            let wanted = wanted([put], provider, account);
            if rows.iter().any(|row| wanted.claims(row)) {
                *weighed = Weighed::Left;
            }
        }
    }

    async fn write(&self, unit: &Unit<'_>, gym: &GymId) -> Result<(), Error> {
        let db = unit.db();
        let changes = || self.changes().map(|(_, change)| change);
        let people: Vec<_> = changes().filter_map(|of| of.person.clone()).collect();
        bulk::put_people(db, gym, &people).await?;
        bulk::put_overrides(db, gym, &self.overrides()).await?;
        let rows: Vec<_> = changes().filter_map(|of| of.membership.clone()).collect();
        bulk::put_memberships(db, &rows).await?;
        let (mut known, mut pairs) = (BTreeSet::new(), Vec::new());
        let (mut referring, mut references) = (BTreeSet::new(), Vec::new());
        let mut former_payers = Vec::new();
        for change in changes() {
            let Some(id) = change.membership.as_ref().map(|row| &row.membership_id.0) else {
                continue;
            };
            if let Some(people) = &change.people {
                pairs.extend(people.iter().map(|member| (id.clone(), member.clone())));
                known.extend((!change.is_new).then(|| id.clone()));
            }
            let former = change.former_payer.iter();
            former_payers.extend(former.map(|member| (id.clone(), member.clone())));
            if let Some(new) = &change.references {
                references.extend(new.iter().cloned());
                referring.extend((!change.is_new).then(|| id.clone()));
            }
        }
        bulk::replace_people(db, gym, &known, &pairs).await?;
        former_payers::insert(db, gym, &former_payers).await?;
        bulk::replace_references(db, gym, &referring, &references).await?;
        self.write_facts(unit, gym).await
    }

    /// Keeps facts of staff under their ids. A repeat changes nothing, whatever it would be about
    /// by now.
    async fn write_facts(&self, unit: &Unit<'_>, gym: &GymId) -> Result<(), Error> {
        let facts = self.changes().filter_map(|(call, change)| {
            let membership: &MembershipId = call.write.membership()?;
            Some((membership, change.fact.as_ref()?))
        });
        let facts: Vec<_> = facts.collect();
        let mut rows = Vec::with_capacity(facts.len());
        for (_, event) in &facts {
            let json = serde_json::to_string(event).map_err(Error::Json)?;
            rows.push((*event, json, unit.now()));
        }
        let new = billing::insert_each(unit.db(), &rows).await?;
        let pairs: Vec<(&_, Pair)> = facts
            .iter()
            .filter(|(_, event)| new.contains(&event.event_id))
            .map(|(membership, event)| (*event, (gym.into(), (*membership).into())))
            .collect();
        let links: Vec<_> = pairs
            .iter()
            .map(|(event, pair)| (Keys::of_event(event), event.event_id.as_str(), pair))
            .collect();
        Ok(links::link_each(unit.db(), &links).await?)
    }

    /// What is answered, when that is committed.
    fn into_taken(self, versions: &BTreeMap<MemberId, i64>) -> Vec<Taken> {
        let is_alone = self.calls.len() == 1;
        let taken = |weighed| match weighed {
            Weighed::Left => None,
            Weighed::Answered(answer) => Some(answer),
            Weighed::Change(change) => {
                let Change {
                    mut outcome,
                    concerned,
                    ..
                } = *change;
                let its = versions
                    .iter()
                    .filter(|(member, _)| is_alone || concerned.contains(*member));
                outcome
                    .members
                    .extend(its.map(|(id, version)| (id.clone(), *version)));
                Some(Ok(outcome))
            }
        };
        self.weighed.into_iter().map(taken).collect()
    }
}
