//! Values that are no numbers.

use convoy::error::ErrorKind;
use convoy::explain::{ExcitingRequest, ExplainRequest, Method, Rule};

use super::super::graphs::node;
use super::super::png;
use super::{classifier, noise, scalar};

#[tokio::test]
async fn values_that_are_no_numbers_are_said_to_be_none() {
    let zero = scalar("zero", 0.0);
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
    let exciting =
        ExcitingRequest { layer: "out".into(), unit: 3, count: 1, rule: Rule::Guided, leaves_out_broken: false };
    let error = fixture.exciting(exciting, vec![png(&noise("a"))]).await.unwrap_err();
    assert_eq!(error.message(), "number 0: the unit 3 of the layer out is not a finite number for this picture");
    // Where one looks for such values they are not hidden.
    let features = fixture.features(png(&noise("a")), "out").await.unwrap();
    assert!(features.values.iter().all(|value| value.is_nan()) && features.channels[0].mean.is_nan());
}

#[tokio::test]
async fn a_projection_that_is_no_number_names_its_picture() {
    // Forward the bound hides that it is infinite; backwards nothing does.
    let nodes = vec![
        node("Mul", &["in", "large"], "larger"),
        node("Mul", &["larger", "large"], "infinite"),
        node("Clip", &["infinite", "low", "high"], "out"),
    ];
    let fixture = classifier(nodes, vec![scalar("large", 3e38), scalar("low", 0.0), scalar("high", 1.0)]);
    let exciting =
        |unit| ExcitingRequest { layer: "out".into(), unit, count: 1, rule: Rule::Guided, leaves_out_broken: false };
    let pictures = || vec![png(&noise("a")), png(&noise("b"))];
    let features = fixture.features(png(&noise("a")), "out").await.unwrap();
    let unit = features.channels.iter().position(|it| it.max == 1.0).unwrap();
    let error = fixture.exciting(exciting(unit), pictures()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().starts_with("number 0: the model's values are not finite numbers"), "{error}");
}

#[tokio::test]
async fn units_at_an_upper_bound_are_told_apart_and_taken_back() {
    let nodes = |out| vec![node("Mul", &["in", "large"], "wide"), node("Clip", &["wide", "low", "high"], out)];
    let constants = vec![scalar("large", 1e3), scalar("low", 0.0), scalar("high", 6.0)];
    let fixture = classifier(nodes("out"), constants);
    let request = |layer: &str, rule| ExplainRequest {
        method: Some(Method::Projection(rule)),
        layer: Some(layer.into()),
        count: Some(4),
        ..ExplainRequest::new(png(&noise("a")))
    };
    let features = fixture.features(png(&noise("a")), "out").await.unwrap();
    let saturated = features.channels.iter().filter(|channel| channel.max == 6.0).count();
    assert!(saturated > 1, "{:?}", features.channels);
    for rule in [Rule::Gradient, Rule::Guided, Rule::Deconvnet] {
        let before = fixture.explain(request("wide", rule)).await.unwrap();
        let behind = fixture.explain(request("out", rule)).await.unwrap();
        assert_eq!(behind.layer.as_deref(), Some("out"));
        for (before, behind) in before.units.iter().zip(&behind.units) {
            assert_eq!((behind.unit, behind.row, behind.column), (before.unit, before.row, before.column));
            // Clients are told what the layer itself answers.
            assert_eq!(behind.activation, before.activation.clamp(0.0, 6.0));
            // What has not answered passes nothing, where that is asked.
            let passes = behind.activation > 0.0 || rule == Rule::Deconvnet;
            assert_eq!(behind.projection.iter().any(|&value| value != 0.0), passes, "{rule:?} {}", behind.unit);
            assert!(!passes || behind.projection == before.projection);
        }
    }
}
