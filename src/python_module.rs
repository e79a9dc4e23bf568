//! The names of this crate that Python can import, typed in
//! `azureml_inference_server_http/_core.pyi`.

use std::collections::BTreeMap;

use bytes::Bytes;
use log::LevelFilter;
use pyo3::{exceptions::PyRuntimeError, prelude::*};

use crate::{
    dispatch::limits,
    fd,
    front::{self, heap_trim},
    ipc::{shared_words, thread_channel},
    logging, panics,
    settings::Settings,
    telemetry::{intake::Intake, item::Item, metrics},
    worker,
};

/// Connects the front and the worker threads of one process. Pass the same one to `serve` and to
/// every `work`.
#[pyclass(frozen)]
#[derive(Default)]
pub(crate) struct ThreadChannel {
    channel: thread_channel::ThreadChannel,
    watcher: worker::Watcher,
    /// What the script reports for the exporters. It waits here until the front has started them.
    intake: Intake,
}

#[pymethods]
impl ThreadChannel {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Passes a report to the exporters (`scripting/telemetry.py`). Always True: the oldest reports are dropped and counted
    /// when too many wait.
    fn report(&self, report: &[u8]) -> bool {
        self.intake.push(Item::Log(Bytes::copy_from_slice(report)));
        true
    }
}

// Nobody has run the server on a Python without the global interpreter lock yet, so Python keeps the lock for it.
// Python's option `-X gil=0` overrides that.
#[pymodule(gil_used = true)]
mod _core {
    use super::*;

    #[pymodule_export]
    use super::ThreadChannel;
    #[pymodule_export]
    use crate::worker::user_metrics::{Counter, Gauge, Histogram};
    #[pymodule_export]
    use crate::worker::CurrentRequest;

    /// How many seconds native code in `run()` may take beyond `SCORING_TIMEOUT_MS`.
    #[pymodule_export]
    const INTERRUPT_GRACE: f64 = limits::INTERRUPT_GRACE.as_secs_f64();

    /// Whether this module was built for musl, and not for another C library.
    #[pymodule_export]
    const IS_FOR_MUSL: bool = cfg!(target_env = "musl");

    /// Serves clients until the supervisor says `drain` or `stop`. Returns when the front is
    /// finished. Takes over the sockets.
    ///
    /// `workers` is the socket that worker processes send their connections to, or the channel for
    /// threads of this process. `supervisor` is the socket to the supervisor. `log` says how the log
    /// is written. `reports` is the socket with what worker processes report for the exporters, and
    /// `machine` the name and the locale of this machine, if something is exported.
    #[pyfunction]
    #[pyo3(signature = (settings, *, clients, workers, supervisor, log, reports, machine))]
    #[allow(clippy::too_many_arguments)]
    fn serve(
        py: Python<'_>,
        mut settings: Settings,
        clients: Vec<fd::Raw>,
        workers: &Bound<'_, PyAny>,
        supervisor: fd::Raw,
        log: LogOutput,
        reports: Option<fd::Raw>,
        machine: Option<(String, Option<String>)>,
    ) -> PyResult<()> {
        if let Some((node, locale)) = machine {
            (settings.telemetry.node, settings.telemetry.locale) = (node, locale);
        }
        // Worker processes exist on Unix only; worker threads report through the channel.
        #[cfg(not(unix))]
        let _ = reports;
        let intake = workers.cast::<ThreadChannel>().map(|channel| channel.get().intake.clone()).unwrap_or_default();
        let sockets = front::Sockets {
            clients: clients.into_iter().map(|client| Ok(fd::take_over(client)?.into())).collect::<PyResult<_>>()?,
            workers: entrance(workers)?,
            supervisor: fd::take_over(supervisor)?.into(),
            #[cfg(unix)]
            reports: reports.map(fd::take_over).transpose()?.map(Into::into),
            metrics: metrics::shared(),
        };
        for client in &sockets.clients {
            std::net::TcpListener::set_nonblocking(client, true)?;
        }
        sockets.supervisor.set_nonblocking(true)?;
        // With worker threads, the script runs in this process too and may count on the
        // allocator's defaults.
        if !matches!(sockets.workers, front::Workers::Threads(_)) {
            heap_trim::keep_large_blocks();
        }
        let LogOutput { level, format, access, colour, descriptor } = log;
        let destination = match format.as_str() {
            "python" => logging::Destination::Python(access),
            "json" => logging::Destination::Json(json_output(descriptor)?),
            _ => logging::Destination::Text { colour },
        };
        let drain = logging::install(py, level_filter(level), destination)?;
        let served = py.detach(|| {
            let lines = match format.as_str() {
                "python" => front::RequestLine::Python,
                "json" => front::RequestLine::Json(drain.json_lines()),
                _ => front::RequestLine::Text,
            };
            let served = front::serve(settings, sockets, intake, lines);
            drain.finish();
            served
        });
        Ok(served?)
    }

