//! How much memory this process holds.

/// Bytes of memory that this process holds (`VmRSS` in proc(5)); `None` where the system does not say.
pub fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    resident.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_holds_memory() {
        let memory = super::resident_memory().expect("Linux says so");
        assert!((1 << 18..1 << 34).contains(&memory), "{memory}");
    }
}
