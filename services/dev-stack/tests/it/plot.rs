//! A made-up history of both gyms with all that follows from it: what is put in before, what is
//! posted, and how to hold the end against the history.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dev_stack::roster::Roster;
use dev_stack::seed;
use dev_stack::stack::Stack;
use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::harness::{DEADLINE, start};
use crate::history::{self, Happening, Known, Signed};
use crate::stripe_bodies::{self, Post};
use crate::{observed, reference};

/// What is meant to fail; the rest of the stack has no part in this and is stopped.
pub const TRIED: [&str; 3] = ["nats-server", "membership-events", "billing-webhook"];

/// Both gyms' memberships with what happens to them, all of one seed.
pub struct Plot {
    pub memberships: Vec<Signed>,
    pub history: Vec<Happening>,
    pub posts: Vec<Post>,
}

impl Plot {
    pub fn make_up(webhooks: usize, dice: &mut StdRng) -> Self {
        let mut memberships = Vec::new();
        for roster in [Roster::demo(), Roster::small()] {
            for contract in &roster.contracts {
                // One that nothing but its name links shares its customer with no other.
                let payer = &contract.holders[0];
                let is_alone = roster
                    .contracts
                    .iter()
                    .filter(|it| it.holders[0] == *payer)
                    .count()
                    == 1;
                let known = match dice.random_range(0..10) {
                    0..2 => Known::Late,
                    2 if is_alone => Known::ByName,
                    _ => Known::FromTheStart,
                };
                memberships.push(Signed {
                    gym: roster.gym_id,
                    account: roster.account,
                    contract: contract.clone(),
                    known,
                    is_named: known == Known::ByName || dice.random(),
                    has_old_shapes: dice.random(),
                });
            }
        }
        memberships.shuffle(dice);
        let begin = Timestamp::now() - SignedDuration::from_hours(150 * 24);
        let history = history::make_up(&memberships, webhooks, begin.as_second(), dice);
        let posts = stripe_bodies::tell(&memberships, &history);
        assert!(posts.len() >= webhooks, "{} webhooks", posts.len());
        Self {
            memberships,
            history,
            posts,
        }
    }

    /// Facts among the posts, as (account, event id).
    pub fn facts(&self) -> BTreeSet<(String, String)> {
        let facts = self.posts.iter().filter(|post| post.is_fact);
        facts
            .map(|post| (post.account.to_owned(), post.event_id.clone()))
            .collect()
    }

    /// Puts in whatever is known from the start, which is all but the late ones.
    pub async fn seed(&self, stack: &mut Stack) {
        let known = |membership: &str| {
            let mut signed = self.memberships.iter();
            signed.any(|it| {
                it.contract.membership_id == membership && it.known == Known::FromTheStart
            })
        };
        for roster in [&mut stack.demo, &mut stack.small] {
            roster
                .contracts
                .retain(|contract| known(&contract.membership_id));
        }
        seed::memberships(stack).await.expect("seeded");
        let client = seed::client(stack).await.expect("membership-events");
        for signed in &self.memberships {
            if signed.known == Known::ByName {
                observed::put(client.clone(), signed.clone()).await;
            }
        }
    }

    /// Puts the late ones in.
    pub async fn put_late(&self, stack: &Stack) {
        let client = seed::client(stack).await.expect("membership-events");
        for signed in &self.memberships {
            if signed.known == Known::Late {
                observed::put(client.clone(), signed.clone()).await;
            }
        }
    }

    /// Waits until every fact is in, and holds what is to be seen of everybody against the history.
    pub async fn check(&self, stack: &mut Stack, database_url: &str) {
        let facts = self.facts();
        let deadline = Instant::now() + DEADLINE;
        loop {
            keep_alive(stack);
            let found = observed::inbox(database_url).await;
            if let Some(inbox) = &found
                && inbox.facts == facts
                && inbox.parked == 0
                && inbox.outbox == 0
            {
                break;
            }
            assert!(Instant::now() < deadline, "{}", lacks(&facts, found));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let rosters = [&Roster::demo(), &Roster::small()];
        let expected = reference::outcome(rosters, &self.memberships, &self.history);
        let bus = observed::jetstream(stack).await;
        let published = observed::published(&bus, expected.keys()).await;
        for (member, expected) in &expected {
            assert_eq!(
                published[member].1,
                *expected,
                "{member:?}: {}",
                self.story(member)
            );
        }
        let client = seed::client(stack).await.expect("membership-events");
        let answered = observed::answered(client, expected.keys()).await;
        assert_eq!(answered, published, "gRPC and stream");
        assert_eq!(observed::dead_letters(&bus).await, 0, "dead letters");
        // Where nobody is refused, or everybody, this shows little.
        let closed = expected.values().filter(|seen| !seen.allowed).count();
        assert!(closed > 5 && closed < expected.len(), "{closed} closed");
    }

    /// What happened to a member's memberships, for whoever reads a failure.
    fn story(&self, (gym, member): &reference::Member) -> String {
        let mut lines = String::new();
        for happening in &self.history {
            let signed = &self.memberships[happening.membership];
            if signed.gym == gym && signed.contract.holders.contains(member) {
                let id = &signed.contract.membership_id;
                lines.push_str(&format!("\n{} {id} {:?}", happening.at, happening.what));
            }
        }
        lines
    }
}

fn lacks(facts: &BTreeSet<(String, String)>, found: Option<observed::Inbox>) -> String {
    let Some(inbox) = found else {
        return "the tables cannot be read".into();
    };
    format!(
        "not within {DEADLINE:?}: missing {:?}, too many {:?}, parked {}, in the outbox {}",
        facts.difference(&inbox.facts).collect::<Vec<_>>(),
        inbox.facts.difference(facts).collect::<Vec<_>>(),
        inbox.parked,
        inbox.outbox,
    )
}

/// As whatever runs the services would: what ended by itself is started again.
pub fn keep_alive(stack: &mut Stack) {
    for name in TRIED {
        let child = stack.child(name).expect("it");
        if child.has_ended() {
            child.start_again().expect("started");
        }
    }
}

/// A stack of which only the way from webhook to member runs.
pub async fn stack_to_try(settings: &dev_stack::settings::Settings) -> Stack {
    let mut stack = start(settings).await;
    for name in ["kisi-sync", "access-gateway", "kisi-simulator"] {
        stack.child(name).expect("it").stop().await;
    }
    stack
}
