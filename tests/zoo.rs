//! The zoo's networks in ONNX Runtime, against PyTorch's logits (`tests/reference/zoo.py`) for the same weights and pictures.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use convoy::onnx::{ModelProto, write_model};
use convoy::zoo::builder::GraphBuilder;
use convoy::zoo::graph::{Conv, Padding, Pool, Value};
use convoy::zoo::weights::{Checkpoint, Weights, random};
use convoy::zoo::{ARCHITECTURES, Architecture};
use ort::environment::Environment;
use ort::session::Session;
use ort::value::TensorRef;
use safetensors::{Dtype, tensor::TensorView};

/// Of the weights and of the pictures, in `zoo.py` too.
const SEED: u64 = 7;

/// How far a logit may be from PyTorch's in FP64, in standard deviations of the logits. FP32 alone makes up to 6.6e-6.
const TOLERANCE: f64 = 1e-5;

#[test]
fn resnet18_equals_torchvisions() {
    assert_equals_golden("resnet18", false);
}

#[test]
fn resnet50_equals_torchvisions() {
    assert_equals_golden("resnet50", false);
}

#[test]
fn resnext50_equals_torchvisions() {
    assert_equals_golden("resnext50_32x4d", false);
}

#[test]
fn wide_resnet50_equals_torchvisions() {
    assert_equals_golden("wide_resnet50_2", false);
}

#[test]
fn efficientnet_lite0_equals_its_reference() {
    assert_equals_golden("efficientnet-lite0", false);
}

#[test]
fn batch_norms_that_are_kept_change_nothing() {
    assert_equals_golden("resnet18", true);
    assert_equals_golden("efficientnet-lite0", true);
}

#[test]
fn layers_that_those_networks_lack_equal_pytorchs() {
    let mut builder = GraphBuilder::new(32);
    let x = builder.conv("stem", Value::INPUT, Conv::new(8, 3).stride(2).bias());
    let x = builder.batch_norm("stem_bn", x, 1e-3);
    let x = builder.relu("relu", x);
    let x = builder.max_pool("max_pool", x, Pool::new(3, 2).ceil_mode());
    let wide = Conv { kernel: [1, 7], padding: Padding::Explicit([0, 3, 0, 3]), ..Conv::new(4, 1) };
    let tall = Conv { kernel: [7, 1], padding: Padding::Explicit([3, 0, 3, 0]), ..Conv::new(4, 1) };
    let branches = [
        builder.conv("wide", x, wide.bias()),
        builder.conv("tall", x, tall),
        builder.conv("grouped", x, Conv::new(8, 3).padding(1).groups(4).bias()),
        builder.average_pool("average_pool", x, Pool::new(3, 1).padding(1)),
    ];
    let x = builder.concat("concat", &branches);
    let x = builder.global_average_pool("global_average_pool", x);
    let x = builder.flatten("flatten", x);
    let logits_layer = builder.linear("fc", x, 10);
    let graph = builder.finish(logits_layer);
    for keep_batch_norm in [false, true] {
        let model = graph.to_onnx("mixed", &Weights::random(SEED), keep_batch_norm).unwrap();
        assert_eq!(has_batch_norm(&model), keep_batch_norm);
        assert_close("mixed", &logits(model, &pictures(32), 32));
    }
}