    /// Serves jobs until the front retires this worker. Returns when the worker is finished.
    ///
    /// `front` is the worker's end of the socket that takes connections to the front, with a
    /// duplicate that reserves a descriptor, both taken over; or the channel if the front is in this
    /// process. `worker` is the supervisor's name for this worker.
    #[pyfunction]
    #[pyo3(signature = (settings, *, front, worker, script, swagger, retiring))]
    fn work(
        py: Python<'_>,
        settings: Settings,
        front: &Bound<'_, PyAny>,
        worker: u32,
        script: &Bound<'_, PyAny>,
        swagger: BTreeMap<String, String>,
        retiring: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let place = place(front)?;
        panics::note_places();
        let worked = panics::catch(|| worker::work(py, &settings, place, worker, script, swagger, retiring));
        worked.unwrap_or_else(|panic| Err(PyRuntimeError::new_err(format!("the worker's loop {panic}"))))
    }

    /// Makes the arguments of `run()` for a request, as a worker does, or the reason why `run()`
    /// cannot be called. For tests of scripts that call the script in their own process.
    #[pyfunction]
    #[pyo3(signature = (script, *, method, query, headers, body))]
    fn arguments<'py>(
        py: Python<'py>,
        script: &Bound<'py, PyAny>,
        method: String,
        query: &[u8],
        headers: Vec<(String, String)>,
        body: &[u8],
    ) -> PyResult<worker::Converted<'py>> {
        worker::arguments_for_tests(py, script, method, query, headers, body)
    }

    /// Makes the numbers of `/metrics`, which this process shares with all processes and threads that it starts from now
    /// on. Raises OSError. Without this call nothing is counted.
    #[pyfunction]
    fn share_metrics() -> PyResult<()> {
        if metrics::share(shared_words::new(metrics::LENGTH)?) {
            Ok(())
        } else {
            Err(PyRuntimeError::new_err("the metrics of this server are shared already"))
        }
    }

    /// Counts a worker that is replaced, for one of the reasons of `azmlinfsrv_worker_restarts_total`. Only the supervisor
    /// may call this.
    #[pyfunction]
    fn count_restart(reason: &str) -> PyResult<()> {
        match metrics::shared() {
            Some(metrics) if !metrics.counters.count_restart(reason) => {
                Err(pyo3::exceptions::PyValueError::new_err(format!("{reason:?} is no reason to replace a worker")))
            }
            _ => Ok(()),
        }
    }

    /// Forgets a process that has ended. Only the supervisor may call this.
    #[pyfunction]
    fn forget_process(pid: u32) {
        if let Some(metrics) = metrics::shared() {
            metrics.counters.forget_process(pid);
            metrics.user.forget_process(pid);
        }
    }

    /// Notes how many seconds this process took to load the script and to call init().
    #[pyfunction]
    fn set_init_duration(seconds: f64) {
        let duration = std::time::Duration::try_from_secs_f64(seconds);
        if let (Some(metrics), Ok(duration)) = (metrics::shared(), duration) {
            metrics.counters.set_loaded(std::process::id(), duration);
        }
    }

    /// Counts a call of an async run() for so many requests.
    #[pyfunction]
    fn count_run(requests: usize) {
        if let Some(metrics) = metrics::shared() {
            metrics.batch_sizes.count(requests);
        }
    }

    /// Notes how many workers are wanted and do not serve yet. Only the supervisor may call this.
    #[pyfunction]
    fn set_starting_workers(workers: u64) {
        if let Some(metrics) = metrics::shared() {
            metrics.counters.set_starting(workers);
        }
    }

    /// Checks the settings whose syntax only Rust knows, so that the launcher can refuse them.
    /// Raises ValueError.
    #[pyfunction]
    fn check(settings: Settings) -> PyResult<()> {
        front::check(&settings).map_err(pyo3::exceptions::PyValueError::new_err)
    }

    /// The files below a folder whose changes count for `--reload_dir`.
    #[cfg(unix)]
    #[pyfunction]
    fn project_files(folder: std::path::PathBuf) -> Vec<std::ffi::OsString> {
        crate::project_files::below(&folder)
    }

    /// Has the kernel make this process the parent of its descendants whose own parent ends.
    /// Returns false if the system
    /// cannot do that.
    #[cfg(unix)]
    #[pyfunction]
    fn adopt_orphans() -> bool {
        #[cfg(target_os = "linux")]
        return nix::sys::prctl::set_child_subreaper(true).is_ok();
        #[cfg(not(target_os = "linux"))]
        false
    }

    /// Has the kernel kill this process when its parent dies, if the system can do that. Returns
    /// false if the parent has died
    /// already.
    #[cfg(unix)]
    #[pyfunction]
    fn die_with_parent(parent: i32) -> PyResult<bool> {
        #[cfg(target_os = "linux")]
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(std::io::Error::from)?;
        Ok(nix::unistd::getppid().as_raw() == parent)
    }
}

