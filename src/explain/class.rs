//! The class that an explanation is about: the one that is named, or the one that classification answers first, with the probability that
//! it has there.

use super::graphs::{Graphs, Values};
use super::prepared::Prepared;
use super::subject::Subject;
use crate::error::{Error, Result};
use crate::postprocess::{self, Class, Scores};

/// A row of class scores.
#[derive(Debug)]
pub(super) struct ClassScores {
    pub(super) row: Vec<f32>,
    pub(super) scores: Scores,
}

impl Subject {
    /// Where the recipe takes several crops, what classification makes of all of them: the average of what the model says of each.
    /// The model runs them through its queue. `None` of a single crop, for which the explanation's own run does.
    ///
    /// # Errors
    /// As [`Subject::class_scores`], and `Internal` when a crop's class scores are no finite numbers.
    pub(super) fn averaged_scores(&self, prepared: &Prepared) -> Result<Option<ClassScores>> {
        let Some(crops) = &prepared.crops else { return Ok(None) };
        let output = self.graph.interface().class_output;
        let (count, smallest) = (crops.shape()[0], self.smallest_batch());
        let mut values = Vec::new();
        for start in (0..count).step_by(smallest) {
            self.check_canceled()?;
            let answers = self.class_scores(crops.rows(start, smallest.min(count - start)))?;
            values.extend_from_slice(&postprocess::to_f32(&answers)?);
        }
        let rows = values.chunks_exact((values.len() / count).max(1));
        let average = postprocess::average(rows, output.scores)?;
        // Rounded as the answer is that a client gets.
        let data_type = self.graph.interface().outputs[output.index].data_type;
        let average = postprocess::from_f32(data_type, vec![1, average.len()], &average)?;
        Ok(Some(ClassScores { row: postprocess::to_f32(&average)?.into_owned(), scores: output.scores }))
    }

    /// The class scores of a run of `graphs`, which have the logits among their values.
    pub(super) fn own_scores(&self, graphs: &Graphs, values: &Values) -> Result<ClassScores> {
        let name = graphs.logits.as_deref().unwrap_or(self.class_output());
        let is_output = name == self.class_output();
        let scores = if is_output { self.graph.interface().class_output.scores } else { Scores::Logits };
        Ok(ClassScores { row: Graphs::row(values, name)?, scores })
    }

    /// What `scores` say of `class`, or of the most probable one.
    ///
    /// # Errors
    /// `InvalidArgument` when there is no such class, `Internal` when no score is a finite number.
    pub(super) fn class(&self, scores: &ClassScores, class: Option<usize>) -> Result<Class> {
        let ClassScores { row, scores } = scores;
        let index = match class {
            Some(class) if class < row.len() => class,
            Some(class) => {
                let last = row.len().saturating_sub(1);
                return Err(Error::invalid(format!(
                    "there is no class {class}: the model has the classes 0 to {last}"
                )));
            }
            None => postprocess::classify(row, *scores, 1)?[0].0,
        };
        let score = postprocess::probabilities(row, *scores)?[index] as f32;
        Ok(self.model.class(index, score))
    }
}
