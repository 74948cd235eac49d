//! What bounds explanations, and what they leave behind.

use std::time::{Duration, Instant};

use convoy::error::ErrorKind;
use convoy::explain::{ExplainConfig, ExplainRequest, Method, Rule, Work};
use convoy::onnx::StringStringEntryProto;
use convoy::onnx::proto::tensor_proto::DataLocation;
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
            fixture.explain(request).await.unwrap();
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
    let explain = || fixture.explain(request(Method::Occlusion));
    let (first, second, third) = tokio::join!(explain(), explain(), explain());
    first.unwrap();
    second.unwrap();
    let error = third.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.retry_after().is_some());
    explain().await.unwrap();
    assert_eq!((fixture.outcomes("rejected"), fixture.outcomes("success")), (1.0, 3.0));
}

#[tokio::test]
async fn what_comes_too_late_or_is_not_waited_for_ends() {
    let fixture = Fixture::new(&convolutional(8, 4), "");
    for method in [Method::Occlusion, Method::Cam] {
        let now = Some(Instant::now());
        let admit =
            |deadline| fixture.explainer.admit(fixture.model.clone(), Work::Explanation(Some(method)), deadline);
        let error = admit(now).unwrap().explain(request(method)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        // Begun, and dropped when it waits for the first time.
        tokio::select! {
            biased;
            _ = fixture.explain(request(method)) => panic!("it did not wait"),
            () = std::future::ready(()) => {}
        }
        fixture.explain(request(method)).await.unwrap();
    }
    let outcomes = ["rejected", "canceled", "success"].map(|outcome| fixture.outcomes(outcome));
    assert_eq!(outcomes, [2.0; 3]);
}

#[tokio::test]
async fn none_may_take_longer_than_the_server_allows() {
    let config = ExplainConfig { timeout_ms: 0, ..ExplainConfig::default() };
    let fixture = Fixture::with(&convolutional(8, 4), "", &config);
    let an_hour = Some(Instant::now() + Duration::from_hours(1));
    for deadline in [None, an_hour] {
        let work = Work::Explanation(Some(Method::Cam));
        let mut admission = fixture.explainer.admit(fixture.model.clone(), work, deadline).unwrap();
        let error = admission.explain(request(Method::Cam)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        // What the body says is no way around it.
        admission.change(work, an_hour);
        let error = admission.explain(request(Method::Cam)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    }
}

#[tokio::test]
async fn a_server_that_ends_gives_up_what_waits_and_in_the_end_what_is_under_way() {
    let fixture = Fixture::new(&convolutional(64, 32), "");
    let occlusion = || ExplainRequest { patch: Some(2), stride: Some(2), ..request(Method::Occlusion) };
    let ended = async {
        // Both have begun, of which one has the only place.
        fixture.explainer.close(Instant::now());
    };
    let (under_way, waiting, ()) =
        tokio::join!(biased; fixture.explain(occlusion()), fixture.explain(occlusion()), ended);
    let later = fixture.explain(occlusion()).await;
    for result in [under_way, waiting, later] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable);
    }

    // What is done in time is answered.
    let fixture = Fixture::new(&convolutional(8, 4), "");
    let ended = async { fixture.explainer.close(Instant::now() + Duration::from_hours(1)) };
    let (under_way, ()) = tokio::join!(biased; fixture.explain(request(Method::Cam)), ended);
    under_way.unwrap();
    assert_eq!(fixture.explain(request(Method::Cam)).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let fixture = Fixture::new(&convolutional(8, 4), "");
    let projection = || request(Method::Projection(Rule::Guided));
    let occlusion = || request(Method::Occlusion);
    let layer = || Some("rectified".to_owned());
    for (request, kind, message) in [
        (ExplainRequest { layer: Some("x".into()), ..projection() }, ErrorKind::NotFound, "no layer called x"),
        (
            ExplainRequest { layer: layer(), class: Some(1), ..projection() },
            ErrorKind::InvalidArgument,
            "class means nothing to guided of a layer",
        ),
        (
            ExplainRequest { class: Some(1), unit: Some(1), ..projection() },
            ErrorKind::InvalidArgument,
            "class means nothing to guided",
        ),
        (
            ExplainRequest { class: Some(1), count: Some(1), ..projection() },
            ErrorKind::InvalidArgument,
            "count means nothing",
        ),
        (
            ExplainRequest { patch: Some(2), ..projection() },
            ErrorKind::InvalidArgument,
            "patch means nothing to guided",
        ),
        (ExplainRequest { layer: layer(), ..occlusion() }, ErrorKind::InvalidArgument, "layer means nothing"),
        (
            ExplainRequest { unit: Some(1), method: None, ..occlusion() },
            ErrorKind::InvalidArgument,
            "unit means nothing to class activation",
        ),
        (
            ExplainRequest { patch: Some(2), stride: Some(usize::MAX), ..projection() },
            ErrorKind::InvalidArgument,
            "means nothing",
        ),
        (
            ExplainRequest { layer: layer(), unit: Some(4), ..projection() },
            ErrorKind::InvalidArgument,
            "has the units 0 to 3",
        ),
        (ExplainRequest { count: Some(17), ..projection() }, ErrorKind::InvalidArgument, "from 1 to 16"),
        (ExplainRequest { count: Some(0), ..projection() }, ErrorKind::InvalidArgument, "from 1 to 16"),
        (ExplainRequest { class: Some(9), ..projection() }, ErrorKind::InvalidArgument, "no class 9"),
        (
            ExplainRequest { patch: Some(0), ..occlusion() },
            ErrorKind::InvalidArgument,
            "patch must be at least 1 pixel",
        ),
        (ExplainRequest { stride: Some(0), ..occlusion() }, ErrorKind::InvalidArgument, "stride must be at least 1"),
        (ExplainRequest { patch: Some(9), ..occlusion() }, ErrorKind::InvalidArgument, "does not fit"),
        (ExplainRequest { picture: "text".into(), ..occlusion() }, ErrorKind::UnsupportedMedia, "not a picture"),
    ] {
        let error = fixture.explain(request).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(message), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_longer_the_loaded_one_is_not_explained() {
    let fixture = Fixture::new(&convolutional(8, 4), "");
    super::graphs::write(&fixture.folder.path().join("m/1"), &convolutional(8, 5));
    let error = fixture.filters().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.message().contains("has changed since it was loaded"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_gone_is_said_to_be_and_may_come_back() {
    let model = convolutional(8, 4);
    let fixture = Fixture::new(&model, "");
    let path = fixture.folder.path().join("m/1/model.onnx");
    std::fs::remove_file(&path).unwrap();
    let error = fixture.filters().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    let said = "explanations read the model's file, and model.onnx is gone: they work again when it has been put back";
    assert!(error.message().starts_with(said), "{error}");
    super::graphs::write(&fixture.folder.path().join("m/1"), &model);
    assert_eq!(fixture.filters().await.unwrap().shape, [4, 3, 3, 3]);
}

#[tokio::test]
async fn a_file_that_was_only_touched_is_explained() {
    let fixture = Fixture::new(&convolutional(8, 4), "");
    let path = fixture.folder.path().join("m/1/model.onnx");
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(fixture.filters().await.unwrap().shape, [4, 3, 3, 3]);
    // Nor is another file with the same in it another model.
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(fixture.filters().await.unwrap().shape, [4, 3, 3, 3]);
}

#[tokio::test]
async fn weights_in_a_file_of_their_own_are_read_and_watched() {
    let mut model = convolutional(8, 4);
    let graph = model.graph.as_mut().unwrap();
    let tensor = graph.initializer.iter_mut().find(|tensor| tensor.name == "weights").unwrap();
    let weights = std::mem::take(&mut tensor.raw_data);
    tensor.set_data_location(DataLocation::External);
    tensor.external_data = vec![StringStringEntryProto::new("location", "weights.bin")];
    let fixture = Fixture::with_files(&model, "", &ExplainConfig::default(), &[("weights.bin", &weights)]);
    let filters = fixture.filters().await.unwrap();
    assert_eq!(filters.weights, bytemuck::pod_collect_to_vec::<u8, f32>(&weights));
    let projection = ExplainRequest { layer: Some("rectified".into()), ..request(Method::Projection(Rule::Guided)) };
    fixture.explain(projection).await.unwrap();
    std::fs::write(fixture.folder.path().join("m/1/weights.bin"), &weights).unwrap();
    fixture.filters().await.unwrap();

    std::fs::write(fixture.folder.path().join("m/1/weights.bin"), vec![0; weights.len()]).unwrap();
    assert_eq!(fixture.filters().await.unwrap_err().kind(), ErrorKind::FailedPrecondition);
}

#[tokio::test]
async fn a_model_without_what_is_asked_for_says_so() {
    let fixture = Fixture::new(&channel_means(8, None), "");
    let error = fixture.filters().await.unwrap_err();
    assert_eq!(error.message(), "the model has no convolution");
    let error = fixture.explain(request(Method::Cam)).await.unwrap_err();
    assert!(error.message().contains("no feature maps"), "{error}");
    // What needs no layer works all the same, as does a graph of a fixed batch; and it is what is taken where nothing is said.
    for batch in [None, Some(3)] {
        let fixture = Fixture::new(&channel_means(8, batch), "");
        let unsaid = ExplainRequest { method: None, ..request(Method::Cam) };
        assert_eq!(fixture.explain(unsaid.clone()).await.unwrap().method, Method::Occlusion);
        // Not where what was said is the reason.
        let error =
            fixture.explain(ExplainRequest { layer: Some("logits".into()), ..unsaid.clone() }).await.unwrap_err();
        assert_eq!(error.message(), "the layer logits has no feature maps");
        let error = fixture.explain(ExplainRequest { class: Some(9), ..unsaid }).await.unwrap_err();
        assert_eq!(error.message(), "there is no class 9: the model has the classes 0 to 2");
        for method in [Method::Occlusion, Method::Projection(Rule::Gradient)] {
            let request = ExplainRequest { class: Some(1), ..request(method) };
            let explanation = fixture.explain(request).await.unwrap();
            if let [unit] = &explanation.units[..] {
                // The slope of a channel's mean.
                let expected: Vec<_> = (0..192).map(|at| if at / 64 == 1 { 1.0 / 64.0 } else { 0.0 }).collect();
                assert_eq!(unit.projection, expected);
            }
        }
    }
}
