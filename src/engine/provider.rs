//! Execution providers and their options, as a model's `config.toml` gives them.

use std::path::PathBuf;

use ort::ep::{self, ExecutionProviderDispatch};
use serde::{Deserialize, Serialize};

/// One entry of a model's `[[providers]]` list.
///
/// The list is an order of preference and the whole of what is allowed: a provider that cannot run the model is an error
/// unless a later entry says what to fall back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum Provider {
    /// ONNX Runtime's own CPU kernels. It has braces because serde lets a unit variant take any key, and there is none to take.
    Cpu {},
    /// NVIDIA GPUs through CUDA and cuDNN.
    Cuda(CudaOptions),
    /// NVIDIA GPUs through TensorRT.
    TensorRt(TensorRtOptions),
}

/// Options of the CUDA provider. What is left out keeps ONNX Runtime's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CudaOptions {
    /// The devices to use; each gets its own instances. Default: `[0]`.
    pub device_ids: Vec<i32>,
    /// The most GPU memory that a session's arena takes, in bytes. Default: all.
    pub memory_limit_bytes: Option<usize>,
    /// How the arena grows. Default: `next_power_of_two`.
    pub arena_extend_strategy: Option<ArenaExtendStrategy>,
    /// How cuDNN's convolution algorithms are searched. Default: `exhaustive`.
    pub cudnn_conv_algo_search: Option<ConvAlgorithmSearch>,
    /// Whether convolutions may take as large a workspace as they like. Default: true.
    pub cudnn_conv_use_max_workspace: Option<bool>,
    /// Whether TF32 may replace FP32 in matrix products and convolutions. Default: true on devices that have it.
    pub use_tf32: Option<bool>,
    /// Whether the NHWC layout is preferred. Default: false.
    pub prefer_nhwc: Option<bool>,
}

/// How a CUDA arena grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArenaExtendStrategy {
    /// To the next power of two: fewer allocations.
    NextPowerOfTwo,
    /// By what is asked for: less memory.
    SameAsRequested,
}

/// How cuDNN's convolution algorithms are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConvAlgorithmSearch {
    /// Every algorithm is timed, for each new shape.
    Exhaustive,
    /// cuDNN's heuristic chooses.
    Heuristic,
    /// cuDNN's default algorithm.
    Default,
}

/// Options of the TensorRT provider. What is left out keeps ONNX Runtime's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TensorRtOptions {
    /// The devices to use; each gets its own instances. Default: `[0]`.
    pub device_ids: Vec<i32>,
    /// The most memory that TensorRT takes while it builds an engine, in bytes. Default: all.
    pub max_workspace_bytes: Option<usize>,
    /// Whether engines may compute in half precision. Default: false.
    pub fp16: bool,
    /// The folder in which built engines are kept between starts. Default: none, engines are built at every load.
    pub engine_cache_path: Option<PathBuf>,
    /// The folder in which kernel timings are kept between builds. Default: none.
    pub timing_cache_path: Option<PathBuf>,
}

impl Provider {
    /// The provider's name in configuration, metadata and metrics: `"cpu"`, `"cuda"` or `"tensorrt"`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Cpu {} => "cpu",
            Self::Cuda(_) => "cuda",
            Self::TensorRt(_) => "tensorrt",
        }
    }

    /// The devices to spread instances over; one, numbered 0, for the CPU.
    pub fn device_ids(&self) -> &[i32] {
        let ids: &[i32] = match self {
            Self::Cpu {} => &[],
            Self::Cuda(options) => &options.device_ids,
            Self::TensorRt(options) => &options.device_ids,
        };
        if ids.is_empty() { &[0] } else { ids }
    }

    /// Whether this is a GPU's.
    pub fn is_gpu(&self) -> bool {
        !matches!(self, Self::Cpu {})
    }

    /// The provider for ONNX Runtime, on `device_id`; `None` for the CPU's, which ONNX Runtime always has. That it cannot be
    /// registered is an error there, never a silent fall to the CPU.
    pub(super) fn dispatch(&self, device_id: i32) -> Option<ExecutionProviderDispatch> {
        match self {
            Self::Cpu {} => None,
            Self::Cuda(options) => Some(options.dispatch(device_id).error_on_failure()),
            Self::TensorRt(options) => Some(options.dispatch(device_id).error_on_failure()),
        }
    }
}

impl CudaOptions {
    fn dispatch(&self, device_id: i32) -> ExecutionProviderDispatch {
        let mut provider = ep::CUDA::default().with_device_id(device_id);
        if let Some(limit) = self.memory_limit_bytes {
            provider = provider.with_memory_limit(limit);
        }
        if let Some(strategy) = self.arena_extend_strategy {
            provider = provider.with_arena_extend_strategy(match strategy {
                ArenaExtendStrategy::NextPowerOfTwo => ep::ArenaExtendStrategy::NextPowerOfTwo,
                ArenaExtendStrategy::SameAsRequested => ep::ArenaExtendStrategy::SameAsRequested,
            });
        }
        if let Some(search) = self.cudnn_conv_algo_search {
            provider = provider.with_conv_algorithm_search(match search {
                ConvAlgorithmSearch::Exhaustive => ep::cuda::ConvAlgorithmSearch::Exhaustive,
                ConvAlgorithmSearch::Heuristic => ep::cuda::ConvAlgorithmSearch::Heuristic,
                ConvAlgorithmSearch::Default => ep::cuda::ConvAlgorithmSearch::Default,
            });
        }
        if let Some(enable) = self.cudnn_conv_use_max_workspace {
            provider = provider.with_conv_max_workspace(enable);
        }
        if let Some(enable) = self.use_tf32 {
            provider = provider.with_tf32(enable);
        }
        if let Some(enable) = self.prefer_nhwc {
            provider = provider.with_prefer_nhwc(enable);
        }
        provider.build()
    }
}

impl TensorRtOptions {
    fn dispatch(&self, device_id: i32) -> ExecutionProviderDispatch {
        let mut provider = ep::TensorRT::default().with_device_id(device_id).with_fp16(self.fp16);
        if let Some(bytes) = self.max_workspace_bytes {
            provider = provider.with_max_workspace_size(bytes);
        }
        if let Some(path) = &self.engine_cache_path {
            provider = provider.with_engine_cache(true).with_engine_cache_path(path.display());
        }
        if let Some(path) = &self.timing_cache_path {
            provider = provider.with_timing_cache(true).with_timing_cache_path(path.display());
        }
        provider.build()
    }
}
