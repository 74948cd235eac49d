//! `instance_group`, `optimization.execution_accelerators` and ONNX Runtime's `parameters`: how many instances run on what.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

use super::{Machine, parameters};
use crate::engine::{ArenaExtendStrategy, ConvAlgorithmSearch, CudaOptions, Provider, TensorRtOptions};
use crate::repository::config::{ModelConfig, Tunable};
use crate::triton;
use crate::triton::proto::ModelInstanceGroup;
use crate::triton::proto::model_instance_group::Kind;
use crate::triton::proto::model_optimization_policy::ExecutionAccelerators;
use crate::triton::proto::model_optimization_policy::execution_accelerators::Accelerator;

/// What ONNX Runtime's provider once was configured by: parameters of the model.
const CUDA_PARAMETERS: [&str; 3] = ["arena_extend_strategy", "cudnn_conv_algo_search", "gpu_mem_limit"];

/// Whether the model is to run on a GPU or not at all.
pub(in crate::repository) fn needs_gpu(read: &triton::ModelConfig) -> bool {
    read.instance_group.iter().any(|group| group.kind() == Kind::Gpu)
}

/// Translates into `config` how many instances there are, with how many threads, and what runs them.
pub(super) fn translate(
    read: &triton::ModelConfig,
    machine: Machine,
    config: &mut ModelConfig,
    ignored: &mut Vec<String>,
) -> Result<(), String> {
    let groups = Groups::read(&read.instance_group, machine, ignored)?;
    let default = ExecutionAccelerators::default();
    let accelerators =
        read.optimization.as_ref().and_then(|read| read.execution_accelerators.as_ref()).unwrap_or(&default);
    for accelerator in &accelerators.cpu_execution_accelerator {
        ignored.push(format!(
            "optimization.execution_accelerators.cpu_execution_accelerator {} (ONNX Runtime's own kernels run)",
            accelerator.name
        ));
    }
    let mut cuda = CudaOptions { device_ids: groups.device_ids.clone(), ..CudaOptions::default() };
    for key in CUDA_PARAMETERS {
        if let Some(value) = read.parameters.get(key) {
            set_cuda(&mut cuda, key, &value.string_value)?;
        }
    }
    let mut tensor_rt = None;
    for accelerator in &accelerators.gpu_execution_accelerator {
        match accelerator.name.as_str() {
            "cuda" => {
                for (key, value) in &accelerator.parameters {
                    if !set_cuda(&mut cuda, key, value)? {
                        ignored.push(format!("{key} of the accelerator cuda"));
                    }
                }
            }
            "tensorrt" => tensor_rt = Some(tensor_rt_options(accelerator, &groups.device_ids, ignored)?),
            other => return Err(format!("optimization.execution_accelerators: there is no accelerator {other}")),
        }
    }
    if groups.on_gpu {
        config.providers.extend(tensor_rt.map(Provider::TensorRt));
        // As Triton has it: what a GPU's provider does not take, the CPU's does. That it does not do all of it, `needs_gpu` sees to.
        config.providers.extend([Provider::Cuda(cuda), Provider::Cpu {}]);
    } else if !accelerators.gpu_execution_accelerator.is_empty() {
        ignored
            .push("optimization.execution_accelerators.gpu_execution_accelerator (no GPU runs the model)".to_owned());
    }
    let threads = threads(read, ignored)?.or_else(|| {
        // Triton gives every instance as many threads as there are cores. So few instances use all cores; more just share them.
        groups.count.filter(|_| !groups.on_gpu).map(|count| (machine.cores / count).max(1))
    });
    config.instances.count = groups.count.map(Tunable::Number);
    config.instances.intra_op_threads = threads.map(Tunable::Number);
    Ok(())
}

/// What the instance groups come to.
#[derive(Debug, PartialEq, Eq)]
struct Groups {
    on_gpu: bool,
    /// Empty: the provider's default.
    device_ids: Vec<i32>,
    /// On each device.
    count: Option<usize>,
}

impl Groups {
    fn read(groups: &[ModelInstanceGroup], machine: Machine, ignored: &mut Vec<String>) -> Result<Self, String> {
        let mut cpu_count = 0;
        let mut on_devices: BTreeMap<Option<i32>, usize> = BTreeMap::new();
        for group in groups {
            note_hints(group, ignored);
            let count =
                usize::try_from(group.count).map_err(|_| "instance_group.count: must not be negative".to_owned())?;
            match group.kind() {
                Kind::Model => return Err("instance_group.kind: KIND_MODEL is not supported".to_owned()),
                Kind::Cpu if !group.gpus.is_empty() => {
                    return Err("instance_group.gpus: a group of KIND_CPU has none".to_owned());
                }
                Kind::Gpu if !machine.offers_cuda => {
                    return Err(
                        "instance_group.kind: KIND_GPU, but the ONNX Runtime library has no CUDA provider".to_owned()
                    );
                }
                Kind::Cpu => cpu_count += count,
                Kind::Auto if !machine.offers_cuda => cpu_count += count,
                Kind::Gpu | Kind::Auto if group.gpus.is_empty() => *on_devices.entry(None).or_default() += count,
                Kind::Gpu | Kind::Auto => {
                    for &device in &group.gpus {
                        *on_devices.entry(Some(device)).or_default() += count;
                    }
                }
            }
        }
        let some = |count: usize| (count > 0).then_some(count);
        if on_devices.is_empty() {
            let on_gpu = groups.is_empty() && machine.offers_cuda;
            return Ok(Self { on_gpu, device_ids: Vec::new(), count: some(cpu_count) });
        }
        if groups.iter().any(|group| group.kind() == Kind::Cpu) {
            ignored.push("instance_group (of KIND_CPU, beside one on a GPU)".to_owned());
        }
        if on_devices.contains_key(&None) {
            ignored.push("instance_group (without gpus: the GPU 0 is used, and not all there are)".to_owned());
        }
        let most = on_devices.values().copied().max().unwrap_or_default();
        if on_devices.values().any(|&count| count != most) {
            ignored.push(format!("instance_group.count (the devices differ: each gets {most})"));
        }
        // No device was named, or the first.
        let device_ids: BTreeSet<i32> = on_devices.into_keys().map(Option::unwrap_or_default).collect();
        Ok(Self { on_gpu: true, device_ids: device_ids.into_iter().collect(), count: some(most) })
    }
}

