//! From an instance's outputs to what the client asked for: whole tensors, classification strings, or classes.

use std::fmt::Write;

use super::request::{InferRequest, Prediction};
use crate::error::{Error, Result};
use crate::postprocess::{self, Class, to_f32};
use crate::repository::{ClassOutput, Model};
use crate::scheduler::Answer;
use crate::tensor::Tensor;

/// An output that will be answered: its index in the graph, and the size of its classification where one is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Requested {
    index: usize,
    classification: Option<usize>,
}

/// The outputs that the request asks for, in its order; all of the model's when it names none.
pub(super) fn resolve(model: &Model, request: &InferRequest) -> Result<Vec<Requested>> {
    if request.top_k == Some(0) || request.outputs.iter().any(|output| output.classification == Some(0)) {
        return Err(Error::invalid("a classification takes at least 1 class"));
    }
    if request.outputs.is_empty() {
        return Ok((0..model.outputs().len())
            .map(|index| Requested { index, classification: request.top_k })
            .collect());
    }
    let mut requested: Vec<Requested> = Vec::with_capacity(request.outputs.len());
    for output in &request.outputs {
        let index = model.outputs().iter().position(|spec| spec.name == output.name).ok_or_else(|| {
            let names: Vec<_> = model.outputs().iter().map(|spec| spec.name.as_str()).collect();
            Error::invalid(format!("the model has no output called {}; it has {}", output.name, names.join(", ")))
        })?;
        if requested.iter().any(|other| other.index == index) {
            return Err(Error::invalid(format!("the output {} is asked for twice", output.name)));
        }
        requested.push(Requested { index, classification: output.classification.or(request.top_k) });
    }
    Ok(requested)
}

/// Which shapes tensors have, where the model shows clients others than its graph's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shapes {
    /// Those that clients see.
    Client,
    /// The graph's.
    Graph,
}

/// The requested outputs over all answers, joined along the batch dimension.
pub(super) fn collect(
    model: &Model,
    requested: &[Requested],
    answers: &[Answer],
    shapes: Shapes,
) -> Result<Vec<(String, Tensor)>> {
    requested
        .iter()
        .map(|requested| {
            let parts: Vec<&Tensor> = answers.iter().map(|answer| &answer.outputs[requested.index]).collect();
            let whole = concatenate(&parts)?;
            let tensor = match requested.classification {
                Some(count) => classification(model, &whole, count)?,
                None => whole,
            };
            let tensor = match shapes {
                Shapes::Client => model.to_client(requested.index, requested.classification.is_some(), tensor)?,
                Shapes::Graph => tensor,
            };
            Ok((model.outputs()[requested.index].name.clone(), tensor))
        })
        .collect()
}

/// The `count` most probable classes of one picture's answer, and those of each side branch where `aux` asks for them.
pub(super) fn prediction(model: &Model, answer: &Answer, count: usize, aux: bool) -> Result<Prediction> {
    let of = |output: ClassOutput| classes(model, output, &answer.outputs[output.index], count);
    let branches = if aux { model.branches() } else { &[] };
    let branches = branches.iter().map(|&branch| Ok((model.outputs()[branch.index].name.clone(), of(branch)?)));
    Ok(Prediction { classes: of(model.class_output())?, branches: branches.collect::<Result<_>>()? })
}

/// The `count` most probable classes of an output's one row.
fn classes(model: &Model, output: ClassOutput, row: &Tensor, count: usize) -> Result<Vec<Class>> {
    let row = to_f32(row)?;
    let best = postprocess::classify(&row, output.scores, count)?;
    Ok(best.into_iter().map(|(index, score)| model.class(index, score)).collect())
}

/// The classification extension: for each row the `count` highest raw values as `value:index` or `value:index:label`,
/// shape `[rows, min(count, classes)]`.
fn classification(model: &Model, output: &Tensor, count: usize) -> Result<Tensor> {
    let rows = output.shape().first().copied().unwrap_or(1);
    let values = to_f32(output)?;
    let classes = values.len().checked_div(rows).unwrap_or(0);
    let count = count.min(classes);
    // A side branch has the main output's classes, so its labels hold there too.
    let labels = if model.labels().len() == classes { model.labels() } else { &[] };
    let mut strings = Vec::with_capacity(rows * count);
    for row in values.chunks_exact(classes.max(1)) {
        for (index, value) in postprocess::top_k(row, count) {
            let mut text = format!("{value:.6}:{index}");
            if let Some(label) = labels.get(index) {
                write!(text, ":{label}").expect("writing to a string cannot fail");
            }
            strings.push(text);
        }
    }
    Tensor::from_byte_strings(&strings)?.reshape(vec![rows, count])
}

/// Joins `parts` along the first dimension.
pub(super) fn concatenate(parts: &[&Tensor]) -> Result<Tensor> {
    let [first, rest @ ..] = parts else {
        return Err(Error::internal("the model gave no answer"));
    };
    if rest.is_empty() {
        return Ok((*first).clone());
    }
    let mut shape = first.shape().to_vec();
    shape[0] = parts.iter().map(|part| part.shape()[0]).sum();
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.bytes().len()).sum());
    for part in parts {
        if part.shape()[1..] != first.shape()[1..] {
            return Err(Error::invalid("the request's rows gave outputs of different shapes: send them one by one"));
        }
        bytes.extend_from_slice(part.bytes());
    }
    Tensor::new(first.data_type(), shape, bytes.into())
}
