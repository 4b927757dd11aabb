//! What makes it hard: a Kisi that fails and has manners of its own, and people who change things
//! in its pages.

use kisi_simulator::faults::{Fault, FaultKind};
use kisi_simulator::rows::{Assignee, Assignment};
use kisi_simulator::settings::{
    DuplicateAssignment, DuplicateUser, ExpiredListing, PatchWindow, RefusalBody, RetryAfter,
};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::json;

use super::judge;
use super::story::{HOUR, Story};
use super::truth::now;
use crate::harness::Stage;
use crate::kisi::{GROUP, OTHER_GROUP};

const KINDS: [FaultKind; 12] = [
    FaultKind::TooMany,
    FaultKind::Internal,
    FaultKind::BadGateway,
    FaultKind::Unavailable,
    FaultKind::Hang,
    FaultKind::HangAfterApplying,
    FaultKind::Reset,
    FaultKind::ResetAfterApplying,
    FaultKind::UnavailableAfterApplying,
    FaultKind::EmptyBody,
    FaultKind::Html,
    FaultKind::ShortPage,
];

/// What is asked of Kisi on the way to a door.
const ROUTES: [(Option<&str>, Option<&str>); 7] = [
    (None, None),
    (Some("POST"), Some("/role_assignments")),
    (Some("DELETE"), Some("/role_assignments/{id}")),
    (Some("GET"), Some("/role_assignments")),
    (Some("GET"), Some("/role_assignments/{id}")),
    (Some("POST"), Some("/users")),
    (Some("GET"), Some("/users")),
];

/// Kisi is one of those that nobody could rule out.
pub fn manners(stage: &Stage, dice: &mut StdRng) {
    let duplicate_assignments = [
        DuplicateAssignment::Conflict,
        DuplicateAssignment::NewRow,
        DuplicateAssignment::Unprocessable,
        DuplicateAssignment::NewRowIfWindowDiffers,
    ];
    let expired_listing = [
        ExpiredListing::Stays,
        ExpiredListing::Hidden,
        ExpiredListing::Deleted,
    ];
    let patch_window = [PatchWindow::Apply, PatchWindow::Ignore, PatchWindow::Refuse];
    let retry_after = [RetryAfter::None, RetryAfter::Seconds, RetryAfter::Date];
    let refusal_body = [RefusalBody::Error, RefusalBody::Empty, RefusalBody::Html];
    stage.kisi.set(|settings| {
        settings.duplicate_assignments = *duplicate_assignments.choose(dice).unwrap();
        settings.expired_listing = *expired_listing.choose(dice).unwrap();
        settings.patch_window = *patch_window.choose(dice).unwrap();
        settings.retry_after = *retry_after.choose(dice).unwrap();
        settings.refusal_body = *refusal_body.choose(dice).unwrap();
        settings.unstable_order = dice.random();
        settings.duplicate_users = match dice.random() {
            true => DuplicateUser::Conflict,
            false => DuplicateUser::Unprocessable,
        };
    });
}

impl Story {
    /// The next requests, of one kind or of any, go wrong.
    pub(super) fn fail(&mut self) {
        let kind = *KINDS.choose(&mut self.dice).unwrap();
        let hangs = matches!(kind, FaultKind::Hang | FaultKind::HangAfterApplying);
        let (method, route) = match kind {
            FaultKind::ShortPage => ROUTES[3],
            _ => *ROUTES.choose(&mut self.dice).unwrap(),
        };
        let count = if hangs {
            1
        } else {
            self.dice.random_range(1..=3)
        };
        let fault = Fault {
            method: method.map(str::to_owned),
            route: route.map(str::to_owned),
            kind,
            count: Some(count),
            skip: 0,
        };
        let (latency, jitter) = (self.dice.random_range(0..20), self.dice.random_range(0..20));
        self.stage.kisi.set(|settings| {
            (settings.latency_ms, settings.jitter_ms) = (latency, jitter);
        });
        self.say(format!("{fault:?}, and {latency} ms and more"));
        self.stage.kisi.shared().lock().faults.add(fault);
    }

    pub(super) async fn strike(&mut self) {
        let (what, span) = self.replicas.strike(&self.stage, &mut self.dice).await;
        self.truth.excused.push(span);
        self.say(format!("a replica is {what}"));
    }

    /// To a member or to a stranger, by an administrator who is not the key's owner.
    pub(super) async fn give_by_hand(&mut self) {
        let people = self.truth.people.values();
        let living: Vec<&str> = people
            .filter(|person| !person.is_erased())
            .map(|person| person.email())
            .collect();
        let email = match self.dice.random_bool(0.4) {
            true => format!("stranger{}@example.com", self.told.len()),
            false => (*living.choose(&mut self.dice).unwrap()).to_owned(),
        };
        let group = *[GROUP, OTHER_GROUP].choose(&mut self.dice).unwrap();
        let by = self.stage.kisi.user_of("second@example.com");
        let change = json!({
            "action": "add_assignment", "group_id": group, "email": email, "by": by,
        });
        // Known as theirs before anybody can see it.
        let given = self.stage.kisi.control("hands", &change).await;
        let id = given["assignment_id"].as_i64().unwrap();
        self.truth.ever_by_hand.push(id);
        let row = self.stage.kisi.shared().lock().world.assignments[&id].clone();
        self.truth.by_hand.insert(id, row);
        // Seen at once, should it go before the next look.
        drop(self.watch.seen());
        self.say(format!("{email}: {group} by hand, {id}"));
    }

    pub(super) async fn take_back_by_hand(&mut self) {
        let ids: Vec<i64> = self.truth.by_hand.keys().copied().collect();
        if let Some(id) = ids.choose(&mut self.dice) {
            self.truth.by_hand.remove(id);
            self.take_by_hand(*id).await;
        }
    }

    pub(super) async fn take_ours_by_hand(&mut self) {
        if let Some(row) = self.one_of_ours() {
            self.take_by_hand(row.id).await;
        }
    }

    async fn take_by_hand(&mut self, id: i64) {
        self.say(format!("{id} is taken by hand"));
        let change = json!({ "action": "remove_assignment", "assignment_id": id });
        // It may have gone by itself in between.
        self.stage.kisi.try_control("hands", &change).await;
    }

    pub(super) async fn move_an_end_by_hand(&mut self) {
        // What has ended may be hidden from hands as from us.
        let is_open = |row: &Assignment| {
            row.valid_until
                .is_none_or(|end| end.as_microsecond() > now())
        };
        let Some(row) = self.one_of_ours().filter(is_open) else {
            return;
        };
        let hours = if self.dice.random_bool(0.3) { -2 } else { 2 };
        self.say(format!("an end in {hours} hours for {} by hand", row.id));
        let until = jiff::Timestamp::from_microsecond(now() + hours * HOUR).unwrap();
        let change = json!({
            "action": "set_window", "assignment_id": row.id, "valid_until": until.to_string(),
        });
        self.stage.kisi.try_control("hands", &change).await;
    }

    pub(super) fn one_of_ours(&mut self) -> Option<Assignment> {
        let seen = self.watch.seen();
        let standing = judge::ours(&self.truth, &seen).filter(|right| right.gone.is_none());
        let rows: Vec<Assignment> = standing
            .filter(|right| matches!(right.row.assignee, Assignee::User(_)))
            .map(|right| right.row.clone())
            .collect();
        rows.choose(&mut self.dice).cloned()
    }
}
