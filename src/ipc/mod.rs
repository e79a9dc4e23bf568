//! The communication between the processes and threads of one server.

pub mod body;
#[cfg(target_os = "linux")]
pub mod body_arena;
pub mod claims;
pub mod control;
pub mod frame;
#[cfg(unix)]
mod mapping;
#[cfg(unix)]
mod memory_file;
pub mod shared_words;
pub mod thread_channel;
#[cfg(unix)]
pub(crate) mod unix_socket;
