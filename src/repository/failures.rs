//! Models that have broken while they served: a device that was lost, memory that is no longer to be had.
//!
//! Runs also fail because of what a client sent, and no client may take a model from the others. So after many failures in a
//! row the model is tried with an input that has worked before: zeros, as in its warm-up. One that fails this, too, gets no more
//! requests until it is loaded again, which the server does itself where no client can.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::control::ModelControlMode;
use super::loader::Action;
use super::overrides::Overrides;
use super::served::{Served, Serving};
use super::{GraphModel, Kind, Model, Repository};
use crate::error::{Error, ErrorKind, Result};
use crate::scheduler::{Scheduler, Submission};
use crate::telemetry::Trace;
use crate::tensor::Tensor;

/// After how many failures in a row a model is tried.
const SUSPICIOUS: u32 = 10;
/// How long after it has broken a model is loaded again; twice as long after each time that this fails, up to the longest pause.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

impl Repository {
    /// Looks at a model of which a run has failed, or at the members of an ensemble. When one has failed often without a
    /// success, and fails a trial too, it gets no more requests until it is loaded again. Completes at once; the trial goes on
    /// behind.
    pub fn suspect(self: &Arc<Self>, model: &Arc<Model>) {
        match model.kind() {
            Kind::Graph(graph) => self.suspect_graph(model, graph),
            Kind::Ensemble(ensemble) => {
                for other in self.ready() {
                    let is_member = |graph: &&Arc<GraphModel>| {
                        ensemble.members().iter().any(|member| Arc::ptr_eq(&member.graph, graph))
                    };
                    if let Some(graph) = other.graph().filter(is_member) {
                        self.suspect_graph(&other, graph);
                    }
                }
            }
        }
    }

    fn suspect_graph(self: &Arc<Self>, model: &Arc<Model>, graph: &Arc<GraphModel>) {
        if graph.scheduler().consecutive_failures() < SUSPICIOUS {
            return;
        }
        let (repository, model, graph) = (Arc::clone(self), Arc::clone(model), Arc::clone(graph));
        tokio::spawn(async move {
            let failure = match zeros(&graph) {
                Ok(zeros) => try_out(graph.scheduler(), zeros).await,
                Err(error) => Some(error),
            };
            let (name, version) = (model.name(), model.version());
            match failure {
                Some(failure) => {
                    let reason = format!("{SUSPICIOUS} runs in a row failed, and a trial too: {}", failure.chain());
                    error!(model = name, version, reason, "the model takes no more requests until it is loaded again");
                    let is_it = |serving: &Serving| matches!(&serving.served, Served::Graph(serving) if Arc::ptr_eq(serving, &model));
                    let is_condemned = repository.change(name, |entry| entry.condemn(version, reason, is_it));
                    if is_condemned && repository.control.mode != ModelControlMode::Explicit {
                        repository.mend(name, version).await;
                    }
                }
                None => warn!(model = name, version, "{SUSPICIOUS} runs in a row failed, but a trial did not"),
            }
        });
    }

    /// Loads the model called `name` again until that succeeds, or `version` needs it no more.
    async fn mend(self: &Arc<Self>, name: &str, version: u64) {
        let mut closed = self.closed.subscribe();
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = closed.wait_for(|&closed| closed) => return,
            }
            // Whoever follows the folder may have loaded or removed it meanwhile.
            if !self.get(name, Some(version)).is_err_and(|error| error.kind() == ErrorKind::Unavailable) {
                return;
            }
            info!(model = name, "loading it again, because it had broken");
            // Why it could not be loaded is in the log and in the index.
            if matches!(self.enqueue(name, Action::Load(Overrides::default())).await, Ok(Ok(()))) {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Why a run of `input` fails, if it does.
async fn try_out(scheduler: &Scheduler, input: Tensor) -> Option<Error> {
    let answer =
        scheduler.submit(Submission { rows: input, priority: 1, deadline: None, trace: Trace::default() }).ok()?;
    answer.await.err().filter(|error| error.kind() == ErrorKind::Internal)
}

/// The input of the model's warm-up.
fn zeros(graph: &GraphModel) -> Result<Tensor> {
    let [a, b, c] = graph.preprocessor().row_shape();
    Tensor::zeros(graph.interface().input.data_type, vec![1, a, b, c])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scheduler::batcher::Policy;
    use crate::scheduler::device::Device;
    use crate::scheduler::{Backend, Instance, SchedulerOptions};
    use crate::telemetry::{BatchTimes, Metrics};

    /// Fails on anything but zeros, or on everything.
    struct Failing {
        always: bool,
    }

    impl Backend for Failing {
        fn run(&mut self, parts: &[Tensor], rows: usize) -> Result<(Vec<Tensor>, BatchTimes)> {
            let is_zero = parts.iter().all(|part| part.bytes().iter().all(|&byte| byte == 0));
            if self.always || !is_zero {
                return Err(Error::internal("the run failed"));
            }
            let times = BatchTimes { input: Duration::ZERO, infer: Duration::ZERO, output: Duration::ZERO };
            Ok((vec![Tensor::from_vec(vec![rows, 1], vec![0f32; rows])?], times))
        }
    }

    fn row(value: f32) -> Tensor {
        Tensor::from_vec(vec![1, 1], vec![value]).unwrap()
    }

    #[tokio::test]
    async fn failures_count_until_a_success_and_a_trial_tells_broken_from_badly_asked() {
        for always in [false, true] {
            let policy =
                Policy { max_batch_size: 2, max_queue_delay: Duration::ZERO, max_priority_wait: Duration::ZERO };
            let options = SchedulerOptions { policy, queue_size: 8, queue_bytes: 64, buckets: Vec::new(), threads: 1 };
            let instances = vec![Instance { backend: Failing { always }, device: Arc::new(Device::new(1)) }];
            let metrics = Metrics::new().model("m", 1);
            let scheduler = Scheduler::start("m", instances, options, metrics, &[]).unwrap();
            for count in 1..=3 {
                assert!(try_out(&scheduler, row(1.0)).await.is_some());
                assert_eq!(scheduler.consecutive_failures(), count);
            }
            assert_eq!(try_out(&scheduler, row(0.0)).await.is_some(), always);
            assert_eq!(scheduler.consecutive_failures(), if always { 4 } else { 0 });
            // A model that is being unloaded is not broken.
            scheduler.close();
            assert!(try_out(&scheduler, row(0.0)).await.is_none());
        }
    }
}
