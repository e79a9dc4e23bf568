//! Whether a debugger holds a worker. No limit may end a call then, since a person is looking at it.
//!
//! Asked only when a limit has been exceeded, of the kernel, which knows debuggers from outside (`TracerPid`: gdb, strace).
//! A debugger inside the interpreter (pdb, debugpy) is noticed by `debug.py`, which renames the process meanwhile.

/// The name of a process whose interpreter is held by a debugger: `DEBUGGED` in `titles.py`.
#[cfg(any(target_os = "linux", test))]
const DEBUGGED: &str = "azml:debugged";

/// What debugs the process, for the log; `None` where the system does not tell it in this way.
#[cfg(not(target_os = "linux"))]
pub(super) fn debugger_of(_pid: u32) -> Option<String> {
    None
}

/// What debugs the process, for the log.
#[cfg(target_os = "linux")]
pub(super) fn debugger_of(pid: u32) -> Option<String> {
    debugger_in(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// The same from the text of `/proc/PID/status`.
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
