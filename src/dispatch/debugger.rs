//! Finds out if a debugger holds a worker. Then no limit may end its call, because a person is
//! looking at it.
//!
//! The front asks only when a worker has exceeded a limit. The kernel reports debuggers that attach
//! from outside (`TracerPid`: gdb, strace). `scripting/debug.py` notices debuggers inside the
//! interpreter (pdb, debugpy), and renames the process for as long as one holds it.

/// The name of a process whose interpreter is held by a debugger: `DEBUGGED` in
/// `supervise/titles.py`.
#[cfg(any(target_os = "linux", test))]
const DEBUGGED: &str = "azml:debugged";

/// The debugger of the process, in words for the log; `None` where the system does not tell it in
/// this way.
#[cfg(not(target_os = "linux"))]
pub(super) fn debugger_of(_pid: u32) -> Option<String> {
    None
}

/// The debugger of the process, in words for the log.
#[cfg(target_os = "linux")]
pub(super) fn debugger_of(pid: u32) -> Option<String> {
    debugger_in(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// The debugger of the process whose `/proc/PID/status` has this text, in words for the log.
#[cfg(any(target_os = "linux", test))]
fn debugger_in(status: &str) -> Option<String> {
    let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match value("TracerPid:") {
        Some("0") | None => {}
        Some(tracer) => return Some(format!("process {tracer} debugs it")),
    }
    (value("Name:") == Some(DEBUGGED)).then(|| "a debugger in it (pdb, debugpy) holds it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::debugger_in;

    #[test]
    fn debuggers_outside_and_inside_are_told_from_none() {
        assert_eq!(debugger_in("Name:\tpython\nTracerPid:\t0\n"), None);
        assert_eq!(debugger_in("Name:\tpython\nTracerPid:\t71\n"), Some("process 71 debugs it".to_owned()));
        assert!(debugger_in("Name:\tazml:debugged\nTracerPid:\t0\n").is_some());
        assert_eq!(debugger_in(""), None);
    }
}
