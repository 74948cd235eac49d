//! What a graph says of itself that ONNX Runtime does not tell: whether an output already went through a softmax, and what the
//! layers cost.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::onnx::{self, GraphProto};
use crate::postprocess::Scores;
use crate::tensor::TensorSpec;
use crate::zoo::describe::Description;

/// Operators that only pass a softmax's values on.
const PASSING: &[&str] = &["Flatten", "Identity", "Reshape", "Squeeze", "Cast", "Dropout"];

/// What is read from a model file besides what runs it.
pub(super) struct Facts {
    /// Whether each output holds logits or probabilities, if it holds class scores at all.
    pub(super) scores: Vec<Scores>,
    /// What the layers cost.
    pub(super) description: Description,
    /// The files beside the model's own that it keeps weights in.
    pub(super) weights: Vec<PathBuf>,
}

/// The facts of the model at `path`, which has these outputs and is given pictures of shape `picture`.
///
/// # Errors
/// As [`onnx::read_model`] and [`Description::of_model`].
pub(super) fn read(path: &Path, outputs: &[TensorSpec], picture: [usize; 3]) -> Result<Facts> {
    let model = onnx::read_model(path)?;
    let of = |output: &TensorSpec| model.graph.as_ref().map_or(Scores::Logits, |graph| scores_of(graph, &output.name));
    let scores = outputs.iter().map(of).collect();
    // Where they lie elsewhere, what loads the graph has its say on that.
    let weights = onnx::external_files(&model, path.parent().unwrap_or(path)).unwrap_or_default();
    Ok(Facts { scores, description: Description::of_model(&model, Some(picture))?, weights })
}

fn scores_of(graph: &GraphProto, output: &str) -> Scores {
    let mut name = output;
    // A chain cannot be longer than the graph, so a malformed cycle ends too.
    for _ in 0..graph.node.len() {
        let Some(node) = graph.node.iter().find(|node| node.output.iter().any(|output| output == name)) else {
            break;
        };
        match node.op_type.as_str() {
            "Softmax" => return Scores::Probabilities,
            operator if PASSING.contains(&operator) => match node.input.first() {
                Some(input) => name = input,
                None => break,
            },
            _ => break,
        }
    }
    Scores::Logits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::NodeProto;

    fn graph(nodes: &[(&str, &str, &str)]) -> GraphProto {
        let node = |&(operator, input, output): &(&str, &str, &str)| NodeProto {
            op_type: operator.into(),
            input: vec![input.into()],
            output: vec![output.into()],
            ..NodeProto::default()
        };
        GraphProto { node: nodes.iter().map(node).collect(), ..GraphProto::default() }
    }

    #[test]
    fn a_softmax_is_found_behind_operators_that_pass_it_on() {
        let direct = graph(&[("Gemm", "x", "logits"), ("Softmax", "logits", "p")]);
        assert_eq!(scores_of(&direct, "p"), Scores::Probabilities);
        assert_eq!(scores_of(&direct, "logits"), Scores::Logits);
        let behind = graph(&[("Softmax", "x", "s"), ("Squeeze", "s", "q"), ("Reshape", "q", "p")]);
        assert_eq!(scores_of(&behind, "p"), Scores::Probabilities);
        let log = graph(&[("Softmax", "x", "s"), ("Log", "s", "p")]);
        assert_eq!(scores_of(&log, "p"), Scores::Logits);
        let cycle = graph(&[("Identity", "a", "b"), ("Identity", "b", "a")]);
        assert_eq!(scores_of(&cycle, "a"), Scores::Logits);
    }
}
