//! The order in which a door decides, each step over all that come after it; and whose door it is.

use reqwest::Method;
use serde_json::{Value, json};

use kisi_simulator::rows::Hours;
use kisi_simulator::world::World;

use crate::harness::{KEY, Kisi};

async fn code(kisi: &Kisi, key: &str, body: Value) -> (u16, String) {
    let path = format!("/locks/{}/unlock", kisi.front_door);
    let answer = kisi
        .call_as(Some(key), Method::POST, &path, Some(body))
        .await;
    let code = answer.body["code"].as_str().unwrap_or_default().to_owned();
    (answer.status, code)
}

fn change(kisi: &Kisi, change: impl FnOnce(&mut World)) {
    change(&mut kisi.simulator.shared().lock().world);
}

#[tokio::test]
async fn what_is_decided_first_hides_what_is_decided_later() {
    let kisi = Kisi::start().await;
    let ada = kisi.user("ada@example.com").await;
    let (_, secret) = kisi.login("ada@example.com").await;
    let (lock, place, group) = (kisi.front_door, kisi.place, kisi.group);
    let row = kisi.grant(ada).await.id();
    // Everything is wrong at once, and put right one by one, in Kisi's order.
    change(&kisi, |world| {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let door = world.locks.get_mut(&lock).expect("the door");
        door.locked_down_since = Some(now);
        door.reader_restriction_enabled = Some(true);
        door.time_restriction_enabled = Some(true);
        door.on_scheduled_unlock = true;
        door.online = Some(false);
        let place = world.places.get_mut(&place).expect("the place");
        place.locked_down_since = Some(now);
        world.users.get_mut(&ada).expect("the user").access_enabled = false;
        let row = world.assignments.get_mut(&row).expect("the row");
        row.valid_until = Some(now);
        let group = world.groups.get_mut(&group).expect("the group");
        group.rules.login_enabled = false;
    });
    let said = async || code(&kisi, &secret, json!({})).await;
    let is = |status: u16, code: &str| (status, code.to_owned());
    let unknown = code(&kisi, "nobody", json!({})).await;
    assert_eq!(unknown, is(401, "000401"), "a credential comes first");
    assert_eq!(said().await, is(409, "fad001"));
    change(&kisi, |world| {
        let door = world.locks.get_mut(&lock).expect("the door");
        door.locked_down_since = None;
    });
    assert_eq!(said().await, is(409, "fad002"));
    change(&kisi, |world| {
        let place = world.places.get_mut(&place).expect("the place");
        place.locked_down_since = None;
    });
    assert_eq!(said().await, is(403, "fcd8ff"));
    change(&kisi, |world| {
        let user = world.users.get_mut(&ada).expect("the user");
        user.access_enabled = true;
    });
    assert_eq!(said().await, is(403, "f35ade"));
    change(&kisi, |world| {
        let row = world.assignments.get_mut(&row).expect("the row");
        row.valid_until = None;
    });
    assert_eq!(said().await, is(403, "f01337"));
    change(&kisi, |world| {
        let group = world.groups.get_mut(&group).expect("the group");
        group.rules.login_enabled = true;
    });
    assert_eq!(said().await, is(403, "34ffaa"));
    // Door-level restrictions bind everybody, the owner's key included.
    assert_eq!(code(&kisi, KEY, json!({})).await, is(403, "34ffaa"));
    change(&kisi, |world| {
        let door = world.locks.get_mut(&lock).expect("the door");
        door.time_restriction_enabled = None;
    });
    assert_eq!(said().await, is(403, "bb4faa"));
    let proof = || json!({ "lock": { "proximity_proof": "4711" } });
    assert_eq!(code(&kisi, &secret, proof()).await, is(409, "fad110"));
    change(&kisi, |world| {
        let door = world.locks.get_mut(&lock).expect("the door");
        door.on_scheduled_unlock = false;
    });
    assert_eq!(code(&kisi, &secret, proof()).await, is(503, "fac001"));
    change(&kisi, |world| {
        world.locks.get_mut(&lock).expect("the door").configured = false;
    });
    assert_eq!(code(&kisi, &secret, proof()).await, is(409, "ff420a"));
    change(&kisi, |world| {
        let door = world.locks.get_mut(&lock).expect("the door");
        (door.configured, door.online) = (true, Some(true));
    });
    assert_eq!(code(&kisi, &secret, proof()).await, is(200, ""));

    // Each try was told, with its code.
    let events = kisi.control(Method::GET, "/events", json!({})).await;
    let told: Vec<_> = events
        .as_array()
        .expect("events")
        .iter()
        .filter(|event| event["type"] == "lock.unlock" && event["actor_id"] == ada)
        .map(|event| event["error_code"].as_str().unwrap_or("opened").to_owned())
        .collect();
    let expected = [
        "fad001", "fad002", "fcd8ff", "f35ade", "f01337", "34ffaa", "bb4faa", "fad110", "fac001",
        "ff420a", "opened",
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn hours_are_those_of_the_place_and_else_of_the_organization() {
    let kisi = Kisi::start().await;
    let ada = kisi.user("ada@example.com").await;
    let (_, secret) = kisi.login("ada@example.com").await;
    kisi.grant(ada).await;
    let (group, place) = (kisi.group, kisi.place);
    change(&kisi, |world| {
        let rules = &mut world.groups.get_mut(&group).expect("the group").rules;
        rules.time_restriction_enabled = true;
        let hour = |hour| jiff::civil::time(hour, 0, 0, 0);
        rules.hours = Some(Hours {
            from: hour(6),
            to: hour(12),
        });
        for organization in world.organizations.values_mut() {
            organization.time_zone = "Europe/Berlin".into();
        }
    });
    let set = async |now: &str| {
        let body = json!({ "now": now });
        kisi.control(Method::POST, "/clock", body).await;
        code(&kisi, &secret, json!({})).await.0
    };
    // 05:30 in London is 06:30 in Berlin.
    assert_eq!(set("2030-01-15T05:30:00Z").await, 200);
    change(&kisi, |world| {
        let place = world.places.get_mut(&place).expect("the place");
        place.time_zone = Some("Europe/London".into());
    });
    assert_eq!(set("2030-01-15T05:30:00Z").await, 403);
    assert_eq!(set("2030-01-15T06:00:00Z").await, 200);
    assert_eq!(set("2030-01-15T12:00:00Z").await, 403);
}

#[tokio::test]
async fn a_team_opens_doors_for_its_members_although_their_own_right_was_revoked() {
    let kisi = Kisi::start().await;
    let seed = json!({ "organizations": [{
        "name": "Other House", "owner": { "email": "o@other.example.com", "api_key": "other" },
        "places": [{ "name": "Main", "locks": [{ "name": "Front" }] }],
        "groups": [{ "name": "All", "locks": ["Front"] }],
        "users": [
            { "email": "ada@example.com", "groups": ["All"] },
            { "email": "bob@example.com", "groups": ["All"], "role": "organization_basic" },
        ],
        "teams": [{ "name": "Staff", "members": ["ada@example.com"], "groups": ["All"] }],
    }]});
    let made = kisi.control(Method::POST, "/seed", seed).await;
    let users = made["organizations"][0]["users"].clone();
    let opens = async |email: &str| {
        let path = format!("/doors?email={}", email.replace('@', "%40"));
        let doors = kisi.control(Method::GET, &path, json!({})).await;
        doors["doors"][0]["opens"].clone()
    };
    for (n, email, without) in [(1, "ada@example.com", true), (2, "bob@example.com", false)] {
        assert_eq!(opens(email).await, json!(true), "{email}");
        let path = format!(
            "/role_assignments?assignee_type=User&assignee_id={}&scope=group&limit=250",
            users[n]["id"]
        );
        let listed = kisi.call_as(Some("other"), Method::GET, &path, None).await;
        let path = format!("/role_assignments/{}", listed.rows()[0]["id"]);
        let gone = kisi
            .call_as(Some("other"), Method::DELETE, &path, None)
            .await;
        assert_eq!(gone.status, 204, "{email}");
        // The wrong client takes the revoked row for a shut door.
        assert_eq!(opens(email).await, json!(without), "{email}");
    }

    // And what the door says is what the list of doors says: a mere member sees none.
    for (email, seen) in [("ada@example.com", 1), ("bob@example.com", 0)] {
        let body = json!({ "login": { "type": "device", "email": email } });
        let login = kisi
            .call_as(Some("other"), Method::POST, "/logins", Some(body))
            .await;
        let secret = login.body["secret"].as_str().map(str::to_owned);
        let doors = kisi
            .call_as(secret.as_deref(), Method::GET, "/locks", None)
            .await;
        assert_eq!(doors.rows().len(), seen, "{email}");
    }
}
