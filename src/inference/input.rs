//! What a request may bring as input.

use super::outputs::Shapes;
use super::request::Limits;
use crate::error::{Error, Result};
use crate::repository::Model;
use crate::tensor::{DataType, Tensor};

/// Checks a tensor against the model's input, and returns it in the graph's shape and the form in which it came.
pub(super) fn tensor(model: &Model, input: Tensor, limits: &Limits) -> Result<(Tensor, Shapes)> {
    let spec = model.input();
    if input.data_type() != spec.data_type {
        let takes = match spec.data_type {
            DataType::Bytes => "encoded pictures as BYTES".to_owned(),
            data_type => format!("{data_type} (or encoded pictures as BYTES)"),
        };
        return Err(Error::invalid(format!("the input {} takes {takes}, not {}", spec.name, input.data_type())));
    }
    let (input, shapes) = match model.to_graph(&input)? {
        Some(input) => (input, Shapes::Client),
        // Rows put together, which is how some protocols have them whatever the model's input is said to be.
        None if model.takes_rows(input.shape()) => (input, Shapes::Graph),
        None => {
            return Err(Error::invalid(format!(
                "the input {} takes the shape {:?} (-1 for any), not {:?}",
                spec.name,
                spec.shape,
                input.shape()
            )));
        }
    };
    if input.is_empty() {
        return Err(Error::invalid(format!("the input {} has no elements", spec.name)));
    }
    if input.bytes().len() > limits.max_tensor_bytes {
        return Err(Error::too_large(format!(
            "the input {} has {} bytes, the limit is {}",
            spec.name,
            input.bytes().len(),
            limits.max_tensor_bytes
        )));
    }
    Ok((input, shapes))
}

/// Checks the number of encoded pictures in a tensor of `shape`.
pub(super) fn count(count: usize, shape: &[usize], limits: &Limits) -> Result<()> {
    if shape.len() != 1 && !(shape.len() == 2 && shape[1] == 1) {
        return Err(Error::invalid(format!("encoded pictures take a BYTES tensor of shape [N], not {shape:?}")));
    }
    if count == 0 {
        return Err(Error::invalid("the request has no picture"));
    }
    if count > limits.max_pictures {
        return Err(Error::too_large(format!(
            "the request has {count} pictures, the limit is {}",
            limits.max_pictures
        )));
    }
    Ok(())
}

/// The one input that the model takes.
pub(super) fn single(model: &Model, inputs: Vec<(String, Tensor)>) -> Result<Tensor> {
    let expected = &model.input().name;
    let count = inputs.len();
    match <[_; 1]>::try_from(inputs) {
        Ok([(name, tensor)]) if name == *expected => Ok(tensor),
        Ok([(name, _)]) => {
            Err(Error::invalid(format!("the model has no input called {name}; its input is {expected}")))
        }
        Err(_) => Err(Error::invalid(format!("the model takes one input, {expected}, but {count} were given"))),
    }
}
