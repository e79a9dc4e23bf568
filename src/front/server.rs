//! The front: accepts clients, answers health, queues requests for the workers, and shuts down in
//! order.
//!
//! Everything here runs on one thread, the event loop of [`serve`], which never takes the GIL. No
//! user code runs in the front's process, except with `--worker_class thread`. Owns the parts of the
//! front and the order of shutting down. `server/clients.rs` accepts clients, `server/orders.rs`
//! follows the supervisor, and `routes.rs` handles requests.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use actix_web::{http::header::HeaderValue, web};
use bytes::Bytes;
use tokio::sync::{mpsc, Notify};

use self::{
    clients::{accept_clients, Open, Registered},
    orders::{follow_orders, Ended},
};

#[cfg(unix)]
use super::worker_reports::WorkerReports;
use super::{
    access_log::{AccessRecords, RequestLine, RequestLines},
    cors::{self, Cors},
    docs::Docs,
    error::RequestError,
    heap_trim::{self, Keeper},
    http1::{Connection, Patience},
    listener::{Listener, Purpose},
    memory_budget,
    metrics::Exposure,
    metrics_reports::MetricsReports,
    routes,
};
use crate::{
    dispatch::{
        limits::Limits,
        transport::{self, Entrance},
        Dispatcher,
    },
    fault_injection::{point, Point},
    ipc::{
        body::Store,
        control::{StdLine, Supervisor},
        thread_channel::FrontEnd,
    },
    panics::{self, catch_in_thread, Vital},
    samples,
    settings::{MetricsPorts, Settings},
    telemetry::{
        counts::AllCounts,
        exporter::Exporter,
        intake::Intake,
        metrics::Metrics,
        recorder::{Reader, Recorder},
        requests::{Exported, ExportedRequests, OwnTraces},
    },
};

mod clients;
mod orders;
#[cfg(test)]
mod tests;

/// How often the front checks the deadlines of clients and workers. A deadline takes effect at most
/// this much later than set.
const WATCH_EVERY: Duration = Duration::from_millis(100);
// docs/reliability.md promises this precision for `--keep_alive`.
const _: () = assert!(WATCH_EVERY.as_millis() < 250);
/// After `stop`, replies get this long to reach their clients.
const STOP_PATIENCE: Duration = Duration::from_millis(300);

/// The sockets that the supervisor passes to the front.
pub struct Sockets {
    /// The listeners for clients: the main port, and before it the health port if it is separate; or a
    /// Unix socket (`listener.rs`).
    pub clients: Vec<std::net::TcpListener>,
    /// The socket or queue from which the front gets the connections of workers.
    pub workers: Workers,
    /// The socket to the supervisor.
    pub supervisor: StdLine,
    /// Where worker processes report what is exported, if something is.
    #[cfg(unix)]
    pub reports: Option<std::os::unix::net::UnixDatagram>,
    /// The numbers of `/metrics`, which outlive this front; `None` if there are none.
    pub metrics: Option<Metrics>,
}

/// The source of connections from workers, for each class of workers.
pub enum Workers {
    /// Processes: they send their connections to this socket (`supervise/worker_socket.py`).
    #[cfg(unix)]
    Socket(std::os::unix::net::UnixDatagram),
    /// Threads of this process: their connections arrive here, through the thread channel.
    Threads(mpsc::UnboundedReceiver<FrontEnd>),
}

/// The parts of the front that all requests use.
pub struct Front {
    pub(super) settings: Settings,
    pub(super) server_version: Bytes,
    pub(super) cors: Option<cors::Cors>,
    /// The pages for people; `None` with `--docs off`.
    pub(super) docs: Option<Docs>,
    pub(super) dispatcher: Dispatcher,
    /// Begins the records of all requests; knows their readers.
    pub(super) recorder: Rc<Recorder>,
    /// The header about a reload that has failed, for the replies to `/score`; None if the workers
    /// have loaded the files as they are now. Written by the supervisor's orders.
    failed_reload: RefCell<Option<HeaderValue>>,
    draining: Cell<bool>,
    pub(super) budget: Rc<memory_budget::Budget>,
    /// The memory in which large bodies wait for a worker.
    pub(super) bodies: Store,
    connections: RefCell<HashMap<u64, Open>>,
    next_connection: Cell<u64>,
    connection_closed: Notify,
}

impl Front {
    fn new(
        settings: Settings,
        bodies: Store,
        supervisor: Rc<Supervisor>,
        recorder: Rc<Recorder>,
        docs: Option<Docs>,
    ) -> Result<Rc<Self>, cors::BadEntry> {
        let cors = Cors::parse(&settings.cors_origins)?;
        Ok(Rc::new(Self {
            server_version: settings.server_version.clone().into(),
            cors,
            docs,
            dispatcher: Dispatcher::new(Limits::of(&settings), supervisor),
            recorder,
            budget: memory_budget::Budget::new(settings.max_buffered),
            bodies,
            settings,
            failed_reload: RefCell::default(),
            draining: Cell::new(false),
            connections: RefCell::default(),
            next_connection: Cell::new(0),
            connection_closed: Notify::new(),
        }))
    }

