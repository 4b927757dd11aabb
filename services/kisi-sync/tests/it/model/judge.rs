//! What is wrong, from what was decided and what was seen; empty when all is well.
//!
//! A right is ours when no hand gave it: whatever stands on a group and was made through the API was
//! made by kisi-sync. Its own tables are not asked.

use std::collections::{BTreeMap, BTreeSet};

use contracts::wire;

use super::truth::{Gap, Micros, Person, Truth, now};
use super::watch::{Right, Seen, Told};

/// From the moment that a loss is due to the right's end, with nothing in the way: the request is
/// the next one out, so this is the machine's share.
pub const ALLOWED: Micros = 5_000_000;

/// What was on its way to Kisi when a later version came is no work by an old one. One that a third
/// version overtakes is answered while it is.
pub const IN_FLIGHT: Micros = 1_000_000;

/// Something is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Complaint {
    /// Granted without entitlement for longer than is explained.
    Overstays { member: String, right: i64 },
    /// Granted after a version was answered that does not give it, nor one since.
    Stale { member: String, right: i64 },
    /// Ours, and not wanted in the end.
    Unwanted { member: String, right: i64 },
    /// Wanted, and nothing opens it.
    Missing { member: String, group: i64 },
    /// Two of ours for the same.
    Twice { member: String, group: i64 },
    /// Ours, with another end than the entitlement's.
    Window { member: String, right: i64 },
    /// Given by hand, and gone or changed by us.
    Touched { right: i64 },
    /// The last answer says something else than Kisi.
    Untold { member: String, what: &'static str },
}

/// Everything that is wrong.
pub fn complaints(truth: &Truth, seen: &Seen) -> BTreeSet<Complaint> {
    let mut wrong = BTreeSet::new();
    on_the_way(truth, seen, &mut wrong);
    in_the_end(truth, seen, &mut wrong);
    by_hand(truth, seen, &mut wrong);
    as_told(truth, seen, &mut wrong);
    wrong
}

/// Rights that no hand gave.
pub fn ours<'a>(truth: &'a Truth, seen: &'a Seen) -> impl Iterator<Item = &'a Right> {
    let rights = seen.rights.values();
    rights.filter(|right| !truth.ever_by_hand.contains(&right.row.id))
}

fn on_the_way(truth: &Truth, seen: &Seen, wrong: &mut BTreeSet<Complaint>) {
    for right in ours(truth, seen) {
        let Some(member) = truth.member_of(&right.email) else {
            continue;
        };
        let answers = seen.answers.get(member).map_or(&[][..], Vec::as_slice);
        let person = &truth.people[member];
        for gap in truth.gaps(person, right.group) {
            let (member, right_id) = (member.to_owned(), right.row.id);
            if is_stale(truth, person, right, &gap, answers) {
                wrong.insert(Complaint::Stale {
                    member,
                    right: right_id,
                });
            } else if overstays(truth, right, seen.end_of(right), &gap) {
                wrong.insert(Complaint::Overstays {
                    member,
                    right: right_id,
                });
            }
        }
    }
}

fn overstays(truth: &Truth, right: &Right, end: Micros, gap: &Gap) -> bool {
    let Some(due) = gap.due else {
        return false;
    };
    let deadline = truth.deadline(due, ALLOWED).max(right.made());
    deadline < gap.until.min(end)
}

/// Made although the loss had been answered: neither the newest version that was answered by then nor
/// a later one gives it, by the mapping of that moment or the one before.
fn is_stale(truth: &Truth, person: &Person, right: &Right, gap: &Gap, answers: &[Told]) -> bool {
    let made = right.made();
    let done = ["revoked", "unchanged", "granted", "erased"];
    let answered = answers
        .iter()
        .filter(|told| done.contains(&told.answer.outcome.as_str()))
        .filter(|told| told.at + IN_FLIGHT < made)
        .map(|told| told.answer.version)
        .max();
    let Some(answered) = answered else {
        return false;
    };
    let mut decisions = person.decisions.iter();
    let is_given = decisions.any(|decision| {
        decision.version >= answered
            && decision.made <= made
            && truth.gives(decision, right.group, (made - IN_FLIGHT, made))
    });
    !is_given && (gap.from..gap.until).contains(&made)
}

