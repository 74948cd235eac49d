use super::*;
use crate::engine::{ArenaExtendStrategy, ConvAlgorithmSearch, CudaOptions, Provider, TensorRtOptions};
use crate::preprocess::{Extent, Interpolation, Layout};
use crate::repository::config::{BatchingConfig, GoldenClass, InstancesConfig, ModelCacheConfig};
use crate::tensor::{DataType, TensorSpec};

const CPU: Machine = Machine { cores: 8, offers_cuda: false };
const GPU: Machine = Machine { cores: 8, offers_cuda: true };

fn translated(text: &str, machine: Machine) -> Result<Translation, String> {
    translate(triton::parse_text(text).unwrap(), "m", machine)
}

/// What the text means on a machine without a GPU, where everything in it has an effect.
fn config(text: &str) -> ModelConfig {
    let Translation { config, ignored, .. } = translated(text, CPU).unwrap();
    assert!(ignored.is_empty(), "{ignored:?}");
    config
}

#[test]
fn an_empty_configuration_is_the_default() {
    let read = config("");
    // But that a model's answers are not kept unless it asks for that.
    let kept = ModelCacheConfig { enabled: true };
    assert!(!read.response_cache.enabled && config("response_cache { enable: true }").response_cache.enabled);
    assert_eq!(ModelConfig { triton: None, response_cache: kept, ..read.clone() }, ModelConfig::default());
    assert!(!read.is_unbatched());
    assert!(translated("", CPU).unwrap().assumes_recipe);
}

#[test]
fn batches_and_queues_are_translated() {
    let read = config(
        "name: 'm' platform: 'onnxruntime_onnx' backend: 'onnxruntime' max_batch_size: 16
        dynamic_batching {
          preferred_batch_size: [ 16 ]  max_queue_delay_microseconds: 250  preserve_ordering: true
          priority_levels: 3  default_priority_level: 2
          default_queue_policy { default_timeout_microseconds: 30000 allow_timeout_override: true max_queue_size: 9 }
          priority_queue_policy { key: 1 value {
            default_timeout_microseconds: 30000 allow_timeout_override: true max_queue_size: 9 } }
        }",
    );
    assert_eq!((read.max_batch_size, read.is_unbatched()), (Some(Tunable::Number(16)), false));
    let expected = BatchingConfig {
        max_queue_delay_us: 250,
        default_priority: 2,
        default_timeout_ms: 30,
        queue_size: 9,
        ..BatchingConfig::default()
    };
    assert_eq!(read.batching, expected);
    // A delayed request is one without a deadline.
    let delayed = "dynamic_batching { default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 7 } }";
    let delayed = translated(delayed, CPU).unwrap();
    assert_eq!((delayed.config.batching, delayed.ignored.len()), (BatchingConfig::default(), 1));
    let rounded = translated("dynamic_batching { default_queue_policy { default_timeout_microseconds: 1001 } }", CPU);
    assert_eq!(rounded.unwrap().config.batching.default_timeout_ms, 2);
}

#[test]
fn versions_files_and_levels_are_translated() {
    for (text, versions) in [
        ("version_policy { latest { num_versions: 2 } }", VersionPolicy::Latest(2)),
        ("version_policy: { all: {} }", VersionPolicy::All),
        ("version_policy { specific { versions: [4, 1] } }", VersionPolicy::Specific(vec![4, 1])),
        ("version_policy {}", VersionPolicy::Latest(1)),
    ] {
        assert_eq!(config(text).versions, versions, "{text}");
    }
    assert_eq!(config("default_model_filename: 'net.onnx'").filename(), "net.onnx");
    for (level, expected) in [
        (-1, GraphOptimization::Basic),
        (0, GraphOptimization::All),
        (1, GraphOptimization::Extended),
        (2, GraphOptimization::None),
    ] {
        assert_eq!(config(&format!("optimization {{ graph {{ level: {level} }} }}")).graph_optimization, expected);
    }
}

