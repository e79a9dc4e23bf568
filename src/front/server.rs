//! The front: accepts clients, answers health, queues requests for the workers, and shuts down in
//! order.
//!
//! Everything here runs on one thread, the event loop of [`serve`], which never takes the GIL. No
//! user code runs in the front's process, except with `--worker_class thread`. Owns the listeners'
//! accept loops and the order of shutting down; `routes.rs` handles requests.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use actix_http::{HttpService, KeepAlive};
use actix_service::{map_config, IntoServiceFactory as _, Service, ServiceFactory as _};
use actix_web::{dev::AppConfig, http::header::HeaderValue, web, App, Handler, HttpRequest, HttpResponse};
use bytes::{Bytes, BytesMut};
use tokio::{
    net::TcpStream,
    sync::{mpsc, Notify},
};

#[cfg(unix)]
use super::worker_reports::WorkerReports;
use super::{
    access_log::{AccessRecords, RequestLines},
    cors::{self, Cors},
    heap_trim::{self, Keeper},
    http1::{ClientSocket, Connection, Patience},
    listener::Listener,
    memory_budget,
    metrics::Exposure,
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
        control::{Order, StdLine, Supervisor},
        thread_channel::FrontEnd,
    },
    panics::{self, catch_in_thread, Vital},
    settings::Settings,
    shortage::{Repeated, ACCEPT_PAUSE},
    telemetry::{
        exporter::Exporter,
        intake::Intake,
        metrics::Metrics,
        recorder::{Reader, Recorder},
        requests::ExportedRequests,
    },
};

#[cfg(test)]
mod tests;

