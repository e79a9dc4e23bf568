//! The single first-in first-out queue of jobs that no worker has yet.
//!
//! Plain data, no I/O: order, bound and removal of jobs whose client left. Owned by the front's event loop.

use std::collections::{HashMap, VecDeque};

/// The queue has no room for another entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub struct Full;

/// A queue whose entries can be taken out from anywhere by id.
#[derive(Debug)]
pub struct Queue<T> {
    order: VecDeque<u64>,
    entries: HashMap<u64, T>,
    limit: usize,
}

impl<T> Queue<T> {
    /// An empty queue that accepts `limit` entries at its end.
    pub fn new(limit: usize) -> Self {
        Self { order: VecDeque::new(), entries: HashMap::new(), limit }
    }

    /// Entries waiting.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds at the end, unless the queue is full.
    pub fn push_back(&mut self, id: u64, entry: T) -> Result<(), Full> {
        if self.entries.len() >= self.limit {
            return Err(Full);
        }
        self.order.push_back(id);
        self.entries.insert(id, entry);
        Ok(())
    }

    /// Puts an entry that was taken out before back at the head; the bound does not apply, it was admitted once.
    pub fn push_front(&mut self, id: u64, entry: T) {
        self.order.push_front(id);
        self.entries.insert(id, entry);
    }

    /// True while the entry waits.
    pub fn contains(&self, id: u64) -> bool {
        self.entries.contains_key(&id)
    }

    /// Takes the oldest entry.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        loop {
            let id = self.order.pop_front()?;
            if let Some(entry) = self.entries.remove(&id) {
                return Some((id, entry));
            }
        }
    }

    /// Takes out one entry wherever it is. Its id stays in `order` until it reaches the head or the next clean-up.
    pub fn remove(&mut self, id: u64) -> Option<T> {
        let entry = self.entries.remove(&id);
        // Many clients that come and go while no worker is ready must not grow `order` for ever.
        if self.order.len() > 2 * self.entries.len() + 64 {
            self.order.retain(|id| self.entries.contains_key(id));
        }
        entry
    }

    /// Takes everything, oldest first.
    pub fn drain(&mut self) -> Vec<T> {
        std::iter::from_fn(|| self.pop()).map(|(_, entry)| entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Full, Queue};

    #[test]
    fn first_in_is_first_out() {
        let mut queue = Queue::new(10);
        for id in 0..3 {
            queue.push_back(id, id * 10).expect("room");
        }
        assert_eq!(queue.pop(), Some((0, 0)));
        queue.push_front(0, 7);
        assert_eq!(queue.drain(), [7, 10, 20]);
        assert!(queue.is_empty());
    }

    #[test]
    fn the_bound_refuses_new_entries_but_not_returned_ones() {
        let mut queue = Queue::new(1);
        queue.push_back(1, 'a').expect("room");
        assert_eq!(queue.push_back(2, 'b'), Err(Full));
        queue.push_front(0, 'z');
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.drain(), ['z', 'a']);
    }

    #[test]
    fn removed_entries_leave_room_and_are_never_popped() {
        let mut queue = Queue::new(2);
        queue.push_back(1, 'a').expect("room");
        queue.push_back(2, 'b').expect("room");
        assert_eq!(queue.remove(1), Some('a'));
        assert_eq!(queue.remove(1), None);
        queue.push_back(3, 'c').expect("room again");
        assert_eq!(queue.drain(), ['b', 'c']);
    }

    #[test]
    fn clients_that_come_and_go_do_not_grow_the_order() {
        let mut queue = Queue::new(4);
        queue.push_back(0, ()).expect("room");
        for id in 1..10_000 {
            queue.push_back(id, ()).expect("room");
            queue.remove(id);
        }
        assert!(queue.order.len() <= 68, "{} ids kept", queue.order.len());
        assert_eq!(queue.len(), 1);
    }
}