#[test]
fn instances_are_translated() {
    let count = |count: Option<usize>, threads: Option<usize>| InstancesConfig {
        count: count.map(Tunable::Number),
        intra_op_threads: threads.map(Tunable::Number),
    };
    for (text, expected) in [
        ("", count(None, None)),
        ("instance_group { kind: KIND_CPU }", count(None, None)),
        // Triton's instances have all cores each; ours have them together.
        ("instance_group { count: 2 kind: KIND_CPU }", count(Some(2), Some(4))),
        ("instance_group [ { count: 1 }, { count: 2 } ]", count(Some(3), Some(2))),
        ("instance_group { count: 20 kind: KIND_CPU }", count(Some(20), Some(1))),
        (
            "instance_group { count: 2 } parameters { key: 'intra_op_thread_count' value { string_value: '3' } }",
            count(Some(2), Some(3)),
        ),
        (
            "instance_group { count: 2 } parameters { key: 'intra_op_thread_count' value { string_value: '0' } }",
            count(Some(2), Some(4)),
        ),
    ] {
        let read = config(text);
        assert_eq!((read.instances, read.providers), (expected, Vec::new()), "{text}");
    }
    let ordinary = "parameters { key: 'execution_mode' value { string_value: '0' } }
        parameters { key: 'inter_op_thread_count' value { string_value: '2' } }
        parameters { key: 'enable_mem_arena' value { string_value: '1' } }";
    assert_eq!(config(ordinary).instances, InstancesConfig::default());
}

#[test]
fn gpus_are_translated() {
    let on = |ids: &[i32]| CudaOptions { device_ids: ids.to_vec(), ..CudaOptions::default() };
    for (text, device_ids, count, only) in [
        ("", &[][..], None, false),
        ("instance_group { count: 2 kind: KIND_GPU gpus: [1, 0] }", &[0, 1], Some(2), true),
        ("instance_group [ { count: 1 gpus: 0 }, { count: 1 gpus: [0] } ]", &[0], Some(2), false),
        ("instance_group { kind: KIND_GPU gpus: [ 3 ] }", &[3], None, true),
    ] {
        let Translation { config, ignored, .. } = translated(text, GPU).unwrap();
        assert_eq!(config.providers, [Provider::Cuda(on(device_ids)), Provider::Cpu {}], "{text}");
        assert_eq!(
            config.instances,
            InstancesConfig { count: count.map(Tunable::Number), intra_op_threads: None },
            "{text}"
        );
        assert_eq!(needs_gpu(&triton::parse_text(text).unwrap()), only, "{text}");
        assert!(ignored.is_empty(), "{ignored:?}");
    }
    assert!(translated("instance_group { kind: KIND_CPU }", GPU).unwrap().config.providers.is_empty());

    let text = "instance_group { kind: KIND_GPU gpus: 1 }
        parameters { key: 'gpu_mem_limit' value { string_value: '1000' } }
        optimization { execution_accelerators { gpu_execution_accelerator [
          { name: 'tensorrt'
            parameters { key: 'precision_mode' value: 'FP16' }
            parameters { key: 'max_workspace_size_bytes' value: '1073741824' }
            parameters { key: 'trt_engine_cache_enable' value: 'true' }
            parameters { key: 'trt_engine_cache_path' value: '/cache' }
            parameters { key: 'trt_timing_cache_path' value: '/unused' } },
          { name: 'cuda'
            parameters { key: 'cudnn_conv_use_max_workspace' value: '0' }
            parameters { key: 'cudnn_conv_algo_search' value: '1' }
            parameters { key: 'arena_extend_strategy' value: 'kSameAsRequested' }
            parameters { key: 'use_tf32' value: '0' } }
        ] } }";
    let tensor_rt = TensorRtOptions {
        device_ids: vec![1],
        max_workspace_bytes: Some(1 << 30),
        fp16: true,
        engine_cache_path: Some("/cache".into()),
        timing_cache_path: None,
    };
    let cuda = CudaOptions {
        memory_limit_bytes: Some(1000),
        arena_extend_strategy: Some(ArenaExtendStrategy::SameAsRequested),
        cudnn_conv_algo_search: Some(ConvAlgorithmSearch::Heuristic),
        cudnn_conv_use_max_workspace: Some(false),
        use_tf32: Some(false),
        ..on(&[1])
    };
    let Translation { config, ignored, .. } = translated(text, GPU).unwrap();
    assert_eq!(config.providers, [Provider::TensorRt(tensor_rt), Provider::Cuda(cuda), Provider::Cpu {}]);
    assert!(ignored.is_empty(), "{ignored:?}");
}

