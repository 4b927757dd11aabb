//! `stack.json`, the one file that scripts read, and what a person is shown.

use anyhow::Context;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::roster::{ACCOUNT, CLASSES, DESK_ACCOUNT, GYM, OPEN_GYM, OTHER_GYM};
use crate::stack::{SERVICES, Stack};

/// The text of `stack.json`. Tokens are made anew each time, for 24 hours.
pub fn render(stack: &Stack, now: Timestamp) -> anyhow::Result<String> {
    let mut health = serde_json::Map::new();
    for service in SERVICES {
        let url = format!("http://{}", stack.first(service)?.health);
        health.insert(service.replace('-', "_"), url.into());
    }
    let group = |plan: &str| stack.kisi.groups.get(plan).copied();
    let first = stack
        .demo
        .people
        .first()
        .context("the demo gym has nobody")?;
    let members: Vec<Value> = stack
        .demo
        .rows()
        .map(|(person, contract)| {
            json!({
                "member_id": person.member_id, "email": person.email,
                "membership_id": contract.membership_id, "plan_id": contract.plan_id,
                "billing": {
                    "provider": "stripe", "account": stack.demo.account,
                    "subscription_id": contract.subscription_id,
                    "customer_id": contract.customer_id,
                },
            })
        })
        .collect();
    let file = json!({
        "urls": {
            "billing_webhook": format!("http://{}", stack.first("billing-webhook")?.http),
            "membership_events_grpc": format!("http://{}", stack.first("membership-events")?.grpc),
            "kisi_sync_grpc": format!("http://{}", stack.first("kisi-sync")?.grpc),
            "access_gateway": format!("http://{}", stack.first("access-gateway")?.http),
            "access_gateway_grpc": format!("http://{}", stack.first("access-gateway")?.grpc),
            "kisi": stack.kisi_url,
            "nats": format!("nats://{}", stack.nats),
        },
        "health": health,
        "tokens": {
            "service": stack.issuer.service(now)?,
            "staff": stack.issuer.staff(GYM, now)?,
            "member": stack.issuer.member(GYM, &first.member_id, now)?,
            "other_gym_staff": stack.issuer.staff(OTHER_GYM, now)?,
        },
        "webhooks": [
            {
                "provider": "stripe", "path": "/webhooks/stripe/main",
                "secret": stack.stripe_secret, "account": ACCOUNT, "livemode": true,
            },
            {
                "provider": "standard", "path": "/webhooks/standard/desk",
                "secret": stack.standard_secret, "account": DESK_ACCOUNT, "livemode": true,
            },
        ],
        "gym": GYM, "other_gym": OTHER_GYM, "place_id": stack.kisi.place,
        "plans": [
            { "plan_id": OPEN_GYM, "group_id": group(OPEN_GYM) },
            { "plan_id": CLASSES, "group_id": group(CLASSES) },
        ],
        "members": members,
        "pids": stack.pids(),
    });
    serde_json::to_string_pretty(&file).context("stack.json")
}

/// Addresses and sign-in links, printed once all is ready.
pub fn welcome(stack: &Stack) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let gateway = format!("http://{}", stack.first("access-gateway")?.http);
    let first = stack
        .demo
        .people
        .first()
        .context("the demo gym has nobody")?;
    println!(
        "\nReady. Ctrl-C stops everything; state stays in {}.\n",
        stack.folder.root().display()
    );
    println!("  JSON API          {gateway}/api/openapi.json");
    println!(
        "  webhooks          http://{}/webhooks/stripe/main",
        stack.first("billing-webhook")?.http
    );
    println!(
        "  memberships gRPC  http://{}",
        stack.first("membership-events")?.grpc
    );
    println!(
        "  access gRPC       http://{}",
        stack.first("access-gateway")?.grpc
    );
    println!("  Kisi              {}", stack.kisi_url);
    println!("  NATS              nats://{}", stack.nats);
    println!(
        "  for scripts       {}\n",
        stack.folder.path("stack.json").display()
    );
    println!("Sign-in links (24 hours):");
    println!(
        "  staff   {gateway}/#token={}",
        stack.issuer.staff(GYM, now)?
    );
    println!(
        "  member  {gateway}/#token={}\n",
        stack.issuer.member(GYM, &first.member_id, now)?
    );
    Ok(())
}
