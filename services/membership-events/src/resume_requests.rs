//! A member asks to be resumed: kept, one open per member, and told to whoever decides about it.
//!
//! Resuming may carry a charge, so that access follows what billing answers, and never the request.
//! A request is open until its membership is found not to be paused any more. What is not told yet
//! is told by any replica; its id follows from the request, so that a repeat is the same one.

use std::time::Duration;

use access_domain::ids::{GymId, MemberId};
use access_domain::membership::Reason;
use contracts::membership::v1::Notification;
use contracts::message::BusMessage;
use contracts::wire;
use event_bus::{Envelope, PublishError, Publisher};
use jiff::Timestamp;
use sea_orm::ConnectionTrait;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::SERVICE;
use crate::decide;
use crate::error::Error;
use crate::requests::RequestResume;
use crate::rows;
use crate::store::entity::{memberships, resume_requests};
use crate::store::{self, StoreError, from_micros};
use crate::unit::Decisions;
use crate::writes::{By, Outcome, lock_membership};

/// Between two looks at what is open.
const LOOK: Duration = Duration::from_secs(5);

/// Why a request was not told.
#[derive(Debug, thiserror::Error)]
enum TellError {
    #[error(transparent)]
    Work(#[from] Error),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl From<StoreError> for TellError {
    fn from(error: StoreError) -> Self {
        Self::Work(Error::Store(error))
    }
}

/// Keeps that a member asks for a paused membership to be resumed. A repeat while it is open
/// changes nothing.
///
/// # Errors
/// [`Error::Unknown`] for an unknown gym, member or membership; [`Error::Refused`] when the
/// membership is not the member's, is not paused, or when another request of the member is open.
pub async fn request(
    decisions: &Decisions,
    by: &By,
    request: RequestResume,
) -> Result<Outcome, Error> {
    let outcome = decisions
        .retrying(|| request_once(decisions, by, &request))
        .await?;
    decisions.resume_requests().notify_one();
    Ok(outcome)
}

async fn request_once(
    decisions: &Decisions,
    by: &By,
    request: &RequestResume,
) -> Result<Outcome, Error> {
    let (gym, member, membership) = (&request.gym, &request.member, &request.membership);
    let unit = decisions.begin(by.cause(decisions)).await?;
    let row = lock_membership(&unit, gym, membership).await?;
    let ids = [member.clone()].into();
    let person = store::members::lock(unit.db(), gym, &ids).await?.pop();
    let person = person
        .filter(|person| !person.erased)
        .ok_or(Error::Unknown("member"))?;
    let held = rows::membership(&row)?;
    if !held.is_held_by(member) && held.payer() != Some(member) {
        return Err(Error::Refused(
            "the member neither holds nor pays for this membership".to_owned(),
        ));
    }
    let is_paused = is_paused(unit.db(), gym, &row, unit.now()).await?;
    let members = [(member.clone(), person.version)].into();
    if let Some(open) = store::resume_requests::find_open(unit.db(), gym, member).await? {
        if open.membership_id.0 != *membership {
            return Err(Error::Refused(
                "a request of this member for another membership is open".to_owned(),
            ));
        }
        if is_paused {
            return Ok(Outcome::applied(0, members));
        }
        store::resume_requests::close(unit.db(), &open, unit.now()).await?;
    }
    if !is_paused {
        // What was closed stays so: paused again before the next look, it is asked for anew.
        unit.commit().await?;
        return Err(Error::Refused("the membership is not paused".to_owned()));
    }
    let now = unit.now();
    store::resume_requests::insert(unit.db(), gym, member, membership, now, &by.actor).await?;
    unit.commit().await?;
    Ok(Outcome::applied(0, members))
}

/// Whether the membership is paused at `now`: as it is, since its payer may have no seat in it, and
/// nothing of it in a state of their own.
async fn is_paused(
    db: &impl ConnectionTrait,
    gym: &GymId,
    row: &memberships::Model,
    now: Timestamp,
) -> Result<bool, Error> {
    let its_gym = store::gyms::find(db, gym).await?;
    let rules = rows::rules(&its_gym.ok_or(Error::Unknown("gym"))?)?;
    let facts = decide::with_billing(db, gym, std::slice::from_ref(row)).await?;
    Ok(facts.iter().any(|held| {
        let status = held.membership.status_at(&held.billing, &rules, now);
        status.reasons.contains(&Reason::MembershipPaused)
    }))
}

/// Tells of requests, and closes those whose membership goes on, until `shutdown`.
pub async fn run(decisions: Decisions, publisher: Publisher, shutdown: CancellationToken) {
    loop {
        if let Err(error) = look(&decisions, &publisher).await {
            error!(
                "Requests to resume could not go on: {}",
                service_runtime::lifecycle::chain(&error)
            );
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
            () = decisions.resume_requests().notified() => {}
        }
    }
}

async fn look(decisions: &Decisions, publisher: &Publisher) -> Result<(), TellError> {
    let db = decisions.store().reads();
    for row in store::resume_requests::list_open(db).await? {
        if row.notified_at.is_none() {
            tell(publisher, &row).await?;
            store::resume_requests::set_notified(db, &row, decisions.now()).await?;
        }
        let (gym, member): (&GymId, &MemberId) = (&row.gym_id.0, &row.member_id.0);
        let person = store::members::find(db, gym, member).await?;
        let ids = [row.membership_id.0.clone()].into();
        let held = store::bulk::list_memberships(db, gym, &ids, false).await?;
        let goes_on = match held.first() {
            Some(held) if person.is_some_and(|person| !person.erased) => {
                !is_paused(db, gym, held, decisions.now()).await?
            }
            _ => true,
        };
        if goes_on {
            store::resume_requests::close(db, &row, decisions.now()).await?;
        }
    }
    Ok(())
}

async fn tell(publisher: &Publisher, row: &resume_requests::Model) -> Result<(), PublishError> {
    let requested_at = from_micros(row.requested_at);
    let notification = Notification {
        id: format!(
            "resume_requested/{}/{}/{}",
            row.gym_id, row.member_id, row.requested_at
        ),
        gym_id: row.gym_id.to_string(),
        kind: "resume_requested".to_owned(),
        member_id: Some(row.member_id.to_string()),
        at: Some(wire::timestamp(requested_at)),
        reasons: vec![Reason::MembershipPaused.to_string()],
        who: "staff".to_owned(),
        details: [
            ("membership_id".to_owned(), row.membership_id.to_string()),
            ("requested_by".to_owned(), row.requested_by.clone()),
        ]
        .into(),
    };
    let envelope = Envelope {
        ce_id: notification.id(),
        ce_type: Notification::TYPE.to_owned(),
        ce_source: format!("/{SERVICE}"),
        ce_time: requested_at,
        ce_subject: notification.about(),
        traceparent: None,
    };
    publisher
        .publish(&notification.subject(), &envelope, &notification)
        .await
        .map(drop)
}