fn in_the_end(truth: &Truth, seen: &Seen, wrong: &mut BTreeSet<Complaint>) {
    let mut left: BTreeMap<(&str, i64), Vec<&Right>> = BTreeMap::new();
    for right in ours(truth, seen).filter(|right| stands(right)) {
        // Of nobody's whom we know, or of a former e-mail: no group wants it.
        let holder = truth.member_of(&right.email);
        let is_current = holder.is_some_and(|member| truth.people[member].email() == right.email);
        match holder.filter(|_| is_current) {
            Some(member) => left.entry((member, right.group)).or_default().push(right),
            None => {
                wrong.insert(Complaint::Unwanted {
                    member: right.email.clone(),
                    right: right.row.id,
                });
            }
        }
    }
    for (member, person) in &truth.people {
        for (group, until) in truth.wanted(person) {
            let rights = left.remove(&(member.as_str(), group)).unwrap_or_default();
            let member = member.clone();
            match rights[..] {
                [] if is_opened_by_others(truth, seen, person, group) => {}
                [] => {
                    wrong.insert(Complaint::Missing { member, group });
                }
                [right] if end_of(right) == until => {}
                [right] => {
                    let right = right.row.id;
                    wrong.insert(Complaint::Window { member, right });
                }
                _ => {
                    wrong.insert(Complaint::Twice { member, group });
                }
            }
        }
    }
    for ((member, _), rights) in left {
        for right in rights {
            wrong.insert(Complaint::Unwanted {
                member: member.to_owned(),
                right: right.row.id,
            });
        }
    }
}

/// It is there and opens something: what has ended may be hidden from whoever would tidy it up.
pub fn stands(right: &Right) -> bool {
    right.gone.is_none() && end_of(right).is_none_or(|end| end > now())
}

fn end_of(right: &Right) -> Option<Micros> {
    right.row.valid_until.map(|until| until.as_microsecond())
}

fn is_opened_by_others(truth: &Truth, seen: &Seen, person: &Person, group: i64) -> bool {
    seen.standing().any(|right| {
        let by_hand = truth.by_hand.contains_key(&right.row.id);
        by_hand && right.group == group && right.email == person.email()
    })
}

fn by_hand(truth: &Truth, seen: &Seen, wrong: &mut BTreeSet<Complaint>) {
    for (id, given) in &truth.by_hand {
        let right = &seen.rights[id];
        let holder = truth.member_of(&right.email);
        let holder = holder.map(|member| &truth.people[member]);
        // Who is forgotten goes with everything, where the user was ours.
        let goes_with = holder.is_some_and(Person::is_erased) && right.gone.is_some();
        let same = right.gone.is_none()
            && right.row.assignee == given.assignee
            && right.row.applies_to == given.applies_to
            && right.row.role_id == given.role_id
            && right.row.valid_from == given.valid_from
            && right.row.valid_until == given.valid_until
            && right.row.updated_at == given.updated_at;
        if !same && !goes_with {
            wrong.insert(Complaint::Touched { right: *id });
        }
    }
}

fn as_told(truth: &Truth, seen: &Seen, wrong: &mut BTreeSet<Complaint>) {
    for (member, person) in &truth.people {
        let Some(decision) = person.decisions.last() else {
            continue;
        };
        let mut is_wrong = |what| {
            let member = member.clone();
            wrong.insert(Complaint::Untold { member, what });
        };
        let Some(answer) = seen.last_answer(member) else {
            is_wrong("no answer at all");
            continue;
        };
        if answer.version != decision.version {
            is_wrong("another version");
        }
        let told: BTreeSet<_> = answer
            .grants
            .iter()
            .map(|grant| {
                let until = grant.valid_until.as_ref().and_then(wire::instant);
                (grant.assignment_id, grant.group_id, until)
            })
            .filter(|(_, _, until)| until.is_none_or(|until| until.as_microsecond() > now()))
            .collect();
        let held: BTreeSet<_> = ours(truth, seen)
            .filter(|right| stands(right))
            .filter(|right| truth.member_of(&right.email) == Some(member))
            .map(|right| (right.row.id, right.group, right.row.valid_until))
            .collect();
        if told != held {
            is_wrong("other rights");
        }
        if person.is_erased() && answer.outcome != "erased" {
            is_wrong("not erased");
        }
        let failure = answer.failure.as_deref();
        if failure.is_some_and(|failure| failure != "no_association") {
            is_wrong("a failure");
        }
    }
}
