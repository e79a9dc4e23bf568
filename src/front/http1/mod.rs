//! HTTP/1 connections: all code that depends on how actix-http works inside.
//!
//! Owns the bytes between a client's socket and actix-http's parser, and the state of each
//! connection. Requests and replies belong to the rest of `front`. Runs in the front's event loop.
//!
//! [`ClientSocket`] (`socket.rs`) is what the parser reads from. `head.rs`, `host.rs` and
//! `chunked.rs` say what a request is, `request_boundary.rs` combines them, and `parse_error.rs`
//! has the replies to bytes that are not a request. [`Connection`] is the state of a connection;
//! `phase.rs` has its phases, and `waiter.rs` wakes what waits for a change of it.

mod chunked;
mod connection;
mod head;
mod host;
mod parse_error;
mod phase;
mod request_boundary;
mod socket;
#[cfg(test)]
mod tests;
mod waiter;

pub use connection::{Connection, OpenRequest};
pub use phase::{After, Patience};
pub use socket::ClientSocket;
