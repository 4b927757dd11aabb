//! Whatever callers and providers may say about some forty people, by dice.

use contracts::billing::v1::BillingEvent;
use contracts::membership::v1 as wire;
use contracts::membership::v1::import_roster_request::Part;
use contracts::wire as convert;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use tonic::{Code, Status};

use crate::random::Dice;
use crate::world::{ACCOUNT, Client, GYM, event, invoice};

/// Members, and memberships of the same numbers.
pub const PEOPLE: u64 = 40;
const ZONES: [&str; 3] = ["America/Havana", "Europe/London", "Pacific/Auckland"];

/// One write, or one event.
#[derive(Debug, Clone)]
pub enum Step {
    PutGym(wire::PutGymRequest),
    PutMember(wire::PutMemberRequest),
    PutMembership(Box<wire::PutMembershipRequest>),
    Pause(wire::PauseMembershipRequest),
    Resume(wire::ResumeMembershipRequest),
    Cancel(wire::CancelMembershipRequest),
    Payment(wire::RecordPaymentRequest),
    Forgive(wire::ForgiveInvoiceRequest),
    PutOverride(wire::PutOverrideRequest),
    ClearOverride(wire::ClearOverrideRequest),
    AskResume(wire::RequestResumeRequest),
    Republish(wire::RepublishGymRequest),
    Delete(wire::DeleteMemberRequest),
    /// A whole roster.
    Import(Vec<wire::ImportRosterRequest>),
    Event(Box<BillingEvent>),
}

/// Makes steps. Each has a greater source version than the one before.
pub struct Workload {
    pub dice: Dice,
    made: i64,
}

impl Workload {
    pub fn new(seed: u64) -> Self {
        Self {
            dice: Dice(seed),
            made: 0,
        }
    }

    /// The gym, its people, and a membership of each.
    pub fn beginning(&mut self, now: Timestamp) -> Vec<Step> {
        let mut steps = vec![self.put_gym(0)];
        steps.extend((0..PEOPLE).map(|member| self.put_member(member)));
        steps.extend((0..PEOPLE).map(|nth| self.put_membership(nth, now)));
        steps
    }

    /// The next step, at about `now`.
    pub fn next(&mut self, now: Timestamp) -> Step {
        let nth = self.dice.below(PEOPLE);
        let (gym_id, membership_id) = (GYM.to_owned(), membership_id(nth));
        let invoice_id = format!("in_{nth}_{}", self.dice.below(3));
        match self.dice.below(24) {
            0 if self.dice.below(4) == 0 => self.put_gym(nth),
            0 | 1 => self.put_member(nth),
            2..=4 => self.put_membership(nth, now),
            5..=7 => {
                let from = self.day(now);
                let until = add_days(&from, 1 + self.dice.below(6) as i64);
                Step::Pause(wire::PauseMembershipRequest {
                    gym_id,
                    membership_id,
                    pause_id: format!("p_{}", self.dice.below(3)),
                    until: (self.dice.below(2) == 0).then_some(until),
                    from,
                    source_version: self.version(),
                })
            }
            8 | 9 => Step::Resume(wire::ResumeMembershipRequest {
                gym_id,
                membership_id,
                pause_id: (self.dice.below(3) == 0).then(|| "p_0".to_owned()),
                at: None,
                source_version: self.version(),
                unnumbered: false,
            }),
            10 => {
                let take_back = self.dice.below(2) == 0;
                Step::Cancel(wire::CancelMembershipRequest {
                    gym_id,
                    membership_id,
                    ends_on: self.perhaps_later(now).filter(|_| !take_back),
                    take_back: Some(take_back),
                    source_version: self.version(),
                })
            }
            11 => Step::Payment(wire::RecordPaymentRequest {
                gym_id,
                membership_id,
                payment_id: format!("desk_{}", self.version()),
                invoice_id: (self.dice.below(2) == 0).then_some(invoice_id),
                amount_minor: [1_000, 4_000][self.dice.below(2) as usize],
                currency: "GBP".into(),
                received_at: Some(convert::timestamp(now)),
            }),
            12 => Step::Forgive(wire::ForgiveInvoiceRequest {
                gym_id,
                membership_id,
                invoice_id,
                forgiveness_id: format!("off_{}", self.version()),
                reason: "by dice".into(),
                ..wire::ForgiveInvoiceRequest::default()
            }),
            13 => Step::PutOverride(wire::PutOverrideRequest {
                gym_id,
                member_id: member_id(nth),
                override_id: format!("o_{}", self.dice.below(2)),
                kind: ["let_in", "bar"][self.dice.below(2) as usize].into(),
                until: Some(convert::timestamp(
                    now + SignedDuration::from_hours(1 + self.dice.below(100) as i64),
                )),
                reason: "by dice".into(),
                ..wire::PutOverrideRequest::default()
            }),
            14 => Step::ClearOverride(wire::ClearOverrideRequest {
                gym_id,
                member_id: member_id(nth),
                override_id: format!("o_{}", self.dice.below(2)),
                ..wire::ClearOverrideRequest::default()
            }),
            15 if self.dice.below(3) == 0 => Step::Republish(wire::RepublishGymRequest {
                gym_id,
                ..Default::default()
            }),
            15 => Step::AskResume(wire::RequestResumeRequest {
                gym_id,
                member_id: member_id(nth),
                membership_id,
            }),
            16 if self.dice.below(3) == 0 => Step::Delete(wire::DeleteMemberRequest {
                gym_id,
                member_id: member_id(nth),
            }),
            17 if self.dice.below(3) == 0 => Step::Import(self.roster(now)),
            _ => Step::Event(Box::new(self.event(nth, &invoice_id, now))),
        }
    }

