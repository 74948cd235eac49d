//! Graphs that are not the zoo's: operators one by one, against differences of the forward run.

use convoy::error::ErrorKind;
use convoy::explain::{ExcitingRequest, ExplainRequest, Method, Rule};
use convoy::onnx::proto::attribute_proto::AttributeType;
use convoy::onnx::proto::tensor_proto::DataType;
use convoy::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};
use convoy::tensor::Tensor;
use convoy::zoo::weights::random;
use image::{Rgb, RgbImage};

use super::graphs::{convolutional, model, node, value};
use super::{Fixture, png};

const SIDE: usize = 8;
const CONFIG: &str = "graph_optimization = \"none\"\n[preprocess]\nresize = \"none\"\nscale = 0.00392156862745098\n";

fn weights(name: &str, shape: &[usize]) -> TensorProto {
    let values = random::normal(7, name).take(shape.iter().product()).map(|z| 0.5 * z as f32).collect::<Vec<_>>();
    TensorProto::new(name, &Tensor::from_vec(shape.to_vec(), values).unwrap()).unwrap()
}

fn integers(name: &str, values: &[i64]) -> TensorProto {
    TensorProto::new(name, &Tensor::from_vec(vec![values.len()], values.to_vec()).unwrap()).unwrap()
}

fn with(mut node: NodeProto, attributes: Vec<AttributeProto>) -> NodeProto {
    node.attribute = attributes;
    node
}

fn noise(name: &str) -> RgbImage {
    let mut levels = random::normal(7, name).map(|z| (z * 40.0 + 128.0).clamp(1.0, 254.0) as u8);
    RgbImage::from_fn(SIDE as u32, SIDE as u32, |_, _| Rgb([0; 3].map(|_| levels.next().unwrap())))
}

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
    let float =
        |name: &str, value: f32| TensorProto::new(name, &Tensor::from_vec(vec![], vec![value]).unwrap()).unwrap();
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
        ("Clip", vec![node("Clip", &["in", "low", "high"], "out")], vec![float("low", 0.0), float("high", 0.6)], 4),
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
            vec![float("by", 3.0)],
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

#[tokio::test]
async fn an_operator_that_cannot_be_run_backwards_is_named() {
    let nodes = vec![
        NodeProto { name: "odd one".into(), ..node("Softsign", &["input"], "out") },
        node("GlobalAveragePool", &["out"], "pooled"),
        node("Flatten", &["pooled"], "logits"),
    ];
    let fixture = Fixture::new(&model(nodes, vec![], &[-1, 3, 8, 8], &[-1, 3]), CONFIG);
    for rule in [Rule::Deconvnet, Rule::Guided, Rule::Gradient] {
        let request =
            ExplainRequest { method: Some(Method::Projection(rule)), ..ExplainRequest::new(png(&noise("a"))) };
        let error = fixture.explain(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unimplemented);
        assert_eq!(error.message(), "the operator Softsign of the node odd one cannot be run backwards");
    }
    // What does not go through it works.
    let request = ExplainRequest { method: Some(Method::Occlusion), ..ExplainRequest::new(png(&noise("a"))) };
    fixture.explain(request).await.unwrap();
}

/// `nodes` to the logits, of a model for pictures of `channels`.
fn pooled(mut nodes: Vec<NodeProto>, initializers: Vec<TensorProto>, channels: i64) -> Fixture {
    nodes.push(node("GlobalAveragePool", &["out"], "pooled"));
    nodes.push(node("Flatten", &["pooled"], "logits"));
    let side = SIDE as i64;
    Fixture::new(&model(nodes, initializers, &[-1, channels, side, side], &[-1, 3]), CONFIG)
}

#[tokio::test]
async fn what_a_graph_within_a_node_reads_is_not_overlooked() {
    let branch = |operator: &str| GraphProto {
        name: operator.to_owned(),
        node: vec![node(operator, &["in"], operator)],
        output: vec![value(operator, DataType::Float, &[-1, 3, SIDE as i64, SIDE as i64])],
        ..GraphProto::default()
    };
    let graph = |name: &str, graph: GraphProto| AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Graph.into(),
        g: Some(graph),
        ..AttributeProto::default()
    };
    let choice = vec![graph("then_branch", branch("Relu")), graph("else_branch", branch("Neg"))];
    let nodes = vec![
        node("Tanh", &["input"], "in"),
        NodeProto { name: "choice".into(), ..with(node("If", &["always"], "out"), choice) },
    ];
    let always = TensorProto {
        name: "always".into(),
        data_type: DataType::Bool.into(),
        raw_data: vec![1].into(),
        ..TensorProto::default()
    };
    let fixture = pooled(nodes, vec![always], 3);
    let features = fixture.features(png(&noise("a")), "logits").await.unwrap();
    assert!(features.values.iter().all(|&value| value > 0.0));
    // Nothing that is inferred says what shape it has.
    assert_eq!(fixture.features(png(&noise("a")), "choice").await.unwrap().shape, [3, SIDE, SIDE]);
    let explanation = fixture.explain(ExplainRequest::new(png(&noise("a")))).await.unwrap();
    assert_eq!((explanation.method, explanation.layer.as_deref()), (Method::Cam, Some("choice")));
    let gradient = Method::Projection(Rule::Gradient);
    let request = ExplainRequest { method: Some(gradient), ..ExplainRequest::new(png(&noise("a"))) };
    let error = fixture.explain(request).await.unwrap_err();
    assert_eq!(error.message(), "the operator If of the node choice cannot be run backwards");
}

