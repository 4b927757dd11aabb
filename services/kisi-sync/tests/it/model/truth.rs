//! Who was entitled to what and when, by what was decided and told; nothing here knows kisi-sync.
//!
//! What is told by the bus is to be acted upon at once. What was decided and not told, and what
//! another mapping changed, is to be acted upon by a pass; so it is due at the end of one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kisi_simulator::rows::Assignment;

/// Microseconds since 1970.
pub type Micros = i64;

/// Before and after everything.
pub const EVER: (Micros, Micros) = (Micros::MIN, Micros::MAX);

pub fn now() -> Micros {
    Timestamp::now().as_microsecond()
}

/// One version of a member's state.
#[derive(Debug, Clone)]
pub struct Decision {
    pub version: i64,
    /// It may be in force from here on, and the one before it no longer is from `told` on.
    pub made: Micros,
    pub told: Micros,
    /// Plan to the end of its access.
    pub plans: BTreeMap<String, Option<Micros>>,
    /// Whether the bus has it; else only a comparison of versions finds it.
    pub is_on_bus: bool,
    pub erases: bool,
}

/// Plan to group, as one call set them.
#[derive(Debug, Clone)]
pub struct Mapping {
    pub made: Micros,
    pub told: Micros,
    pub groups: BTreeMap<String, i64>,
}

impl Mapping {
    fn gives(&self, decision: &Decision, group: i64) -> bool {
        let mut plans = decision.plans.keys();
        plans.any(|plan| self.groups.get(plan) == Some(&group))
    }
}

#[derive(Debug, Default)]
pub struct Person {
    /// The last one is hers now.
    pub emails: Vec<String>,
    pub decisions: Vec<Decision>,
}

impl Person {
    pub fn is_erased(&self) -> bool {
        self.decisions.last().is_some_and(|last| last.erases)
    }

    pub fn email(&self) -> &str {
        self.emails.last().map_or("", String::as_str)
    }
}

/// A time in which a member was not entitled to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub from: Micros,
    pub until: Micros,
    /// When it was to be acted upon; None while nothing has said so to kisi-sync.
    pub due: Option<Micros>,
}

/// Everything that was decided, done by hand, and known to be in the way.
#[derive(Debug, Default)]
pub struct Truth {
    pub people: BTreeMap<String, Person>,
    pub mappings: Vec<Mapping>,
    /// Beginning and end of each pass that ended well.
    pub passes: Vec<(Micros, Micros)>,
    /// Times in which nobody could have acted.
    pub excused: Vec<(Micros, Micros)>,
    /// Rights that people gave in Kisi's pages and did not take back, as they gave them.
    pub by_hand: BTreeMap<i64, Assignment>,
    /// All that people ever gave.
    pub ever_by_hand: Vec<i64>,
}

impl Truth {
    /// Who has, or had, this e-mail.
    pub fn member_of(&self, email: &str) -> Option<&str> {
        let mut people = self.people.iter();
        let found = people.find(|(_, person)| person.emails.iter().any(|known| known == email));
        found.map(|(member, _)| member.as_str())
    }

    /// Group to the end of access, as it is to be in the end.
    pub fn wanted(&self, person: &Person) -> BTreeMap<i64, Option<Micros>> {
        let (Some(decision), Some(mapping)) = (person.decisions.last(), self.mappings.last())
        else {
            return BTreeMap::new();
        };
        let mut wanted = BTreeMap::new();
        for (plan, until) in &decision.plans {
            let Some(group) = mapping.groups.get(plan) else {
                continue;
            };
            wanted
                .entry(*group)
                .and_modify(|known: &mut Option<Micros>| *known = later(*known, *until))
                .or_insert(*until);
        }
        wanted
    }

    /// Whether a version gives this group by a mapping that was in force at a moment of `between`.
    pub fn gives(&self, decision: &Decision, group: i64, between: (Micros, Micros)) -> bool {
        self.mappings.iter().enumerate().any(|(at, mapping)| {
            let until = self.mappings.get(at + 1).map_or(EVER.1, |next| next.told);
            mapping.made <= between.1 && until >= between.0 && mapping.gives(decision, group)
        })
    }

