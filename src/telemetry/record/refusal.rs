//! The reasons for which a request is refused, and their names in labels and logs.

/// Why a request was refused. [`Refusal::name`] is short and fit for a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// What came was not valid HTTP.
    NotHttp,
    /// The request head did not arrive in time (`--client_timeout`).
    HeadTimeout,
    /// The request line or the header was too long.
    HeadTooLarge,
    /// A transfer coding that the server does not know.
    UnknownCoding,
    /// A request target that is no path.
    Target,
    /// An offer to speak WebSocket.
    WebSocket,
    /// A path without a route.
    NotFound,
    /// A method that the route does not know.
    Method,
    /// A request id of more than 100 characters.
    IdTooLong,
    /// `Expect` with anything but `100-continue`.
    Expectation,
    /// The request body was larger than `--max_request_size`.
    BodyTooLarge,
    /// The request body came too slowly (`--client_timeout`, `--min_body_rate`).
    BodyTooSlow,
    /// The request body ended early, or its chunked coding is broken.
    BodyInvalid,
    /// Other requests used all the memory that `--max_buffered` allows.
    Memory,
    /// The input did not fit the script, or its result could not be rendered: the worker's own refusal.
    Unusable,
    /// `--max_queue` requests waited already.
    QueueFull,
    /// The request waited for `--queue_timeout`.
    QueueTimeout,
    /// There was no worker that takes requests (health).
    NotReady,
    /// The server was finishing its last requests.
    Draining,
    /// The server was stopped before the request was finished.
    Stopped,
    /// A swagger version that the script does not have.
    SwaggerVersion,
    /// A fault of the server.
    Internal,
}

impl Refusal {
    /// Its name in labels and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotHttp => "not_http",
            Self::HeadTimeout => "head_timeout",
            Self::HeadTooLarge => "head_too_large",
            Self::UnknownCoding => "unknown_coding",
            Self::Target => "target",
            Self::WebSocket => "websocket",
            Self::NotFound => "not_found",
            Self::Method => "method",
            Self::IdTooLong => "id_too_long",
            Self::Expectation => "expectation",
            Self::BodyTooLarge => "too_large",
            Self::BodyTooSlow => "body_too_slow",
            Self::BodyInvalid => "body_invalid",
            Self::Memory => "memory",
            Self::Unusable => "unusable",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::NotReady => "not_ready",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::SwaggerVersion => "swagger_version",
            Self::Internal => "internal",
        }
    }
}
