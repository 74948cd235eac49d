//! Where there is a way back through a graph, and what is said where there is none.

use convoy::error::ErrorKind;
use convoy::explain::{ExplainRequest, Method, Rule};
use convoy::onnx::proto::attribute_proto::AttributeType;
use convoy::onnx::proto::tensor_proto::DataType;
use convoy::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};
use convoy::tensor::Tensor;

use super::super::graphs::{model, node, value};
use super::super::{Fixture, png};
use super::{CONFIG, SIDE, integers, noise, pooled, weights, with};

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

/// A head as PyTorch exports `x.view(x.size(0), -1)`: the batch dimension is taken out of the shape and put into the new one.
fn viewed() -> Fixture {
    let nodes = vec![
        node("Shape", &["pooled"], "shape"),
        with(node("Gather", &["shape", "first"], "batch"), vec![AttributeProto::int("axis", 0)]),
        node("Unsqueeze", &["batch", "axes"], "sizes"),
        with(node("Concat", &["sizes", "rest"], "view"), vec![AttributeProto::int("axis", 0)]),
        node("Reshape", &["pooled", "view"], "flat"),
    ];
    let first = TensorProto::new("first", &Tensor::from_vec(vec![], vec![0i64]).unwrap()).unwrap();
    flat_by(nodes, vec![first, integers("axes", &[0]), integers("rest", &[-1])])
}

/// The same head with the shape written down.
fn flattened() -> Fixture {
    flat_by(vec![node("Flatten", &["pooled"], "flat")], Vec::new())
}

/// A convolution, pooling, a linear layer, and between these the nodes that make `flat` of `pooled`.
fn flat_by(between: Vec<NodeProto>, constants: Vec<TensorProto>) -> Fixture {
    let pool = vec![AttributeProto::ints("kernel_shape", [4; 2]), AttributeProto::ints("strides", [4; 2])];
    let mut nodes = vec![
        with(node("Conv", &["input", "filters"], "in"), vec![AttributeProto::ints("pads", [1; 4])]),
        node("Relu", &["in"], "rectified"),
        with(node("AveragePool", &["rectified"], "pooled"), pool),
    ];
    nodes.extend(between);
    nodes.push(node("MatMul", &["flat", "head"], "logits"));
    let side = SIDE as i64;
    let own = [weights("filters", &[4, 3, 3, 3]), weights("head", &[16, 2])];
    let constants = own.into_iter().chain(constants).collect();
    Fixture::new(&model(nodes, constants, &[-1, 3, side, side], &[-1, 2]), CONFIG)
}

#[tokio::test]
async fn a_head_that_computes_its_own_shape_is_run_backwards() {
    let (viewed, flattened) = (viewed(), flattened());
    // A linear head, so that CAM is taken; and the way through the shape is none for projections either.
    for method in [None, Some(Method::Gradcam), Some(Method::Projection(Rule::Gradient))] {
        let request = || ExplainRequest { method, ..ExplainRequest::new(png(&noise("a"))) };
        let explanation = viewed.explain(request()).await.unwrap();
        assert!(explanation.heatmap.data.iter().any(|&value| value != 0.0), "{method:?}");
        assert_eq!(explanation, flattened.explain(request()).await.unwrap(), "{method:?}");
    }
    // What only the shape reaches does not depend on the picture.
    let request = ExplainRequest {
        method: Some(Method::Projection(Rule::Gradient)),
        layer: Some("view".into()),
        ..ExplainRequest::new(png(&noise("a")))
    };
    let error = viewed.explain(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(error.message(), "the layer view does not depend on input");
}
