//! Panics: each is caught where it can be limited, and none is lost.
//!
//! Every task of the front is spawned through this file. A panic in a task of one connection or one
//! worker ends that task alone ([`spawn`]). A panic in a task that the front needs as a whole ends
//! the front ([`Vital`]). Whoever catches a panic logs what panicked, where, and what follows, in
//! one line. Threads that are not the event loop use [`catch`].

#![allow(clippy::disallowed_methods)] // This is the file that may spawn tasks.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    cell::{Cell, RefCell},
    fmt,
    future::Future,
    io,
    panic::{catch_unwind, AssertUnwindSafe},
    pin::Pin,
    sync::Once,
    task::{Context, Poll},
};

use tokio::task::{AbortHandle, JoinSet};

/// Logger of the lines about panics.
const LOG: &str = "azmlinfsrv.front";

thread_local! {
    /// Where this thread panicked last.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether this thread logs all its panics, so that nobody has to write them to standard error.
    static LOGS_PANICS: Cell<bool> = const { Cell::new(false) };
}

/// A panic that was caught. Its text completes a sentence: `panicked at src/front/mod.rs:12:5: …`.
#[derive(Debug)]
pub struct Panic {
    place: String,
    message: String,
}

impl Panic {
    fn new(payload: &(dyn Any + Send)) -> Self {
        let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
            (Some(text), _) => (*text).to_owned(),
            (None, Some(text)) => text.clone(),
            (None, None) => "no message".to_owned(),
        };
        let place = PLACE.with_borrow_mut(Option::take).unwrap_or_else(|| "an unknown place".to_owned());
        Self { place, message }
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "panicked at {}: {}", self.place, self.message)
    }
}

/// Lets [`Panic`] know the places of panics in this process from now on.
pub fn note_places() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PLACE.set(panic.location().map(ToString::to_string));
            // The log has one line; RUST_BACKTRACE asks for more.
            if !LOGS_PANICS.get() || Backtrace::capture().status() == BacktraceStatus::Captured {
                report(panic);
            }
        }));
    });
}

/// Runs `body`. If it panics, only a part of its work may be done: the caller must not use what
/// `body` was changing, or it must know that this is safe.
pub fn catch<T>(body: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| Panic::new(&*payload))
}

/// Runs `body`, all of whose panics are logged by whoever catches them. So none of them is written
/// to standard error, where a pipe that nobody reads would hold up the thread.
pub fn catch_in_thread<T>(body: impl FnOnce() -> T) -> Result<T, Panic> {
    note_places();
    LOGS_PANICS.set(true);
    let result = catch(body);
    LOGS_PANICS.set(false);
    result
}

/// Runs a future until it is ready or panics. Afterwards the future has been dropped.
pub fn caught<F: Future>(future: F) -> Caught<F> {
    Caught { future: Some(Box::pin(future)) }
}

/// The future of [`caught`]. In a box, so that it takes no more space than a pointer.
pub struct Caught<F: Future> {
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panic>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.future else { return Poll::Pending };
        let result = match catch(|| future.as_mut().poll(cx)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(panic) => Err(panic),
        };
        self.drop_future();
        Poll::Ready(result)
    }
}

impl<F: Future> Caught<F> {
    /// The values that a future owns may panic when they are dropped.
    fn drop_future(&mut self) {
        let future = self.future.take();
        if let Err(panic) = catch(|| drop(future)) {
            log::error!(target: LOG, "The end of a task {panic}.");
        }
    }
}

impl<F: Future> Drop for Caught<F> {
    fn drop(&mut self) {
        self.drop_future();
    }
}

/// Spawns a task of the event loop that concerns one connection, worker or request. If the task
/// panics, it ends, what it owns is dropped, and then `on_panic` logs it.
pub fn spawn(task: impl Future<Output = ()> + 'static, on_panic: impl FnOnce(Panic) + 'static) -> AbortHandle {
    let task = caught(task);
    let task = async move {
        if let Err(panic) = task.await {
            on_panic(panic);
        }
    };
    tokio::task::spawn_local(task).abort_handle()
}

/// The tasks of the event loop that the front cannot go on without. Dropping this ends them.
#[derive(Default)]
pub struct Vital {
    tasks: JoinSet<String>,
}

impl Vital {
    /// Spawns such a task. `what` names it for the log.
    pub fn spawn(&mut self, what: impl fmt::Display + 'static, task: impl Future<Output = ()> + 'static) {
        let task = caught(task);
        self.tasks.spawn_local(async move {
            match task.await {
                Ok(()) => format!("{what} ended"),
                Err(panic) => format!("{what} {panic}"),
            }
        });
    }

    /// Resolves when one of the tasks has panicked or ended, neither of which may happen while the
    /// front serves.
    pub async fn failure(&mut self) -> io::Error {
        match self.tasks.join_next().await {
            Some(ended) => io::Error::other(ended.unwrap_or_else(|error| error.to_string())),
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        note_places();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, future)
    }

    fn is_here(text: &str, message: &str) -> bool {
        text.contains(&format!("panicked at {}:", file!())) && text.ends_with(message)
    }

    #[test]
    fn a_panic_tells_its_place_and_message() {
        note_places();
        let number = 7;
        let formatted = catch(|| panic!("formatted {number}")).expect_err("it panics").to_string();
        assert!(is_here(&formatted, ": formatted 7"), "{formatted}");
        let plain = catch(|| panic!("plain")).expect_err("it panics").to_string();
        assert!(is_here(&plain, ": plain"), "{plain}");
        let other = catch(|| std::panic::panic_any(1)).expect_err("it panics").to_string();
        assert!(is_here(&other, ": no message"), "{other}");
        assert_eq!(catch(|| 5).ok(), Some(5));
    }

    #[test]
    fn a_task_that_panics_drops_what_it_owns_and_then_tells() {
        let owned = Rc::new(());
        let seen = run(async {
            let (told, telling) = tokio::sync::oneshot::channel();
            let (inside, outside) = (owned.clone(), owned.clone());
            let task = async move {
                tokio::task::yield_now().await;
                let _inside = inside;
                panic!("late");
            };
            // This closure holds one of three references.
            spawn(task, move |panic| drop(told.send((panic.to_string(), Rc::strong_count(&outside)))));
            telling.await.expect("told")
        });
        assert!(is_here(&seen.0, ": late"), "{}", seen.0);
        assert_eq!(seen.1, 2);
    }

    /// Panics when it is dropped.
    struct Fragile;

    impl Drop for Fragile {
        fn drop(&mut self) {
            panic!("fragile");
        }
    }

    #[test]
    fn a_panic_while_a_task_is_dropped_stays_in_it() {
        run(async {
            let fragile = Fragile;
            let waits = async move {
                let _fragile = fragile;
                std::future::pending::<()>().await;
            };
            let mut waits = caught(waits);
            assert!(std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut waits).poll(cx).is_pending())).await);
            drop(waits);
        });
    }

    #[test]
    fn a_vital_task_that_panics_or_ends_is_a_failure() {
        run(async {
            let mut vital = Vital::default();
            vital.spawn("the first task", std::future::pending());
            vital.spawn("the second task", async { panic!("gone") });
            let text = vital.failure().await.to_string();
            assert!(text.starts_with("the second task panicked at ") && is_here(&text, ": gone"), "{text}");
            vital.spawn("the third task", async {});
            assert_eq!(vital.failure().await.to_string(), "the third task ended");
        });
    }
}
