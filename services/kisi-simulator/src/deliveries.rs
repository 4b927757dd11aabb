//! Event webhooks on their way out: signed, and with the accidents that are set.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::render;
use crate::rows::EventRow;
use crate::state::Shared;

/// An endpoint that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Delivers events until the simulator stops.
pub async fn run(
    shared: Shared,
    mut events: mpsc::UnboundedReceiver<EventRow>,
    shutdown: CancellationToken,
) {
    let Ok(http) = reqwest::Client::builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .build()
    else {
        return;
    };
    let mut count = 0_u64;
    let mut waiting: Option<EventRow> = None;
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.recv() => event,
        };
        let Some(event) = event else { return };
        count += 1;
        let mode = shared.lock().settings.webhooks.clone();
        if mode.drop_every > 0 && count.is_multiple_of(mode.drop_every) {
            continue;
        }
        if mode.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(mode.delay_ms)).await;
        }
        // In pairs, the later one first.
        let batch = match (mode.reorder, waiting.take()) {
            (true, None) => {
                waiting = Some(event);
                continue;
            }
            (_, Some(earlier)) => vec![event, earlier],
            (false, None) => vec![event],
        };
        for event in batch {
            for _ in 0..=mode.repeat {
                deliver(&shared, &http, &event).await;
            }
        }
    }
}

async fn deliver(shared: &Shared, http: &reqwest::Client, event: &EventRow) {
    let targets: Vec<_> = {
        let state = shared.lock();
        state
            .world
            .integrations
            .values()
            .filter(|row| row.enabled && row.organization_id == event.organization_id)
            .filter(|row| row.enabled_events.contains(&event.kind))
            .map(|row| (row.id, row.url.clone(), row.signature_key.clone()))
            .collect()
    };
    for (id, url, key) in targets {
        let body = render::webhook_event(event).to_string();
        let mut request = http.post(url).header("content-type", "application/json");
        if let Some(key) = key.filter(|key| !key.is_empty())
            && let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes())
        {
            mac.update(body.as_bytes());
            let digest = hex::encode(mac.finalize().into_bytes());
            request = request.header("x-signature", format!("sha256={digest}"));
        }
        let answered = request.body(body).send().await;
        let accepted = matches!(&answered, Ok(answer) if answer.status().is_success());
        let mut state = shared.lock();
        let limit = state.settings.webhooks.disable_after_failures;
        let now = state.now();
        if let Some(row) = state.world.integrations.get_mut(&id) {
            row.failures_in_a_row = if accepted {
                0
            } else {
                row.failures_in_a_row + 1
            };
            if limit > 0 && row.failures_in_a_row >= limit {
                row.enabled = false;
                row.disabled_due_to_error_at = Some(now);
            }
        }
    }
}
