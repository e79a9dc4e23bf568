//! The one task that waits for a change of a connection. Runs in the front's event loop.

use std::{
    cell::RefCell,
    task::{Context, Waker},
};

/// Wakes the task that waits, if one does. The waker stays until it is used, so that the next
/// request of the connection, which the same task serves, costs nothing.
#[derive(Default)]
pub struct Waiter {
    waker: RefCell<Option<Waker>>,
}

impl Waiter {
    /// The task that is polled now waits.
    pub fn wait(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Wakes the task that waits.
    pub fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
