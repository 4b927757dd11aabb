//! The reference: what was heard by an instant is replayed, and from there time is stepped through
//! one gym-day at a time.

use std::collections::{BTreeMap, BTreeSet};

use super::days::Days;
use super::debts;
use super::story::{Answer, Contract, Day, Held, Minute, Said, Saying, Story};

/// A gym as it is known at an instant. It may be asked about that instant and later ones.
pub struct Known<'a> {
    story: &'a Story,
    days: &'a Days,
    contracts: Vec<KnownContract<'a>>,
}

#[derive(Default)]
struct Pause {
    from: Day,
    until: Option<Day>,
    resumed: Option<Minute>,
}

/// A provider's subscription.
#[derive(Default)]
struct Subscription {
    /// A pause, and when it ends by itself.
    pause: Option<Option<Minute>>,
    cancelled: Option<Minute>,
    heard_of: Minute,
}

struct KnownContract<'a> {
    contract: &'a Contract,
    pauses: BTreeMap<u8, Pause>,
    cancelled: Option<(Minute, Option<Day>)>,
    reference: u8,
    subscriptions: BTreeMap<u8, Subscription>,
    oldest_debt: Option<Minute>,
}

impl<'a> Known<'a> {
    /// What is known `now`.
    pub fn at(story: &'a Story, days: &'a Days, now: Minute) -> Self {
        let contracts = story
            .contracts
            .iter()
            .map(|contract| KnownContract::replay(contract, days, now))
            .collect();
        Self {
            story,
            days,
            contracts,
        }
    }

    /// What `member` may do at `time`.
    pub fn answer(&self, member: u8, time: Minute) -> Answer {
        let barred = self.override_until(member, true, time).is_some();
        let let_in = self.override_until(member, false, time);
        let mut plans = BTreeMap::new();
        let mut reasons = BTreeSet::new();
        let mut held = Vec::new();
        let mut by_staff = false;
        for (number, known) in self.contracts.iter().enumerate() {
            if !known.contract.holders.contains(&member) {
                continue;
            }
            let one = self.held(number, member, time);
            reasons.extend(one.reasons.iter().copied());
            if self.opens(&one, let_in) {
                by_staff |= !one.opens;
                plans.insert(one.plan, self.opens_until(member, one.plan, time));
            }
            held.push(one);
        }
        if held.is_empty() {
            reasons.insert("no_membership");
        }
        if barred {
            plans.clear();
        }
        if !plans.is_empty() {
            reasons.clear();
            if by_staff {
                reasons.insert("let_in_by_staff");
            }
        }
        if barred {
            reasons.insert("barred_by_staff");
        }
        Answer {
            plans,
            reasons: reasons.into_iter().collect(),
            held,
        }
    }

    /// The first instant after `time` at which time alone makes another answer of it: day by day,
    /// and in each at whatever was said to happen in it.
    pub fn changes_at(&self, member: u8, time: Minute) -> Option<Minute> {
        let now = self.answer(member, time);
        let mut named: BTreeSet<Minute> = BTreeSet::new();
        for held in &self.story.overrides {
            named.extend([held.from, held.until]);
        }
        for known in &self.contracts {
            named.extend(known.oldest_debt.map(|since| since + self.story.grace));
            for subscription in known.subscriptions.values() {
                named.extend(subscription.pause.flatten());
            }
        }
        let all = self.days.all();
        for (index, begins) in all.iter().enumerate() {
            let ends = all.get(index + 1).copied().unwrap_or(Minute::MAX);
            let in_it = named.iter().filter(|at| (*begins..ends).contains(*at));
            let steps = std::iter::once(begins).chain(in_it);
            for step in steps.filter(|step| **step > time) {
                if self.answer(member, *step) != now {
                    return Some(*step);
                }
            }
        }
        None
    }

    fn override_until(&self, member: u8, bars: bool, time: Minute) -> Option<Minute> {
        let in_force = self.story.overrides.iter().filter(|held| {
            held.member == member && held.bars == bars && (held.from..held.until).contains(&time)
        });
        in_force.map(|held| held.until).max()
    }

