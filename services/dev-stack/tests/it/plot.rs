//! A made-up history of both gyms with all that follows from it: what is put in before, what is
//! posted, and how to hold the end against the history.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use dev_stack::roster::Roster;
use dev_stack::seed;
use dev_stack::stack::Stack;
use futures_util::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::gocardless_bodies::{self, NOBODYS_ACCOUNT};
use crate::harness::DEADLINE;
use crate::history::{self, Happening, Known, Provider, Signed};
use crate::post::{FactId, Post};
use crate::processes::{ORGANISATIONS, keep_alive};
use crate::tables::{self, Tables};
use crate::{observed, reference, stripe_bodies};

/// Memberships of both gyms with what happens to them, all of one seed.
pub struct Plot {
    /// Those who hold them.
    pub rosters: [Roster; 2],
    pub memberships: Vec<Signed>,
    pub history: Vec<Happening>,
    pub posts: Vec<Post>,
}

impl Plot {
    pub fn make_up(webhooks: usize, dice: &mut StdRng) -> Self {
        let mut rosters = [Roster::demo(), Roster::small()];
        let mut memberships = memberships(&rosters, dice);
        let begin = Timestamp::now() - SignedDuration::from_hours(150 * 24);
        // As many happenings as it takes: a body of GoCardless's may tell of several.
        let (history, mut posts) = (webhooks..)
            .step_by(webhooks / 8)
            .take(16)
            .map(|enough| {
                let mut dice = dice.clone();
                let history = history::make_up(&memberships, enough, begin.as_second(), &mut dice);
                let mut posts = stripe_bodies::tell(&memberships, &history);
                posts.extend(gocardless_bodies::tell(&memberships, &history, &mut dice));
                (history, posts)
            })
            .find(|(_, posts)| posts.len() >= webhooks)
            .expect("enough memberships for so many webhooks");
        posts.sort_by_key(|post| post.at);
        leave_out_strangers(&mut rosters, &mut memberships, &history);
        Self {
            rosters,
            memberships,
            history,
            posts,
        }
    }

    /// All that is told of in the posts.
    pub fn facts(&self) -> BTreeSet<FactId> {
        let facts = self.posts.iter().flat_map(|post| &post.facts);
        facts.cloned().collect()
    }

    /// Those that can never be anybody's.
    fn nobodys(&self) -> BTreeSet<FactId> {
        let facts = self.facts().into_iter();
        facts.filter(|(_, it, _)| it == NOBODYS_ACCOUNT).collect()
    }

    /// Puts in whatever is known from the start, which is all but the late ones.
    pub async fn seed(&self, stack: &mut Stack) {
        let rosters = [&mut stack.demo, &mut stack.small];
        let plotted = self.rosters.iter().zip(ORGANISATIONS);
        for (roster, (plotted, organisation)) in rosters.into_iter().zip(plotted) {
            roster.accounts.push(("gocardless", organisation));
            roster.people.clone_from(&plotted.people);
            roster.contracts.clear();
        }
        seed::memberships(stack).await.expect("seeded");
        self.put(stack, |known| known != Known::Late).await;
    }

    /// Puts the late ones in.
    pub async fn put_late(&self, stack: &Stack) {
        self.put(stack, |known| known == Known::Late).await;
    }

    async fn put(&self, stack: &Stack, which: impl Fn(Known) -> bool) {
        let client = seed::client(stack).await.expect("membership-events");
        let some = self.memberships.iter().filter(|it| which(it.known));
        stream::iter(some.cloned())
            .for_each_concurrent(8, |signed| observed::put(client.clone(), signed))
            .await;
    }

