//! What Python sees of this crate: four names, typed in `azureml_inference_server_http/_core.pyi`.

use std::{collections::BTreeMap, os::fd::RawFd, path::PathBuf};

use log::LevelFilter;
use pyo3::prelude::*;

use crate::{fd, front, logging, settings::Settings, worker};

#[pymodule]
mod _core {
    use super::*;

    /// Serves clients until the supervisor says stop; the front process's whole life. The descriptors are taken over.
    #[pyfunction]
    #[pyo3(signature = (settings, *, clients, workers, supervisor, log_level, log_to_python))]
    fn serve(
        py: Python<'_>,
        settings: Settings,
        clients: Vec<RawFd>,
        workers: RawFd,
        supervisor: RawFd,
        log_level: u32,
        log_to_python: bool,
    ) -> PyResult<()> {
        let sockets = front::Sockets {
            clients: clients.into_iter().map(|client| Ok(fd::take_over(client)?.into())).collect::<PyResult<_>>()?,
            workers: fd::take_over(workers)?.into(),
            supervisor: fd::take_over(supervisor)?.into(),
        };
        for client in &sockets.clients {
            std::net::TcpListener::set_nonblocking(client, true)?;
        }
        sockets.workers.set_nonblocking(true)?;
        sockets.supervisor.set_nonblocking(true)?;
        let drain = logging::install(py, level_filter(log_level), log_to_python)?;
        let served = py.detach(|| {
            let served = front::serve(settings, sockets);
            drain.finish();
            served
        });
        Ok(served?)
    }

    /// Serves jobs for a front until it lets this worker go; the rest of a worker process's life.
    #[pyfunction]
    #[pyo3(signature = (settings, *, socket_path, script, swagger, retiring))]
    fn work(
        py: Python<'_>,
        settings: Settings,
        socket_path: PathBuf,
        script: &Bound<'_, PyAny>,
        swagger: BTreeMap<String, String>,
        retiring: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        worker::work(py, &settings, socket_path, script, swagger, retiring)
    }

    /// Raises ValueError for a setting whose syntax only the core knows, so that the launcher can refuse it at once.
    #[pyfunction]
    fn check(settings: Settings) -> PyResult<()> {
        front::check(&settings).map_err(pyo3::exceptions::PyValueError::new_err)
    }

    /// Makes the kernel end this process when its parent dies, where the system can. False if the parent is gone already.
    #[pyfunction]
    fn die_with_parent(parent: i32) -> PyResult<bool> {
        #[cfg(target_os = "linux")]
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(std::io::Error::from)?;
        Ok(nix::unistd::getppid().as_raw() == parent)
    }
}

/// Python's numeric level as a filter: everything at least as severe passes.
fn level_filter(level: u32) -> LevelFilter {
    match level {
        0..=5 => LevelFilter::Trace,
        6..=10 => LevelFilter::Debug,
        11..=20 => LevelFilter::Info,
        21..=30 => LevelFilter::Warn,
        31..=40 => LevelFilter::Error,
        _ => LevelFilter::Off,
    }
}