#[tokio::test]
async fn half_precision_is_explained_as_single_is() {
    let filters = weights("filters", &[3, 3, 3, 3]);
    let half: Vec<half::f16> =
        filters.to_tensor().unwrap().to_slice::<f32>().unwrap().iter().map(|&it| half::f16::from_f32(it)).collect();
    let single: Vec<f32> = half.iter().map(|it| it.to_f32()).collect();
    let mut found = Vec::new();
    for (tensor, data_type) in [
        (Tensor::from_vec(vec![3, 3, 3, 3], half).unwrap(), DataType::Float16),
        (Tensor::from_vec(vec![3, 3, 3, 3], single).unwrap(), DataType::Float),
    ] {
        let pool = vec![AttributeProto::ints("kernel_shape", [2; 2]), AttributeProto::ints("strides", [2; 2])];
        let nodes = vec![
            node("Conv", &["input", "filters"], "convolved"),
            node("Relu", &["convolved"], "rectified"),
            with(node("MaxPool", &["rectified"], "out"), pool),
            node("GlobalAveragePool", &["out"], "pooled"),
            node("Flatten", &["pooled"], "logits"),
        ];
        let side = SIDE as i64;
        let mut graph =
            model(nodes, vec![TensorProto::new("filters", &tensor).unwrap()], &[-1, 3, side, side], &[-1, 3]);
        let inside = graph.graph.as_mut().unwrap();
        inside.input = vec![value("input", data_type, &[-1, 3, side, side])];
        inside.output = vec![value("logits", data_type, &[-1, 3])];
        let fixture = Fixture::new(&graph, CONFIG);
        for method in [Method::Gradcam, Method::Projection(Rule::Guided)] {
            let request = ExplainRequest { method: Some(method), ..ExplainRequest::new(png(&noise("a"))) };
            found.push(fixture.explain(request).await.unwrap().heatmap.data);
        }
        assert_eq!(fixture.filters().await.unwrap().shape, [3, 3, 3, 3]);
    }
    for (half, single) in [(&found[0], &found[2]), (&found[1], &found[3])] {
        let largest = single.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        assert!(largest > 0.0 && half.len() == single.len());
        for (half, single) in half.iter().zip(single) {
            assert!((half - single).abs() <= 4e-3 * largest, "{half} {single}");
        }
    }
}

#[tokio::test]
async fn gray_pictures_are_explained_and_their_filters_are_not_drawn() {
    let nodes = vec![node("Conv", &["input", "filters"], "out")];
    let fixture = pooled(nodes, vec![weights("filters", &[3, 1, 3, 3])], 1);
    let error = fixture.filters().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("they do not see three channels"), "{error}");
    for method in Method::ALL {
        let request = ExplainRequest { method: Some(method), ..ExplainRequest::new(png(&noise("a"))) };
        let explanation = fixture.explain(request).await.unwrap();
        assert!(explanation.units.iter().all(|unit| unit.projection.len() == SIDE * SIDE));
    }
}

/// Four filters of a picture, `nodes` from `in` to `out`, and a head of pooling and a linear layer.
fn classifier(nodes: Vec<NodeProto>, initializers: Vec<TensorProto>) -> Fixture {
    let mut all = vec![with(node("Conv", &["input", "filters"], "in"), vec![AttributeProto::ints("pads", [1; 4])])];
    all.extend(nodes);
    all.push(node("GlobalAveragePool", &["out"], "pooled"));
    all.push(node("Flatten", &["pooled"], "flat"));
    all.push(node("MatMul", &["flat", "head"], "logits"));
    let mut constants = vec![weights("filters", &[4, 3, 3, 3]), weights("head", &[4, 2])];
    constants.extend(initializers);
    let mut graph = model(all, constants, &[-1, 3, SIDE as i64, SIDE as i64], &[-1, 2]);
    graph.opset_import[0].version = 20;
    Fixture::new(&graph, CONFIG)
}

