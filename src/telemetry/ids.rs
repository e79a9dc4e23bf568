//! Ids and sampling of spans.
//!
//! Pure but for chance; runs in the front's event loop, and for child spans in the exporter's thread.

use super::trace_context::{Span, TraceParent};

/// Which traces are recorded (`OTEL_TRACES_SAMPLER`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// A caller's decision counts more than `root`.
    pub follows_parent: bool,
    /// The share of traces, from 0 to 1.
    pub share: f64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { follows_parent: true, share: 1.0 }
    }
}

impl Sampler {
    /// The server's span of a request.
    pub fn begin(&self, parent: Option<TraceParent>) -> Span {
        let trace_id = parent.map_or_else(random_bytes, |parent| parent.trace_id);
        let is_sampled = match parent {
            Some(parent) if self.follows_parent => parent.is_sampled(),
            _ => self.takes(trace_id),
        };
        Span { trace_id, span_id: random_bytes(), is_sampled }
    }

    /// Decides by the id alone, as OpenTelemetry's `TraceIdRatioBased` does, so that all services decide alike.
    fn takes(&self, trace_id: [u8; 16]) -> bool {
        if self.share >= 1.0 {
            return true;
        }
        let [.., a, b, c, d, e, f, g, h] = trace_id;
        let low = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        (low as f64) < self.share * 2f64.powi(64)
    }
}

/// Random bytes, never all zeros.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        for (index, byte) in uuid::Uuid::new_v4().into_bytes().into_iter().enumerate() {
            // These two bytes hold the UUID's version and variant.
            if index != 6 && index != 8 && filled < N {
                bytes[filled] = byte;
                filled += 1;
            }
        }
    }
    if bytes.iter().all(|byte| *byte == 0) {
        bytes[N - 1] = 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent(flags: u8) -> Option<TraceParent> {
        Some(TraceParent { trace_id: [7; 16], span_id: [9; 8], flags })
    }

    #[test]
    fn a_caller_keeps_its_trace_and_decides() {
        let sampler = Sampler { follows_parent: true, share: 0.0 };
        let span = sampler.begin(parent(1));
        assert_eq!((span.trace_id, span.is_sampled), ([7; 16], true));
        assert_ne!(span.span_id, [9; 8]);
        assert!(!Sampler::default().begin(parent(0)).is_sampled);
        assert!(!sampler.begin(None).is_sampled);
        assert!(!Sampler { follows_parent: false, share: 0.0 }.begin(parent(1)).is_sampled);
    }

    #[test]
    fn the_share_is_kept() {
        let sampler = Sampler { follows_parent: true, share: 0.1 };
        let sampled = (0..10_000).filter(|_| sampler.begin(None).is_sampled).count();
        assert!((800..1200).contains(&sampled), "{sampled}");
    }

    #[test]
    fn ids_differ() {
        let ids: std::collections::HashSet<[u8; 16]> = (0..1000).map(|_| random_bytes()).collect();
        assert_eq!(ids.len(), 1000);
    }
}
