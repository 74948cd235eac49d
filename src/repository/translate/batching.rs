//! `dynamic_batching`: the queue and its order.

use crate::repository::config::BatchingConfig;
use crate::triton::proto::model_queue_policy::TimeoutAction;
use crate::triton::proto::{ModelDynamicBatching, ModelQueuePolicy};

/// Translates `read` into `batching`. `preserve_ordering` needs nothing: a stream's answers come in the order of its requests.
pub(super) fn translate(
    read: &ModelDynamicBatching,
    max_batch_size: Option<usize>,
    batching: &mut BatchingConfig,
    ignored: &mut Vec<String>,
) -> Result<(), String> {
    batching.max_queue_delay_us = read.max_queue_delay_microseconds;
    // That the largest batch is preferred goes without saying.
    if read.preferred_batch_size.iter().any(|&size| usize::try_from(size).ok() != max_batch_size) {
        ignored.push("dynamic_batching.preferred_batch_size (an idle instance takes what is there)".to_owned());
    }
    check_levels(read)?;
    if read.default_priority_level > 0 {
        batching.default_priority = u32::try_from(read.default_priority_level)
            .map_err(|_| "dynamic_batching.default_priority_level: is too large".to_owned())?;
    }
    let default = ModelQueuePolicy::default();
    let policy = read.default_queue_policy.as_ref().unwrap_or(&default);
    if policy.max_queue_size > 0 {
        batching.queue_size = policy.max_queue_size as usize;
    }
    let timeout_us = policy.default_timeout_microseconds;
    match policy.timeout_action() {
        TimeoutAction::Reject => {
            batching.default_timeout_ms = timeout_us.div_ceil(1000);
            if !timeout_us.is_multiple_of(1000) {
                let rounded = batching.default_timeout_ms;
                ignored.push(format!(
                    "the last digits of dynamic_batching.default_queue_policy.default_timeout_microseconds (it is {rounded} ms)"
                ));
            }
        }
        // What is late is to be answered all the same. So it gets no deadline, and keeps its place.
        TimeoutAction::Delay if timeout_us > 0 => {
            ignored.push(
                "dynamic_batching.default_queue_policy.timeout_action (DELAY: requests wait without limit)".to_owned(),
            );
        }
        TimeoutAction::Delay => {}
    }
    if read.priority_queue_policy.values().any(|other| other != policy) {
        ignored.push("dynamic_batching.priority_queue_policy (the default policy is every level's)".to_owned());
    }
    Ok(())
}

fn check_levels(read: &ModelDynamicBatching) -> Result<(), String> {
    let levels = 1..=read.priority_levels;
    if read.priority_levels == 0 {
        return Ok(());
    }
    if !levels.contains(&read.default_priority_level) {
        return Err(format!(
            "dynamic_batching.default_priority_level: must be from 1 to priority_levels, which is {}",
            read.priority_levels
        ));
    }
    match read.priority_queue_policy.keys().find(|level| !levels.contains(level)) {
        Some(level) => Err(format!(
            "dynamic_batching.priority_queue_policy: {level} is not from 1 to priority_levels, which is {}",
            read.priority_levels
        )),
        None => Ok(()),
    }
}