    /// Staff open despite debt or pause, and nothing that has not begun or is over.
    fn opens(&self, one: &Held, let_in: Option<Minute>) -> bool {
        one.opens || (let_in.is_some() && one.status != "pending" && one.status != "ended")
    }

    /// Until when a plan that opens at `time` goes on to, by ends that are known.
    fn opens_until(&self, member: u8, plan: u8, time: Minute) -> Option<Minute> {
        let let_in = self.override_until(member, false, time);
        let mut longest = None;
        for (number, known) in self.contracts.iter().enumerate() {
            if !known.contract.holders.contains(&member) {
                continue;
            }
            let one = self.held(number, member, time);
            if one.plan != plan || !self.opens(&one, let_in) {
                continue;
            }
            let end = known.end(self.days);
            let end = match one.opens {
                true => end?,
                false => end.into_iter().chain(let_in).min()?,
            };
            longest = longest.max(Some(end));
        }
        // Where it opens at that very end, it goes on.
        let end = longest?;
        let barred = self.override_until(member, true, end).is_some();
        let let_in = self.override_until(member, false, end);
        let goes_on = !barred
            && self.contracts.iter().enumerate().any(|(number, known)| {
                known.contract.holders.contains(&member) && {
                    let one = self.held(number, member, end);
                    one.plan == plan && self.opens(&one, let_in)
                }
            });
        match goes_on {
            true => self.opens_until(member, plan, end),
            false => Some(end),
        }
    }

    fn held(&self, number: usize, member: u8, time: Minute) -> Held {
        let known = &self.contracts[number];
        let contract = known.contract;
        let is_closed_by = |debt: &KnownContract<'_>| {
            let closes = debt.oldest_debt.map(|since| since + self.story.grace);
            closes.filter(|at| *at <= time)
        };
        let mut overdue_since = is_closed_by(known);
        let mut is_overdue = known.oldest_debt.is_some();
        if self.story.debts_follow_the_payer && contract.payer() == member {
            for other in &self.contracts {
                if let (true, Some(since)) = (other.contract.payer() == member, is_closed_by(other))
                {
                    overdue_since = Some(overdue_since.map_or(since, |at| at.min(since)));
                    is_overdue = true;
                }
            }
        }
        let end = known.end(self.days);
        let is_ended = end.is_some_and(|end| end <= time);
        let is_pending = time < self.days.begins(contract.starts);
        let paused_until = known.paused_until(self.days, time);
        let is_cancelled = known.cancelled.is_some() || (contract.ends.is_none() && end.is_some());
        let reasons: Vec<&'static str> = [
            (overdue_since.is_some(), "missed_payment"),
            (is_ended, "membership_ended"),
            (is_pending, "membership_not_started"),
            (paused_until.is_some(), "membership_paused"),
        ]
        .into_iter()
        .filter_map(|(holds, reason)| holds.then_some(reason))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
        let status = match () {
            () if is_ended => "ended",
            () if is_pending => "pending",
            () if paused_until.is_some() => "paused",
            () if is_overdue => "overdue",
            () if is_cancelled => "cancelling",
            () => "active",
        };
        let plan = match contract.next_plan {
            Some((plan, from)) if self.days.begins(from) <= time => plan,
            _ => contract.plan,
        };
        let cancelled_on = known.cancelled.and_then(|(_, ends)| ends);
        Held {
            contract: number,
            plan,
            status,
            opens: reasons.is_empty(),
            reasons,
            starts: contract.starts,
            ends: contract.ends.into_iter().chain(cancelled_on).min(),
            paused_until: paused_until.flatten(),
            overdue_since,
        }
    }
}

impl<'a> KnownContract<'a> {
    fn replay(contract: &'a Contract, days: &Days, now: Minute) -> Self {
        let heard = contract.said.iter().filter(|saying| saying.heard <= now);
        let heard: Vec<&Saying> = heard.collect();
        let mut known = Self {
            contract,
            pauses: BTreeMap::new(),
            cancelled: None,
            reference: 0,
            subscriptions: BTreeMap::new(),
            oldest_debt: debts::oldest_open(&heard),
        };
        for saying in heard {
            known.hear(saying, days);
        }
        known
    }