/// How often the front checks the deadlines of clients and workers. A deadline takes effect at most
/// this much later than set.
const WATCH_EVERY: Duration = Duration::from_millis(100);
// docs/reliability.md promises this precision for `--keep_alive`.
const _: () = assert!(WATCH_EVERY.as_millis() < 250);
/// After an early reply to a body that is still being sent, the rest is read and dropped for this
/// long, so that the client sees the reply and not a reset.
const LINGER: Duration = Duration::from_secs(5);
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
    ) -> Result<Rc<Self>, cors::BadEntry> {
        let cors = Cors::parse(&settings.cors_origins)?;
        Ok(Rc::new(Self {
            server_version: settings.server_version.clone().into(),
            cors,
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

/// A connection in the front's list.
struct Open {
    connection: Rc<Connection>,
    /// The task that serves it; `None` only until the task has been spawned.
    task: Option<tokio::task::AbortHandle>,
}

/// Keeps a connection in the front's list, for as long as it is open.
struct Registered {
    front: Rc<Front>,
    id: u64,
    connection: Rc<Connection>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.front.connections.borrow_mut().remove(&self.id);
        self.front.connection_closed.notify_waiters();
    }
}

/// Checks the settings whose syntax is decided here. The text of an error names the setting and the
/// fault.
pub fn check(settings: &Settings) -> Result<(), String> {
    Cors::parse(&settings.cors_origins).map(drop).map_err(|error| error.to_string())
}

/// Serves until the supervisor says `drain` or `stop`, or is gone. Blocks the calling thread. An
/// error says what has failed, a panic included. `intake` is where worker threads report what is
/// exported.
pub fn serve(settings: Settings, sockets: Sockets, intake: Intake) -> io::Result<()> {
    let telemetry = &settings.telemetry;
    let exporter = if telemetry.is_on() { Exporter::start(telemetry.plan(), intake)? } else { None };
    let exported = exporter.as_ref().map(Exporter::intake);
    let served = catch_in_thread(|| actix_web::rt::System::new().block_on(run(settings, sockets, exported)));
    if let Some(exporter) = exporter {
        exporter.finish();
    }
    served.unwrap_or_else(|panic| Err(io::Error::other(format!("the front's main task {panic}"))))
}

async fn run(settings: Settings, sockets: Sockets, exported: Option<Intake>) -> io::Result<()> {
    let supervisor = Supervisor::new(sockets.supervisor)?;
    let has_threads = matches!(sockets.workers, Workers::Threads(_));
    let bodies = if has_threads { Store::default() } else { Store::shared(settings.max_request_size) };
    let mut readers: Vec<Box<dyn Reader>> = vec![Box::new(RequestLines), Box::new(AccessRecords)];
    if let Some(metrics) = sockets.metrics {
        metrics.counters.take_over();
        readers.push(Box::new(metrics.counters));
    }
    if let Some(intake) = exported.clone() {
        let telemetry = &settings.telemetry;
        readers.push(Box::new(ExportedRequests::new(intake, telemetry.sampler, telemetry.wants_response())));
    }
    let recorder = Recorder::new(readers);
    let front = Front::new(settings, bodies.clone(), supervisor.clone(), recorder);
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
    let reports = match (sockets.reports, exported) {
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
    for (index, listener) in sockets.clients.into_iter().enumerate() {
        let listener = Listener::new(listener)?;
        let has_metrics = index == 0 || front.settings.metrics_on_all_ports;
        let exposure = Exposure { metrics: sockets.metrics.filter(|_| has_metrics), first_process };
        let handler = {
            let front = front.clone();
            move |request, payload: web::Payload| routes::handle(front.clone(), exposure, request, payload.into_inner())
        };
        vital.spawn("the task that accepts clients", accept_clients(front.clone(), listener, handler));
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
    Ok(())
}

/// How serving has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// By `drain`.
    Drained,
    /// By `stop`, or because the supervisor is gone.
    Stopped,
}

/// Follows the supervisor's orders until serving is over. After `drain` that is when all requests
/// are answered or `--graceful_timeout` is over; what is not answered then is answered like after
/// `stop`.
async fn follow_orders(front: &Front, supervisor: &Supervisor) -> io::Result<Ended> {
    let mut lines = BytesMut::new();
    let drains = take_orders(front, supervisor, &mut lines, false).await?;
    // The front still accepts connections, so that new clients get a reply that says that the
    // server is stopping, not a reset.
    front.end_connections();
    if !drains {
        return Ok(Ended::Stopped);
    }
    let finish = async {
        tokio::select! {
            () = front.all_closed() => Ok(true),
            again = take_orders(front, supervisor, &mut lines, true) => again,
        }
    };
    if let Ok(ended) = tokio::time::timeout(front.settings.graceful_timeout, finish).await {
        ended?;
    }
    Ok(Ended::Drained)
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

/// Follows the supervisor's orders until one of them ends serving: true for `drain`, false for
/// `stop`.
async fn take_orders(front: &Front, supervisor: &Supervisor, lines: &mut BytesMut, draining: bool) -> io::Result<bool> {
    loop {
        let order = supervisor.next_order(lines).await?;
        point(Point::Order);
        match order {
            Some(Order::Exited(pid, cause)) => front.dispatcher.process_exited(pid, cause),
            Some(Order::Stopped(pid)) => front.dispatcher.process_stopped(pid),
            Some(Order::Continued(pid)) => front.dispatcher.process_continued(pid),
            Some(Order::Retire(pid)) => front.dispatcher.retire(pid),
            Some(Order::Outdated(reason)) => front.note_failed_reload(&reason),
            Some(Order::Current) => *front.failed_reload.borrow_mut() = None,
            Some(Order::Drain) if draining => {}
            Some(Order::Drain) => return Ok(true),
            // Without a supervisor nobody replaces workers or passes signals on: end like after
            // `stop`.
            Some(Order::Stop) | None => return Ok(false),
        }
    }
}

/// Accepts clients for ever; `handler` answers their requests.
async fn accept_clients<H>(front: Rc<Front>, listener: Listener, handler: H)
where
    H: Handler<(HttpRequest, web::Payload), Output = HttpResponse>,
{
    let app = App::new().default_service(web::to(handler)).into_factory();
    let http = HttpService::build()
        // `Connection::must_be_cut` keeps these times: actix-http's clock ticks every half second,
        // and it would only watch the first head of a connection.
        .keep_alive(if front.settings.keep_alive.is_zero() { KeepAlive::Disabled } else { KeepAlive::Os })
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(LINGER)
        .on_connect_ext(|socket: &ClientSocket<TcpStream>, data| {
            data.insert(socket.connection().clone());
        })
        .h1(map_config(app, |_| AppConfig::default()));
    let service = match http.new_service(()).await {
        Ok(service) => Rc::new(service),
        Err(error) => return log::error!(target: "azmlinfsrv.front", "Cannot build the HTTP service: {error:?}"),
    };
    let mut failures = Repeated::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let registered = front.register();
                let id = registered.id;
                point(Point::Accept);
                let task = panics::spawn(serve_client(service.clone(), stream, peer, registered), move |panic| {
                    log::error!(target: "azmlinfsrv.front", "The connection of {peer} {panic}. It is closed.");
                });
                if let Some(open) = front.connections.borrow_mut().get_mut(&id) {
                    open.task = Some(task);
                }
            }
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                // The process lacks descriptors or memory. Others may be released soon; until then
                // new connections wait in the backlog.
                failures.log("Cannot accept a connection, which waits until others are closed", &error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_client<S>(service: Rc<S>, stream: TcpStream, peer: SocketAddr, registered: Registered)
where
    S: Service<(ClientSocket<TcpStream>, Option<SocketAddr>), Response = ()>,
    S::Error: std::fmt::Debug,
{
    // Small replies must not wait for an acknowledgement. Ignore a failure: a socket that refuses
    // the option is broken anyway.
    let _ = stream.set_nodelay(true);
    let socket = ClientSocket::new(stream, peer, registered.connection.clone(), registered.front.recorder.clone());
    if let Err(error) = service.call((socket, Some(peer))).await {
        log::debug!(target: "azmlinfsrv.front", "Connection of {peer} ended: {error:?}");
    }
}

/// True for an error of the accepted connection, false for an error of accepting.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
