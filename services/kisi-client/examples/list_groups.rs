//! Lists the access groups of a real organization:
//!
//! ```text
//! KISI_API_KEY=… cargo run -p kisi-client --example list_groups
//! ```
//!
//! `KISI_BASE_URL` (default `https://api.kisi.io`) points it at a simulator instead.

use anyhow::Context;
use kisi_client::model::GroupFilter;
use kisi_client::{
    ConnectionSettings, HttpKisi, KisiConnection, KisiRead, Lane, Pacer, PacerSettings,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let key = std::env::var("KISI_API_KEY").context("KISI_API_KEY is not set")?;
    let base_url = std::env::var("KISI_BASE_URL").unwrap_or("https://api.kisi.io".to_owned());
    let settings = ConnectionSettings::new(
        base_url.parse().context("KISI_BASE_URL")?,
        "gymflow",
        "access@example.com",
    );
    let kisi = HttpKisi::new(
        KisiConnection::new(settings)?,
        key.into(),
        Pacer::new(PacerSettings::default()),
    );

    let organization = kisi.current_organization(Lane::SetUp).await?;
    println!("{} ({})", organization.name, organization.id);
    let groups = kisi
        .list_groups(Lane::SetUp, &GroupFilter::default())
        .await?;
    for group in &groups.items {
        println!(
            "{:>10}  {:<12} {:>6} users {:>4} doors  {}",
            group.id,
            group.scope().as_str(),
            group.users_count.unwrap_or_default(),
            group.locks_count.unwrap_or_default(),
            group.name,
        );
    }
    let whole = if groups.complete {
        ""
    } else {
        ", the list changed while it was read"
    };
    println!("{} of {} groups{whole}", groups.items.len(), groups.total);
    Ok(())
}
