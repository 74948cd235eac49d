//! Operators one by one, against differences of the forward run.

use convoy::explain::{ExplainRequest, Method, Rule};
use convoy::onnx::{AttributeProto, NodeProto, TensorProto};
use image::RgbImage;

use super::super::graphs::{model, node};
use super::super::{Fixture, png};
use super::{CONFIG, SIDE, integers, noise, scalar, weights, with};

/// Puts `nodes`, from `in` to `out`, between a convolution and the mean of each channel, and compares the gradient of a class
/// with what changing single pixels does to its logit.
async fn gradient_is_the_slope(name: &str, nodes: Vec<NodeProto>, initializers: Vec<TensorProto>, channels: usize) {
    let mut all = vec![with(node("Conv", &["input", "filters"], "in"), vec![AttributeProto::ints("pads", [1; 4])])];
    all.extend(nodes);
    all.push(node("GlobalAveragePool", &["out"], "pooled"));
    all.push(node("Flatten", &["pooled"], "flat"));
    all.push(node("MatMul", &["flat", "head"], "logits"));
    let mut constants = vec![weights("filters", &[4, 3, 3, 3]), weights("head", &[channels, 2])];
    constants.extend(initializers);
    let graph = model(all, constants, &[-1, 3, SIDE as i64, SIDE as i64], &[-1, 2]);
    let fixture = Fixture::new(&graph, CONFIG);
    let logit = async |picture: &RgbImage| {
        let features = fixture.features(png(picture), "logits").await.unwrap();
        f64::from(features.values[1])
    };
    let picture = noise("picture");
    let request = ExplainRequest {
        method: Some(Method::Projection(Rule::Gradient)),
        class: Some(1),
        ..ExplainRequest::new(png(&picture))
    };
    let explanation = fixture.explain(request).await.unwrap();
    let gradient = &explanation.units[0].projection;
    let scale = gradient.iter().fold(0f64, |largest, &value| largest.max(f64::from(value.abs())));
    assert!(scale > 0.0, "{name}");
    let (mut worst, mut right) = (0f64, 0);
    let places: Vec<_> = (0..3 * SIDE * SIDE).step_by(7).collect();
    for &at in &places {
        let (channel, row, column) = (at / (SIDE * SIDE), at / SIDE % SIDE, at % SIDE);
        let moved = |by: i16| {
            let mut picture = picture.clone();
            let level = &mut picture.get_pixel_mut(column as u32, row as u32).0[channel];
            *level = (i16::from(*level) + by) as u8;
            picture
        };
        let slope = (logit(&moved(1)).await - logit(&moved(-1)).await) / (2.0 / 255.0);
        let difference = (slope - f64::from(gradient[at])).abs() / scale;
        worst = worst.max(difference);
        right += usize::from(difference < 5e-3);
    }
    // A pixel more or less can move a value over a kink: there the slope is between those of both sides.
    assert!(right * 10 >= places.len() * 8, "{name}: {right} of {} agree, the worst differs by {worst}", places.len());
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn operators_run_backwards() {
    let kernel = |size: usize, stride: usize| {
        vec![AttributeProto::ints("kernel_shape", [size; 2]), AttributeProto::ints("strides", [stride; 2])]
    };
    let and = |mut attributes: Vec<AttributeProto>, more: Vec<AttributeProto>| {
        attributes.extend(more);
        attributes
    };
    let pads = || AttributeProto::ints("pads", [1; 4]);
    let cases: Vec<(&str, Vec<NodeProto>, Vec<TensorProto>, usize)> = vec![
        ("Relu", vec![node("Relu", &["in"], "out")], vec![], 4),
        (
            "LeakyRelu",
            vec![with(node("LeakyRelu", &["in"], "out"), vec![AttributeProto::float("alpha", 0.2)])],
            vec![],
            4,
        ),
        ("Clip", vec![node("Clip", &["in", "low", "high"], "out")], vec![scalar("low", 0.0), scalar("high", 0.6)], 4),
        ("Sigmoid", vec![node("Sigmoid", &["in"], "out")], vec![], 4),
        ("Tanh", vec![node("Tanh", &["in"], "out")], vec![], 4),
        ("HardSigmoid", vec![node("HardSigmoid", &["in"], "out")], vec![], 4),
        ("HardSwish", vec![node("HardSwish", &["in"], "out")], vec![], 4),
        ("MaxPool", vec![with(node("MaxPool", &["in"], "out"), kernel(3, 2))], vec![], 4),
        (
            "MaxPool with padding",
            vec![with(node("MaxPool", &["in"], "out"), and(kernel(3, 1), vec![pads()]))],
            vec![],
            4,
        ),
        ("AveragePool", vec![with(node("AveragePool", &["in"], "out"), and(kernel(3, 2), vec![pads()]))], vec![], 4),
        (
            "AveragePool with padding, rounded up",
            vec![with(
                node("AveragePool", &["in"], "out"),
                and(
                    kernel(3, 2),
                    vec![AttributeProto::int("ceil_mode", 1), AttributeProto::int("count_include_pad", 1)],
                ),
            )],
            vec![],
            4,
        ),
        (
            "Conv with stride, dilation and groups",
            vec![with(
                node("Conv", &["in", "more"], "out"),
                vec![
                    AttributeProto::ints("strides", [2; 2]),
                    AttributeProto::ints("dilations", [2; 2]),
                    AttributeProto::ints("pads", [2, 1, 2, 1]),
                    AttributeProto::int("group", 2),
                ],
            )],
            vec![weights("more", &[6, 2, 3, 2])],
            6,
        ),
        (
            "LRN",
            vec![with(
                node("LRN", &["in"], "out"),
                vec![AttributeProto::int("size", 3), AttributeProto::float("alpha", 3.0)],
            )],
            vec![],
            4,
        ),
        (
            "squeeze and excitation",
            vec![
                with(node("ReduceMean", &["in"], "mean"), vec![AttributeProto::ints("axes", [2, 3])]),
                node("Conv", &["mean", "more"], "excited"),
                node("Sigmoid", &["excited"], "scale"),
                node("Mul", &["in", "scale"], "out"),
            ],
            vec![weights("more", &[4, 4, 1, 1])],
            4,
        ),
        (
            "Add, Sub and Div",
            vec![
                node("Tanh", &["in"], "a"),
                node("Add", &["in", "a"], "b"),
                node("Sub", &["by", "b"], "c"),
                node("Div", &["c", "by"], "d"),
                node("Sub", &["d", "a"], "out"),
            ],
            vec![scalar("by", 3.0)],
            4,
        ),
        (
            "a shuffle of channels",
            vec![
                node("Reshape", &["in", "apart"], "a"),
                with(node("Transpose", &["a"], "b"), vec![AttributeProto::ints("perm", [0, 2, 1, 3, 4])]),
                node("Reshape", &["b", "together"], "out"),
            ],
            vec![integers("apart", &[0, 2, 2, 8, 8]), integers("together", &[0, 4, 8, 8])],
            4,
        ),
        (
            "Split, Concat and Pad",
            vec![
                NodeProto {
                    output: vec!["a".into(), "b".into()],
                    attribute: vec![AttributeProto::int("axis", 1)],
                    ..node("Split", &["in", "sizes"], "a")
                },
                node("Pad", &["a", "pads"], "c"),
                node("Pad", &["b", "pads"], "d"),
                with(node("Concat", &["d", "c", "d"], "out"), vec![AttributeProto::int("axis", 1)]),
            ],
            vec![integers("sizes", &[1, 3]), integers("pads", &[0, 0, 1, 0, 0, 0, 0, 2])],
            7,
        ),
        (
            "Gather and Slice",
            vec![
                with(node("Gather", &["in", "rows"], "a"), vec![AttributeProto::int("axis", 2)]),
                node("Slice", &["a", "starts", "ends", "axes", "steps"], "out"),
            ],
            vec![
                integers("rows", &[5, 1, 5, -1]),
                integers("starts", &[1, -7]),
                integers("ends", &[4, 100]),
                integers("axes", &[1, 3]),
                integers("steps", &[2, 3]),
            ],
            2,
        ),
    ];
    for (name, nodes, initializers, channels) in cases {
        gradient_is_the_slope(name, nodes, initializers, channels).await;
    }
}
