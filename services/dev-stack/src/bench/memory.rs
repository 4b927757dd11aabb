//! What each service holds while nothing is asked of it.

use std::time::Duration;

use anyhow::Context;

use super::figure::Figure;
use crate::stack::{SERVICES, Stack};

/// What a service may hold at rest.
const AIM_MIB: f64 = 20.0;
/// Nothing has been asked for this long.
const REST: Duration = Duration::from_secs(5);

/// Resident memory of each service of a prepared stack.
pub async fn measure(stack: &Stack) -> anyhow::Result<Vec<Figure>> {
    tokio::time::sleep(REST).await;
    let pids = stack.pids();
    SERVICES
        .iter()
        .map(|service| {
            let pid = pids
                .get(*service)
                .with_context(|| format!("{service} does not run"))?;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let name = format!("{service}, memory at rest");
            Ok(Figure::new(name, mib(&status, "VmRSS:")?, "MiB").at_most(AIM_MIB))
        })
        .collect()
}

/// A size out of `/proc/{pid}/status`.
pub fn mib(status: &str, field: &str) -> anyhow::Result<f64> {
    let kib: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .with_context(|| field.to_owned())?;
    Ok(kib / 1024.0)
}
