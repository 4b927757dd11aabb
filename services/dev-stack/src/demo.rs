//! `make demo`: a payment fails and a door closes, unattended.
//!
//! Every step enters where the outside enters (signed webhooks, staff's routes, hands in Kisi), and
//! what came of it is read back from the simulator, not from ourselves. The last line on standard
//! output is JSON for scripts.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

use crate::control::StopSignals;
use crate::folder::Folder;
use crate::roster::{CLASSES, Contract, GYM, OPEN_GYM, Person};
use crate::set_up;
use crate::settings::Settings;
use crate::simulated_kisi::{Control, FRONT_DOOR};
use crate::stack::Stack;
use crate::stripe;

/// How often the request log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long a door may take before the step is called failed; milliseconds are expected.
const DOOR_WITHIN: Duration = Duration::from_secs(15);

/// One step and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    pub name: &'static str,
    pub expected: &'static str,
    pub observed: String,
    /// From the webhook's first byte to Kisi's answer; `null` for steps without a webhook.
    pub webhook_to_kisi_ms: Option<f64>,
}

#[derive(Serialize)]
struct Outcome {
    ok: bool,
    steps: Vec<Step>,
}

/// Starts a stack, plays the demo, stops it. `Ok(false)` when a step came out otherwise.
pub async fn run(settings: &Settings) -> anyhow::Result<bool> {
    anyhow::ensure!(
        settings.kisi_base_url.is_none(),
        "the demo changes things by hand and needs the simulator: unset KISI_BASE_URL"
    );
    // Fresh data each time, unless a folder is named.
    let (data_dir, _fresh) = match &settings.data_dir {
        Some(folder) => (folder.clone(), None),
        None => {
            let fresh = tempfile::Builder::new().prefix("gymflow-demo-").tempdir()?;
            (fresh.path().to_path_buf(), Some(fresh))
        }
    };
    let mut stop = StopSignals::listen()?;
    let mut stack = Stack::start(Folder::open(&data_dir)?, settings, &mut stop).await?;
    let mut steps = Vec::new();
    let played = tokio::select! {
        played = play(&mut stack, &mut steps) => played,
        () = stop.wait() => Err(anyhow::anyhow!("stopped")),
    };
    stack.stop().await;
    if let Err(error) = played {
        print(&steps);
        return Err(error);
    }
    let ok = steps.iter().all(|step| step.observed == step.expected);
    print(&steps);
    println!("{}", serde_json::to_string(&Outcome { ok, steps })?);
    Ok(ok)
}

/// Prepares the gym and plays every step; `steps` holds those that came to an end.
pub async fn play(stack: &mut Stack, steps: &mut Vec<Step>) -> anyhow::Result<()> {
    stack.prepare().await?;
    let demo = Demo::new(stack)?;
    steps.push(demo.initial_sync().await?);
    demo.doors_follow_payments(steps).await?;
    steps.push(demo.second_membership_keeps_the_door_open().await?);
    steps.extend(demo.drift().await?);
    Ok(())
}

/// The steps, over a prepared stack.
pub struct Demo<'a> {
    stack: &'a Stack,
    kisi: Control<'a>,
    /// Makes this run's events its own, so that the demo can be played again on the same data.
    run: String,
}

impl<'a> Demo<'a> {
    /// # Errors
    /// With another Kisi than the simulator.
    pub fn new(stack: &'a Stack) -> anyhow::Result<Self> {
        Ok(Self {
            kisi: Control::of(stack)?,
            run: Timestamp::now().as_microsecond().to_string(),
            stack,
        })
    }

    /// Everybody whose membership is in force is in her plan's group, and nobody else by us.
    pub async fn initial_sync(&self) -> anyhow::Result<Step> {
        let sync = set_up::sync(self.stack, GYM).await?;
        let state = self.kisi.state().await?;
        let missing = self
            .stack
            .demo
            .rows()
            .filter(|(person, contract)| {
                !state.is_in_group(&person.email, self.stack.kisi.groups.get(contract.plan_id))
            })
            .count();
        let in_sync = sync["in_sync"] == true && missing == 0;
        let observed = if in_sync {
            "in_sync".into()
        } else {
            format!("{missing} missing: {sync}")
        };
        Ok(Step {
            name: "initial_sync",
            expected: "in_sync",
            observed,
            webhook_to_kisi_ms: None,
        })
    }

