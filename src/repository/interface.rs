//! What a graph's inputs and outputs must be for a picture to go in and classes to come out, and which of them is what.

use crate::error::{Error, Result};
use crate::postprocess::Scores;
use crate::tensor::{DataType, TensorSpec, element_count};

/// The most bytes of a batch's input. A recipe or a graph that asks for more is a mistake, which must not take the memory that
/// the other models need.
const MAX_BATCH_BYTES: usize = 1 << 30;

/// What goes into a model and what comes out.
#[derive(Debug)]
pub struct Interface {
    /// The input, batch dimension included (`-1` where it is dynamic).
    pub input: TensorSpec,
    /// The outputs, batch dimension included, in the graph's order.
    pub outputs: Vec<TensorSpec>,
    /// The output that holds the class scores.
    pub class_output: ClassOutput,
    /// The side branches: the other outputs with as many classes, in the graph's order.
    pub branches: Vec<ClassOutput>,
    /// The number of classes, where the graph says it.
    pub class_count: Option<usize>,
}

/// An output that holds class scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassOutput {
    /// Which of [`Interface::outputs`] it is.
    pub index: usize,
    /// What it holds.
    pub scores: Scores,
}

impl Interface {
    /// Whether `shape` is that of an input tensor of any number of rows.
    pub fn takes(&self, shape: &[usize]) -> bool {
        self.input.takes(shape, 1)
    }

    /// What output number `index` holds, where it holds class scores.
    pub fn class_scores(&self, index: usize) -> Option<Scores> {
        let mut outputs = std::iter::once(&self.class_output).chain(&self.branches);
        outputs.find(|output| output.index == index).map(|output| output.scores)
    }
}

/// Checks that the input can be a picture's, and returns its batch dimension where that is fixed.
pub(super) fn check_input(input: &TensorSpec) -> Result<Option<usize>> {
    let TensorSpec { name, data_type, shape } = input;
    if !matches!(data_type, DataType::Fp32 | DataType::Fp16 | DataType::Uint8) {
        return Err(Error::invalid(format!(
            "the input {name} is of {data_type}, but a picture is given as FP32, FP16 or UINT8"
        )));
    }
    if shape.len() != 4 {
        return Err(Error::invalid(format!(
            "the input {name} has the shape {shape:?}, which is not a batch of pictures ([N, 3, H, W] or [N, H, W, 3])"
        )));
    }
    match shape[0] {
        -1 => Ok(None),
        fixed if fixed > 0 => Ok(Some(fixed as usize)),
        other => Err(Error::invalid(format!("the input {name} has a batch dimension of {other}"))),
    }
}

/// The bytes of a row of the input. Whether they can be allocated says [`check_batch_bytes`].
pub(super) fn row_bytes(row_shape: [usize; 3], data_type: DataType) -> usize {
    row_shape.iter().product::<usize>() * data_type.size().unwrap_or(1)
}

/// Checks that a batch's input can be allocated.
pub(super) fn check_batch_bytes(rows: usize, row_shape: [usize; 3], data_type: DataType) -> Result<()> {
    let [a, b, c] = row_shape;
    let bytes = element_count(&[rows, a, b, c])?.checked_mul(data_type.size().unwrap_or(1));
    if bytes.is_none_or(|bytes| bytes > MAX_BATCH_BYTES) {
        return Err(Error::invalid(format!(
            "a batch of {rows} pictures of {row_shape:?} takes more than {MAX_BATCH_BYTES} bytes: lower max_batch_size or \
             preprocess.crop"
        )));
    }
    Ok(())
}

/// The index of the output that holds the class scores.
pub(super) fn class_output(outputs: &[TensorSpec], configured: Option<&str>) -> std::result::Result<usize, String> {
    match configured {
        None if outputs.is_empty() => Err("output: the graph has no outputs".to_owned()),
        None => Ok(0),
        Some(name) => outputs.iter().position(|output| output.name == name).ok_or_else(|| {
            let names: Vec<_> = outputs.iter().map(|output| output.name.as_str()).collect();
            format!("output: the graph has no output called {name}; it has {}", names.join(", "))
        }),
    }
}

/// The number of classes: `[N, C]`, or `[N, C, 1, 1]` as some exports leave it.
pub(super) fn class_count(output: &TensorSpec) -> Result<Option<usize>> {
    let TensorSpec { name, data_type, shape } = output;
    if !matches!(data_type, DataType::Fp32 | DataType::Fp16 | DataType::Fp64) {
        return Err(Error::invalid(format!(
            "the output {name} is of {data_type}, but class scores are floating-point"
        )));
    }
    match shape.as_slice() {
        [_, classes, rest @ ..] if rest.iter().all(|&dimension| dimension == 1 || dimension == -1) => {
            Ok(usize::try_from(*classes).ok())
        }
        // ONNX Runtime gives no shape for an output whose shape it cannot infer.
        [] => Ok(None),
        _ => Err(Error::invalid(format!("the output {name} has the shape {shape:?}, which is not [N, classes]"))),
    }
}

/// The outputs beside the class output that have its classes.
pub(super) fn branches(
    outputs: &[TensorSpec],
    class_output: usize,
    classes: Option<usize>,
    scores: &[Scores],
) -> Vec<ClassOutput> {
    let is_branch = |&index: &usize| {
        let found = class_count(&outputs[index]);
        index != class_output && classes.is_some() && found.is_ok_and(|count| count == classes)
    };
    (0..outputs.len()).filter(is_branch).map(|index| ClassOutput { index, scores: scores[index] }).collect()
}

/// Checks that every output can be averaged over `crops` crops.
pub(super) fn check_averages(outputs: &[TensorSpec], crops: usize) -> std::result::Result<(), String> {
    let is_float = |output: &TensorSpec| matches!(output.data_type, DataType::Fp32 | DataType::Fp16 | DataType::Fp64);
    match outputs.iter().find(|output| crops > 1 && !is_float(output)) {
        Some(TensorSpec { name, data_type, .. }) => Err(format!(
            "preprocess.crops: the output {name} is of {data_type}, which cannot be averaged over {crops} crops"
        )),
        None => Ok(()),
    }
}