fn note_hints(group: &ModelInstanceGroup, ignored: &mut Vec<String>) {
    for (field, is_there) in [
        ("instance_group.rate_limiter", group.rate_limiter.is_some()),
        ("instance_group.secondary_devices", !group.secondary_devices.is_empty()),
        ("instance_group.profile", !group.profile.is_empty()),
        ("instance_group.passive", group.passive),
        ("instance_group.host_policy", !group.host_policy.is_empty()),
    ] {
        if is_there {
            ignored.push(field.to_owned());
        }
    }
}

/// The threads of an instance, by ONNX Runtime's parameters. Notes those that are not served.
fn threads(read: &triton::ModelConfig, ignored: &mut Vec<String>) -> Result<Option<usize>, String> {
    let mut threads = None;
    let text = |key: &str| read.parameters.get(key).map(|parameter| parameter.string_value.as_str());
    let is_parallel = text("execution_mode") == Some("1");
    for (key, value) in &read.parameters {
        let value = &value.string_value;
        match key.as_str() {
            "intra_op_thread_count" => threads = Some(number::<usize>(key, value)?).filter(|&threads| threads > 0),
            // Between nodes there is nothing to share out while they run one after the other.
            "inter_op_thread_count" if !is_parallel => {}
            "execution_mode" if value == "0" => {}
            "enable_mem_arena" | "enable_mem_pattern" if flag(key, value)? => {}
            key if CUDA_PARAMETERS.contains(&key) || key.starts_with(parameters::PREFIX) => {}
            _ => ignored.push(format!("parameters.{key}")),
        }
    }
    Ok(threads)
}

/// Sets an option of the CUDA provider; `false` where there is none called `key`.
fn set_cuda(options: &mut CudaOptions, key: &str, value: &str) -> Result<bool, String> {
    match key {
        "gpu_mem_limit" => options.memory_limit_bytes = Some(number(key, value)?),
        "arena_extend_strategy" => {
            options.arena_extend_strategy = Some(match value {
                "0" | "kNextPowerOfTwo" => ArenaExtendStrategy::NextPowerOfTwo,
                "1" | "kSameAsRequested" => ArenaExtendStrategy::SameAsRequested,
                _ => return Err(wrong(key, value, "0 or 1")),
            });
        }
        "cudnn_conv_algo_search" => {
            options.cudnn_conv_algo_search = Some(match value {
                "0" | "EXHAUSTIVE" => ConvAlgorithmSearch::Exhaustive,
                "1" | "HEURISTIC" => ConvAlgorithmSearch::Heuristic,
                "2" | "DEFAULT" => ConvAlgorithmSearch::Default,
                _ => return Err(wrong(key, value, "0, 1 or 2")),
            });
        }
        "cudnn_conv_use_max_workspace" => options.cudnn_conv_use_max_workspace = Some(flag(key, value)?),
        "use_tf32" => options.use_tf32 = Some(flag(key, value)?),
        "prefer_nhwc" => options.prefer_nhwc = Some(flag(key, value)?),
        _ => return Ok(false),
    }
    Ok(true)
}

fn tensor_rt_options(
    accelerator: &Accelerator,
    device_ids: &[i32],
    ignored: &mut Vec<String>,
) -> Result<TensorRtOptions, String> {
    let mut options = TensorRtOptions { device_ids: device_ids.to_vec(), ..TensorRtOptions::default() };
    let (mut engine_cache, mut timing_cache) = ((false, None), (false, None));
    for (key, value) in &accelerator.parameters {
        match key.as_str() {
            "precision_mode" => {
                options.fp16 = match value.as_str() {
                    "FP32" => false,
                    "FP16" => true,
                    _ => return Err(wrong(key, value, "FP32 or FP16")),
                }
            }
            "max_workspace_size_bytes" => options.max_workspace_bytes = Some(number(key, value)?),
            "trt_engine_cache_enable" => engine_cache.0 = flag(key, value)?,
            "trt_engine_cache_path" => engine_cache.1 = Some(value.into()),
            "trt_timing_cache_enable" => timing_cache.0 = flag(key, value)?,
            "trt_timing_cache_path" => timing_cache.1 = Some(value.into()),
            _ => ignored.push(format!("{key} of the accelerator tensorrt")),
        }
    }
    for (key, (is_enabled, path)) in
        [("trt_engine_cache_enable", &engine_cache), ("trt_timing_cache_enable", &timing_cache)]
    {
        if *is_enabled && path.is_none() {
            ignored.push(format!("{key} of the accelerator tensorrt (without a path)"));
        }
    }
    options.engine_cache_path = engine_cache.1.filter(|_| engine_cache.0);
    options.timing_cache_path = timing_cache.1.filter(|_| timing_cache.0);
    Ok(options)
}

fn number<T: FromStr>(key: &str, value: &str) -> Result<T, String> {
    value.trim().parse().map_err(|_| wrong(key, value, "a whole number"))
}

fn flag(key: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(wrong(key, value, "0 or 1")),
    }
}

fn wrong(key: &str, value: impl Display, expected: &str) -> String {
    format!("parameters.{key}: is `{value}`, but must be {expected}")
}