    /// Failed, paid, paused, resumed.
    pub async fn doors_follow_payments(&self, steps: &mut Vec<Step>) -> anyhow::Result<()> {
        let (person, contract) = self.holding(OPEN_GYM, 1)?;
        let invoice = format!("in_demo_{}", self.run);
        for (name, kind, expected) in [
            ("payment_failed", "invoice.payment_failed", "revoked"),
            ("payment_recovered", "invoice.paid", "granted"),
            ("paused", "customer.subscription.paused", "revoked"),
            ("resumed", "customer.subscription.resumed", "granted"),
        ] {
            let event = format!("evt_{name}_{}", self.run);
            let now = next_second().await;
            let body = if kind.starts_with("invoice.") {
                stripe::invoice_event(kind, contract, &invoice, &event, now)
            } else {
                stripe::subscription_event(kind, contract, &event, now)
            };
            steps.push(self.step(name, expected, person, contract, body).await?);
        }
        Ok(())
    }

    /// Two memberships: pausing one closes its own group, and the front door stays open by the other.
    pub async fn second_membership_keeps_the_door_open(&self) -> anyhow::Result<Step> {
        const NAME: &str = "paused_second_membership_keeps_door_open";
        let (person, first) = self.holding(OPEN_GYM, 2)?;
        let second = self
            .stack
            .demo
            .contracts
            .iter()
            .find(|c| c.plan_id == CLASSES && c.holders.first() == Some(&person.member_id))
            .context("nobody holds both plans")?;
        anyhow::ensure!(
            first.membership_id != second.membership_id,
            "two memberships"
        );
        let event = format!("evt_second_{}", self.run);
        let now = next_second().await;
        let body = stripe::subscription_event("customer.subscription.paused", second, &event, now);
        let mut step = self.step(NAME, "revoked", person, second, body).await?;
        let open = self.kisi.opens(&person.email, FRONT_DOOR).await?;
        step.expected = "granted";
        step.observed = match (step.observed.as_str(), open) {
            ("revoked", true) => "granted".into(),
            ("revoked", false) => "revoked".into(),
            (other, _) => format!("second membership not paused: {other}"),
        };
        let now = next_second().await;
        let event = format!("evt_second_back_{}", self.run);
        let body = stripe::subscription_event("customer.subscription.resumed", second, &event, now);
        self.step(NAME, "granted", person, second, body).await?;
        Ok(step)
    }

    /// One change of one member, turn by turn a failure and its payment; milliseconds from the
    /// webhook's first byte to Kisi's answer, and how many requests Kisi got.
    pub async fn one_change(&self, change: usize) -> anyhow::Result<(f64, usize)> {
        let rows: Vec<_> = self
            .stack
            .demo
            .rows()
            .filter(|(_, c)| c.holders.len() == 1)
            .collect();
        // Twice the same member: closed, then open again.
        let (person, contract) = rows[(change / 2) % 100];
        let invoice = format!("in_bench_{}_{}", self.run, change / 2);
        let event = format!("evt_bench_{}_{change}", self.run);
        let (kind, expected) = match change % 2 {
            0 => ("invoice.payment_failed", "revoked"),
            _ => ("invoice.paid", "granted"),
        };
        let seen = self.kisi.last_request().await?;
        let body = stripe::invoice_event(kind, contract, &invoice, &event, Timestamp::now());
        let step = self
            .step("change", expected, person, contract, body)
            .await?;
        anyhow::ensure!(step.observed == expected, "change {change}: {step:?}");
        let requests = self.kisi.requests(seen).await?.len();
        Ok((
            step.webhook_to_kisi_ms.context("Kisi was not asked")?,
            requests,
        ))
    }

