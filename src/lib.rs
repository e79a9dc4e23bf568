//! Native core of `azureml-inference-server-http`.
//!
//! One crate, two roles: the **front** (`front`, `dispatch`, `control`) owns clients and the queue and touches no Python
//! object on the request path; a **worker** (`worker`) runs the user's script. They are processes, or threads of one, and
//! share only [`frame`], [`claims`], large bodies (`shared_bodies`) and their connection: `unix_socket`, or as threads
//! [`hub`]. `numbers`, `pyjson` and `settings` are leaves.
//! `docs/design.md` follows one request through the files.
//!
//! pyo3 is named only here and in `settings`, `logging` and `worker`; without the `python` feature the rest builds and
//! is tested on a machine without libpython.

mod access_line;
pub mod frame;
pub mod hub;
pub mod numbers;
pub mod pyjson;
pub mod settings;

pub mod body;
pub mod claims;
pub mod control;
pub mod dispatch;
pub mod front;
pub mod log_text;
#[cfg(target_os = "linux")]
pub mod shared_bodies;
pub mod telemetry;

mod allocator;
#[cfg(any(unix, feature = "python"))]
mod fd;
#[cfg(feature = "python")]
mod log_lines;
#[cfg(feature = "python")]
mod logging;
#[cfg(unix)]
mod memory_file;
mod shortage;
#[cfg(unix)]
mod unix_socket;
#[cfg(feature = "python")]
mod worker;

#[cfg(feature = "python")]
mod python_module;
