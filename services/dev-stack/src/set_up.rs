//! The integration, set up as staff would: over the gateway's JSON routes, key, place,
//! associations, sync.
//!
//! With another Kisi only the key is saved; which groups open for which plan is for a person to
//! say.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::roster::{CLASSES, GYM, OPEN_GYM, OTHER_GYM};
use crate::simulated_kisi;
use crate::stack::Stack;

/// How long a first sync may take: some 500 requests at the simulator's rate.
const SYNC_WITHIN: Duration = Duration::from_secs(180);

/// A replica that stands still is replaced within 15 seconds; until then its gyms' calls are to be
/// sent again.
const GYMS_CHANGE_HANDS: Duration = Duration::from_secs(40);

/// What the set-up found at Kisi for the demo gym; nothing with another Kisi.
#[derive(Clone, Debug, Default)]
pub struct KisiIds {
    pub place: Option<i64>,
    /// Group by plan.
    pub groups: BTreeMap<&'static str, i64>,
}

/// Sets both gyms up with the simulator; saves the key with another Kisi.
pub async fn integrations(stack: &mut Stack) -> anyhow::Result<()> {
    if stack.simulator.is_none() {
        return save_key(stack, GYM, &stack.kisi_key.clone()).await;
    }
    let keys = simulated_kisi::seed(stack)
        .await
        .context("seeding the simulator")?;
    for (gym, key) in [(GYM, keys.demo), (OTHER_GYM, keys.small)] {
        let ids = integration(stack, gym, &key)
            .await
            .with_context(|| format!("setting {gym} up"))?;
        if gym == GYM {
            stack.kisi = ids;
        }
    }
    Ok(())
}

async fn integration(stack: &Stack, gym: &str, key: &str) -> anyhow::Result<KisiIds> {
    save_key(stack, gym, key).await?;
    let places = call(stack, gym, Method::GET, "/integration/places", None).await?;
    let place = places["places"][0]["place_id"]
        .as_i64()
        .context("no place at Kisi")?;
    call(
        stack,
        gym,
        Method::PUT,
        "/integration/place",
        Some(json!({ "place_id": place })),
    )
    .await?;

    let groups = call(stack, gym, Method::GET, "/integration/groups", None).await?;
    let group = |name: &str| {
        let groups = groups["groups"].as_array()?;
        groups.iter().find(|group| group["name"] == name)?["group_id"].as_i64()
    };
    let mut ids = KisiIds {
        place: Some(place),
        groups: BTreeMap::new(),
    };
    for (plan, name) in simulated_kisi::GROUP_OF_PLAN {
        if let Some(group) = group(name) {
            ids.groups.insert(plan, group);
        }
    }
    anyhow::ensure!(
        ids.groups.contains_key(OPEN_GYM),
        "no group for {OPEN_GYM} in {groups}"
    );
    let associations: Vec<Value> = ids
        .groups
        .iter()
        .map(|(plan, group)| json!({ "plan_id": plan, "group_id": group }))
        .collect();
    debug_assert!(gym != GYM || ids.groups.contains_key(CLASSES));
    let held = call(stack, gym, Method::GET, "/integration", None).await?;
    if held["associations"].as_array().is_none_or(Vec::is_empty) {
        let body = json!({ "associations": associations });
        call(
            stack,
            gym,
            Method::PUT,
            "/integration/associations",
            Some(body),
        )
        .await?;
    }
    sync(stack, gym).await?;
    Ok(ids)
}

/// Saves the key, or replaces the one an earlier run saved.
async fn save_key(stack: &Stack, gym: &str, key: &str) -> anyhow::Result<()> {
    let body = json!({ "api_key": key });
    let (status, answer) = send(stack, gym, Method::POST, "/integration", Some(&body)).await?;
    match status {
        StatusCode::CONFLICT => {
            let held = call(stack, gym, Method::GET, "/integration", None).await?;
            if held["key"]["status"] != "ok" {
                call(stack, gym, Method::PUT, "/integration/api-key", Some(body)).await?;
            }
            Ok(())
        }
        status if status.is_success() => Ok(()),
        status => bail!("saving the Kisi API key for {gym}: {status} {answer}"),
    }
}

/// Starts a sync and waits until it ends; the sync as the gateway shows it.
pub async fn sync(stack: &Stack, gym: &str) -> anyhow::Result<Value> {
    let started = call(
        stack,
        gym,
        Method::POST,
        "/integration/sync",
        Some(json!({})),
    )
    .await?;
    let id = started["id"].as_str().context("the sync has no id")?;
    let deadline = Instant::now() + SYNC_WITHIN;
    loop {
        let sync = call(
            stack,
            gym,
            Method::GET,
            &format!("/integration/syncs/{id}"),
            None,
        )
        .await?;
        match sync["state"].as_str() {
            Some("queued" | "running") => {}
            Some("done") => return Ok(sync),
            _ => bail!("the sync of {gym} ended otherwise: {sync}"),
        }
        if Instant::now() > deadline {
            bail!("the sync of {gym} is not done after {SYNC_WITHIN:?}: {sync}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One call as staff of `gym`, sent again while a gym changes hands; anything but 2xx is an error with
/// the problem in it.
pub async fn call(
    stack: &Stack,
    gym: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> anyhow::Result<Value> {
    let deadline = Instant::now() + GYMS_CHANGE_HANDS;
    loop {
        let (status, answer) = send(stack, gym, method.clone(), path, body.as_ref()).await?;
        if status.is_success() {
            return Ok(answer);
        }
        // All of these may be asked again.
        if status != StatusCode::SERVICE_UNAVAILABLE || Instant::now() > deadline {
            bail!("{method} {path} of {gym}: {status} {answer}")
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn send(
    stack: &Stack,
    gym: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<(StatusCode, Value)> {
    let url = format!(
        "http://{}/api/v1/gyms/{gym}{path}",
        stack.first("access-gateway")?.http
    );
    let mut request = stack
        .http
        .request(method, url)
        .bearer_auth(stack.issuer.staff(gym, Timestamp::now())?);
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = request
        .send()
        .await
        .context("access-gateway does not answer")?;
    let status = answer.status();
    let text = answer.text().await?;
    Ok((
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    ))
}
