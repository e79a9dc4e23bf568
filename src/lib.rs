//! Native core of `azureml-inference-server-http`.
//!
//! One crate, two roles: the **front** (`front`, `dispatch`) owns clients and the queue and touches no Python object on
//! the request path; a **worker** (`worker`) runs the user's script. They are processes, or threads of one, and share
//! only [`ipc`]: the frames, the claims, large bodies, and their connection. `json`, `telemetry` and `settings` are
//! leaves. `docs/design.md` follows one request through the files.
//!
//! pyo3 is named only here and in `python_module`, `settings`, `logging` and `worker`; without the `python` feature the
//! rest builds and is tested on a machine without libpython.

pub mod dispatch;
pub mod front;
pub mod ipc;
pub mod json;
pub mod settings;
pub mod telemetry;

#[cfg(any(unix, feature = "python"))]
mod fd;
#[cfg(feature = "python")]
mod logging;
mod shortage;
#[cfg(feature = "python")]
mod worker;

#[cfg(feature = "python")]
mod python_module;
