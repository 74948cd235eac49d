//! Forms of files: element types, channels, the order of nodes, and shapes that cannot be inferred.

use convoy::error::ErrorKind;
use convoy::explain::{ExplainRequest, Method, Rule};
use convoy::onnx::proto::tensor_proto::DataType;
use convoy::onnx::{AttributeProto, TensorProto};
use convoy::tensor::Tensor;

use super::super::graphs::{convolutional, model, node, value};
use super::super::{Fixture, png};
use super::{CONFIG, SIDE, classifier, noise, pooled, weights, with};

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
