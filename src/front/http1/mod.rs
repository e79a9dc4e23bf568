//! HTTP/1 connections: everything that knows actix-http's inside.
//!
//! Owns the bytes between a client's socket and actix-http's parser and the state of each connection. Requests and
//! replies belong to the rest of `front`. Runs in the front's event loop.

mod connection;
mod parse_error;
mod request_boundary;

pub use connection::{ClientSocket, Connection, OpenRequest};