#[test]
fn inputs_and_outputs_are_translated() {
    let read = config(
        "max_batch_size: 8
        input { name: 'x' data_type: TYPE_FP32 format: FORMAT_NHWC dims: [ 224, 192, 3 ] }
        output [ { name: 'features' dims: 512 }, { name: 'p' dims: 1000 label_filename: 'names.txt' } ]",
    );
    assert_eq!(read.preprocess.layout, Some(Layout::Nhwc));
    assert_eq!(read.preprocess.crop, Extent::Size([224, 192]));
    assert_eq!((read.labels, read.output.as_deref()), (Some("names.txt".into()), Some("p")));

    for (text, crop) in [
        ("input { name: 'x' dims: [ 1, 3, 20, 30 ] }", Extent::Size([20, 30])),
        ("input { name: 'x' dims: [ -1, 20, 30, 3 ] }", Extent::Size([20, 30])),
        ("max_batch_size: 1 input { name: 'x' dims: [ 3, 3, 3 ] }", Extent::Size([3, 3])),
        ("input { name: 'x' dims: [ 3, 20, 30 ] reshape { shape: [ 1, 3, 20, 30 ] } }", Extent::Size([20, 30])),
        ("input { name: 'x' dims: [ -1, 3, -1, -1 ] }", Extent::AUTO),
    ] {
        assert_eq!(config(text).preprocess.crop, crop, "{text}");
    }
    assert!(config("input { name: 'x' dims: [ -1, 3, 20, 30 ] }").is_unbatched());
    let first = config("output [ { name: 'p' dims: [ -1, 3 ] }, { name: 'q' dims: [ -1, 3 ] } ]");
    assert_eq!((first.output.as_deref(), first.labels), (Some("p"), None));
}

