//! One network of each family, against PyTorch's autograd.

use std::collections::{BTreeMap, BTreeSet};

use convoy::explain::{ExplainRequest, Method};
use convoy::onnx::proto::tensor_proto::DataType;
use convoy::onnx::{ModelProto, ValueInfoProto};
use convoy::zoo::OnnxOptions;
use convoy::zoo::weights::random;
use image::{Rgb, RgbImage};
use serde::Deserialize;

use super::networks::{SEED, seeded};
use super::{Fixture, fixtures, png};

/// How far a value may be from PyTorch's in FP64, as a share of the largest.
const TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Golden {
    layer: String,
    methods: BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
struct Expected {
    picture: usize,
    size: usize,
    unit: Option<[usize; 3]>,
    activation: Option<f64>,
    class: Option<usize>,
    count: usize,
    values: BTreeMap<usize, f64>,
}

/// Noise of bytes.
fn picture(index: usize, size: usize) -> RgbImage {
    let bytes: Vec<u8> = random::normal(SEED, &format!("picture {index}"))
        .take(3 * size * size)
        .map(|z| (z * 40.0 + 128.0).floor().clamp(0.0, 255.0) as u8)
        .collect();
    RgbImage::from_fn(size as u32, size as u32, |x, y| {
        let at = y as usize * size + x as usize;
        Rgb([0, 1, 2].map(|channel| bytes[channel * size * size + at]))
    })
}

/// `model` for pictures of this size. Its own does not matter to what is fully convolutional.
fn resized(model: &ModelProto, size: usize) -> ModelProto {
    let mut model = model.clone();
    let graph = model.graph.as_mut().unwrap();
    let name = graph.input[0].name.clone();
    graph.input[0] = ValueInfoProto::batched(&name, DataType::Float, "N", &[3, size, size]);
    model
}

async fn equals_golden(name: &str) {
    let golden: Golden =
        serde_json::from_str(&std::fs::read_to_string(fixtures().join(format!("{name}.json"))).unwrap()).unwrap();
    // Batch norms stay, so that the graph computes what PyTorch does, step by step.
    let model = seeded(name, OnnxOptions { keep_batch_norm: true, ..OnnxOptions::default() });
    let config =
        "graph_optimization = \"none\"\nmax_batch_size = 1\n[instances]\ncount = 1\n[preprocess]\nresize = \"none\"\n";
    for method in ["deconvnet", "guided", "gradient", "class_deconvnet", "class_guided", "class_gradient", "gradcam"] {
        assert!(golden.methods.contains_key(method), "{name}: {method}");
    }
    let sizes: BTreeSet<_> = golden.methods.values().map(|expected| expected.size).collect();
    for size in sizes {
        let fixture = Fixture::new(&resized(&model, size), config);
        equals_golden_at(&fixture, name, &golden, size).await;
    }
}

/// Compares those methods whose pictures have this size.
async fn equals_golden_at(fixture: &Fixture, name: &str, golden: &Golden, size: usize) {
    if !golden.methods.contains_key("cam") {
        let request = ExplainRequest { method: Some(Method::Cam), ..ExplainRequest::new(png(&picture(0, size))) };
        let error = fixture.explain(request).await.unwrap_err();
        assert!(error.message().contains("ask for gradcam"), "{name}: {error}");
    }
    for (method, expected) in golden.methods.iter().filter(|(_, expected)| expected.size == size) {
        let mut request = ExplainRequest::new(png(&picture(expected.picture, size)));
        request.method = Some(method.trim_start_matches("class_").parse().unwrap());
        // The maps of `mixed` are pooled twice, so that CAM must be told which are meant.
        let of_layer = if name == "mixed" {
            &["deconvnet", "guided", "gradient", "cam", "gradcam"][..]
        } else {
            &["deconvnet", "guided", "gradient"]
        };
        if of_layer.contains(&method.as_str()) {
            request.layer = Some(golden.layer.clone());
        }
        let explanation = fixture.explain(request).await.unwrap();
        let values = match (&expected.unit, explanation.units.as_slice()) {
            (Some(place), [unit]) => {
                assert_eq!([unit.unit, unit.row, unit.column], *place, "{name}: {method}");
                let activation = expected.activation.unwrap();
                assert!(
                    (f64::from(unit.activation) - activation).abs() <= TOLERANCE * activation.abs(),
                    "{name}: {method}"
                );
                &unit.projection
            }
            _ => {
                assert_eq!(explanation.class.map(|class| class.index), expected.class, "{name}: {method}");
                &explanation.heatmap.data
            }
        };
        assert_eq!(values.len(), expected.count, "{name}: {method}");
        let largest = expected.values.values().fold(0f64, |largest, value| largest.max(value.abs()));
        assert!(largest > 0.0, "{name}: {method}");
        let differences = expected.values.iter().map(|(&at, value)| (f64::from(values[at]) - value).abs() / largest);
        let worst = differences.fold(0.0, f64::max);
        eprintln!("{name}: {method}: the largest difference is {worst:.1e} of the largest value");
        assert!(worst <= TOLERANCE, "{name}: {method} differs by {worst} of the largest value");
    }
}

macro_rules! goldens {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                equals_golden($name).await;
            }
        )*
    };
}

goldens! {
    mixed_network: "mixed",
    alexnet: "alexnet",
    zfnet: "zfnet512",
    vgg11: "vgg11",
    nin: "nin",
    googlenet: "googlenet",
    resnet18: "resnet18",
}
