//! `input` and `output`: what they say of the recipe and the labels, and whether the graph has them so.

use std::path::PathBuf;

use crate::preprocess::{Extent, Layout};
use crate::repository::config::ModelConfig;
use crate::tensor::TensorSpec;
use crate::triton;
use crate::triton::proto::model_input::Format;
use crate::triton::proto::{DataType, ModelInput, ModelTensorReshape};

/// Translates into `config` what inputs and outputs say.
pub(super) fn translate(
    read: &triton::ModelConfig,
    config: &mut ModelConfig,
    ignored: &mut Vec<String>,
) -> Result<(), String> {
    match read.input.as_slice() {
        [] => {}
        [input] => translate_input(input, read.max_batch_size > 0, config, ignored)?,
        inputs => return Err(format!("input: an image classifier has one, not {}", inputs.len())),
    }
    for output in &read.output {
        check_dims("output", &output.name, &output.dims)?;
        for (field, is_set) in
            [("is_shape_tensor", output.is_shape_tensor), ("is_non_linear_format_io", output.is_non_linear_format_io)]
        {
            refuse("output", field, is_set)?;
        }
    }
    // What has labels holds the classes; without labels it is what is named first.
    let mut labelled = read.output.iter().filter(|output| !output.label_filename.is_empty());
    let classes = labelled.next();
    if let Some(other) =
        labelled.find(|other| classes.is_some_and(|classes| classes.label_filename != other.label_filename))
    {
        return Err(format!("output.label_filename: {} has other labels, but a model has one set", other.name));
    }
    config.labels = classes.map(|output| PathBuf::from(&output.label_filename));
    config.output = classes.or(read.output.first()).map(|output| output.name.clone());
    Ok(())
}

fn translate_input(
    input: &ModelInput,
    is_batched: bool,
    config: &mut ModelConfig,
    ignored: &mut Vec<String>,
) -> Result<(), String> {
    check_dims("input", &input.name, &input.dims)?;
    for (field, is_set) in [
        ("is_shape_tensor", input.is_shape_tensor),
        ("is_non_linear_format_io", input.is_non_linear_format_io),
        ("allow_ragged_batch", input.allow_ragged_batch),
    ] {
        refuse("input", field, is_set)?;
    }
    if input.optional {
        ignored.push("input.optional (there is nothing to answer without a picture)".to_owned());
    }
    let layout = match input.format() {
        Format::None => None,
        Format::Nchw => Some(Layout::Nchw),
        Format::Nhwc => Some(Layout::Nhwc),
    };
    config.preprocess.layout = layout;
    // The graph may leave open what is fixed here.
    let dims = graph_dims(&input.dims, input.reshape.as_ref());
    let row = if is_batched { dims } else { dims.get(1..).unwrap_or_default() };
    if let [a, b, c] = *row {
        let is_channels = |size| size == 1 || size == 3;
        let is_nhwc = layout.map_or(is_channels(c) && !is_channels(a), |layout| layout == Layout::Nhwc);
        let sides = if is_nhwc { [a, b] } else { [b, c] };
        if let [Ok(height), Ok(width)] = sides.map(u32::try_from) {
            config.preprocess.crop = Extent::Size([height, width]);
        }
    } else if layout.is_some() {
        return Err(format!("input.format: a picture has three dimensions, not {row:?}"));
    }
    Ok(())
}

fn refuse(list: &str, field: &str, is_set: bool) -> Result<(), String> {
    if is_set { Err(format!("{list}.{field}: is not supported: it changes what the tensor means")) } else { Ok(()) }
}

fn check_dims(list: &str, name: &str, dims: &[i64]) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("{list}.name: is missing"));
    }
    match dims.iter().find(|&&size| size == 0 || size < -1) {
        Some(size) => Err(format!("{list}.dims: {size} is no size, nor -1 for any")),
        None => Ok(()),
    }
}

/// The dimensions that the graph is to have.
fn graph_dims<'a>(dims: &'a [i64], reshape: Option<&'a ModelTensorReshape>) -> &'a [i64] {
    reshape.map_or(dims, |reshape| &reshape.shape)
}

/// Checks that the graph has the input and outputs that the configuration names, of the same type and of dimensions that fit.
///
/// # Errors
/// What differs, beginning with the field.
pub(in crate::repository) fn check(
    read: &triton::ModelConfig,
    input: &TensorSpec,
    outputs: &[TensorSpec],
) -> Result<(), String> {
    let is_batched = read.max_batch_size > 0;
    if let Some(read) = read.input.first() {
        let dims = graph_dims(&read.dims, read.reshape.as_ref());
        check_tensor("input", &read.name, read.data_type(), dims, is_batched, std::slice::from_ref(input))?;
    }
    for read in &read.output {
        let dims = graph_dims(&read.dims, read.reshape.as_ref());
        check_tensor("output", &read.name, read.data_type(), dims, is_batched, outputs)?;
    }
    Ok(())
}

fn check_tensor(
    list: &str,
    name: &str,
    data_type: DataType,
    dims: &[i64],
    is_batched: bool,
    specs: &[TensorSpec],
) -> Result<(), String> {
    let Some(spec) = specs.iter().find(|spec| spec.name == name) else {
        let names: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
        return Err(format!("{list}.name: the graph has no {list} called {name}; it has {}", names.join(", ")));
    };
    let found = DataType::from(spec.data_type);
    if data_type != DataType::TypeInvalid && data_type != found {
        let (said, found) = (data_type.as_str_name(), found.as_str_name());
        return Err(format!("{list}.data_type: {name} is {found} in the graph, not {said}"));
    }
    // ONNX Runtime gives no shape for an output whose shape it cannot infer.
    let (batch, row) = match spec.shape.as_slice() {
        [] => return Ok(()),
        [batch, row @ ..] if is_batched => (Some(batch), row),
        shape => (None, shape),
    };
    let fits = dims.len() == row.len() && row.iter().zip(dims).all(|(&graph, &said)| graph < 0 || graph == said);
    if !fits {
        let with = if batch.is_some() {
            "behind the batch dimension"
        } else {
            "with the batch dimension, as max_batch_size is 0"
        };
        return Err(format!("{list}.dims: {name} is {row:?} in the graph {with}, not {dims:?}"));
    }
    Ok(())
}
