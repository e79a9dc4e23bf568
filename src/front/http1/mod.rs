//! HTTP/1 connections: everything that knows actix-http's inside.
//!
//! Owns the bytes between a client's socket and actix-http's parser, and the state of each connection. Requests and
//! replies belong to the rest of `front`. Runs in the front's event loop.
//!
//! [`ClientSocket`] (`socket.rs`) is what the parser reads from. `head.rs`, `host.rs` and `chunked.rs` say what a
//! request is, `request_boundary.rs` puts them together, and `parse_error.rs` refuses what is none. [`Connection`] is
//! the state of a connection, `phase.rs` what it goes through.

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

pub use connection::{Connection, OpenRequest};
pub use phase::{After, Patience};
pub use socket::ClientSocket;
