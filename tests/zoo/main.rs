//! The zoo's networks in ONNX Runtime, against PyTorch's logits (`tests/reference/zoo.py`) for the same weights and pictures.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod checkpoints;
mod counts;
mod describe;
mod goldens;
mod slips;

#[path = "../support/networks.rs"]
mod networks;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use convoy::onnx::{ModelProto, write_model};
use convoy::zoo::weights::random;
use networks::SEED;
use ort::environment::Environment;
use ort::session::Session;
use ort::value::TensorRef;

/// How far a logit may be from PyTorch's in FP64, in standard deviations of the logits. FP32 alone makes up to 9.7e-6.
const TOLERANCE: f64 = 1e-5;

/// The logits of two pictures by output, row by row.
type Outputs = BTreeMap<String, Vec<f32>>;

/// How far the outputs are from those in the golden `name` at most, in standard deviations of the output's logits.
fn distance(name: &str, outputs: &Outputs) -> f64 {
    let path = fixtures().join(format!("{name}.json"));
    let golden: BTreeMap<String, Vec<Vec<f64>>> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let worst = outputs.iter().map(|(output, logits)| {
        let golden = golden[output].concat();
        assert_eq!(golden.len(), logits.len());
        let mean = golden.iter().sum::<f64>() / golden.len() as f64;
        let std = (golden.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / golden.len() as f64).sqrt();
        let differences = golden.iter().zip(logits).map(|(expected, &found)| (expected - f64::from(found)).abs());
        differences.fold(0.0, f64::max) / std
    });
    worst.fold(0.0, f64::max)
}

fn assert_close(name: &str, outputs: &Outputs) {
    assert_within(TOLERANCE, name, outputs);
}

fn assert_within(tolerance: f64, name: &str, outputs: &Outputs) {
    let distance = distance(name, outputs);
    eprintln!("{name}: the largest difference is {distance:.1e} of the logits' standard deviation");
    assert!(distance <= tolerance, "{name} differs by {distance} standard deviations");
}

/// Two pictures of noise, `[2, 3, size, size]`.
fn pictures(size: usize) -> Vec<f32> {
    random::normal(SEED, "input").take(2 * 3 * size * size).map(|z| z as f32).collect()
}

/// What `model` answers to the two [`pictures`].
fn answer(model: ModelProto, size: usize) -> Outputs {
    run(model, &pictures(size), size)
}

/// What `model` answers to `pictures`, `[N, 3, size, size]`.
fn run(model: ModelProto, pictures: &[f32], size: usize) -> Outputs {
    let mut bytes = Vec::new();
    write_model(model, &mut bytes).unwrap();
    let mut session = Session::builder(&ENVIRONMENT).unwrap().commit_from_memory(&bytes).unwrap();
    drop(bytes);
    let count = pictures.len() / (3 * size * size);
    let input = TensorRef::from_array_view(([count, 3, size, size], pictures)).unwrap();
    let outputs = session.run(ort::inputs!["input" => input]).unwrap();
    outputs
        .iter()
        .map(|(name, output)| {
            let (shape, logits) = output.try_extract_tensor::<f32>().unwrap();
            assert_eq!(shape[0], count as i64);
            (name.to_owned(), logits.to_vec())
        })
        .collect()
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
