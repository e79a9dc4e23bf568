//! The scoring timeout: interrupts a call of `run()` that takes too long, and makes sure that
//! nothing else is interrupted (contract section 8).
//!
//! In a worker process a timer signal interrupts it (`scripting/deadline.py`). Signals reach the
//! main thread only, so for worker threads the watcher thread of this file takes the GIL and raises
//! `TimeoutError` in them with `PyThreadState_SetAsyncExc`. The thread sees the exception when it
//! next runs Python code, that is, after a `time.sleep` or native code has returned.

#![allow(unsafe_code)]

#[cfg(unix)]
mod timer;

use std::{
    ffi::{c_long, c_ulong},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use pyo3::{exceptions::PyTimeoutError, ffi, prelude::*};

#[cfg(unix)]
use self::timer::Timer;
use crate::{
    fault_injection::{point, Point},
    panics::catch,
};

/// The interval of a timer that must fire only once.
#[cfg(any(unix, test))]
const NEVER: Duration = Duration::from_secs(100_000_000);

/// Pause of the watcher's thread after a panic.
const PAUSE_AFTER_PANIC: Duration = Duration::from_millis(100);

/// The times at which a call is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Shortly before `WORKER_TIMEOUT`, when the front would have the worker killed: check for a
    /// debugger, so that the front learns of it. `None` if the scoring time-out comes first.
    check: Option<Duration>,
    /// The scoring time-out: the call is interrupted.
    limit: Option<Duration>,
}

impl Limits {
    /// Computes the times from `SCORING_TIMEOUT_MS` and `WORKER_TIMEOUT`; zero means none.
    pub(super) fn of(scoring_timeout: Duration, worker_timeout: Duration) -> Self {
        let limit = Some(scoring_timeout).filter(|limit| !limit.is_zero());
        let check = worker_timeout - (worker_timeout / 2).min(Duration::from_secs(1));
        let check = Some(check).filter(|check| !check.is_zero() && limit.is_none_or(|limit| *check < limit));
        Self { check, limit }
    }

    /// True if there are no limits.
    pub(super) fn are_none(self) -> bool {
        self.check.is_none() && self.limit.is_none()
    }

    /// The time to the first look and, if that look is only a check for a debugger, the time from
    /// there to the limit.
    #[cfg(any(unix, test))]
    fn first_and_then(self) -> (Duration, Duration) {
        match (self.check, self.limit) {
            (Some(check), limit) => (check, limit.map_or(NEVER, |limit| limit - check)),
            (None, limit) => (limit.unwrap_or(NEVER), Duration::ZERO),
        }
    }
}

/// Limits the calls of one worker.
pub(super) enum Deadline {
    /// By the process's timer.
    #[cfg(unix)]
    Signal(Timer),
    /// The watcher thread interrupts the call.
    Watched(Watched),
}

impl Deadline {
    /// Makes the deadline for the main thread of a worker process, whose calls have these limits.
    #[cfg(unix)]
    pub(super) fn by_signal(py: Python<'_>, limits: Limits) -> PyResult<Self> {
        Timer::new(py, limits).map(Self::Signal)
    }

    /// Starts the time of a call.
    pub(super) fn arm(&self, limits: Limits) -> PyResult<()> {
        match self {
            #[cfg(unix)]
            Self::Signal(timer) => timer.start(),
            Self::Watched(watched) => {
                watched.arm(limits);
                Ok(())
            }
        }
    }

    /// Ends the time of a call that has just returned. After this the limit cannot interrupt
    /// anything. An error means that the limit was reached too late for the call to notice.
    pub(super) fn disarm(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            #[cfg(unix)]
            Self::Signal(timer) => {
                let disarmed = timer.stop(py);
                // The signal may have arrived after the last Python instruction of run(), and then
                // Python has not handled it yet.
                let struck_late = py.check_signals();
                disarmed.and(struck_late)
            }
            Self::Watched(watched) => {
                watched.disarm(py);
                Ok(())
            }
        }
    }
}

/// The watcher of a process; clones share it. Its thread starts with the first worker and lives as
/// long as the process.
#[derive(Clone, Default)]
pub(crate) struct Watcher {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// A mutex, since all sides hold it only to look at a few numbers. Whoever needs the GIL as
    /// well takes that first.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    threads: Vec<Slot>,
    next_key: u64,
    /// True if the watcher's thread runs.
    started: bool,
    /// When the watcher looks next by itself; `None` while it waits to be told.
    wakes_at: Option<Instant>,
}

/// One worker thread.
struct Slot {
    key: u64,
    /// Python's name for the thread.
    thread: c_ulong,
    /// When its call is looked at next; `None` between calls.
    limit: Option<Instant>,
    /// `Some` if that look is only for a debugger. The inner value is the time at which the call
    /// will have taken too long; `None` means never.
    then: Option<Option<Instant>>,
    /// True if a debugger held its call.
    debugged: bool,
    /// True if `TimeoutError` was raised in the call.
    struck: bool,
}

impl Shared {
    /// A panic cannot leave the numbers half changed, so a poisoned lock is safe to use.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn slot(&mut self, key: u64) -> Option<&mut Slot> {
        self.threads.iter_mut().find(|slot| slot.key == key)
    }
}

impl Watcher {
    /// Watches the calling thread for as long as the result lives.
    pub(super) fn watch_this_thread(&self, py: Python<'_>) -> PyResult<Watched> {
        let thread: c_ulong = py.import("threading")?.getattr("get_ident")?.call0()?.extract()?;
        let mut state = self.shared.lock();
        if !state.started {
            let shared = self.shared.clone();
            std::thread::Builder::new().name("azmlinfsrv-deadlines".to_owned()).spawn(move || watch(&shared))?;
            state.started = true;
        }
        let key = state.next_key;
        state.next_key += 1;
        state.threads.push(Slot { key, thread, limit: None, then: None, debugged: false, struck: false });
        Ok(Watched { watcher: self.clone(), key })
    }
}