    /// Waits until every fact is in, and holds what is to be seen of everybody against the history.
    /// The versions last published, by member.
    pub async fn check(
        &self,
        stack: &mut Stack,
        database_url: &str,
    ) -> BTreeMap<reference::Member, i64> {
        let (facts, nobodys) = (self.facts(), self.nobodys());
        // Of thousands the last comes late on a busy machine: what must not be is that nothing comes.
        let (mut deadline, mut known) = (Instant::now() + DEADLINE, 0);
        loop {
            keep_alive(stack);
            let found = tables::read(database_url).await;
            let come = found.as_ref().map_or(0, |tables| tables.facts.len());
            if come > known {
                (deadline, known) = (Instant::now() + DEADLINE, come);
            }
            if let Some(tables) = &found
                && tables.facts == facts
                && tables.parked == nobodys
                && tables.outbox == 0
            {
                break;
            }
            assert!(Instant::now() < deadline, "{}", lacks(&facts, found));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let expected = reference::outcome(&self.rosters, &self.memberships, &self.history);
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
        let answered = observed::answered(client.clone(), expected.keys()).await;
        assert_eq!(answered, published, "gRPC and stream");
        let listed = observed::unmatched(client.clone(), "").await;
        assert_eq!(listed, nobodys, "unmatched, of no gym");
        for gym in [stack.demo.gym_id, stack.small.gym_id] {
            let listed = observed::unmatched(client.clone(), gym).await;
            assert_eq!(listed, BTreeSet::new(), "unmatched, of {gym}");
        }
        assert_eq!(observed::dead_letters(&bus).await, 0, "dead letters");
        // Where nobody is refused, or everybody, this shows little.
        let closed = expected.values().filter(|seen| !seen.allowed).count();
        assert!(closed > 5 && closed < expected.len(), "{closed} closed");
        let versions = published.into_iter();
        versions
            .map(|(member, (version, _))| (member, version))
            .collect()
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

/// Every contract, paid in one way or the other, in some order.
fn memberships(rosters: &[Roster; 2], dice: &mut StdRng) -> Vec<Signed> {
    let mut memberships = Vec::new();
    for (roster, organisation) in rosters.iter().zip(ORGANISATIONS) {
        for contract in &roster.contracts {
            // One that nothing but its name links shares its customer with no other.
            let payer = &contract.holders[0];
            let mut others = roster.contracts.iter();
            let is_alone = others
                .all(|it| it.holders[0] != *payer || it.membership_id == contract.membership_id);
            let known = match dice.random_range(0..10) {
                0..2 => Known::Late,
                2 if is_alone => Known::ByName,
                _ => Known::FromTheStart,
            };
            let card = Signed {
                gym: roster.gym_id,
                provider: Provider::Stripe,
                account: roster.account,
                contract: contract.clone(),
                mandate: None,
                known,
                is_named: known == Known::ByName || dice.random(),
                has_old_shapes: dice.random(),
            };
            memberships.push(if dice.random() {
                card
            } else {
                by_direct_debit(card, organisation)
            });
        }
    }
    memberships.shuffle(dice);
    memberships
}

/// Leaves out who has nothing to do with anything that happens: short plots need not put in all.
fn leave_out_strangers(
    rosters: &mut [Roster; 2],
    memberships: &mut Vec<Signed>,
    history: &[Happening],
) {
    let concerned = history.iter().map(|it| it.membership).max().unwrap_or(0);
    for roster in rosters.iter_mut() {
        let mine = memberships[..=concerned].iter();
        let mine: Vec<_> = mine.filter(|it| it.gym == roster.gym_id).collect();
        let concerns = |id: &String| mine.iter().any(|it| it.contract.holders.contains(id));
        roster.people.retain(|person| concerns(&person.member_id));
    }
    // The places of the others stay as they are: the history names them.
    let mut place = 0;
    memberships.retain(|signed| {
        place += 1;
        let holders = &signed.contract.holders;
        place <= concerned + 1 || holders.iter().all(|it| is_in(rosters, signed.gym, it))
    });
}

fn is_in(rosters: &[Roster; 2], gym: &str, member: &str) -> bool {
    let mut gyms = rosters.iter().filter(|roster| roster.gym_id == gym);
    gyms.any(|roster| roster.person(member).is_some())
}

/// The same membership, paid by direct debit.
fn by_direct_debit(card: Signed, organisation: &'static str) -> Signed {
    let key = card
        .contract
        .membership_id
        .replacen("ms_", "", 1)
        .to_uppercase();
    let mut signed = Signed {
        provider: Provider::GoCardless,
        account: organisation,
        mandate: Some(format!("MD00{key}")),
        ..card
    };
    signed.contract.subscription_id = format!("SB00{key}");
    signed.contract.customer_id = format!("CU00{key}");
    signed
}

fn lacks(facts: &BTreeSet<FactId>, found: Option<Tables>) -> String {
    let Some(tables) = found else {
        return "the tables cannot be read".into();
    };
    format!(
        "none for {DEADLINE:?}: missing {:?}, too many {:?}, parked {:?}, in the outbox {}",
        facts.difference(&tables.facts).collect::<Vec<_>>(),
        tables.facts.difference(facts).collect::<Vec<_>>(),
        tables.parked,
        tables.outbox,
    )
}
