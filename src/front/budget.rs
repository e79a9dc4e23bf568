//! The bound on bytes of bodies that the front holds at once (`--max_buffered`).
//!
//! A count and its shares; runs in the front's event loop. What is over the bound is refused when it arrives, before it
//! is kept: a waiting upload that holds a part of the budget could block all others for ever.

use std::{cell::Cell, rc::Rc};

/// All bodies together.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: Cell<usize>,
    /// The most that was used since it was last asked for.
    peak: Cell<usize>,
}

/// The budget is used up.
#[derive(Debug, PartialEq, Eq)]
pub struct Exhausted;

impl Budget {
    /// `limit` in bytes.
    pub fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self { limit, used: Cell::new(0), peak: Cell::new(0) })
    }

    /// An empty share.
    pub fn share(self: &Rc<Self>) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }

    /// The most bytes that were taken at once since the last call.
    pub fn take_peak(&self) -> usize {
        self.peak.replace(self.used.get())
    }
}

/// Bytes taken for one request; given back on drop.
#[derive(Debug)]
pub struct Share {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Share {
    /// Takes more bytes if they are there.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        if self.budget.used.get() + bytes > self.budget.limit {
            return Err(Exhausted);
        }
        self.charge(bytes);
        Ok(())
    }

    /// Takes more bytes in any case: they are in memory already (a worker's reply).
    pub fn charge(&mut self, bytes: usize) {
        self.bytes += bytes;
        let used = self.budget.used.get() + bytes;
        self.budget.used.set(used);
        self.budget.peak.set(self.budget.peak.get().max(used));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.set(self.budget.used.get() - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_limited_together_and_given_back() {
        let budget = Budget::new(10);
        let mut one = budget.share();
        let mut two = budget.share();
        assert_eq!(one.grow(6), Ok(()));
        assert_eq!(two.grow(5), Err(Exhausted));
        assert_eq!(two.grow(4), Ok(()));
        one.charge(100);
        drop(one);
        assert_eq!(two.grow(6), Ok(()));
        drop(two);
        assert_eq!(budget.used.get(), 0);
        assert_eq!([budget.take_peak(), budget.take_peak()], [110, 0]);
    }
}
