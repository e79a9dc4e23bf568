//! Memory for short texts and items that wait in a queue, many of them in one allocation.
//!
//! An allocation for each of them costs more time than to write it, above all if another thread frees it: both threads then
//! take the lock of the allocator. A piece is freed when all of its items have gone. Each queue has a [`Pieces`] of its own, and
//! its items leave it in the order in which they came, so those of one piece leave together. If two queues shared a piece, one item that
//! waits in the one would keep memory of all that have left the other, and nobody would count that.
//!
//! Used by whoever fills the queue: the front's event loop, or the exporter's thread.

use bytes::{Bytes, BytesMut};

/// Bytes of a piece.
const PIECE: usize = 64 * 1024;
/// Longer items get memory of their own. So at most a quarter of a piece stays unused at its end.
const LONGEST: usize = PIECE / 4;

/// The piece that the next items come into.
#[derive(Debug, Default)]
pub struct Pieces(BytesMut);

impl Pieces {
    /// A copy of these parts, one behind the other.
    pub fn copy(&mut self, parts: &[&[u8]]) -> Bytes {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        if length > LONGEST {
            return parts.concat().into();
        }
        if self.0.capacity() < length {
            // Takes the same memory again if nobody has an item of it any more.
            self.0.reserve(PIECE);
        }
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
        self.0.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_follow_each_other_in_a_piece_and_long_ones_stand_alone() {
        let mut pieces = Pieces::default();
        let [first, long, second] = [vec![b'a'; 10], vec![b'b'; LONGEST + 1], vec![b'c'; 20]];
        let copies = [&first, &long, &second].map(|item| pieces.copy(&[&item[..1], &item[1..]]));
        assert_eq!(copies.each_ref().map(|copy| copy.to_vec()), [first, long, second]);
        assert_eq!(copies[2].as_ptr(), copies[0].as_ptr_range().end, "they share a piece");
    }

    #[test]
    fn a_piece_is_used_again_when_its_items_have_gone() {
        let mut pieces = Pieces::default();
        let item = [0; 1000];
        let first = pieces.copy(&[&item]).as_ptr();
        let seen: std::collections::HashSet<_> =
            (0..10 * PIECE / item.len()).map(|_| pieces.copy(&[&item]).as_ptr()).collect();
        assert!(seen.contains(&first) && seen.len() <= PIECE / item.len(), "{} places", seen.len());
    }
}
