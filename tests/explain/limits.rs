//! What bounds explanations, and what they leave behind.

use convoy::error::ErrorKind;
use convoy::explain::{ExplainConfig, ExplainRequest, Method, Rule};
use image::{Rgb, RgbImage};

use super::graphs::{channel_means, convolutional};
use super::{Fixture, png};

fn request(method: Method) -> ExplainRequest {
    let picture = RgbImage::from_fn(8, 8, |x, y| Rgb([(x * 30) as u8, (y * 30) as u8, 7]));
    ExplainRequest { method: Some(method), ..ExplainRequest::new(png(&picture)) }
}

#[tokio::test]
async fn graphs_are_made_once_and_kept_as_long_as_there_is_room() {
    let gradient = || request(Method::Projection(Rule::Gradient));
    for (cache_bytes, made) in [(1 << 20, 2.0), (0, 4.0)] {
        let config = ExplainConfig { cache_bytes, ..ExplainConfig::default() };
        let fixture = Fixture::with(&convolutional(8, 4), "", &config);
        for request in [gradient(), gradient(), request(Method::Cam), request(Method::Cam)] {
            fixture.explainer.explain(fixture.model.clone(), request).await.unwrap();
        }
        assert_eq!(fixture.metric("convoy_explain_graphs_made_total"), made);
        assert_eq!(fixture.metric("convoy_explain_requests_total"), 4.0);
        // The filters: once in each graph, forward and back.
        assert!(fixture.metric("convoy_explain_cache_bytes") <= cache_bytes as f64);
        assert_eq!(fixture.metric("convoy_explain_cache_bytes") > 0.0, cache_bytes > 0);
    }
}

#[tokio::test]
async fn too_many_at_once_are_refused() {
    let config = ExplainConfig { max_waiting: 1, ..ExplainConfig::default() };
    let fixture = Fixture::with(&convolutional(8, 4), "", &config);
    let explain = || fixture.explainer.explain(fixture.model.clone(), request(Method::Occlusion));
    let (first, second, third) = tokio::join!(explain(), explain(), explain());
    first.unwrap();
    second.unwrap();
    let error = third.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.retry_after().is_some());
    explain().await.unwrap();
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let fixture = Fixture::new(&convolutional(8, 4), "");
    let projection = || request(Method::Projection(Rule::Guided));
    let occlusion = || request(Method::Occlusion);
    let layer = || Some("rectified".to_owned());
    for (request, kind, message) in [
        (ExplainRequest { layer: Some("x".into()), ..projection() }, ErrorKind::NotFound, "no layer called x"),
        (ExplainRequest { layer: layer(), class: Some(1), ..projection() }, ErrorKind::InvalidArgument, "not of both"),
        (ExplainRequest { layer: layer(), unit: Some(4), ..projection() }, ErrorKind::InvalidArgument, "has 4"),
        (ExplainRequest { count: 17, ..projection() }, ErrorKind::InvalidArgument, "from 1 to 16"),
        (ExplainRequest { count: 0, ..projection() }, ErrorKind::InvalidArgument, "from 1 to 16"),
        (ExplainRequest { class: Some(9), ..projection() }, ErrorKind::InvalidArgument, "no class 9"),
        (ExplainRequest { patch: Some(0), ..occlusion() }, ErrorKind::InvalidArgument, "does not fit"),
        (ExplainRequest { patch: Some(9), ..occlusion() }, ErrorKind::InvalidArgument, "does not fit"),
        (ExplainRequest { picture: "text".into(), ..occlusion() }, ErrorKind::UnsupportedMedia, "not a picture"),
    ] {
        let error = fixture.explainer.explain(fixture.model.clone(), request).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(message), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_longer_the_loaded_one_is_not_explained() {
    let fixture = Fixture::new(&convolutional(8, 4), "");
    super::graphs::write(&fixture.folder.path().join("m/1"), &convolutional(8, 5));
    let error = fixture.explainer.filters(fixture.model.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("load the model again"), "{error}");
}

#[tokio::test]
async fn a_model_without_what_is_asked_for_says_so() {
    let fixture = Fixture::new(&channel_means(8, None), "");
    let error = fixture.explainer.filters(fixture.model.clone()).await.unwrap_err();
    assert_eq!(error.message(), "the model has no convolution");
    let error = fixture.explainer.explain(fixture.model.clone(), request(Method::Cam)).await.unwrap_err();
    assert!(error.message().contains("no feature maps"), "{error}");
    // What needs no layer works all the same, as does a graph of a fixed batch.
    for batch in [None, Some(3)] {
        let fixture = Fixture::new(&channel_means(8, batch), "");
        for method in [Method::Occlusion, Method::Projection(Rule::Gradient)] {
            let request = ExplainRequest { class: Some(1), ..request(method) };
            let explanation = fixture.explainer.explain(fixture.model.clone(), request).await.unwrap();
            if let [unit] = &explanation.units[..] {
                // The slope of a channel's mean.
                let expected: Vec<_> = (0..192).map(|at| if at / 64 == 1 { 1.0 / 64.0 } else { 0.0 }).collect();
                assert_eq!(unit.projection, expected);
            }
        }
    }
}
