//! Which spans are recorded.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

use super::SampleRatio;

/// A request's span as whoever called has decided, or by the ratio where nobody has; a batch's, which begins a trace and links
/// those of its requests, if one of them is recorded.
#[derive(Debug, Clone)]
pub(super) struct ByRequest(Sampler);

impl ByRequest {
    pub(super) fn new(ratio: SampleRatio) -> Self {
        Self(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio.get()))))
    }
}

impl ShouldSample for ByRequest {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let is_linked = |link: &Link| link.span_context.is_sampled();
        if links.iter().any(is_linked) {
            // A run is linked, too, and has a parent, whose state goes on as in any child.
            let trace_state =
                parent.map_or_else(TraceState::default, |parent| parent.span().span_context().trace_state().clone());
            return SamplingResult { decision: SamplingDecision::RecordAndSample, attributes: Vec::new(), trace_state };
        }
        self.0.should_sample(parent, trace, name, kind, attributes, links)
    }
}
