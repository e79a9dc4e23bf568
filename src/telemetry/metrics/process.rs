//! What the system tells about processes: memory, processor time, descriptors. Linux only: elsewhere nothing is shown.

#[cfg(target_os = "linux")]
pub use self::linux::{resident_bytes, Whole};

/// Resident memory of a process; `None` where the system does not tell it in this way.
#[cfg(not(target_os = "linux"))]
pub fn resident_bytes(_pid: u32) -> Option<u64> {
    None
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    use nix::unistd::{sysconf, SysconfVar};

    /// Resident memory of a process; `None` if there is no such process.
    pub fn resident_bytes(pid: u32) -> Option<u64> {
        let pages: u64 = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?.split(' ').nth(1)?.parse().ok()?;
        Some(pages * setting(SysconfVar::PAGE_SIZE)?)
    }

    /// The server as one: a process and its children.
    #[derive(Debug, Default, PartialEq)]
    pub struct Whole {
        /// When the first process was started, in seconds since 1970.
        pub start_time: f64,
        /// Resident memory of all of them, in bytes.
        pub resident_bytes: u64,
        /// Processor time of all of them, in seconds, and of the children that have ended.
        pub cpu_seconds: f64,
        /// Descriptors of all of them.
        pub open_fds: u64,
    }

    impl Whole {
        /// Asks about a process and its children. `None` if the system does not tell it.
        pub fn of(first: u32) -> Option<Self> {
            let per_second = setting(SysconfVar::CLK_TCK)? as f64;
            let start_time = booted()? + Stat::of(first)?.start / per_second;
            consistent(
                || Stat::of(first),
                |own| {
                    let mut whole = Self { start_time, cpu_seconds: own.of_ended / per_second, ..Self::default() };
                    let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children"));
                    let children = children.unwrap_or_default();
                    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
                    for pid in std::iter::once(first).chain(children) {
                        let Some(stat) = Stat::of(pid) else { continue };
                        // That of the first process is in the sum already.
                        let of_ended = if pid == first { 0.0 } else { stat.of_ended };
                        whole.cpu_seconds += (stat.cpu + of_ended) / per_second;
                        whole.resident_bytes += resident_bytes(pid).unwrap_or_default();
                        whole.open_fds += fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |fds| fds.count() as u64);
                    }
                    whole
                },
            )
        }
    }

    /// What `ask` finds while no child ends: its processor time goes over to its parent then, so it could be counted twice,
    /// or not at all, and a counter would go backwards. After a few attempts the last answer has to do.
    fn consistent<T>(own: impl Fn() -> Option<Stat>, mut ask: impl FnMut(&Stat) -> T) -> Option<T> {
        let mut before = own()?;
        let mut attempts = 0;
        loop {
            let found = ask(&before);
            let after = own()?;
            attempts += 1;
            if after.of_ended == before.of_ended || attempts == ATTEMPTS {
                return Some(found);
            }
            before = after;
        }
    }

    /// How often the processes are asked if children end meanwhile.
    const ATTEMPTS: usize = 5;

    /// Fields of `/proc/<pid>/stat`, in clock ticks.
    struct Stat {
        /// Processor time of the process itself.
        cpu: f64,
        /// Processor time of its children that have ended.
        of_ended: f64,
        /// When it was started, after the system.
        start: f64,
    }

    impl Stat {
        fn of(pid: u32) -> Option<Self> {
            let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name of the process is in parentheses and may have any characters.
            let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
            let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
            Some(Self { cpu: field(14)? + field(15)?, of_ended: field(16)? + field(17)?, start: field(22)? })
        }
    }

    /// When the system was started, in seconds since 1970.
    fn booted() -> Option<f64> {
        let text = fs::read_to_string("/proc/stat").ok()?;
        text.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok())
    }

    fn setting(variable: SysconfVar) -> Option<u64> {
        u64::try_from(sysconf(variable).ok()??).ok()
    }

    #[cfg(test)]
    #[allow(clippy::expect_used)]
    mod tests {
        use super::*;

        #[test]
        fn this_process_has_memory_time_and_descriptors() {
            let whole = Whole::of(std::process::id()).expect("a process");
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
            assert!(whole.start_time > 0.0 && whole.start_time <= now.as_secs_f64() + 60.0, "{whole:?}");
            assert!(whole.resident_bytes > 100_000 && whole.open_fds >= 3 && whole.cpu_seconds >= 0.0, "{whole:?}");
            assert_eq!(Whole::of(u32::MAX), None);
        }

        #[test]
        fn a_child_that_ends_meanwhile_is_asked_about_again() {
            let of_ended = std::cell::RefCell::new(vec![9.0, 9.0, 5.0, 2.0]);
            let own = || of_ended.borrow_mut().pop().map(|of_ended| Stat { cpu: 0.0, of_ended, start: 0.0 });
            let mut asked = Vec::new();
            let found = consistent(own, |own| {
                asked.push(own.of_ended);
                asked.len()
            });
            assert_eq!((found, asked), (Some(3), vec![2.0, 5.0, 9.0]));
        }

        #[test]
        fn own_memory_is_told() {
            assert!(resident_bytes(std::process::id()).is_some_and(|bytes| bytes >> 20 < 100_000));
            assert_eq!(resident_bytes(u32::MAX), None);
        }
    }
}
