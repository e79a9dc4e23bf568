//! The routes of the server: their paths in labels and logs, and what kind of requests they get.

use std::borrow::Cow;

use crate::{json::write, telemetry::access_line};

/// The routes of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// `/docs`: a page for people.
    Docs,
    /// `/`: is there a worker that takes requests?
    Health,
    /// `/livez`: is the front alive?
    Live,
    /// `/metrics`: what the server counts.
    Metrics,
    /// `/readyz`: ready, and not draining?
    Ready,
    /// `/score`: the script.
    Score,
    /// `/swagger.json`: the script's description.
    Swagger,
    /// `/v2`: the server, in the words of the Open Inference Protocol, as all that begin with `V2`.
    V2,
    /// `/v2/health/live`: is the front alive?
    V2Live,
    /// `/v2/health/ready`: ready, and not draining?
    V2Ready,
    /// The model's tensors.
    V2Model,
    /// Is there a worker that takes requests for this model?
    V2ModelReady,
    /// The script.
    V2Infer,
}

impl Route {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Docs,
        Self::Health,
        Self::Live,
        Self::Metrics,
        Self::Ready,
        Self::Score,
        Self::Swagger,
        Self::V2,
        Self::V2Live,
        Self::V2Ready,
        Self::V2Model,
        Self::V2ModelReady,
        Self::V2Infer,
    ];

    /// The path of the route, however the client spelled it. Braces stand for the name of the model, with or without a
    /// version behind it.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Docs => "/docs",
            Self::Health => "/",
            Self::Live => "/livez",
            Self::Metrics => "/metrics",
            Self::Ready => "/readyz",
            Self::Score => "/score",
            Self::Swagger => "/swagger.json",
            Self::V2 => "/v2",
            Self::V2Live => "/v2/health/live",
            Self::V2Ready => "/v2/health/ready",
            Self::V2Model => "/v2/models/{name}",
            Self::V2ModelReady => "/v2/models/{name}/ready",
            Self::V2Infer => "/v2/models/{name}/infer",
        }
    }

    /// True if the route's requests are for the script.
    pub const fn is_for_script(self) -> bool {
        matches!(self, Self::Score | Self::V2Infer)
    }

    /// True if probes and pages ask the route, all the time, and for no script.
    pub const fn is_probe(self) -> bool {
        matches!(
            self,
            Self::Docs
                | Self::Health
                | Self::Live
                | Self::Metrics
                | Self::Ready
                | Self::V2Live
                | Self::V2Ready
                | Self::V2ModelReady
        )
    }

    /// True if the route belongs to the Open Inference Protocol, which has its own form of errors.
    pub const fn is_v2(self) -> bool {
        matches!(self, Self::V2 | Self::V2Live | Self::V2Ready | Self::V2Model | Self::V2ModelReady | Self::V2Infer)
    }

    /// True if the path has a part that the client chooses.
    const fn has_names(self) -> bool {
        matches!(self, Self::V2Model | Self::V2ModelReady | Self::V2Infer)
    }

    /// Path and query for people, from those that the client sent: the route's own path, however the client spelled it, and
    /// the query as sent. What the client sent, if the request has no route, or a path with names.
    pub(in crate::telemetry) fn shown(route: Option<Self>, sent: &str) -> Cow<'_, str> {
        match route {
            Some(route) if !route.has_names() => {
                access_line::target(route.path(), sent.split_once('?').map_or("", |(_, query)| query))
            }
            _ => sent.into(),
        }
    }

    /// The body of a reply of the front to an error of a request with this route.
    pub fn error_body(route: Option<Self>, message: &str) -> Vec<u8> {
        if route.is_some_and(Self::is_v2) {
            write::error_body(message)
        } else {
            write::message_body(message)
        }
    }
}
