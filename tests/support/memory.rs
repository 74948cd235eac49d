//! What processes take.
#![expect(clippy::unwrap_used, reason = "a test that cannot measure has failed")]

/// The memory of a process that is resident now, in bytes. `process` is its number, or `self`.
pub(crate) fn resident_bytes(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}
