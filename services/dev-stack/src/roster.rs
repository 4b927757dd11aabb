//! The demo gym: who is in it and what they hold. Generated, and the same at every start.

use jiff::civil::{Date, date};

/// The demo gym's id.
pub const GYM: &str = "demo";
/// The small second gym's id.
pub const OTHER_GYM: &str = "demo-two";
/// The Stripe account that bills the demo gym.
pub const ACCOUNT: &str = "acct_default";
/// The Stripe account of the second gym.
pub const OTHER_ACCOUNT: &str = "acct_two";
/// The account of the demo gym's own sender of Standard Webhooks.
pub const DESK_ACCOUNT: &str = "acct_desk";
/// Both gyms' zone.
pub const TIME_ZONE: &str = "Europe/London";
/// First day of every membership; long past, so that all are in force.
pub const STARTS_ON: Date = date(2026, 1, 5);

/// The plan of most members.
pub const OPEN_GYM: &str = "open-gym";
/// The other plan.
pub const CLASSES: &str = "classes";

/// A person.
#[derive(Clone, Debug)]
pub struct Person {
    pub member_id: String,
    pub name: String,
    pub email: String,
}

/// A contract.
#[derive(Clone, Debug)]
pub struct Contract {
    pub membership_id: String,
    pub plan_id: &'static str,
    /// The first one pays.
    pub holders: Vec<String>,
    pub subscription_id: String,
    pub customer_id: String,
}

/// A gym's people and contracts.
#[derive(Clone, Debug)]
pub struct Roster {
    pub gym_id: &'static str,
    pub name: &'static str,
    /// Its Stripe account.
    pub account: &'static str,
    /// Every billing account that is its own: (provider, account).
    pub accounts: Vec<(&'static str, &'static str)>,
    pub people: Vec<Person>,
    pub contracts: Vec<Contract>,
}

impl Roster {
    /// 240 members: 130 with `open-gym`, 110 with `classes`; the last 12 of each plan also hold the
    /// other, and six pairs share a family membership besides their own.
    pub fn demo() -> Self {
        let mut roster = Self::empty(GYM, "Harbour Street Gym", ACCOUNT);
        roster.accounts.push(("standard", DESK_ACCOUNT));
        for number in 1..=240 {
            let plan = if number <= 130 { OPEN_GYM } else { CLASSES };
            roster.join("m", number, plan);
        }
        for number in 119..=130 {
            roster.also("m", number, CLASSES, "b");
        }
        for number in 229..=240 {
            roster.also("m", number, OPEN_GYM, "b");
        }
        for pair in 0..6 {
            let first = 107 + 2 * pair;
            roster.also("m", first, CLASSES, "family");
            if let Some(shared) = roster.contracts.last_mut() {
                shared.holders.push(member_id("m", first + 1));
            }
        }
        roster
    }

    /// Eight members with one plan.
    pub fn small() -> Self {
        let mut roster = Self::empty(OTHER_GYM, "Quay Yard Gym", OTHER_ACCOUNT);
        for number in 1..=8 {
            roster.join("q", number, OPEN_GYM);
        }
        roster
    }

    /// One row for each (member, membership).
    pub fn rows(&self) -> impl Iterator<Item = (&Person, &Contract)> {
        self.contracts.iter().flat_map(|contract| {
            self.people
                .iter()
                .filter(|person| contract.holders.contains(&person.member_id))
                .map(move |person| (person, contract))
        })
    }

    /// The person with this id.
    pub fn person(&self, member_id: &str) -> Option<&Person> {
        self.people
            .iter()
            .find(|person| person.member_id == member_id)
    }

    fn empty(gym_id: &'static str, name: &'static str, account: &'static str) -> Self {
        Self {
            gym_id,
            name,
            account,
            accounts: vec![("stripe", account)],
            people: Vec::new(),
            contracts: Vec::new(),
        }
    }

    fn join(&mut self, prefix: &str, number: u32, plan: &'static str) {
        let member_id = member_id(prefix, number);
        self.people.push(Person {
            name: format!("Member {number}"),
            email: format!("{member_id}@{}.example.com", self.gym_id),
            member_id,
        });
        self.also(prefix, number, plan, "a");
    }

    fn also(&mut self, prefix: &str, number: u32, plan: &'static str, which: &str) {
        let key = format!("{prefix}{number:04}{which}");
        self.contracts.push(Contract {
            membership_id: format!("ms_{key}"),
            plan_id: plan,
            holders: vec![member_id(prefix, number)],
            subscription_id: format!("sub_{key}"),
            customer_id: format!("cus_{prefix}{number:04}"),
        });
    }
}

fn member_id(prefix: &str, number: u32) -> String {
    format!("{prefix}_{number:04}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn demo_gym_has_two_large_plans_shared_and_double_memberships() {
        let roster = Roster::demo();
        for plan in [OPEN_GYM, CLASSES] {
            let holders = roster
                .contracts
                .iter()
                .filter(|c| c.plan_id == plan)
                .count();
            assert!(holders >= 100, "{plan}: {holders}");
        }
        assert_eq!(
            roster
                .contracts
                .iter()
                .filter(|c| c.holders.len() > 1)
                .count(),
            6
        );
        let subscriptions: BTreeSet<_> = roster
            .contracts
            .iter()
            .map(|c| &c.subscription_id)
            .collect();
        assert_eq!(
            subscriptions.len(),
            roster.contracts.len(),
            "one subscription each"
        );
        assert_eq!(roster.rows().count(), 240 + 24 + 6 * 2);
        let own = |person: &Person| {
            roster
                .contracts
                .iter()
                .any(|c| c.holders.first() == Some(&person.member_id))
        };
        assert!(
            roster.people.iter().all(own),
            "each pays for one of her own"
        );
    }
}