    /// True once the server is shutting down and only finishes the requests that it has.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// An error if new requests should go to another server: this one shuts down, or no worker is ready.
    pub(super) fn check_ready(&self) -> Result<(), RequestError> {
        if self.is_draining() {
            return Err(RequestError::Draining);
        }
        if self.dispatcher.ready_workers() == 0 {
            return Err(RequestError::NotReady);
        }
        Ok(())
    }

    /// The value of the header about a reload that has failed.
    pub(super) fn failed_reload(&self) -> Option<HeaderValue> {
        self.failed_reload.borrow().clone()
    }

    /// Keeps the reason of a failed reload for replies. A header carries only printable ASCII.
    fn note_failed_reload(&self, reason: &str) {
        let value = format!("failed {reason}").replace(|c: char| !matches!(c, ' '..='~'), "?");
        *self.failed_reload.borrow_mut() = HeaderValue::from_str(&value).ok();
    }

    fn register(self: &Rc<Self>) -> Registered {
        let id = self.next_connection.get();
        self.next_connection.set(id + 1);
        let connection = Connection::new(self.is_draining());
        self.connections.borrow_mut().insert(id, Open { connection: connection.clone(), task: None });
        Registered { front: self.clone(), id, connection }
    }

    /// Asks every connection to end when its open requests are answered.
    fn end_connections(&self) {
        self.draining.set(true);
        for open in self.connections.borrow().values() {
            open.connection.end();
        }
    }

