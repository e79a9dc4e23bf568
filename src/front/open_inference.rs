//! The Open Inference Protocol, version 2, as the front sees it: its paths, the names in them, and the
//! replies that need no script.
//!
//! Pure decisions over paths and settings; runs in the front's event loop. Workers decode tensors
//! (`scripting/open_inference.py`), and describe the model in their hello.

use bytes::Bytes;

use super::{error::RequestError, Front};
use crate::{json::write, settings::OpenInference, telemetry::record::Route};

/// The path segment that all paths of the protocol begin with.
const ROOT: &str = "v2";

/// A path of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Where the path leads; `None` if nowhere.
    pub route: Option<Route>,
    model: Option<String>,
    version: Option<String>,
}

impl Asked {
    /// Reads a path as the client sent it. `None` if the path does not begin with `/v2`.
    ///
    /// Leading slashes count once, as for all routes. `/v2/` is `/v2`, because the specification has both spellings; no
    /// other path may end with a slash, because Flask, for scripts that use it, has no such rule. Percent-encoding is undone
    /// in each segment.
    pub fn of(path: &str) -> Option<Self> {
        let path = path.strip_prefix('/')?.trim_start_matches('/');
        let decode = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
        let segments: Vec<_> = path.split('/').map(decode).collect();
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let Some((&ROOT, rest)) = segments.split_first() else { return None };
        let (route, model, version) = match *rest {
            [] | [""] => (Some(Route::V2), None, None),
            ["health", "live"] => (Some(Route::V2Live), None, None),
            ["health", "ready"] => (Some(Route::V2Ready), None, None),
            ["models", model, "versions", version, ref end @ ..] => (of_model(end), Some(model), Some(version)),
            ["models", model, ref end @ ..] => (of_model(end), Some(model), None),
            _ => (None, None, None),
        };
        Some(Self { route, model: model.map(str::to_owned), version: version.map(str::to_owned) })
    }

    /// Refuses a model or a version that the server does not have.
    pub fn check(&self, served: &OpenInference) -> Result<(), RequestError> {
        let OpenInference { model, version } = served;
        if let Some(other) = self.model.as_ref().filter(|asked| *asked != model) {
            let text = format!("There is no model {other:?}. This server has the model {model:?} (--model_name).");
            return Err(RequestError::UnknownModel(text));
        }
        if let Some(other) = self.version.as_ref().filter(|asked| *asked != version) {
            let text = format!("The model {model:?} has no version {other:?}. It has the version {version:?}.");
            return Err(RequestError::UnknownModel(text));
        }
        Ok(())
    }
}

fn of_model(end: &[&str]) -> Option<Route> {
    match end {
        [] => Some(Route::V2Model),
        ["ready"] => Some(Route::V2ModelReady),
        ["infer"] => Some(Route::V2Infer),
        _ => None,
    }
}

/// What the server says about itself.
pub fn server_metadata() -> Bytes {
    let version = env!("CARGO_PKG_VERSION");
    format!(r#"{{"name": "azmlinfsrv", "version": "{version}", "extensions": ["binary_tensor_data"]}}"#).into()
}

/// The reply to `/v2/health/live`.
pub fn live() -> Bytes {
    Bytes::from_static(br#"{"live": true}"#)
}

/// The reply to a question whether server or model are ready; an error if not.
///
/// The specification's text has `live` for the server, and `ready` for a model. Clients look for `ready`, or at the status
/// alone, so this has both.
pub fn ready(front: &Front, model: Option<&str>) -> Result<Bytes, RequestError> {
    front.check_ready()?;
    Ok(match model {
        None => Bytes::from_static(br#"{"live": true, "ready": true}"#),
        Some(name) => {
            let mut body = br#"{"name": "#.to_vec();
            write::write_str(&mut body, name);
            body.extend_from_slice(br#", "ready": true}"#);
            body.into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_routes_of_the_specification() {
        for (path, route) in [
            ("/v2", Some(Route::V2)),
            ("/v2/", Some(Route::V2)),
            ("//v2", Some(Route::V2)),
            ("/v2/health/live", Some(Route::V2Live)),
            ("/v2/health/ready", Some(Route::V2Ready)),
            ("/v2/models/m", Some(Route::V2Model)),
            ("/v2/models/m/versions/1", Some(Route::V2Model)),
            ("/v2/models/m/ready", Some(Route::V2ModelReady)),
            ("/v2/models/m/versions/1/ready", Some(Route::V2ModelReady)),
            ("/v2/models/m/infer", Some(Route::V2Infer)),
            ("/v2/models/m/versions/1/infer", Some(Route::V2Infer)),
            ("/v2/models", None),
            ("/v2/models/m/versions", None),
            ("/v2/health", None),
            ("/v2/models/m/config", None),
            ("/v2//health/live", None),
            ("/v2//", None),
            ("/v2/health/live/", None),
            ("/v2/models/m/", None),
            ("/v2/models/m/infer/", None),
        ] {
            assert_eq!(Asked::of(path).map(|asked| asked.route), Some(route), "{path}");
        }
        for path in ["/", "/score", "/v2x", "/v1", "", "*", "/a/v2"] {
            assert_eq!(Asked::of(path), None, "{path}");
        }
    }

    #[test]
    fn unknown_models_and_versions_are_named() {
        let served = OpenInference { model: "a b".to_owned(), version: "1".to_owned() };
        let check = |path: &str| match Asked::of(path).map(|asked| asked.check(&served)) {
            Some(Err(error)) => error.to_string(),
            Some(Ok(())) => "known".to_owned(),
            None => "no path of the protocol".to_owned(),
        };
        for path in ["/v2", "/v2/models/a%20b/infer", "/v2/models/a%20b/versions/1/ready"] {
            assert_eq!(check(path), "known", "{path}");
        }
        assert_eq!(
            check("/v2/models/other/infer"),
            r#"There is no model "other". This server has the model "a b" (--model_name)."#
        );
        assert_eq!(
            check("/v2/models/a%20b/versions/2/infer"),
            r#"The model "a b" has no version "2". It has the version "1"."#
        );
    }
}
