//! The body of a request, on its way from the front to a worker.
//!
//! Owns the choice between the front's own memory and memory shared with the workers
//! (`body_arena.rs`). Used in the front's event loop.

use std::io;

use bytes::{Bytes, BytesMut};

#[cfg(target_os = "linux")]
use crate::ipc::body_arena::{Arena, Extent, Filling};

/// Limit for the memory that is reserved before the bytes arrive. A client may send a false
/// Content-Length.
const MAX_RESERVE: usize = 16 << 20;
/// Bodies with a Content-Length of at least this many bytes go into shared memory. Sending a
/// smaller one through the socket takes less time.
#[cfg(target_os = "linux")]
const SHARED_FROM: usize = 256 << 10;

/// A whole body.
#[derive(Debug)]
pub enum Body {
    /// In the front's memory.
    Own(Bytes),
    /// In shared memory.
    #[cfg(target_os = "linux")]
    Shared(Extent),
}

impl Body {
    /// Its length in bytes.
    pub fn length(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            #[cfg(target_os = "linux")]
            Self::Shared(extent) => extent.length(),
        }
    }

    /// The bytes, copied if they are shared.
    pub fn to_bytes(&self) -> io::Result<Bytes> {
        Ok(match self {
            Self::Own(bytes) => bytes.clone(),
            #[cfg(target_os = "linux")]
            Self::Shared(extent) => extent.to_vec()?.into(),
        })
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Own(bytes)
    }
}

/// Decides where the bytes of a body are kept.
#[derive(Clone, Debug, Default)]
pub struct Store {
    #[cfg(target_os = "linux")]
    arena: Option<Arena>,
}

impl Store {
    /// A store for worker processes, and for bodies of up to `largest` bytes. A body that cannot be
    /// shared is kept in the front's own memory.
    #[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
    pub fn shared(largest: usize) -> Self {
        Self {
            #[cfg(target_os = "linux")]
            arena: Arena::new(largest)
                .inspect_err(|error| log::debug!(target: "azmlinfsrv.front", "Bodies are not shared: {error}"))
                .ok(),
        }
    }

    /// The shared memory, from which workers read.
    #[cfg(target_os = "linux")]
    pub fn arena(&self) -> Option<&Arena> {
        self.arena.as_ref()
    }

    /// Returns the memory of no body to the system.
    pub fn give_back(&self) {
        #[cfg(target_os = "linux")]
        if let Some(arena) = &self.arena {
            arena.give_back();
        }
    }

    /// Begins a body that arrives in parts. `announced` is its Content-Length, if the client has
    /// sent one.
    pub fn begin(&self, announced: Option<usize>) -> Collected {
        #[cfg(target_os = "linux")]
        if let (Some(length @ SHARED_FROM..), Some(arena)) = (announced, &self.arena) {
            if let Ok(filling) = arena.begin(length) {
                return Collected::Shared(filling);
            }
        }
        Collected::Own(BytesMut::with_capacity(announced.unwrap_or(0).min(MAX_RESERVE)))
    }
}

/// The part of a body that has arrived.
#[derive(Debug)]
pub enum Collected {
    /// In the front's memory.
    Own(BytesMut),
    /// In shared memory.
    #[cfg(target_os = "linux")]
    Shared(Filling),
}

impl Collected {
    /// Adds a part. If shared memory is used up, the body continues in the front's own memory. An
    /// error means that the earlier parts cannot be read any more.
    pub fn push(&mut self, part: &[u8]) -> io::Result<()> {
        match self {
            Self::Own(bytes) => bytes.extend_from_slice(part),
            #[cfg(target_os = "linux")]
            Self::Shared(filling) => {
                if filling.push(part).is_err() {
                    let mut bytes = BytesMut::from(&filling.to_vec()?[..]);
                    bytes.extend_from_slice(part);
                    *self = Self::Own(bytes);
                }
            }
        }
        Ok(())
    }

    /// Ends the body and returns it.
    pub fn finish(self) -> Body {
        match self {
            Self::Own(bytes) => Body::Own(bytes.freeze()),
            #[cfg(target_os = "linux")]
            Self::Shared(filling) => Body::Shared(filling.finish()),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::expect_used)]
mod tests {
    use super::{Body, Store, SHARED_FROM};

    /// The limit for one body in the stores of these tests.
    const LARGEST: usize = 2 << 20;

    fn collected(store: &Store, announced: Option<usize>, length: usize) -> Body {
        let mut body = store.begin(announced);
        for part in vec![7; length].chunks(1 << 16) {
            body.push(part).expect("memory");
        }
        body.finish()
    }

    #[test]
    fn large_bodies_of_known_length_are_shared() {
        let store = Store::shared(LARGEST);
        for (announced, is_shared) in
            [(Some(SHARED_FROM), true), (Some(SHARED_FROM - 1), false), (Some(LARGEST + 1), false), (None, false)]
        {
            let length = announced.unwrap_or(SHARED_FROM);
            let body = collected(&store, announced, length);
            assert_eq!(matches!(body, Body::Shared(_)), is_shared, "{announced:?}");
            assert_eq!(body.length(), length);
            assert!(body.to_bytes().expect("memory") == vec![7; length]);
        }
        assert!(matches!(collected(&Store::default(), Some(SHARED_FROM), SHARED_FROM), Body::Own(_)));
    }

    #[test]
    fn a_body_that_shared_memory_does_not_take_is_kept_all_the_same() {
        let store = Store::shared(LARGEST);
        let body = collected(&store, Some(SHARED_FROM), 3 * SHARED_FROM);
        assert!(matches!(body, Body::Own(_)));
        assert!(body.to_bytes().expect("memory") == vec![7; 3 * SHARED_FROM]);
    }
}