    /// What hands changed in Kisi: an added right is left and shown, a removed one comes back.
    pub async fn drift(&self) -> anyhow::Result<Vec<Step>> {
        let classes = *self
            .stack
            .kisi
            .groups
            .get(CLASSES)
            .context("no group for classes")?;
        let (person, contract) = self.holding(OPEN_GYM, 1)?;
        let own = *self
            .stack
            .kisi
            .groups
            .get(contract.plan_id)
            .context("no group")?;

        let added = self
            .kisi
            .grant_by_hand(&format!("guest-{}@example.com", self.run), classes)
            .await?;
        let removed = self.kisi.revoke_by_hand(&person.email, own).await?;
        let report = set_up::sync(self.stack, GYM).await?["report"].clone();

        let state = self.kisi.state().await?;
        let shown = report["unmanaged_grants"]
            .as_array()
            .is_some_and(|rows| rows.iter().any(|row| row["assignment_id"] == added));
        let left = match (state.has_assignment(added), shown) {
            (true, true) => "left".into(),
            (true, false) => format!("left, not shown: {report}"),
            (false, _) => "removed".into(),
        };
        let back = if state.is_in_group(&person.email, Some(&own)) && !state.has_assignment(removed)
        {
            "granted".into()
        } else {
            format!("not back: {report}")
        };
        let step = |name, expected, observed| Step {
            name,
            expected,
            observed,
            webhook_to_kisi_ms: None,
        };
        Ok(vec![
            step("drift_added_by_hand", "left", left),
            step("drift_removed_by_hand", "granted", back),
        ])
    }

    /// Posts `body` and waits until the contract's group holds `person`, or no longer does.
    async fn step(
        &self,
        name: &'static str,
        expected: &'static str,
        person: &Person,
        contract: &Contract,
        body: Vec<u8>,
    ) -> anyhow::Result<Step> {
        let group = *self
            .stack
            .kisi
            .groups
            .get(contract.plan_id)
            .context("no group for the plan")?;
        let before = self.kisi.state().await?.right(&person.email, group);
        let seen = self.kisi.last_request().await?;
        let posted = Timestamp::now();
        self.post(body).await.context(name)?;
        // When Kisi was asked is in its request log; asking for that log often would only slow
        // down what is measured.
        let deadline = std::time::Instant::now() + DOOR_WITHIN;
        let answered = loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let answered = self.kisi.change_since(seen, &before).await?;
            if answered.is_some() || std::time::Instant::now() > deadline {
                break answered;
            }
        };
        let holds = self
            .kisi
            .state()
            .await?
            .is_in_group(&person.email, Some(&group));
        let ms = answered.map(|at| {
            let span = at.duration_since(posted).as_micros();
            // Tenths of a millisecond are as fine as this is worth reading.
            (span as f64 / 100.0).round() / 10.0
        });
        Ok(Step {
            name,
            expected,
            observed: if holds { "granted" } else { "revoked" }.into(),
            webhook_to_kisi_ms: ms,
        })
    }

    /// Posts a Stripe body as Stripe would: signed, and again until it is accepted.
    pub async fn post(&self, body: Vec<u8>) -> anyhow::Result<()> {
        let url = format!(
            "http://{}/webhooks/stripe/main",
            self.stack.first("billing-webhook")?.http
        );
        let signature = stripe::signature(&self.stack.stripe_secret, &body, Timestamp::now());
        let answer = self
            .stack
            .http
            .post(url)
            .header("content-type", "application/json")
            .header("stripe-signature", signature)
            .body(body)
            .send()
            .await?;
        let status = answer.status();
        anyhow::ensure!(status.is_success(), "{status}: {}", answer.text().await?);
        Ok(())
    }

    /// The first person with exactly `memberships` of her own, and her contract for `plan`.
    fn holding(
        &self,
        plan: &str,
        memberships: usize,
    ) -> anyhow::Result<(&'a Person, &'a Contract)> {
        let roster = &self.stack.demo;
        roster
            .rows()
            .find(|(person, contract)| {
                let held = roster
                    .rows()
                    .filter(|(p, _)| p.member_id == person.member_id)
                    .count();
                contract.plan_id == plan && held == memberships
            })
            .with_context(|| format!("nobody holds {plan} with {memberships} memberships"))
    }
}

/// Stripe's clock ticks in seconds, and of a pause and a resume in the same one the pause counts. So
/// each event of a story waits for a second of its own.
async fn next_second() -> Timestamp {
    let now = Timestamp::now();
    let rest = 1_000_000_000 - u64::try_from(now.subsec_nanosecond()).unwrap_or(0);
    tokio::time::sleep(Duration::from_nanos(rest)).await;
    Timestamp::now()
}

fn print(steps: &[Step]) {
    println!(
        "\n{:<42} {:<9} {:<9} {:>16}",
        "step", "expected", "observed", "webhook to Kisi"
    );
    for step in steps {
        let ms = step
            .webhook_to_kisi_ms
            .map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"));
        println!(
            "{:<42} {:<9} {:<9} {:>16}",
            step.name, step.expected, step.observed, ms
        );
    }
    println!();
}