    fn hear(&mut self, saying: &Saying, days: &Days) {
        let at = saying.at;
        if let Some(of) = saying.what.subscription() {
            self.subscriptions.entry(of).or_default().heard_of = at;
        }
        let subscription = |of: &u8, all: &'_ mut BTreeMap<u8, Subscription>| {
            all.remove(of).expect("it was heard of")
        };
        match &saying.what {
            Said::Pause { id, from, until } => {
                let held = self.pauses.entry(*id).or_insert_with(|| Pause {
                    from: *from,
                    ..Pause::default()
                });
                let has_begun = held.resumed.is_none() && days.begins(held.from) <= at;
                // Once it has begun, its end alone can be changed.
                if !has_begun || held.from == *from {
                    (held.from, held.until, held.resumed) = (*from, *until, None);
                }
            }
            Said::Resume { id: Some(id) } => {
                if let Some(held) = self.pauses.get_mut(id) {
                    held.resumed = Some(at);
                }
            }
            Said::Resume { id: None } => {
                for held in self.pauses.values_mut() {
                    if days.begins(held.from) <= at && held.resumed.is_none() {
                        held.resumed = Some(at);
                    }
                }
                for held in self.subscriptions.values_mut() {
                    held.pause = None;
                }
            }
            // Said again, it does not move.
            Said::Cancel { ends } if self.cancelled.is_some_and(|(_, held)| held == *ends) => {}
            Said::Cancel { ends } => self.cancelled = Some((at, *ends)),
            Said::TakeBack => self.cancelled = None,
            Said::NewReference if self.contract.names_subscription => self.reference += 1,
            Said::Paused {
                subscription: of,
                until,
            } => {
                let mut held = subscription(of, &mut self.subscriptions);
                held.pause = Some(*until);
                self.subscriptions.insert(*of, held);
            }
            Said::Resumed { subscription: of } => {
                let mut held = subscription(of, &mut self.subscriptions);
                held.pause = None;
                self.subscriptions.insert(*of, held);
            }
            Said::Cancelled { subscription: of } => {
                let mut held = subscription(of, &mut self.subscriptions);
                held.cancelled = Some(held.cancelled.map_or(at, |earlier| earlier.min(at)));
                self.subscriptions.insert(*of, held);
            }
            _ => {}
        }
    }

    /// The subscription that the membership goes by: the one its reference names; where that names
    /// none, the one last heard of that is not over.
    fn subscription(&self) -> Option<&Subscription> {
        if self.contract.names_subscription {
            return self.subscriptions.get(&self.reference);
        }
        let all = self.subscriptions.iter();
        all.max_by_key(|(of, held)| (held.cancelled.is_none(), held.heard_of, **of))
            .map(|(_, held)| held)
    }

    fn end(&self, days: &Days) -> Option<Minute> {
        let by_term = self.contract.ends.map(|last| days.begins(last + 1));
        let by_cancellation = self
            .cancelled
            .map(|(at, last)| last.map_or(at, |last| days.begins(last + 1)));
        let by_provider = self.subscription().and_then(|held| held.cancelled);
        let ends = [by_term, by_cancellation, by_provider];
        ends.into_iter().flatten().min()
    }

    /// Whether it is paused, and if so until when, the last of all pauses.
    fn paused_until(&self, days: &Days, time: Minute) -> Option<Option<Minute>> {
        let club = self.pauses.values().filter_map(|pause| {
            let from = days.begins(pause.from);
            let ends = [pause.until.map(|day| days.begins(day)), pause.resumed];
            let until = ends.into_iter().flatten().min();
            (from <= time && until.is_none_or(|until| time < until)).then_some(until)
        });
        let provider = self.subscription().and_then(|held| held.pause);
        let provider = provider.filter(|until| until.is_none_or(|until| time < until));
        club.chain(provider)
            .max_by_key(|until| until.unwrap_or(Minute::MAX))
    }
}
