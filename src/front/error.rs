//! Every reply that the front makes instead of a script: status, message and which headers go with
//! it, in one table.
//!
//! Runs in the front's event loop. Replies of workers, including errors of the script, are not made
//! here.

use actix_web::http::StatusCode;

use crate::telemetry::record::{Outcome, Refusal};

/// Why a request is not answered by the script.
#[derive(Debug, thiserror::Error, Clone, PartialEq)]
pub enum RequestError {
    /// A path without a route (contract section 5).
    #[error(
        "The requested URL was not found on the server. If you entered the URL manually please check your spelling \
         and try again."
    )]
    NotFound,
    /// A request target that is no path (RFC 9112 section 3.2).
    #[error("Not a valid HTTP request: the target must be a path that begins with a slash.")]
    Target,
    /// An offer to speak WebSocket (contract section 5).
    #[error("The browser (or proxy) sent a request that this server could not understand.")]
    WebSocket,
    /// A method that the route does not know (contract section 5).
    #[error("The method is not allowed for the requested URL.")]
    RouteMethod,
    /// The same for a route of the Open Inference Protocol, with the methods that it takes. Unlike the published server's
    /// routes, it names them (RFC 9110 section 15.5.6), and has request ids.
    #[error("The method is not allowed for the requested URL.")]
    V2Method(&'static str),
    /// HEAD on `/score` of a script that is not raw (contract section 5).
    #[error("Method not allowed")]
    ScoreMethod,
    /// A request id of more than 100 characters (contract section 9).
    #[error("x-request-id must not exceed 100 characters")]
    RequestIdTooLong,
    /// A client request id of more than 100 characters (contract section 9).
    #[error("x-ms-request-id and x-ms-client-request-id must not exceed 100 characters")]
    ClientRequestIdTooLong,
    /// `Expect` with anything but `100-continue` (RFC 9110 section 10.1.1).
    #[error("The only expectation this server can meet is 100-continue.")]
    Expectation,
    /// More than `--max_request_size`.
    #[error("The request body is larger than the {limit} bytes that --max_request_size allows.")]
    BodyTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The client closed or broke off the connection inside the body.
    #[error("The request body ended before its declared length.")]
    BodyIncomplete,
    /// The client paused for longer than `--client_timeout` inside the body.
    #[error("The request body did not arrive in time: nothing came for {seconds} seconds (--client_timeout).")]
    BodyTimeout {
        /// The limit in seconds.
        seconds: f64,
    },
    /// The client fell too far behind `--min_body_rate` inside the body.
    #[error(
        "The request body did not arrive in time: it is {seconds} seconds behind {bytes_per_second} bytes per second \
         (--min_body_rate)."
    )]
    BodyTooSlow {
        /// The limit in bytes per second.
        bytes_per_second: usize,
        /// For how many seconds a body may be behind the limit.
        seconds: f64,
    },
    /// The client was behind `--min_body_rate` when others needed the memory of the body.
    #[error(
        "The request body came too slowly (--min_body_rate) while other requests needed its memory (--max_buffered). \
         Try again later."
    )]
    BodyGaveWay,
    /// `--max_buffered` is used up by other requests.
    #[error("The server is busy: other requests use all the memory that --max_buffered allows. Try again later.")]
    Overloaded,
    /// Not valid chunked coding.
    #[error("The request body is not valid: {0}")]
    BodyInvalid(String),
    /// `--max_queue` requests wait already.
    #[error("The server is busy: {waiting} requests are waiting already. Try again later.")]
    QueueFull {
        /// Requests in the queue.
        waiting: usize,
    },
    /// The request waited for `--queue_timeout`.
    #[error("The server is busy: no worker was free within {seconds} seconds (--queue_timeout). Try again later.")]
    QueueTimeout {
        /// The limit in seconds.
        seconds: f64,
    },
    /// `run()` did not return within its limit and could not be interrupted.
    #[error("{0}")]
    Overdue(String),
    /// Health without a worker that takes requests.
    #[error("Not ready: no worker has loaded the scoring script yet, or all of them are being replaced.")]
    NotReady,
    /// The server is finishing its last requests.
    #[error("Not ready: the server is shutting down.")]
    Draining,
    /// A request that arrived when the server was finishing its last requests.
    #[error("The server is shutting down and takes no new requests.")]
    Stopping,
    /// Ctrl-C, QUIT, or the end of the graceful time-out.
    #[error("The server was stopped before the request was finished.")]
    Stopped,
    /// The client closed its side before a worker was free.
    #[error("The client closed the connection while the request was waiting.")]
    ClientLeft,
    /// The worker died with this request.
    #[error("The worker process running this request {cause}. The request was not finished.")]
    WorkerLost {
        /// How it ended: `was killed by signal 9 (SIGKILL)`.
        cause: String,
    },
    /// A swagger version that does not exist or that the script cannot have (contract section 14).
    #[error("{0}")]
    SwaggerVersion(String),
    /// A model, or a version of it, that the server does not have (Open Inference Protocol).
    #[error("{0}")]
    UnknownModel(String),
    /// A body with a content coding (Open Inference Protocol).
    #[error("The request body has the content coding {0:?}, which this server does not decode. Send it without.")]
    ContentCoding(String),
    /// A fault of the front itself.
    #[error("An unexpected internal error occurred. Check the logs for more info.")]
    Internal,
}