/// A worker thread under watch.
pub(super) struct Watched {
    watcher: Watcher,
    key: u64,
}

impl Watched {
    fn arm(&self, limits: Limits) {
        // A limit beyond what the clock can count never comes.
        let now = Instant::now();
        let [check, limit] = [limits.check, limits.limit].map(|after| now.checked_add(after?));
        let Some(next) = check.or(limit) else { return };
        let mut state = self.watcher.shared.lock();
        let Some(slot) = state.slot(self.key) else { return };
        (slot.limit, slot.then, slot.struck) = (Some(next), check.map(|_| limit), false);
        // All calls have the same limit, so a watcher that sleeps until an earlier one need not be
        // told.
        let tell = state.wakes_at.is_none_or(|wakes_at| next < wakes_at);
        drop(state);
        if tell {
            self.watcher.shared.changed.notify_one();
        }
    }

    /// The caller holds the GIL, so the watcher cannot raise an exception at the same time.
    fn disarm(&self, py: Python<'_>) {
        let mut state = self.watcher.shared.lock();
        let Some(slot) = state.slot(self.key) else { return };
        slot.limit = None;
        if std::mem::take(&mut slot.struck) {
            // The call may have returned before the exception was raised in it. Take the exception
            // back, because it must not reach what runs next.
            throw(slot.thread, std::ptr::null_mut());
        }
        let was_debugged = std::mem::take(&mut slot.debugged);
        // Python code may give up the GIL, and who gets it may want the lock.
        drop(state);
        if was_debugged {
            ask_debug(py, "released", ());
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watcher.shared.lock().threads.retain(|slot| slot.key != self.key);
    }
}

/// The watcher's thread.
fn watch(shared: &Shared) {
    loop {
        wait_for_limit(shared);
        let panicked = catch(|| {
            Python::attach(|py| {
                point(Point::Deadlines);
                strike(py, shared);
            });
        });
        if let Err(panic) = panicked {
            log::error!(target: "azmlinfsrv", "The thread that limits the calls of run() {panic}. It tries again.");
            // If it panics each time, other threads must still get the GIL.
            std::thread::sleep(PAUSE_AFTER_PANIC);
        }
    }
}

/// Sleeps until a call has reached its limit.
fn wait_for_limit(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        state.wakes_at = state.threads.iter().filter(|slot| !slot.struck).filter_map(|slot| slot.limit).min();
        state = match state.wakes_at.map(|limit| limit.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return,
            Some(rest) => shared.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0,
            None => shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
    }
}

/// Interrupts the calls that have reached their limit and have not returned meanwhile.
fn strike(py: Python<'_>, shared: &Shared) {
    let timeout = py.get_type::<PyTimeoutError>();
    let now = Instant::now();
    let is_due = |slot: &&Slot| !slot.struck && slot.limit.is_some_and(|limit| limit <= now);
    let due: Vec<_> =
        shared.lock().threads.iter().filter(is_due).map(|slot| (slot.key, slot.thread, slot.limit)).collect();
    for (key, thread, limit) in due {
        // Do not hold the lock here: Python code may give up the GIL, and the thread that gets it
        // may wait for the lock.
        let is_debugged = ask_debug(py, "holds_thread", (thread,));
        let mut state = shared.lock();
        // Another limit means that the call has returned meanwhile.
        let Some(slot) = state.slot(key).filter(|slot| slot.limit == limit) else { continue };
        if is_debugged {
            (slot.limit, slot.debugged) = (None, true);
        } else if let Some(then) = slot.then.take() {
            slot.limit = then;
        } else {
            slot.struck = true;
            throw(slot.thread, timeout.as_ptr());
        }
    }
}

/// Calls a function of `scripting/debug.py` that says yes or no; no if it fails, which is shown.
fn ask_debug<'py>(py: Python<'py>, name: &str, arguments: impl pyo3::call::PyCallArgs<'py>) -> bool {
    let answer = py
        .import("azureml_inference_server_http.scripting.debug")
        .and_then(|debug| debug.getattr(name)?.call1(arguments))
        .and_then(|answer| answer.is_truthy());
    answer.unwrap_or_else(|error| {
        error.write_unraisable(py, None);
        false
    })
}

/// Makes the thread raise an exception of this class when it next runs Python code. Null revokes an
/// exception that has not been raised yet. The caller must have the GIL. A thread that has ended is
/// skipped. (PyO3 declares the number as signed.)
fn throw(thread: c_ulong, exception: *mut ffi::PyObject) {
    // SAFETY: the caller has the GIL, and `exception` is null or a class that Python keeps for
    // ever.
    unsafe { ffi::PyThreadState_SetAsyncExc(thread as c_long, exception) };
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_call_is_checked_for_debuggers_before_the_front_would_kill_its_worker() {
        assert_eq!(Limits::of(s(3600), s(300)).first_and_then(), (s(299), s(3301)));
        assert_eq!(Limits::of(s(0), s(300)).first_and_then(), (s(299), NEVER));
        assert_eq!(Limits::of(s(0), s(1)).first_and_then(), (Duration::from_millis(500), NEVER));
    }

    #[test]
    fn a_limit_that_comes_first_needs_no_check() {
        assert_eq!(Limits::of(s(60), s(300)).first_and_then(), (s(60), s(0)));
        assert_eq!(Limits::of(s(60), s(0)).first_and_then(), (s(60), s(0)));
        assert!(Limits::of(s(0), s(0)).are_none());
    }
}
