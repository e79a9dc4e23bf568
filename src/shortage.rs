//! Messages for when the system runs out of descriptors, memory or disk.
//!
//! Owns the texts and how often they are logged; the callers decide what happens next.
//! `supervise/shortage.py` does the same for the supervisor.

use std::{
    io,
    time::{Duration, Instant},
};

/// Pause after a connection could not be accepted. Descriptors and memory may be released
/// meanwhile.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// An error that continues is logged again after this time.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// The remedy where only a worker knows the error, so the front has no error code.
#[cfg(unix)]
pub const OPEN_FILES_OR_MEMORY: &str = "Raise its limit of open files (ulimit -n) or of memory.";

/// The remedy for an error of the system; empty if the error's own text says enough.
pub fn remedy(error: &io::Error) -> &'static str {
    #[cfg(unix)]
    {
        use nix::libc::{EDQUOT, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC, EROFS, ETOOMANYREFS};

        match error.raw_os_error() {
            Some(EMFILE | ETOOMANYREFS) => "Raise the limit of open files (ulimit -n, nofile of the container).",
            Some(ENFILE) => "Raise the system's limit of open files (fs.file-max).",
            Some(ENOMEM | ENOBUFS) => "Give the machine or the container more memory, or use fewer workers.",
            Some(ENOSPC | EDQUOT) => "Free space there, or write elsewhere.",
            Some(EROFS) => "Write to a folder that is not read-only.",
            _ => "",
        }
    }
    #[cfg(not(unix))]
    {
        let _ = error;
        ""
    }
}

/// Logs an error that may come many times a second: at once, then once a minute while it goes on.
#[derive(Debug, Default)]
pub struct Repeated {
    last_said: Option<Instant>,
    unsaid: u64,
}

impl Repeated {
    /// Logs the error, if a line is due. `consequence` says what cannot be done and what follows.
    pub fn log(&mut self, consequence: &str, error: &io::Error) {
        if let Some(before) = self.is_due(Instant::now()) {
            let again = if before > 0 { format!(" ({before} times since the last such line)") } else { String::new() };
            log::error!(target: "azmlinfsrv.front", "{consequence}: {error}{again}. {}", remedy(error));
        }
    }

    /// The number of errors since the last line that were not logged; `None` if this one must not
    /// be logged either.
    fn is_due(&mut self, now: Instant) -> Option<u64> {
        if self.last_said.is_some_and(|last| now.duration_since(last) < SAY_EVERY) {
            self.unsaid += 1;
            return None;
        }
        self.last_said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_goes_on_is_logged_once_a_minute() {
        let mut repeated = Repeated::default();
        let start = Instant::now();
        let said: Vec<_> = (0..1300u32)
            .filter_map(|turn| {
                let before = repeated.is_due(start + ACCEPT_PAUSE * turn)?;
                Some((turn, before))
            })
            .collect();
        assert_eq!(said, [(0, 0), (600, 599), (1200, 599)]);
    }

    #[cfg(unix)]
    #[test]
    fn each_shortage_has_a_remedy() {
        use nix::libc;

        for code in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOSPC, libc::EDQUOT, libc::EROFS] {
            let error = io::Error::from_raw_os_error(code);
            assert!(remedy(&error).ends_with('.'), "{error}");
        }
        assert_eq!(remedy(&io::ErrorKind::Other.into()), "");
    }
}
