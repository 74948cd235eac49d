//! How what was admitted is run: rows in pieces, each an entry of the queue.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::average;
use super::looked_up::{LookedUp, look_up};
use super::request::{Admission, Part};
use crate::error::{Error, Result};
use crate::preprocess::Preprocessor;
use crate::repository::GraphModel;
use crate::scheduler::{Answer, Preparation, Submission};
use crate::tensor::Tensor;

/// A recipe, and the parts that share it, with their indices: they get the same rows.
pub(super) type SharedRecipe<'a> = (&'a Arc<Preprocessor>, Vec<(usize, &'a Part)>);

/// The parts, with their indices, by the recipe that they share.
pub(super) fn recipes<'a>(parts: impl Iterator<Item = (usize, &'a Part)>) -> Vec<SharedRecipe<'a>> {
    let mut recipes: Vec<SharedRecipe<'a>> = Vec::new();
    for (index, part) in parts {
        let preprocessor = part.graph().preprocessor();
        match recipes.iter_mut().find(|(other, _)| *other == preprocessor) {
            Some((_, parts)) => parts.push((index, part)),
            None => recipes.push((preprocessor, vec![(index, part)])),
        }
    }
    recipes
}

/// Runs a tensor in pieces.
pub(super) async fn tensor(admission: &mut Admission, input: &Tensor) -> Result<Vec<Answer>> {
    // Only a model with a graph of its own takes a tensor, so there is one part.
    let pieces = pieces(admission.parts()[0].graph(), input).collect();
    let pieces = look_up(admission, pieces).await?;
    let rows_of = |piece: &LookedUp<Tensor>| piece.input().shape()[0];
    let missing: usize = pieces.iter().filter(|piece| piece.is_missing(0)).map(rows_of).sum();
    admission.extend_to(|_, _| (missing, 0), Preparation::default())?;
    let admission = &*admission;
    let part = &admission.parts()[0];
    let answers = pieces.into_iter().map(|piece| async move {
        let mut run = None;
        if piece.is_missing(0) {
            let answer = entry(admission, part, piece.input().clone()).await?;
            piece.keep(part, &answer);
            run = Some((0, answer));
        }
        average::over_members(admission.model(), piece.complete(admission.parts(), run))
    });
    try_join_all(answers).await
}

/// A tensor in pieces of at most the graph's largest batch.
pub(super) fn pieces(graph: &GraphModel, input: &Tensor) -> impl Iterator<Item = Tensor> {
    let (rows, largest) = (input.shape()[0], graph.max_batch_size());
    (0..rows).step_by(largest).map(move |start| input.rows(start, largest.min(rows - start)))
}

/// Queues one entry and waits for its answer, at most until the request's deadline.
pub(super) async fn entry(admission: &Admission, part: &Part, rows: Tensor) -> Result<Answer> {
    let context = admission.context();
    let model = admission.model();
    let deadline = context.deadline(model);
    let submission = Submission { rows, priority: context.priority(model), deadline, trace: context.trace.clone() };
    let answer = part.graph().scheduler().submit(submission)?;
    let answer = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), answer)
            .await
            .map_err(|_| Error::deadline_exceeded("the request's deadline passed before it was answered"))?,
        None => answer.await,
    }?;
    part.note_answer();
    Ok(answer)
}
