//! The timer that limits the calls of a worker process.
//!
//! Runs on the main thread.

#![allow(unsafe_code)]

use std::{
    ffi::{c_int, c_long},
    io,
    time::Duration,
};

use nix::libc::timeval;
use pyo3::prelude::*;

use super::{Limits, NEVER};

const ITIMER_REAL: c_int = 0;
const NO_TIME: timeval = timeval { tv_sec: 0, tv_usec: 0 };
const OFF: Times = Times { then: NO_TIME, first: NO_TIME };

/// The timer of a worker process, `ITIMER_REAL`. Every call of `run()` starts and stops it, so this
/// calls the system. `scripting/deadline.py` is called only if the timer has fired.
pub(in crate::worker) struct Timer {
    /// The times of a call.
    call: Times,
    /// The times between calls.
    rest: Times,
    /// `arm(first, then)` of `scripting/deadline.py`, in seconds; 0 disarms.
    arm: Py<PyAny>,
}

/// `struct itimerval` of POSIX: when the timer fires again after the first time, and when it fires
/// first. Zero means never.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    then: timeval,
    first: timeval,
}

extern "C" {
    // The crate libc does not have it for Linux.
    fn setitimer(which: c_int, new: *const Times, old: *mut Times) -> c_int;
}

impl Timer {
    pub(super) fn new(py: Python<'_>, limits: Limits) -> PyResult<Self> {
        let call = Times::of(limits);
        let arm = py.import("azureml_inference_server_http.scripting.deadline")?.getattr("arm")?.unbind();
        Ok(Self { call, rest: call.rest(), arm })
    }

    pub(super) fn start(&self) -> PyResult<()> {
        set(self.call)?;
        Ok(())
    }

    pub(super) fn stop(&self, py: Python<'_>) -> PyResult<()> {
        if stop(self.rest, set)? {
            return Ok(());
        }
        self.arm.call1(py, (0, 0)).map(drop)
    }
}

impl Times {
    /// The times of a call.
    fn of(limits: Limits) -> Self {
        let (first, then) = limits.first_and_then();
        Self { then: as_timeval(then), first: as_timeval(first) }
    }

    /// The times between such calls. After a call with a first look that is no limit, the timer stays
    /// on and never fires. For if the signal of that look is still pending when the call returns, its
    /// handler must see that another look was to follow: else it takes it for the limit.
    fn rest(self) -> Self {
        if self.then == NO_TIME {
            OFF
        } else {
            Self { then: as_timeval(NEVER), first: as_timeval(NEVER) }
        }
    }
}

/// Ends the time of a call. Returns false if the timer has fired for the last time: then
/// `scripting/deadline.py` may have something to undo.
fn stop(rest: Times, mut set: impl FnMut(Times) -> io::Result<Times>) -> io::Result<bool> {
    let before = set(rest)?;
    if before.then != NO_TIME {
        return Ok(true);
    }
    // The first look is over, or was to be the limit: a signal that is pending is the limit.
    if rest != OFF {
        set(OFF)?;
    }
    Ok(before.first != NO_TIME)
}

/// Sets the timer. Returns the times that were left.
fn set(times: Times) -> io::Result<Times> {
    let mut before = OFF;
    // SAFETY: both pointers are valid for the time of the call.
    match unsafe { setitimer(ITIMER_REAL, &times, &mut before) } {
        0 => Ok(before),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The field types are inferred: libc deprecates the name `time_t` on musl.
fn as_timeval(time: Duration) -> timeval {
    timeval { tv_sec: time.as_secs().try_into().unwrap_or(c_long::MAX), tv_usec: time.subsec_micros() as _ }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the timer is set to when a call with these limits ends, and whether it was still running.
    /// `before` is what was left.
    fn end(limits: Limits, before: impl FnOnce(Times) -> Times) -> (Times, bool) {
        let call = Times::of(limits);
        let mut timer = before(call);
        let runs = stop(call.rest(), |times| Ok(std::mem::replace(&mut timer, times))).expect("no error");
        (timer, runs)
    }

    fn limits(scoring_timeout: u64, worker_timeout: u64) -> Limits {
        Limits::of(Duration::from_secs(scoring_timeout), Duration::from_secs(worker_timeout))
    }

    #[test]
    fn a_look_that_is_pending_when_the_call_returns_is_not_taken_for_the_limit() {
        for limits in [limits(3600, 300), limits(0, 300)] {
            // The system has started the second time when the first one was over.
            let (after, runs) = end(limits, |call| Times { first: call.then, ..call });
            assert_ne!(after.then, NO_TIME, "the handler sees another look");
            assert_eq!(after.first, as_timeval(NEVER));
            assert!(runs);
        }
    }

    #[test]
    fn a_limit_that_is_pending_when_the_call_returns_is_the_limit() {
        // The handler of the first look has set the timer to what was left, once; or there was no such
        // look. Then it has fired.
        for limits in [limits(3600, 300), limits(60, 300)] {
            assert_eq!(end(limits, |_| OFF), (OFF, false));
        }
    }

    #[test]
    fn a_call_that_ends_before_its_limit_leaves_nothing_to_undo() {
        assert_eq!(end(limits(60, 300), |call| call), (OFF, true));
        let after_look = Times { first: as_timeval(Duration::from_secs(9)), ..OFF };
        assert_eq!(end(limits(3600, 300), |_| after_look), (OFF, true));
        assert!(end(limits(3600, 300), |call| call).1);
    }
}
