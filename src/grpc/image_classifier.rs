//! Pictures in, classes out: `convoy.v1.ImageClassifier`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::{Request, Response, Status, Streaming};

use super::call::Call;
use super::observe::record_message;
use super::proto::convoy::v1 as pb;
use super::proto::convoy::v1::classify_stream_response::Result as StreamResult;
use super::proto::convoy::v1::image_classifier_server::ImageClassifier;
use super::status::{code_of, message_of, status_of};
use super::stream::{Answers, Order, answers};
use crate::error::{Error, Result as DomainResult};
use crate::explain::{ExplainRequest, Explainer, Method, Unit, Work};
use crate::inference::{
    Classification, ClassifyRequest, DEFAULT_TOP_K, Inference, Prediction, Timing, deadline, parse_version,
};
use crate::postprocess::Class;
use crate::preprocess::Frame;
use crate::repository::Model;

/// The service over the facade.
#[derive(Debug)]
pub(super) struct ClassifierService {
    pub(super) inference: Inference,
    pub(super) explainer: Explainer,
}

#[tonic::async_trait]
impl ImageClassifier for ClassifierService {
    type ClassifyStreamStream = Answers<pb::ClassifyStreamResponse>;

    async fn classify(&self, request: Request<pb::ClassifyRequest>) -> Result<Response<pb::ClassifyResponse>, Status> {
        let call = Call::of(request.extensions());
        let answer = classify(&self.inference, &call, request.into_inner()).await;
        answer.map(Response::new).map_err(|error| status_of(&error, &call))
    }

    async fn classify_stream(
        &self,
        request: Request<Streaming<pb::ClassifyStreamRequest>>,
    ) -> Result<Response<Self::ClassifyStreamStream>, Status> {
        let call = Call::of(request.extensions());
        let inference = self.inference.clone();
        Ok(Response::new(answers(&call, request.into_inner(), Order::Completion, move |call, request| {
            classify_in_stream(inference.clone(), call, request)
        })))
    }

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Result<Response<pb::ExplainResponse>, Status> {
        let call = Call::of(request.extensions());
        let answer = explain(&self.inference, &self.explainer, &call, request.into_inner()).await;
        answer.map(Response::new).map_err(|error| status_of(&error, &call))
    }
}

async fn classify_in_stream(
    inference: Inference,
    call: Call,
    request: pb::ClassifyStreamRequest,
) -> pb::ClassifyStreamResponse {
    let answer = match request.request {
        Some(request) => classify(&inference, &call, request).await,
        None => Err(Error::invalid("the message has no request")),
    };
    record_message(&call.trace, &answer);
    let result = answer.map_or_else(
        |error| {
            let code = code_of(error.kind()).into();
            StreamResult::Error(pb::ClassifyError { code, message: message_of(&error, &call) })
        },
        StreamResult::Response,
    );
    pb::ClassifyStreamResponse { id: request.id, result: Some(result) }
}

async fn classify(
    inference: &Inference,
    call: &Call,
    request: pb::ClassifyRequest,
) -> DomainResult<pb::ClassifyResponse> {
    let model = model(inference, &request.model_name, &request.model_version)?;
    let timeout = (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms));
    let priority = Some(request.priority).filter(|&priority| priority > 0);
    let admission = inference.admit(Arc::clone(&model), call.context(timeout, priority))?;
    let answer = inference.classify(admission, request_of(request)).await?;
    Ok(response(&model, answer))
}

async fn explain(
    inference: &Inference,
    explainer: &Explainer,
    call: &Call,
    request: pb::ExplainRequest,
) -> DomainResult<pb::ExplainResponse> {
    let model = model(inference, &request.model_name, &request.model_version)?;
    let own = deadline(Instant::now(), Some(Duration::from_millis(request.timeout_ms)));
    let deadline = [own, call.deadline].into_iter().flatten().min();
    let method: Option<Method> = Some(request.method).filter(|it| !it.is_empty()).map(|it| it.parse()).transpose()?;
    let mut admission = explainer.admit(Arc::clone(&model), Work::Explanation(method), deadline)?;
    let given = |value: u32| Some(value as usize).filter(|&value| value > 0);
    let domain = ExplainRequest {
        picture: request.image,
        method,
        class: request.class_index.map(|index| index as usize),
        layer: Some(request.layer).filter(|layer| !layer.is_empty()),
        unit: request.unit.map(|unit| unit as usize),
        count: given(request.count),
        patch: given(request.patch),
        stride: given(request.stride),
    };
    let answer = admission.explain(domain).await?;
    let unit = |unit: Unit| pb::Unit {
        unit: unit.unit as u32,
        row: unit.row as u32,
        column: unit.column as u32,
        activation: unit.activation,
    };
    let Frame { picture_width, picture_height, x, y, width, height } = answer.frame;
    Ok(pb::ExplainResponse {
        model_name: model.name().to_owned(),
        model_version: model.version().to_string(),
        method: answer.method.as_str().to_owned(),
        class: answer.class.map(class),
        layer: answer.layer.unwrap_or_default(),
        units: answer.units.into_iter().map(unit).collect(),
        heatmap: Some(pb::Heatmap {
            height: answer.heatmap.height as u32,
            width: answer.heatmap.width as u32,
            data: answer.heatmap.data,
        }),
        frame: Some(pb::Frame { x, y, width, height, picture_width, picture_height }),
        png: answer.png.into(),
        model_loaded_ms: model.loaded_ms(),
    })
}

fn request_of(request: pb::ClassifyRequest) -> ClassifyRequest {
    let top_k = request.top_k.map_or(DEFAULT_TOP_K, |top_k| top_k as usize);
    ClassifyRequest { pictures: request.images, top_k, aux: request.aux }
}

fn model(inference: &Inference, name: &str, version: &str) -> DomainResult<Arc<Model>> {
    match (name, version) {
        ("", "") => inference.default_model("name one as `model_name`, or configure a default"),
        ("", _) => Err(Error::invalid("a version is named, but no model")),
        (name, "") => inference.model(name, None),
        (name, version) => inference.model(name, Some(parse_version(name, version)?)),
    }
}

fn response(model: &Model, answer: Classification) -> pb::ClassifyResponse {
    pb::ClassifyResponse {
        model_name: model.name().to_owned(),
        model_version: model.version().to_string(),
        predictions: answer.predictions.into_iter().map(prediction).collect(),
        timing: Some(timing(answer.timing)),
        model_loaded_ms: model.loaded_ms(),
    }
}

fn prediction(prediction: Prediction) -> pb::Prediction {
    let branch = |(output, branch)| pb::Branch { output, classes: classes(branch) };
    pb::Prediction {
        classes: classes(prediction.classes),
        branches: prediction.branches.into_iter().map(branch).collect(),
    }
}

fn classes(classes: Vec<Class>) -> Vec<pb::Class> {
    classes.into_iter().map(class).collect()
}

fn class(class: Class) -> pb::Class {
    pb::Class { index: class.index as u32, label: class.label.map(|label| label.to_string()), score: class.score }
}

fn timing(timing: Timing) -> pb::Timing {
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    pb::Timing {
        decode_ms: milliseconds(timing.decode),
        queue_ms: milliseconds(timing.queue),
        batch_size: timing.batch_size as u32,
        compute_ms: milliseconds(timing.compute),
        total_ms: milliseconds(timing.total),
    }
}