#[test]
fn a_checkpoint_of_ten_classes_gives_ten_logits() {
    let architecture = Architecture::find("resnet18").unwrap();
    let graph = architecture.graph(10);
    let tensors: Vec<_> = graph
        .parameters()
        .map(|parameter| {
            let values = random::values(SEED, &parameter.key, &parameter.shape);
            let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
            (parameter, bytes)
        })
        .collect();
    let views = tensors.iter().map(|(parameter, bytes)| {
        (&parameter.key, TensorView::new(Dtype::F32, parameter.shape.clone(), bytes).unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    let weights = Weights::from_checkpoint(Checkpoint::parse(&file.into()).unwrap(), "ten.safetensors");
    assert_eq!(architecture.classes(&weights), 10);

    let from_file = logits(architecture.to_onnx(&weights, false).unwrap(), &pictures(224), 224);
    let from_seed = logits(graph.to_onnx("resnet18", &Weights::random(SEED), false).unwrap(), &pictures(224), 224);
    assert_eq!(from_file.len(), 20);
    assert_eq!(from_file, from_seed);
}

#[test]
fn the_trained_efficientnet_lite0_equals_its_reference() {
    let path = target().join("checkpoints/efficientnet-lite0/efficientnet-lite0.pth");
    let checkpoint = Checkpoint::read(&path).expect("`cargo xtask setup` fetches the checkpoint");
    let weights = Weights::from_checkpoint(checkpoint, "efficientnet-lite0.pth");
    let model = Architecture::find("efficientnet-lite0").unwrap().to_onnx(&weights, false).unwrap();
    assert_close("efficientnet-lite0-trained", &logits(model, &pictures(224), 224));
}

#[test]
fn a_row_of_a_batch_equals_its_picture_alone() {
    let architecture = Architecture::find("efficientnet-lite0").unwrap();
    let model = architecture.to_onnx(&Weights::random(SEED), false).unwrap();
    let pictures = pictures(224);
    let both = logits(model.clone(), &pictures, 224);
    for (row, picture) in both.chunks(1000).zip(pictures.chunks(pictures.len() / 2)) {
        let alone = logits(model.clone(), picture, 224);
        assert!(row.iter().zip(&alone).all(|(left, right)| (left - right).abs() <= 1e-5), "the rows differ");
    }
}

#[test]
fn parameters_are_as_many_as_published() {
    // torchvision's `num_params`; for EfficientNet-Lite0 the count of efficientnet-lite-pytorch's parameters.
    let published = [
        ("efficientnet-lite0", 4_652_008),
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("resnext50_32x4d", 25_028_904),
        ("resnext101_32x8d", 88_791_336),
        ("resnext101_64x4d", 83_455_272),
        ("wide_resnet50_2", 68_883_240),
        ("wide_resnet101_2", 126_886_696),
    ];
    let counted: Vec<_> = ARCHITECTURES.iter().map(|it| (it.name, it.graph(1000).parameter_count())).collect();
    assert_eq!(counted, published);
}

#[test]
fn the_model_says_where_it_is_from() {
    let model = Architecture::find("resnet18").unwrap().to_onnx(&Weights::random(3), false).unwrap();
    let metadata: Vec<_> = model.metadata_props.iter().map(|it| (it.key.as_str(), it.value.as_str())).collect();
    assert_eq!(
        metadata,
        [
            ("convoy.architecture", "resnet18"),
            ("convoy.weights", "random:3 (untrained)"),
            ("convoy.version", env!("CARGO_PKG_VERSION")),
        ]
    );
}

#[test]
fn another_networks_weights_are_refused_by_name() {
    let checkpoint = Checkpoint::read(&fixtures().join("plain.safetensors")).unwrap();
    let weights = Weights::from_checkpoint(checkpoint, "plain.safetensors");
    let error = Architecture::find("resnet18").unwrap().to_onnx(&weights, false).unwrap_err();
    assert!(
        error.message().starts_with("plain.safetensors does not fit the architecture: the tensor bn1.bias is missing"),
        "{error}"
    );
}

fn assert_equals_golden(name: &str, keep_batch_norm: bool) {
    let model = Architecture::find(name).unwrap().to_onnx(&Weights::random(SEED), keep_batch_norm).unwrap();
    assert_eq!(has_batch_norm(&model), keep_batch_norm);
    assert_close(name, &logits(model, &pictures(224), 224));
}

fn has_batch_norm(model: &ModelProto) -> bool {
    model.graph.as_ref().unwrap().node.iter().any(|node| node.op_type == "BatchNormalization")
}

/// Compares the logits of two pictures with those in the golden `name`.
fn assert_close(name: &str, logits: &[f32]) {
    let path = fixtures().join(format!("{name}.json"));
    let golden: Vec<Vec<f64>> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let golden = golden.concat();
    assert_eq!(golden.len(), logits.len());
    let mean = golden.iter().sum::<f64>() / golden.len() as f64;
    let std = (golden.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / golden.len() as f64).sqrt();
    let worst =
        golden.iter().zip(logits).map(|(expected, &found)| (expected - f64::from(found)).abs()).fold(0.0, f64::max);
    eprintln!("{name}: the largest difference is {:.1e} of the logits' standard deviation", worst / std);
    assert!(worst <= TOLERANCE * std, "{name} differs by {worst}, where the standard deviation is {std}");
}

/// Two pictures of noise, `[2, 3, size, size]`.
fn pictures(size: usize) -> Vec<f32> {
    random::normal(SEED, "input").take(2 * 3 * size * size).map(|z| z as f32).collect()
}

/// The logits of `pictures`, `[N, 3, size, size]`, row by row.
fn logits(model: ModelProto, pictures: &[f32], size: usize) -> Vec<f32> {
    let mut bytes = Vec::new();
    write_model(model, &mut bytes).unwrap();
    let mut session = Session::builder(&ENVIRONMENT).unwrap().commit_from_memory(&bytes).unwrap();
    let count = pictures.len() / (3 * size * size);
    let input = TensorRef::from_array_view(([count, 3, size, size], pictures)).unwrap();
    let outputs = session.run(ort::inputs!["input" => input]).unwrap();
    let (shape, logits) = outputs["logits"].try_extract_tensor::<f32>().unwrap();
    assert_eq!(shape[0], count as i64);
    logits.to_vec()
}

/// ONNX Runtime allows one environment a process.
static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    let library = std::env::var_os("ORT_DYLIB_PATH")
        .map_or_else(|| target().join("onnxruntime/cpu/libonnxruntime.so"), PathBuf::from);
    ort::init_from(library).expect("`cargo xtask setup` fetches ONNX Runtime").build().unwrap()
});

fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target")
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/zoo")
}
