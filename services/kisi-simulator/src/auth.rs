//! From an `Authorization` header to a Kisi user and what it may do.
//!
//! Only `KISI-LOGIN <secret>` is simulated; the other published schemes answer 401 like any
//! malformed header.

use jiff::{SignedDuration, Timestamp};

use crate::answer::Answer;
use crate::context::{Caller, Standing};
use crate::rows::{Assignee, Login, LoginKind, Target};
use crate::settings::Settings;
use crate::world::World;

/// Two weeks, where the organization says nothing else.
const DEFAULT_EXPIRY_SECONDS: i64 = 1_209_600;

/// Who is calling. `Ok(None)` without a header. The last use of the login is recorded.
pub fn identify(
    world: &mut World,
    settings: &Settings,
    now: Timestamp,
    authorization: Option<&str>,
) -> Result<Option<Caller>, Answer> {
    let Some(header) = authorization else {
        return Ok(None);
    };
    let secret = header.strip_prefix("KISI-LOGIN ").map(str::trim);
    let login = secret.and_then(|secret| world.login_by_secret(secret));
    let Some(login) = login.cloned() else {
        return Err(Answer::unauthorized());
    };
    if login.revoked {
        return Err(refused_key(settings.revoked_key));
    }
    if is_expired(world, &login, now) {
        world.remove_login(login.id);
        return Err(Answer::unauthorized());
    }
    let Some(caller) = caller_of(world, login.user_id, Some(&login), now) else {
        return Err(Answer::unauthorized());
    };
    // A key dies when its user loses the rights that it takes to have one, at once or later.
    let outlives = settings.demoted_owner == 200;
    if login.kind == LoginKind::Api && !caller.is_admin() && !outlives {
        return Err(refused_key(settings.demoted_owner));
    }
    if let Some(login) = world.logins.get_mut(&login.id) {
        login.last_used_at = Some(now);
    }
    Ok(Some(caller))
}

/// The user of a valid or refused key, for the rate limit: a refused key still counts for it.
pub fn budget_owner(world: &World, authorization: Option<&str>) -> Option<i64> {
    let secret = authorization?.strip_prefix("KISI-LOGIN ")?.trim();
    world.login_by_secret(secret).map(|login| login.user_id)
}

/// The caller that this user is, with or without a login.
pub fn caller_of(
    world: &World,
    user_id: i64,
    login: Option<&Login>,
    now: Timestamp,
) -> Option<Caller> {
    let user = world.users.get(&user_id)?;
    Some(Caller {
        user_id,
        login_id: login.map(|login| login.id),
        login_kind: login.map_or(LoginKind::Device, |login| login.kind),
        primary_device: login.is_some_and(|login| login.primary),
        organization_id: user.organization_id,
        standing: standing(world, user_id, user.organization_id, now),
    })
}

/// What the user's roles add up to.
pub fn standing(world: &World, user_id: i64, organization_id: i64, now: Timestamp) -> Standing {
    let mut places = Vec::new();
    let mut administrator = false;
    for row in world.assignments_of(Assignee::User(user_id)) {
        if row.has_ended(now) {
            continue;
        }
        match (row.applies_to, row.role_id.as_str()) {
            (Target::Organization(id), "organization_owner") if id == organization_id => {
                return Standing::Owner;
            }
            (Target::Organization(_), "organization_administrator") => administrator = true,
            (Target::Place(id), "place_administrator") => places.push(id),
            _ => {}
        }
    }
    match (administrator, places.is_empty()) {
        (true, _) => Standing::Administrator,
        (false, false) => Standing::PlaceAdministrator(places),
        (false, true) => Standing::Member,
    }
}

/// Whether the login died of inactivity.
pub fn is_expired(world: &World, login: &Login, now: Timestamp) -> bool {
    let seconds = world
        .users
        .get(&login.user_id)
        .and_then(|user| world.organizations.get(&user.organization_id))
        .and_then(|organization| organization.device_logins_expire_after)
        .unwrap_or(DEFAULT_EXPIRY_SECONDS);
    let last = login.last_used_at.unwrap_or(login.created_at);
    login.expire && now.duration_since(last) > SignedDuration::from_secs(seconds)
}

fn refused_key(status: u16) -> Answer {
    match status {
        403 => Answer::forbidden(),
        _ => Answer::unauthorized(),
    }
}