/// How the front writes its log (`supervise/front.py`).
#[derive(FromPyObject)]
struct LogOutput {
    /// The least severe level that is wanted.
    level: u32,
    /// `text`, `json`, or `python` for Python's `logging`.
    format: String,
    /// Takes the fields of access records, if they are wanted. Only with `python`.
    access: Option<Py<PyAny>>,
    /// Lines of text get colours.
    colour: bool,
    /// Where JSON lines go, taken over; None for standard output.
    descriptor: Option<fd::Raw>,
}

fn json_output(descriptor: Option<fd::Raw>) -> PyResult<Box<dyn std::io::Write + Send>> {
    #[cfg(unix)]
    if let Some(descriptor) = descriptor {
        return Ok(Box::new(std::fs::File::from(fd::take_over(descriptor)?)));
    }
    #[cfg(not(unix))]
    let _ = descriptor;
    Ok(Box::new(std::io::stdout()))
}

/// Where a worker finds the front.
fn place<'a>(front: &'a Bound<'_, PyAny>) -> PyResult<worker::Place<'a>> {
    if let Ok(channel) = front.cast::<ThreadChannel>() {
        let ThreadChannel { channel, watcher, .. } = channel.get();
        return Ok(worker::Place::ThisProcess(channel, watcher));
    }
    #[cfg(unix)]
    {
        let (entrance, spare) = front.extract()?;
        Ok(worker::Place::Socket(fd::take_over(entrance)?, fd::take_over(spare)?))
    }
    #[cfg(not(unix))]
    Err(PyRuntimeError::new_err(ONLY_THREADS))
}

/// The place where workers connect, as `serve` has got it from Python.
fn entrance(workers: &Bound<'_, PyAny>) -> PyResult<front::Workers> {
    if let Ok(channel) = workers.cast::<ThreadChannel>() {
        let arrivals = channel.get().channel.entrance();
        return arrivals
            .map(front::Workers::Threads)
            .ok_or_else(|| PyRuntimeError::new_err("this channel has a front already"));
    }
    #[cfg(unix)]
    {
        let socket = std::os::unix::net::UnixDatagram::from(fd::take_over(workers.extract()?)?);
        socket.set_nonblocking(true)?;
        Ok(front::Workers::Socket(socket))
    }
    #[cfg(not(unix))]
    Err(PyRuntimeError::new_err(ONLY_THREADS))
}

#[cfg(not(unix))]
const ONLY_THREADS: &str = "this system has worker threads only: a ThreadChannel is needed";

/// The filter that lets records of Python's numeric level, and more severe ones, pass.
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
