//! What processes and threads of one server say to each other.
//!
//! Between the front and a worker: the frames and the claims of jobs, large bodies in shared
//! memory, and the connection itself, a Unix socket or within one process a thread channel. Between
//! the front and the supervisor: `control`. The roles use it (`front`, `dispatch`, `worker`); it
//! knows none of them. No pyo3.

pub mod body;
#[cfg(target_os = "linux")]
pub mod body_arena;
pub mod claims;
pub mod control;
pub mod frame;
#[cfg(unix)]
mod memory_file;
pub mod thread_channel;
#[cfg(unix)]
pub(crate) mod unix_socket;
