//! The timer that limits the calls of a worker process.
//!
//! Runs on the main thread.

#![allow(unsafe_code)]

use std::{ffi::c_int, io, time::Duration};

use nix::libc::{suseconds_t, time_t, timeval};
use pyo3::prelude::*;

use super::Limits;

const ITIMER_REAL: c_int = 0;
const NO_TIME: timeval = timeval { tv_sec: 0, tv_usec: 0 };

/// The timer of a worker process, `ITIMER_REAL`. Every call of `run()` starts and stops it, so this
/// calls the system. `scripting/deadline.py` is called only if the timer has fired.
pub(in crate::worker) struct Timer {
    /// The times of a call.
    call: Times,
    /// `arm(first, then)` of `scripting/deadline.py`, in seconds; 0 disarms.
    arm: Py<PyAny>,
}

/// `struct itimerval` of POSIX: when the timer fires again after the first time, and when it fires
/// first. Zero means never.
#[repr(C)]
#[derive(Clone, Copy)]
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
        let (first, then) = limits.first_and_then();
        let arm = py.import("azureml_inference_server_http.scripting.deadline")?.getattr("arm")?.unbind();
        Ok(Self { call: Times { then: as_timeval(then), first: as_timeval(first) }, arm })
    }

    pub(super) fn start(&self) -> PyResult<()> {
        set(self.call)?;
        Ok(())
    }

    /// A timer that was still running has done nothing that must be undone.
    pub(super) fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let before = set(Times { then: NO_TIME, first: NO_TIME })?;
        if before.first.tv_sec != 0 || before.first.tv_usec != 0 {
            return Ok(());
        }
        self.arm.call1(py, (0, 0)).map(drop)
    }
}

/// Sets the timer. Returns the times that were left.
fn set(times: Times) -> io::Result<Times> {
    let mut before = Times { then: NO_TIME, first: NO_TIME };
    // SAFETY: both pointers are valid for the time of the call.
    match unsafe { setitimer(ITIMER_REAL, &times, &mut before) } {
        0 => Ok(before),
        _ => Err(io::Error::last_os_error()),
    }
}

fn as_timeval(time: Duration) -> timeval {
    timeval {
        tv_sec: time_t::try_from(time.as_secs()).unwrap_or(time_t::MAX),
        tv_usec: time.subsec_micros() as suseconds_t,
    }
}