    /// Ends clients that do not send or read in time and jobs that do not return in time. Returns
    /// free memory to the system when few bodies have arrived for a while.
    async fn watch(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(WATCH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut memory = Keeper::default();
        let patience = Patience { client: self.settings.client_timeout, keep_alive: self.settings.keep_alive };
        loop {
            ticks.tick().await;
            point(Point::Watch);
            let now = Instant::now();
            for open in self.connections.borrow().values() {
                if open.connection.must_be_cut(now, &patience) {
                    if let Some(task) = &open.task {
                        task.abort();
                    }
                }
            }
            self.dispatcher.watch();
            let moved = self.budget.take_peak().saturating_add(self.dispatcher.take_received());
            if memory.note(now, moved) {
                self.bodies.give_back();
                heap_trim::give_back();
            }
        }
    }

    /// Resolves when no connection is left that had a request before the shutdown began.
    async fn all_closed(&self) {
        while self.connections.borrow().values().any(|open| !open.connection.is_late()) {
            self.connection_closed.notified().await;
        }
    }
}

/// Checks the settings whose syntax is decided here. The text of an error names the setting and the
/// fault.
pub fn check(settings: &Settings) -> Result<(), String> {
    Cors::parse(&settings.cors_origins).map(drop).map_err(|error| error.to_string())
}

/// Serves until the supervisor says `drain` or `stop`, or is gone. Blocks the calling thread. An
/// error says what has failed, a panic included. `intake` is where worker threads report what is
/// exported, `lines` where the lines of requests go.
pub fn serve(settings: Settings, sockets: Sockets, intake: Intake, lines: RequestLine) -> io::Result<()> {
    let telemetry = &settings.telemetry;
    let counts = sockets.metrics.map_or_else(AllCounts::local, |metrics| metrics.telemetry);
    let exporter = if telemetry.is_on() { Exporter::start(telemetry.plan(), intake, counts)? } else { None };
    let exported = exporter.as_ref().map(Exporter::intake);
    let samples = settings.record.clone().and_then(samples::Recorder::start);
    let of_samples = samples.as_ref().map(samples::Recorder::reader);
    let served =
        catch_in_thread(|| actix_web::rt::System::new().block_on(run(settings, sockets, lines, exported, of_samples)));
    if let Some(samples) = samples {
        samples.finish();
    }
    if let Some(exporter) = exporter {
        exporter.finish();
    }
    served.unwrap_or_else(|panic| Err(io::Error::other(format!("the front's main task {panic}"))))
}

async fn run(
    settings: Settings,
    sockets: Sockets,
    lines: RequestLine,
    exported: Option<Intake>,
    samples: Option<Box<dyn Reader>>,
) -> io::Result<()> {
    let supervisor = Supervisor::new(sockets.supervisor)?;
    let has_threads = matches!(sockets.workers, Workers::Threads(_));
    let bodies = if has_threads { Store::default() } else { Store::shared(settings.max_request_size) };
    let mut readers: Vec<Box<dyn Reader>> = Vec::new();
    if settings.telemetry.begins_own_traces {
        readers.push(Box::new(OwnTraces));
    }
    readers.push(Box::new(RequestLines { access: settings.access_log, to: lines, texts: RefCell::default() }));
    readers.push(Box::new(AccessRecords(settings.access_log)));
    if let Some(metrics) = sockets.metrics {
        metrics.counters.take_over();
        readers.push(Box::new(metrics.counters));
    }
    let requests_intake = exported.clone().filter(|_| settings.telemetry.exports_requests());
    if let Some(intake) = requests_intake.clone() {
        let telemetry = &settings.telemetry;
        let which = if telemetry.app_insights.is_some() { Exported::All } else { Exported::Sampled };
        readers.push(Box::new(ExportedRequests::new(intake, telemetry.sampler, which, telemetry.wants_response())));
    }
    let docs = Docs::new(&settings);
    readers.extend(docs.as_ref().and_then(Docs::reader));
    readers.extend(samples);
    let recorder = Recorder::new(readers);
    let front = Front::new(settings, bodies.clone(), supervisor.clone(), recorder, docs);
    let front = front.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut vital = Vital::default();
    vital.spawn("the task that checks time limits", front.clone().watch());
    vital.spawn("the clock of the dispatcher", front.dispatcher.clone().keep_time());
    let entrance = match sockets.workers {
        #[cfg(unix)]
        Workers::Socket(socket) => Entrance::Socket(tokio::net::UnixDatagram::from_std(socket)?, bodies),
        Workers::Threads(arrivals) => Entrance::Threads(arrivals),
    };
    vital.spawn("the task that accepts workers", transport::accept(entrance, front.dispatcher.clone()));
    #[cfg(unix)]
    let reports = match (sockets.reports, requests_intake) {
        (Some(socket), Some(intake)) => Some(WorkerReports::new(socket, intake)?),
        _ => None,
    };
    #[cfg(unix)]
    if let Some(reports) = reports.clone() {
        panics::spawn(reports.read(), |panic| {
            log::error!(target: "azmlinfsrv.telemetry", "The task that reads what workers report {panic}.");
        });
    }
    let first_process = if has_threads { std::process::id() } else { parent() };
    let metrics_reports = match (sockets.metrics, exported) {
        (Some(metrics), Some(intake)) if front.settings.telemetry.metrics.is_some() => {
            Some(MetricsReports::new(front.clone(), metrics, first_process, intake))
        }
        _ => None,
    };
    if let Some(reports) = metrics_reports.clone() {
        panics::spawn(reports.repeat(front.settings.telemetry.metrics_interval), |panic| {
            log::error!(target: "azmlinfsrv.telemetry", "The task that collects metrics {panic}. No more are sent.");
        });
    }
    let purposes = Purpose::in_order(sockets.clients.len());
    for (listener, purpose) in sockets.clients.into_iter().zip(purposes) {
        let listener = Listener::new(listener, *purpose)?;
        let has_metrics = match front.settings.metrics_ports {
            MetricsPorts::None => false,
            MetricsPorts::First => listener.purpose().includes_health(),
            MetricsPorts::All => true,
        };
        let exposure = Exposure { metrics: sockets.metrics.filter(|_| has_metrics), first_process };
        let handler = {
            let front = front.clone();
            move |request, payload: web::Payload| routes::handle(front.clone(), exposure, request, payload.into_inner())
        };
        let task = format!("the task that accepts clients on {listener}");
        vital.spawn(task, accept_clients(front.clone(), listener, handler));
    }
    let ended = tokio::select! {
        ended = follow_orders(&front, &supervisor) => ended,
        failure = vital.failure() => Err(failure),
        failure = front.dispatcher.failure() => Err(failure),
    };
    if ended.is_err() {
        // What has failed must not go on, and connections that have not been accepted wait in the
        // backlog for the next front.
        drop(vital);
        front.end_connections();
    }
    // A dispatcher that has panicked answers nobody.
    if !front.dispatcher.has_panicked() {
        front.dispatcher.stop();
        let _ = tokio::time::timeout(STOP_PATIENCE, front.all_closed()).await;
    }
    match ended {
        // Workers stay: they connect to the next front.
        Err(failure) => return Err(failure),
        // Tell the supervisor first, so that it does not replace a worker that exits before this
        // process does.
        Ok(Ended::Drained) => supervisor.say_released(),
        Ok(Ended::Stopped) => {}
    }
    front.dispatcher.release_workers();
    #[cfg(unix)]
    if let Some(reports) = reports {
        reports.take_rest();
    }
    if let Some(reports) = metrics_reports {
        reports.report();
    }
    Ok(())
}

/// The process that started this one: the supervisor, if this is a front process.
#[cfg(unix)]
fn parent() -> u32 {
    std::os::unix::process::parent_id()
}

/// Without `fork` there is one process only.
#[cfg(not(unix))]
fn parent() -> u32 {
    std::process::id()
}
