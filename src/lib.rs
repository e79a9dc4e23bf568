//! Native core of `azureml-inference-server-http`.
//!
//! One crate, two roles. The **front** (`front`, `dispatch`) owns clients and the queue, and uses
//! no Python object while it handles a request. A **worker** (`worker`) runs the user's script.
//! They are processes, or threads of one process, and share only [`ipc`]: frames, claims, large
//! bodies, and their connection. `json`, `network`, `telemetry` and `settings` depend on none of these.
//! `docs/design.md` follows one request through the files.
//!
//! pyo3 is named only here and in `python_module`, `settings`, `logging` and `worker`; without the
//! `python` feature the rest builds and is tested on a machine without libpython.

pub mod dispatch;
pub mod front;
pub mod ipc;
pub mod json;
pub mod network;
pub mod samples;
pub mod settings;
pub mod telemetry;

mod fault_injection;
#[cfg(any(unix, feature = "python"))]
mod fd;
#[cfg(feature = "python")]
mod logging;
mod panics;
#[cfg(unix)]
pub mod project_files;
mod shortage;
#[cfg(feature = "python")]
mod worker;

#[cfg(feature = "python")]
mod python_module;