#[test]
fn parameters_under_the_prefix_are_keys_of_config_toml() {
    let parameter =
        |key: &str, value: &str| format!("parameters {{ key: 'convoy.{key}' value {{ string_value: '{value}' }} }}\n");
    let text = [
        ("preprocess.resize", "[256, 288]"),
        ("preprocess.interpolation", "bicubic"),
        ("preprocess.mean", "[0.5, 0.25, 0.125]"),
        ("preprocess.exif_orientation", "false"),
        ("preprocess.scale", "1"),
        ("scores", "probabilities"),
        ("batching.queue_bytes", "4096"),
        ("golden.picture", "cat.jpg"),
        ("golden.class", "tabby, tabby cat"),
        ("max_batch_size", "3"),
    ]
    .map(|(key, value)| parameter(key, value))
    .concat();
    let Translation { config, ignored, assumes_recipe } =
        translated(&format!("max_batch_size: 2 {text}"), CPU).unwrap();
    assert!(ignored.is_empty() && !assumes_recipe, "{ignored:?}");
    assert_eq!(config.preprocess.resize, Extent::Size([256, 288]));
    assert_eq!(config.preprocess.interpolation, Interpolation::Bicubic);
    assert_eq!(config.preprocess.mean.as_deref(), Some(&[0.5, 0.25, 0.125][..]));
    assert_eq!((config.preprocess.exif_orientation, config.preprocess.scale), (false, Some(1.0)));
    assert_eq!(config.scores, Some(crate::postprocess::Scores::Probabilities));
    assert_eq!((config.batching.queue_bytes, config.max_batch_size), (4096, Some(Tunable::Number(3))));
    assert_eq!(config.golden.unwrap().class, GoldenClass::Label("tabby, tabby cat".into()));

    for (key, value, said) in [
        ("preprocess.reseize", "3", "reseize"),
        ("max_batch_size.x", "3", "convoy.max_batch_size.x"),
        ("preprocess.resize", "large", "pixels"),
        ("batching.queue_size", "-1", "-1"),
        ("max_batch_size", "0", "max_batch_size"),
        ("triton", "3", "triton"),
    ] {
        let error = translated(&format!("max_batch_size: 2 {}", parameter(key, value)), CPU).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn what_would_change_answers_is_refused_by_name() {
    for text in [
        "name: 'other'",
        "platform: 'tensorrt_plan'",
        "platform: 'ensemble'",
        "backend: 'python'",
        "max_batch_size: -1",
        "sequence_batching {}",
        "ensemble_scheduling {}",
        "model_transaction_policy { decoupled: true }",
        "batch_input { kind: BATCH_ITEM_SHAPE }",
        "batch_output {}",
        "model_operations { op_library_filename: 'ops.so' }",
        "model_repository_agents { agents { name: 'checksum' } }",
        "default_model_filename: '../model.onnx'",
        "version_policy { specific { versions: -1 } }",
        "instance_group { kind: KIND_MODEL }",
        "instance_group { kind: KIND_GPU }",
        "instance_group { count: -1 }",
        "instance_group { kind: KIND_CPU gpus: 0 }",
        "optimization { execution_accelerators { gpu_execution_accelerator { name: 'xla' } } }",
        "parameters { key: 'intra_op_thread_count' value { string_value: 'two' } }",
        "parameters { key: 'enable_mem_arena' value { string_value: 'maybe' } }",
        "input [ { name: 'a' dims: 1 }, { name: 'b' dims: 1 } ]",
        "input { name: 'a' dims: [ 3, 0, 4 ] }",
        "input { name: '' dims: [ 3, 4, 4 ] }",
        "input { name: 'a' dims: [ 4, 4 ] format: FORMAT_NCHW }",
        "input { name: 'a' dims: 3 allow_ragged_batch: true }",
        "input { name: 'a' dims: 3 is_shape_tensor: true }",
        "output { name: 'a' dims: 3 is_non_linear_format_io: true }",
        "output { name: 'a' dims: -2 }",
        "dynamic_batching { priority_levels: 2 default_priority_level: 0 }",
        "dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
    ] {
        let error = translated(text, CPU).unwrap_err();
        // The field that is to blame is the first or, in a message, the last of the text.
        let fields = error.split(':').next().unwrap();
        assert!(fields.split('.').all(|field| text.contains(field)), "{error}: {text}");
    }
    let labels =
        "output [ { name: 'a' dims: 1 label_filename: 'a.txt' }, { name: 'b' dims: 1 label_filename: 'b.txt' } ]";
    assert!(translated(labels, CPU).unwrap_err().contains("label_filename"));
    let unknown = "dynamic_batching { priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 3 } }";
    assert!(translated(unknown, CPU).unwrap_err().contains("3 is not from 1"));
}

#[test]
fn what_has_no_effect_is_named() {
    for (text, said) in [
        ("optimization { cuda { graphs: true } }", "optimization.cuda"),
        ("optimization { priority: PRIORITY_MAX }", "optimization.priority"),
        ("optimization { input_pinned_memory { enable: true } }", "optimization.input_pinned_memory"),
        ("optimization { output_pinned_memory { enable: false } }", "optimization.output_pinned_memory"),
        ("optimization { gather_kernel_buffer_threshold: 4 }", "optimization.gather_kernel_buffer_threshold"),
        ("optimization { eager_batching: true }", "optimization.eager_batching"),
        ("optimization { graph { level: 5 } }", "optimization.graph.level"),
        ("model_warmup { name: 'zeros' batch_size: 1 }", "model_warmup"),
        ("cc_model_filenames { key: '7.0' value: 'a.onnx' }", "cc_model_filenames"),
        ("metric_tags { key: 'a' value: 'b' }", "metric_tags"),
        ("model_metrics {}", "model_metrics"),
        ("runtime: 'libtriton_onnxruntime.so'", "runtime"),
        (
            "max_batch_size: 4 dynamic_batching { preferred_batch_size: [2, 4] }",
            "dynamic_batching.preferred_batch_size",
        ),
        (
            "dynamic_batching { priority_levels: 2 default_priority_level: 1
               priority_queue_policy { key: 2 value { max_queue_size: 4 } } }",
            "dynamic_batching.priority_queue_policy",
        ),
        ("instance_group { rate_limiter { priority: 2 } }", "instance_group.rate_limiter"),
        ("instance_group { secondary_devices { device_id: 1 } }", "instance_group.secondary_devices"),
        ("instance_group { host_policy: 'a' }", "instance_group.host_policy"),
        ("instance_group { passive: true }", "instance_group.passive"),
        ("input { name: 'x' dims: [ -1, 3, 4, 4 ] optional: true }", "input.optional"),
        ("parameters { key: 'execution_mode' value { string_value: '1' } }", "parameters.execution_mode"),
        ("parameters { key: 'enable_mem_arena' value { string_value: '0' } }", "parameters.enable_mem_arena"),
        ("parameters { key: 'mine' value { string_value: 'x' } }", "parameters.mine"),
        (
            "optimization { execution_accelerators { cpu_execution_accelerator { name: 'openvino' } } }",
            "cpu_execution_accelerator openvino",
        ),
        (
            "optimization { execution_accelerators { gpu_execution_accelerator { name: 'tensorrt' } } }",
            "gpu_execution_accelerator",
        ),
    ] {
        let ignored = translated(text, CPU).unwrap().ignored;
        assert!(ignored.len() == 1 && ignored[0].contains(said), "{said}: {ignored:?}");
    }
    for (text, said) in [
        ("instance_group { kind: KIND_GPU }", "GPU 0"),
        ("instance_group [ { kind: KIND_GPU gpus: 0 }, { kind: KIND_CPU } ]", "KIND_CPU"),
        ("instance_group [ { count: 1 gpus: 0 }, { count: 2 gpus: 1 } ]", "each gets 2"),
    ] {
        let ignored = translated(text, GPU).unwrap().ignored;
        assert!(ignored.len() == 1 && ignored[0].contains(said), "{said}: {ignored:?}");
    }
}

#[test]
fn the_graph_must_be_as_the_configuration_says() {
    let spec =
        |name: &str, shape: &[i64]| TensorSpec { name: name.into(), data_type: DataType::Fp32, shape: shape.into() };
    let dynamic = spec("x", &[-1, 3, 8, -1]);
    let fixed = spec("x", &[1, 3, 8, 8]);
    let outputs = [spec("y", &[-1, 5]), spec("unknown", &[])];
    let checked = |text: &str, input: &TensorSpec| check(&triton::parse_text(text).unwrap(), input, &outputs);
    for (text, input) in [
        ("", &dynamic),
        ("max_batch_size: 4 input { name: 'x' data_type: TYPE_FP32 dims: [3, 8, 8] }", &dynamic),
        ("max_batch_size: 4 input { name: 'x' dims: [3, 8, -1] } output { name: 'y' dims: 5 }", &dynamic),
        ("max_batch_size: 4 input { name: 'x' dims: 192 reshape { shape: [3, 8, 8] } }", &dynamic),
        ("input { name: 'x' dims: [-1, 3, 8, 8] } output { name: 'y' dims: [-1, 5] }", &dynamic),
        ("input { name: 'x' dims: [3, 8, 8] reshape { shape: [1, 3, 8, 8] } }", &fixed),
        ("input { name: 'x' dims: [1, 3, 8, 8] } output { name: 'unknown' dims: [7, 7] }", &fixed),
    ] {
        checked(text, input).unwrap_or_else(|error| panic!("{error}: {text}"));
    }
    for (text, input, said) in [
        ("input { name: 'z' dims: [1, 3, 8, 8] }", &fixed, "input.name"),
        ("output { name: 'z' dims: 5 }", &fixed, "output.name"),
        ("input { name: 'x' data_type: TYPE_UINT8 dims: [1, 3, 8, 8] }", &fixed, "input.data_type: x is TYPE_FP32"),
        ("output { name: 'y' data_type: TYPE_FP16 dims: [-1, 5] }", &fixed, "output.data_type"),
        ("max_batch_size: 4 input { name: 'x' dims: [3, 9, 8] }", &dynamic, "input.dims"),
        ("max_batch_size: 4 input { name: 'x' dims: [1, 3, 8, 8] }", &dynamic, "input.dims"),
        ("max_batch_size: 4 output { name: 'y' dims: 6 }", &dynamic, "output.dims: y is [5]"),
        ("input { name: 'x' dims: [3, 8, 8] }", &fixed, "max_batch_size is 0"),
        ("input { name: 'x' dims: [1, 3, 8, 8] reshape { shape: [3, 8, 8] } }", &fixed, "input.dims"),
    ] {
        let error = checked(text, input).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}
