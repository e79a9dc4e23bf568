//! Accepts clients, and keeps the list of their connections.
//!
//! Each connection is a task of the front's event loop.

use std::{io, net::SocketAddr, rc::Rc, time::Duration};

use actix_http::{HttpService, KeepAlive};
use actix_service::{map_config, IntoServiceFactory as _, Service, ServiceFactory as _};
use actix_web::{dev::AppConfig, web, App, Handler, HttpRequest, HttpResponse};
use tokio::net::TcpStream;

use super::Front;
use crate::{
    fault_injection::{point, Point},
    front::{
        http1::{ClientSocket, Connection},
        listener::Listener,
    },
    panics,
    shortage::{Repeated, ACCEPT_PAUSE},
};

/// After an early reply to a body that is still being sent, the rest is read and dropped for this
/// long, so that the client sees the reply and not a reset.
const LINGER: Duration = Duration::from_secs(5);

/// A connection in the front's list.
pub(super) struct Open {
    pub(super) connection: Rc<Connection>,
    /// The task that serves it; `None` only until the task has been spawned.
    pub(super) task: Option<tokio::task::AbortHandle>,
}

/// Keeps a connection in the front's list, for as long as it is open.
pub(super) struct Registered {
    pub(super) front: Rc<Front>,
    pub(super) id: u64,
    pub(super) connection: Rc<Connection>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.front.connections.borrow_mut().remove(&self.id);
        self.front.connection_closed.notify_waiters();
    }
}

/// Accepts clients for ever; `handler` answers their requests.
pub(super) async fn accept_clients<H>(front: Rc<Front>, listener: Listener, handler: H)
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
                let consequence =
                    format!("Cannot accept a connection on {listener}, which waits until others are closed");
                failures.log(&consequence, &error);
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