    /// Everybody, or but for a few, as of now; what is open is not said.
    fn roster(&mut self, now: Timestamp) -> Vec<wire::ImportRosterRequest> {
        let header = Part::Header(wire::RosterHeader {
            gym_id: GYM.into(),
            as_of: Some(convert::timestamp(now)),
            confirm_digest: None,
            parts: None,
        });
        let mut parts = vec![header];
        for nth in self.dice.below(4)..PEOPLE {
            if let Step::PutMember(put) = self.put_member(nth) {
                parts.push(Part::Member(wire::RosterMember {
                    member_id: put.member_id,
                    email: put.email,
                    name: put.name,
                    source_version: put.source_version,
                }));
            }
            if let Step::PutMembership(put) = self.put_membership(nth, now) {
                let gym_id = String::new();
                parts.push(Part::Membership(wire::PutMembershipRequest {
                    gym_id,
                    ..*put
                }));
            }
        }
        let request = |part| wire::ImportRosterRequest { part: Some(part) };
        parts.into_iter().map(request).collect()
    }

    fn event(&mut self, nth: u64, invoice_id: &str, now: Timestamp) -> BillingEvent {
        let id = format!("evt_{}", self.version());
        // Providers tell late, and not in order.
        let at = now - SignedDuration::from_hours(self.dice.below(72) as i64);
        let at = at.to_string();
        let subscription = format!("sub_{}", membership_id(nth));
        let mut told = match self.dice.below(12) {
            kind @ 0..=3 => {
                let kinds = [
                    "subscription_paused",
                    "subscription_resumed",
                    "subscription_cancelled",
                    "subscription_changed",
                ];
                let mut told = event(&id, kinds[kind as usize], &at);
                if kind == 0 && self.dice.below(2) == 0 {
                    let ends_at = now + SignedDuration::from_hours(self.dice.below(96) as i64);
                    told.ends_at = Some(convert::timestamp(ends_at));
                }
                told
            }
            4..=7 => invoice(&id, "payment_failed", invoice_id, &at),
            kind => {
                let kinds = [
                    "payment_succeeded",
                    "payment_succeeded",
                    "payment_reversed",
                    "payment_refunded",
                ];
                let mut told = invoice(&id, kinds[kind as usize - 8], invoice_id, &at);
                told.payment_id = Some(format!("pi_{invoice_id}"));
                told
            }
        };
        told.subscription_id = Some(subscription);
        told
    }

    fn put_gym(&mut self, nth: u64) -> Step {
        Step::PutGym(wire::PutGymRequest {
            gym_id: GYM.into(),
            name: "Iron".into(),
            time_zone: ZONES[(nth % 3) as usize].into(),
            overdue_grace: Some(pbjson_types::Duration {
                seconds: 86_400 * (nth % 4) as i64,
                nanos: 0,
            }),
            overdue_scope: ["member", "membership"][(nth % 2) as usize].into(),
            billing_accounts: vec![wire::BillingAccount {
                provider: "stripe".into(),
                account: ACCOUNT.into(),
            }],
            source_version: self.version(),
        })
    }