#[tokio::test]
async fn shapes_that_cannot_be_inferred_come_out_of_a_run() {
    let scales = TensorProto::new("scales", &Tensor::from_vec(vec![4], vec![1f32, 1.0, 2.0, 2.0]).unwrap()).unwrap();
    let softsign: fn(f32) -> f32 = |value| value / (1.0 + value.abs());
    for (operator, inputs, initializers, side, function) in [
        ("Gelu", vec!["in"], vec![], SIDE, None),
        ("Softsign", vec!["in"], vec![], SIDE, Some(softsign)),
        ("Resize", vec!["in", "", "scales"], vec![scales], 2 * SIDE, None),
    ] {
        let fixture = classifier(vec![node(operator, &inputs, "out")], initializers);
        let picture = png(&noise("a"));
        let features = fixture.features(picture.clone(), "out").await.unwrap();
        assert_eq!(features.shape, [4, side, side], "{operator}");
        if let Some(function) = function {
            let before = fixture.features(picture.clone(), "in").await.unwrap().values;
            assert!(before.iter().zip(&features.values).all(|(&x, y)| (function(x) - y).abs() < 1e-6));
        }
        // What is behind it is known as well, so that the last maps are found and the head is seen to be linear.
        let explanation = fixture.explain(ExplainRequest::new(picture)).await.unwrap();
        assert_eq!((explanation.method, explanation.layer.as_deref()), (Method::Cam, Some("out")), "{operator}");
        assert_eq!((explanation.heatmap.height, explanation.heatmap.width), (side, side));
    }
}

#[tokio::test]
async fn where_there_is_no_way_back_to_the_maps_a_square_looks_for_them() {
    let mut nodes = vec![node("Conv", &["input", "filters"], "out")];
    nodes.push(node("GlobalAveragePool", &["out"], "pooled"));
    nodes.push(node("Flatten", &["pooled"], "flat"));
    nodes.push(node("Softsign", &["flat"], "logits"));
    let side = SIDE as i64;
    let graph = model(nodes, vec![weights("filters", &[3, 3, 3, 3])], &[-1, 3, side, side], &[-1, 3]);
    let fixture = Fixture::new(&graph, CONFIG);
    let unsaid = ExplainRequest::new(png(&noise("a")));
    assert_eq!(fixture.explain(unsaid.clone()).await.unwrap().method, Method::Occlusion);
    let asked = ExplainRequest { method: Some(Method::Gradcam), ..unsaid };
    let error = fixture.explain(asked).await.unwrap_err();
    assert_eq!(error.message(), "the operator Softsign of the node logits cannot be run backwards");
}

#[tokio::test]
async fn a_file_whose_nodes_are_in_another_order_is_explained() {
    let mut graph = convolutional(SIDE as i64, 3);
    graph.graph.as_mut().unwrap().node.reverse();
    let fixture = Fixture::new(&graph, CONFIG);
    let sorted = Fixture::new(&convolutional(SIDE as i64, 3), CONFIG);
    let layers = |fixture: &Fixture| fixture.model.graph().unwrap().description().layers.clone();
    assert_eq!(layers(&fixture), layers(&sorted));
    for method in [None, Some(Method::Gradcam), Some(Method::Projection(Rule::Guided))] {
        let request = || ExplainRequest { method, ..ExplainRequest::new(png(&noise("a"))) };
        let explanation = fixture.explain(request()).await.unwrap();
        assert_eq!(explanation, sorted.explain(request()).await.unwrap());
    }
    assert_eq!(fixture.features(png(&noise("a")), "rectified").await.unwrap().shape, [3, SIDE, SIDE]);
}

#[tokio::test]
async fn values_that_are_no_numbers_are_said_to_be_none() {
    let zero = TensorProto::new("zero", &Tensor::from_vec(vec![], vec![0f32]).unwrap()).unwrap();
    let fixture =
        classifier(vec![node("Sub", &["in", "in"], "none"), node("Div", &["none", "zero"], "out")], vec![zero]);
    let request = |method| ExplainRequest { method: Some(method), ..ExplainRequest::new(png(&noise("a"))) };
    let projection = Method::Projection(Rule::Guided);
    for request in [
        ExplainRequest { layer: Some("out".into()), ..request(projection) },
        ExplainRequest { layer: Some("out".into()), unit: Some(1), ..request(projection) },
        request(Method::Cam),
    ] {
        let error = fixture.explain(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
        assert!(error.message().contains("not a finite number"), "{error}");
    }
    let exciting = ExcitingRequest { layer: "out".into(), unit: 3, count: 1, rule: Rule::Guided };
    let error = fixture.exciting(exciting, vec![png(&noise("a"))]).await.unwrap_err();
    assert_eq!(error.message(), "number 0: the unit 3 of the layer out is not a finite number for this picture");
    // Where one looks for such values they are not hidden.
    let features = fixture.features(png(&noise("a")), "out").await.unwrap();
    assert!(features.values.iter().all(|value| value.is_nan()) && features.channels[0].mean.is_nan());
}
