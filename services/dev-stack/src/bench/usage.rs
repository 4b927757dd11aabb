//! What a process spends: time of processors, and memory.

use anyhow::Context;

use super::memory::mib;

/// A process, watched from here on.
pub struct Usage {
    pid: u32,
    /// Nanoseconds that it had run by then.
    ran: u64,
}

impl Usage {
    /// From now on.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/clear_refs");
        // The peak is counted anew.
        std::fs::write(&path, "5").context(path)?;
        Ok(Self {
            pid,
            ran: nanoseconds(pid)?,
        })
    }

    /// Seconds that it has run on any processor since then.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        Ok((nanoseconds(self.pid)?.saturating_sub(self.ran)) as f64 / 1e9)
    }

    /// The most resident memory since then.
    pub fn peak_mib(&self) -> anyhow::Result<f64> {
        mib(&self.status()?, "VmHWM:")
    }

    /// Resident memory now.
    pub fn resident_mib(&self) -> anyhow::Result<f64> {
        mib(&self.status()?, "VmRSS:")
    }

    fn status(&self) -> anyhow::Result<String> {
        let path = format!("/proc/{}/status", self.pid);
        std::fs::read_to_string(&path).context(path)
    }
}

/// Of all its threads.
fn nanoseconds(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/task");
    let mut sum = 0;
    for thread in std::fs::read_dir(&path).context(path)? {
        let path = thread?.path().join("schedstat");
        // A thread may have ended meanwhile.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        sum += text
            .split_whitespace()
            .next()
            .and_then(|ran| ran.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(sum)
}