    fn put_member(&mut self, nth: u64) -> Step {
        Step::PutMember(wire::PutMemberRequest {
            gym_id: GYM.into(),
            member_id: member_id(nth),
            email: format!("{nth}@example.org"),
            name: format!("Person {nth}"),
            source_version: self.version(),
        })
    }

    fn put_membership(&mut self, nth: u64, now: Timestamp) -> Step {
        let also = self.dice.below(3) == 0;
        let mut member_ids = vec![member_id(nth)];
        if also {
            member_ids.push(member_id((nth + 1 + self.dice.below(PEOPLE - 1)) % PEOPLE));
        }
        let next_plan = (self.dice.below(4) == 0).then(|| wire::NextPlan {
            plan_id: format!("plan_{}", self.dice.below(3)),
            from: self.day(now),
        });
        let starts_on = match self.dice.below(3) {
            0 => self.day(now),
            _ => "2026-01-01".to_owned(),
        };
        let ends_on = match self.dice.below(4) {
            0 => Some(add_days(&starts_on, self.dice.below(12) as i64)),
            1 => Some("2026-12-31".to_owned()),
            _ => None,
        };
        Step::PutMembership(Box::new(wire::PutMembershipRequest {
            gym_id: GYM.into(),
            membership_id: membership_id(nth),
            plan_id: format!("plan_{}", self.dice.below(3)),
            member_ids,
            payer_member_id: (self.dice.below(3) == 0).then(|| member_id(self.dice.below(PEOPLE))),
            starts_on,
            ends_on,
            next_plan,
            billing: Some(wire::BillingReference {
                provider: "stripe".into(),
                account: ACCOUNT.into(),
                subscription_id: Some(format!("sub_{}", membership_id(nth))),
                customer_id: Some(format!("cus_{nth}")),
                mandate_id: None,
            }),
            source_version: self.version(),
        }))
    }

    fn version(&mut self) -> i64 {
        self.made += 1;
        self.made
    }

    /// A day around `now`.
    fn day(&mut self, now: Timestamp) -> String {
        let today = now.to_zoned_datetime(TimeZone::UTC).date();
        add_days(&today.to_string(), self.dice.below(9) as i64 - 3)
    }

    fn perhaps_later(&mut self, now: Timestamp) -> Option<String> {
        let later = now + SignedDuration::from_hours(6 * 24);
        (self.dice.below(2) == 0).then(|| self.day(later))
    }
}

fn member_id(nth: u64) -> String {
    format!("m_{nth}")
}

fn membership_id(nth: u64) -> String {
    format!("ms_{nth}")
}

fn add_days(day: &str, days: i64) -> String {
    let day: Date = day.parse().expect("a date");
    day.checked_add(days.days()).expect("a date").to_string()
}

impl Step {
    /// Sends a write once.
    pub async fn send(self, client: &mut Client) -> Result<(), Status> {
        match self {
            Self::PutGym(request) => client.put_gym(request).await.map(drop),
            Self::PutMember(request) => client.put_member(request).await.map(drop),
            Self::PutMembership(request) => client.put_membership(*request).await.map(drop),
            Self::Pause(request) => client.pause_membership(request).await.map(drop),
            Self::Resume(request) => client.resume_membership(request).await.map(drop),
            Self::Cancel(request) => client.cancel_membership(request).await.map(drop),
            Self::Payment(request) => client.record_payment(request).await.map(drop),
            Self::Forgive(request) => client.forgive_invoice(request).await.map(drop),
            Self::PutOverride(request) => client.put_override(request).await.map(drop),
            Self::ClearOverride(request) => client.clear_override(request).await.map(drop),
            Self::AskResume(request) => client.request_resume(request).await.map(drop),
            Self::Republish(request) => client.republish_gym(request).await.map(drop),
            Self::Delete(request) => client.delete_member(request).await.map(drop),
            Self::Import(requests) => {
                let sent = futures_util::stream::iter(requests);
                let mut answers = client.import_roster(sent).await?.into_inner();
                while answers.message().await?.is_some() {}
                Ok(())
            }
            Self::Event(_) => unreachable!("an event goes over the bus"),
        }
    }
}

/// Whether a caller does right to send the same again: the service, or the way to it, was down.
pub fn may_be_sent_again(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::DeadlineExceeded
            // Another import of the gym is under way.
            | Code::Aborted
    )
}

/// Whether the service understood, and what is held speaks against it, or the time, which may have
/// been set since the step was made.
pub fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::FailedPrecondition | Code::NotFound | Code::InvalidArgument
    )
}
