//! What a handler works with: the rows, who calls, the checked request, the time.

use jiff::Timestamp;
use serde_json::Value;

use crate::answer::Answer;
use crate::parameters::Parameters;
use crate::rows::{Assignee, Email, EventRow, LoginKind, Target, User};
use crate::settings::{ExpiredListing, Settings};
use crate::spec::Operation;
use crate::world::World;

/// One checked request.
pub struct Call {
    pub operation: &'static Operation,
    /// The text of the path's `{id}`.
    pub id: Option<String>,
    pub parameters: Parameters,
    pub body: Value,
}

impl Call {
    /// The path's id as a number. Routes with a numeric id match only numbers.
    pub fn id(&self) -> i64 {
        self.id
            .as_deref()
            .and_then(|id| id.parse().ok())
            .unwrap_or(-1)
    }

    /// The content of the body's wrapper.
    pub fn wrapped(&self, wrapper: &str) -> &Value {
        &self.body[wrapper]
    }
}

/// How much a user may do in the organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Owner,
    Administrator,
    /// Administers these places and their groups.
    PlaceAdministrator(Vec<i64>),
    Member,
}

/// Who sent the request.
#[derive(Clone, Debug)]
pub struct Caller {
    pub user_id: i64,
    pub login_id: Option<i64>,
    pub login_kind: LoginKind,
    pub primary_device: bool,
    pub organization_id: i64,
    pub standing: Standing,
}

impl Caller {
    pub fn is_admin(&self) -> bool {
        matches!(self.standing, Standing::Owner | Standing::Administrator)
    }

    /// Refuses whoever is not an owner or administrator of the organization.
    pub fn require_admin(&self) -> Result<(), Answer> {
        if self.is_admin() {
            Ok(())
        } else {
            Err(Answer::forbidden())
        }
    }

    /// Whether rights on this target, in the place where that is a place or a place group, are
    /// the caller's to give.
    pub fn may_manage(&self, world: &World, target: Target) -> bool {
        let place = match target {
            Target::Organization(_) => None,
            Target::Place(id) => Some(id),
            Target::Group(id) => world.groups.get(&id).and_then(|group| group.place_id),
        };
        match &self.standing {
            Standing::Owner | Standing::Administrator => true,
            Standing::PlaceAdministrator(places) => place.is_some_and(|id| places.contains(&id)),
            Standing::Member => false,
        }
    }
}

/// The simulator's state while one request is answered.
pub struct Context<'a> {
    pub world: &'a mut World,
    pub settings: &'a Settings,
    pub now: Timestamp,
    pub caller: Caller,
    /// Events made by this request, still to be delivered.
    pub events: Vec<EventRow>,
}

impl Context<'_> {
    /// The user if it is of the caller's organization.
    pub fn user(&self, id: i64) -> Option<&User> {
        self.world
            .users
            .get(&id)
            .filter(|user| user.organization_id == self.caller.organization_id)
    }

    /// Whether the target exists in the caller's organization.
    pub fn has_target(&self, target: Target) -> bool {
        let organization = match target {
            Target::Organization(id) => Some(id),
            Target::Place(id) => self
                .world
                .places
                .get(&id)
                .map(|place| place.organization_id),
            Target::Group(id) => self
                .world
                .groups
                .get(&id)
                .map(|group| group.organization_id),
        };
        organization == Some(self.caller.organization_id)
    }

    /// Whether the assignee exists in the caller's organization.
    pub fn has_assignee(&self, assignee: Assignee) -> bool {
        let organization = match assignee {
            Assignee::User(id) => self.world.users.get(&id).map(|user| user.organization_id),
            Assignee::Team(id) => self.world.teams.get(&id).map(|team| team.organization_id),
            Assignee::Guest(id) => self
                .world
                .guests
                .get(&id)
                .map(|guest| guest.organization_id),
        };
        organization == Some(self.caller.organization_id)
    }

    /// Whether an expired row is out of sight.
    pub fn hides_expired(&self) -> bool {
        self.settings.expired_listing != ExpiredListing::Stays
    }

    pub fn mail(&mut self, kind: &str, user_id: i64, assignment_id: Option<i64>) {
        if let Some(user) = self.world.users.get(&user_id) {
            let to = user.email.clone();
            self.world.emails.push(Email {
                at: self.now,
                to,
                kind: kind.to_owned(),
                user_id: Some(user_id),
                assignment_id,
            });
        }
    }

    /// Keeps an event of the caller's and queues it for delivery.
    pub fn emit(&mut self, what: Happened<'_>) {
        let actor = self.world.users.get(&self.caller.user_id);
        let event = EventRow {
            uuid: uuid::Uuid::now_v7().to_string(),
            sequence: 0,
            kind: what.kind.to_owned(),
            actor_id: Some(self.caller.user_id),
            actor_name: actor.map(|user| user.name.clone()),
            actor_email: actor.map(|user| user.email.clone()),
            login_id: self.caller.login_id,
            authorized_by_role_id: what.role_id.map(str::to_owned),
            object_type: what.object_type.to_owned(),
            object_id: what.object_id,
            object_name: what.object_name.to_owned(),
            organization_id: self.caller.organization_id,
            place_id: what.place_id,
            success: what.error.is_none(),
            error_code: what.error.map(|(code, _)| code.to_owned()),
            error_message: what.error.map(|(_, message)| message.to_owned()),
            created_at: self.now,
        };
        let event = self.world.push_event(event);
        self.events.push(event);
    }
}

/// The part of an event that its maker knows.
#[derive(Clone, Copy, Default)]
pub struct Happened<'a> {
    /// `<resource>.<action>`.
    pub kind: &'a str,
    pub object_type: &'a str,
    pub object_id: i64,
    pub object_name: &'a str,
    pub place_id: Option<i64>,
    pub role_id: Option<&'a str>,
    /// Code and words of a failure.
    pub error: Option<(&'a str, &'a str)>,
}
