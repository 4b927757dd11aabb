//! Logins: a phone's, and API keys.

use serde_json::Value;

use crate::answer::{Answer, Outcome};
use crate::context::{Call, Context, Happened};
use crate::paging;
use crate::render;
use crate::rows::{Login, LoginKind};

/// Device logins of a user; the least recently used is dropped without a word.
const DEVICE_LOGINS: usize = 40;
/// API logins of a user; the next is an error.
const API_LOGINS: usize = 10;

pub fn list(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let all = call.parameters.text("scope") == Some("all") && cx.caller.is_admin();
    let user = call.parameters.user("user_id", cx.caller.user_id);
    let of_organization = |login: &Login| {
        cx.world
            .users
            .get(&login.user_id)
            .is_some_and(|user| user.organization_id == cx.caller.organization_id)
    };
    let rows = cx
        .world
        .logins
        .values()
        .filter(|row| match user {
            Some(id) => row.user_id == id && (cx.caller.is_admin() || id == cx.caller.user_id),
            None => all || row.user_id == cx.caller.user_id,
        })
        .filter(|row| of_organization(row))
        .collect();
    Ok(paging::page(call, cx.settings, rows, |row| {
        render::login(cx.world, row)
    }))
}

pub fn current(cx: &mut Context<'_>) -> Outcome {
    let row = cx.caller.login_id.and_then(|id| cx.world.logins.get(&id));
    row.map(|row| Answer::ok(&render::login(cx.world, row)))
        .ok_or_else(Answer::unauthorized)
}

/// An admin makes one for a member of the organization, by e-mail.
pub fn create(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let body = call.wrapped("login");
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    let email = body["email"].as_str();
    let user = match email {
        Some(email) => {
            let user = cx.world.user_by_email(cx.caller.organization_id, email);
            user.map(|user| user.id).ok_or_else(Answer::not_found)?
        }
        None => cx.caller.user_id,
    };
    if user != cx.caller.user_id {
        cx.caller.require_admin()?;
    }
    let kind = match body["type"].as_str() {
        Some("api") => LoginKind::Api,
        _ => LoginKind::Device,
    };
    if kind == LoginKind::Api {
        cx.caller.require_admin()?;
    }
    let mut held: Vec<_> = cx
        .world
        .logins
        .values()
        .filter(|row| row.user_id == user && row.kind == kind && !row.revoked)
        .map(|row| (row.last_used_at.unwrap_or(row.created_at), row.id))
        .collect();
    held.sort();
    match kind {
        LoginKind::Api if held.len() >= API_LOGINS => {
            return Err(Answer::unprocessable("base", "has too many API logins"));
        }
        LoginKind::Device if held.len() >= DEVICE_LOGINS => {
            if let Some((_, oldest)) = held.first() {
                cx.world.remove_login(*oldest);
            }
        }
        _ => {}
    }
    let id = cx.world.next_id();
    let row = Login {
        id,
        user_id: user,
        kind,
        name: text("name"),
        secret: random_hex(),
        // The guides send a string where the document wants a boolean.
        expire: !matches!(&body["expire"], Value::Bool(false)),
        primary: false,
        device_brand: text("device_brand"),
        device_model: text("device_model"),
        os_name: text("os_name"),
        phone_key: random_hex(),
        online_certificate: random_hex(),
        revoked: false,
        last_used_at: None,
        created_at: cx.now,
        updated_at: cx.now,
    };
    let answer = Answer::ok(&render::login_created(cx.world, &row));
    told(cx, "login.create", &row);
    cx.world.insert_login(row);
    Ok(answer)
}

/// A secret as long as Kisi's.
pub fn random_hex() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

fn find(cx: &Context<'_>, id: i64) -> Result<Login, Answer> {
    let row = cx
        .world
        .logins
        .get(&id)
        .cloned()
        .ok_or_else(Answer::not_found)?;
    let user = cx
        .world
        .users
        .get(&row.user_id)
        .ok_or_else(Answer::not_found)?;
    let visible = user.organization_id == cx.caller.organization_id
        && (cx.caller.is_admin() || user.id == cx.caller.user_id);
    if visible {
        Ok(row)
    } else {
        Err(Answer::not_found())
    }
}

pub fn delete(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let row = find(cx, call.id())?;
    cx.world.remove_login(row.id);
    told(cx, "login.destroy", &row);
    Ok(Answer::no_content())
}

pub fn promote(cx: &mut Context<'_>, call: &Call) -> Outcome {
    let row = find(cx, call.id())?;
    if row.kind == LoginKind::Api {
        return Err(Answer::unprocessable("base", "is not a device"));
    }
    for login in cx
        .world
        .logins
        .values_mut()
        .filter(|login| login.user_id == row.user_id)
    {
        login.primary = login.id == row.id;
    }
    told(cx, "login.update", &row);
    Ok(Answer::no_content())
}

fn told(cx: &mut Context<'_>, kind: &str, row: &Login) {
    cx.emit(Happened {
        kind,
        object_type: "Login",
        object_id: row.id,
        ..Happened::default()
    });
}