    /// When the member was not entitled to the group. Where it is not known to the moment, she was.
    pub fn gaps(&self, person: &Person, group: i64) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let mut from = EVER.0;
        for (begins, ends) in self.spans(person, group) {
            if begins > from {
                gaps.push(self.gap(person, from, begins));
            }
            from = from.max(ends);
        }
        if from < EVER.1 {
            gaps.push(self.gap(person, from, EVER.1));
        }
        gaps
    }

    /// The same by decision and mapping, sorted, perhaps one over the other.
    fn spans(&self, person: &Person, group: i64) -> Vec<(Micros, Micros)> {
        let mut spans = Vec::new();
        for (index, decision) in person.decisions.iter().enumerate() {
            let next = person.decisions.get(index + 1);
            for (at, mapping) in self.mappings.iter().enumerate() {
                if !mapping.gives(decision, group) {
                    continue;
                }
                let mut decided = next.map_or(EVER.1, |next| next.told);
                let mapped = self.mappings.get(at + 1).map_or(EVER.1, |next| next.told);
                let from = decision.made.max(mapping.made);
                if let Some(next) = next.filter(|next| !next.is_on_bus && next.told <= from) {
                    // A mapping made before anybody has heard of the next one gives what this one has.
                    decided = self.heard(person, next);
                }
                let until = decided.min(mapped);
                if from < until {
                    spans.push((from, until));
                }
            }
        }
        spans.sort_unstable();
        spans
    }

    /// When at the latest there was word of a decision that is not on the bus: of a later one that is, or by
    /// a comparison of versions.
    fn heard(&self, person: &Person, decision: &Decision) -> Micros {
        let later = person.decisions.iter().filter(|one| one.is_on_bus);
        let later = later
            .map(|one| one.told)
            .find(|told| *told >= decision.told);
        let looked = self.passes.iter();
        let looked = looked.filter(|(begun, _)| *begun >= decision.told);
        let looked = looked.map(|(_, ended)| *ended).min();
        later.into_iter().chain(looked).min().unwrap_or(EVER.1)
    }

    fn gap(&self, person: &Person, from: Micros, until: Micros) -> Gap {
        let told = person.decisions.iter().filter(|one| one.is_on_bus);
        let told = told.map(|one| one.told).find(|told| *told >= from);
        let looked = self.passes.iter().filter(|(begun, _)| *begun >= from);
        let looked = looked.map(|(_, ended)| *ended).min();
        let due = match from {
            // Never entitled at all: there was nothing to wait for.
            from if from == EVER.0 => Some(from),
            _ => told.into_iter().chain(looked).min(),
        };
        Gap {
            from,
            until,
            due: due.filter(|due| *due < until),
        }
    }

    /// The moment by which `allowed` has passed since `from`, what is excused not counted.
    pub fn deadline(&self, from: Micros, allowed: Micros) -> Micros {
        if from == EVER.0 {
            return from;
        }
        let mut excused = self.excused.clone();
        excused.sort_unstable();
        let mut deadline = from.saturating_add(allowed);
        let mut counted = from;
        for (begun, ended) in excused {
            let begun = begun.max(counted);
            if begun >= deadline {
                break;
            }
            if ended > begun {
                deadline = deadline.saturating_add(ended - begun);
                counted = ended;
            }
        }
        deadline
    }
}

fn later(a: Option<Micros>, b: Option<Micros>) -> Option<Micros> {
    Some(a?.max(b?))
}

#[test]
fn a_gap_is_due_when_it_was_told_and_its_deadline_leaves_out_what_is_excused() {
    let decision = |version, at, plans: &[&str], is_on_bus| Decision {
        version,
        made: at,
        told: at + 1,
        plans: plans
            .iter()
            .map(|plan| ((*plan).to_owned(), None))
            .collect(),
        is_on_bus,
        erases: false,
    };
    let ada = Person {
        emails: vec!["ada@example.com".to_owned()],
        decisions: vec![
            decision(1, 10, &["gold"], true),
            decision(2, 20, &[], true),
            decision(3, 30, &["gold", "pool"], true),
            decision(4, 40, &["pool"], false),
        ],
    };
    let groups = BTreeMap::from([("gold".to_owned(), 7)]);
    let mut truth = Truth {
        mappings: vec![Mapping {
            made: 0,
            told: 0,
            groups,
        }],
        excused: vec![(90, 100), (22, 25), (24, 27)],
        ..Truth::default()
    };
    let gap = |from, until, due| Gap { from, until, due };
    let never = gap(EVER.0, 10, Some(EVER.0));
    let told = gap(21, 30, Some(21));
    let unheard = gap(41, EVER.1, None);
    assert_eq!(truth.gaps(&ada, 7), [never.clone(), told.clone(), unheard]);
    assert_eq!(truth.gaps(&ada, 8).len(), 1);
    // A pass that had begun before says nothing; the next does.
    truth.passes = vec![(39, 45), (50, 60)];
    let looked = gap(41, EVER.1, Some(60));
    assert_eq!(truth.gaps(&ada, 7), [never, told, looked]);
    // What a mapping gives before there is word of the last one was hers.
    truth.mappings.push(Mapping {
        made: 43,
        told: 44,
        groups: BTreeMap::from([("gold".to_owned(), 9)]),
    });
    let given = [gap(EVER.0, 43, Some(EVER.0)), gap(60, EVER.1, None)];
    assert_eq!(truth.gaps(&ada, 9), given);
    assert_eq!(truth.deadline(21, 4), 30);
    assert_eq!(truth.deadline(50, 4), 54);
    assert_eq!(truth.deadline(88, 4), 102);
    assert_eq!(truth.wanted(&ada), BTreeMap::new());
}