/// Which headers an error reply carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorHeaders {
    /// Only `x-ms-run-function-failed` (routing errors).
    FlagOnly,
    /// Server version and request ids too.
    Full,
    /// Like `Full`, but without `x-ms-run-function-failed`.
    NoFlag,
}

impl RequestError {
    /// HTTP status of the reply.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound | Self::SwaggerVersion(_) | Self::UnknownModel(_) => StatusCode::NOT_FOUND,
            Self::ContentCoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RouteMethod | Self::V2Method(_) | Self::ScoreMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestIdTooLong | Self::ClientRequestIdTooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout { .. } | Self::BodyTooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Target | Self::WebSocket | Self::BodyIncomplete | Self::BodyInvalid(_) => StatusCode::BAD_REQUEST,
            Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::Overloaded
            | Self::BodyGaveWay
            | Self::NotReady
            | Self::Draining
            | Self::Stopping
            | Self::Stopped
            | Self::ClientLeft => StatusCode::SERVICE_UNAVAILABLE,
            Self::WorkerLost { .. } | Self::Overdue(_) | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What the record of the request says.
    pub fn outcome(&self) -> Outcome {
        Outcome::Refused(match self {
            Self::NotFound | Self::UnknownModel(_) => Refusal::NotFound,
            Self::Target => Refusal::Target,
            Self::WebSocket => Refusal::WebSocket,
            Self::RouteMethod | Self::V2Method(_) | Self::ScoreMethod => Refusal::Method,
            Self::RequestIdTooLong | Self::ClientRequestIdTooLong => Refusal::IdTooLong,
            Self::Expectation => Refusal::Expectation,
            Self::BodyTooLarge { .. } => Refusal::BodyTooLarge,
            Self::BodyTimeout { .. } | Self::BodyTooSlow { .. } => Refusal::BodyTooSlow,
            Self::BodyIncomplete | Self::BodyInvalid(_) | Self::ContentCoding(_) => Refusal::BodyInvalid,
            Self::BodyGaveWay | Self::Overloaded => Refusal::Memory,
            Self::QueueFull { .. } => Refusal::QueueFull,
            Self::QueueTimeout { .. } => Refusal::QueueTimeout,
            Self::NotReady => Refusal::NotReady,
            Self::Draining | Self::Stopping => Refusal::Draining,
            Self::Stopped => Refusal::Stopped,
            Self::SwaggerVersion(_) => Refusal::SwaggerVersion,
            Self::Internal => Refusal::Internal,
            Self::Overdue(_) => return Outcome::Timeout,
            Self::WorkerLost { .. } => return Outcome::WorkerLost,
            Self::ClientLeft => return Outcome::Abandoned,
        })
    }

    /// Which headers go with it.
    pub fn headers(&self) -> ErrorHeaders {
        match self {
            Self::NotFound | Self::RouteMethod | Self::Target | Self::WebSocket => ErrorHeaders::FlagOnly,
            Self::NotReady | Self::Draining => ErrorHeaders::NoFlag,
            _ => ErrorHeaders::Full,
        }
    }

    /// True if the script or its process has caused the error. Then `x-ms-run-function-failed` is
    /// `True`.
    pub fn run_failed(&self) -> bool {
        matches!(self, Self::WorkerLost { .. } | Self::Overdue(_))
    }

    /// Seconds for `Retry-After`, on replies that a client may simply repeat.
    pub fn retry_after(&self) -> Option<u32> {
        matches!(self.status(), StatusCode::SERVICE_UNAVAILABLE).then_some(1)
    }

    /// The methods for `Allow`.
    pub fn allow(&self) -> Option<&'static str> {
        match self {
            Self::V2Method(methods) => Some(methods),
            _ => None,
        }
    }

    /// True if the connection must end with this reply, because the rest of the request cannot be
    /// skipped safely.
    pub fn closes_connection(&self) -> bool {
        matches!(
            self,
            Self::Target
                | Self::WebSocket
                | Self::BodyTooLarge { .. }
                | Self::BodyIncomplete
                | Self::BodyTimeout { .. }
                | Self::BodyTooSlow { .. }
                | Self::BodyGaveWay
                | Self::Overloaded
                | Self::BodyInvalid(_)
                | Self::ContentCoding(_)
                | Self::Expectation
                | Self::Stopping
                | Self::Stopped
                | Self::ClientLeft
        )
    }
}
