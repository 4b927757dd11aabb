//! In which bodies GoCardless posts its events: of several gyms, in no order, up to 250 in one.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::{Value, json};

use super::Event;
use crate::history::Provider;
use crate::post::Post;

/// The most that a body holds.
const MOST: usize = 250;

/// Bodies of one event up to [`MOST`], of whatever happened at about the same time; some events are
/// in two of them.
pub fn into_bodies(events: Vec<Event>, dice: &mut StdRng) -> Vec<Post> {
    let mut places = Vec::new();
    for (index, event) in events.into_iter().enumerate() {
        if dice.random_bool(0.03) {
            places.push((index + dice.random_range(0..100), event.clone()));
        }
        places.push((index + dice.random_range(0..10), event));
    }
    places.shuffle(dice);
    places.sort_by_key(|(place, _)| *place);
    let mut events = places.into_iter().map(|(_, event)| event).peekable();
    let mut posts = Vec::new();
    let full_one = dice.random_range(1..20);
    while events.peek().is_some() {
        let size = match dice.random_range(0..20) {
            _ if posts.len() == full_one => MOST / 2,
            0..13 => 1,
            13..18 => dice.random_range(2..=6),
            _ => dice.random_range(7..=30),
        };
        let mut some: Vec<Event> = events.by_ref().take(size).collect();
        if posts.len() == full_one {
            fill(&mut some, dice);
        }
        posts.push(body(some, posts.len()));
    }
    posts
}

/// Fills a body up with what a busy morning brings besides.
fn fill(events: &mut Vec<Event>, dice: &mut StdRng) {
    let at = events[0].at;
    let created_at = events[0].json["created_at"].clone();
    while events.len() < MOST {
        let number = events.len();
        let json = json!({
            "id": format!("EV00MORE{number}"), "created_at": created_at,
            "resource_type": "payments", "action": "submitted",
            "details": { "origin": "gocardless", "cause": "payment_submitted" },
            "links": { "payment": format!("PM00MORE{number}") }, "metadata": {},
        });
        let fact = None;
        events.push(Event { at, json, fact });
    }
    events.shuffle(dice);
}

fn body(events: Vec<Event>, number: usize) -> Post {
    let name = format!("WB00{number:05}");
    let at = events.iter().map(|event| event.at).max();
    let json: Vec<&Value> = events.iter().map(|event| &event.json).collect();
    let body = json!({ "events": json, "meta": { "webhook_id": name } });
    Post {
        provider: Provider::GoCardless,
        at: at.expect("an event"),
        body: body.to_string().into_bytes(),
        facts: events.into_iter().filter_map(|event| event.fact).collect(),
        name,
    }
}
