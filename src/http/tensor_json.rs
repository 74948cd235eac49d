//! Tensors as JSON: the `data` of an input into a [`Tensor`], and a [`Tensor`] into the `data` of an output.
//!
//! `data` is read from its raw text once type and shape are known, wherever they stood in the object. The text has been
//! through the JSON parser by then, so its grammar is known to be right and only its meaning is checked here. Numbers are
//! read straight into the element type, and so rounded once.

use std::borrow::Cow;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::ser::{Error as _, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::tensor::{DataType, Element, Tensor, element_count};

/// The most dimensions that a tensor may have.
pub(super) const MAX_RANK: usize = 32;

/// Base64 with or without its padding, since clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads `data`, the text of a valid JSON value: elements in row-major order, flat, or nested as `shape` is. Elements of
/// [`DataType::Bytes`] are base64 strings.
///
/// # Errors
/// `InvalidArgument` when the elements are not as many as `shape` says, nest in another way, or are not of `data_type`;
/// `PayloadTooLarge` when the tensor would be over `max_bytes`.
pub(super) fn read_tensor(data: &str, data_type: DataType, shape: Vec<usize>, max_bytes: usize) -> Result<Tensor> {
    fn any<T>(_: &T) -> bool {
        true
    }

    let count = element_count(&shape)?;
    let bytes = count.checked_mul(data_type.size().unwrap_or(1));
    if bytes.is_none_or(|bytes| bytes > max_bytes) {
        return Err(Error::too_large(format!(
            "a {data_type} tensor of shape {shape:?} is over the limit of {max_bytes} bytes"
        )));
    }
    match data_type {
        DataType::Bool => {
            let values = read_elements(data, DataType::Bool, &shape, |token| match token {
                "true" => Some(1u8),
                "false" => Some(0),
                _ => None,
            })?;
            Tensor::new(DataType::Bool, shape, Bytes::from(values))
        }
        DataType::Uint8 => read_numbers(data, shape, any::<u8>),
        DataType::Uint16 => read_numbers(data, shape, any::<u16>),
        DataType::Uint32 => read_numbers(data, shape, any::<u32>),
        DataType::Uint64 => read_numbers(data, shape, any::<u64>),
        DataType::Int8 => read_numbers(data, shape, any::<i8>),
        DataType::Int16 => read_numbers(data, shape, any::<i16>),
        DataType::Int32 => read_numbers(data, shape, any::<i32>),
        DataType::Int64 => read_numbers(data, shape, any::<i64>),
        DataType::Fp16 => Err(Error::invalid("FP16 has no form in JSON here: send it as binary data")),
        // A number beyond the type's range reads as infinity, which is not what was sent.
        DataType::Fp32 => read_numbers(data, shape, |value: &f32| value.is_finite()),
        DataType::Fp64 => read_numbers(data, shape, |value: &f64| value.is_finite()),
        DataType::Bytes => {
            let mut bytes = Vec::with_capacity(data.len() / 4 * 3);
            walk(data, &shape, |index, token| append_byte_string(&mut bytes, index, token))?;
            Tensor::new(DataType::Bytes, shape, Bytes::from(bytes))
        }
    }
}

/// The shape of `data`, the text of a valid JSON value, if it is an array that nests evenly. Where it does not, the shape is
/// that of its first elements, and [`read_tensor`] refuses it.
///
/// # Errors
/// `InvalidArgument` for what cannot be a tensor of numbers.
pub(super) fn shape_of(data: &str) -> Result<Vec<usize>> {
    let misfit = || Error::invalid("a tensor is numbers in lists that nest evenly");
    // How many elements the open arrays have so far, and those that were closed first had in the end.
    let mut open: Vec<usize> = Vec::new();
    let mut shape: Vec<Option<usize>> = Vec::new();
    for token in Tokens::new(data) {
        if token != Token::Close
            && let Some(count) = open.last_mut()
        {
            *count += 1;
        }
        match token {
            Token::Open => {
                if open.len() == MAX_RANK {
                    return Err(Error::invalid(format!("a tensor has at most {MAX_RANK} dimensions")));
                }
                open.push(0);
                shape.resize(shape.len().max(open.len()), None);
            }
            Token::Close => {
                let count = open.pop().ok_or_else(misfit)?;
                shape[open.len()].get_or_insert(count);
            }
            // The text of an object would go on as if it were elements.
            Token::Scalar(text) if open.is_empty() || text.starts_with('{') => return Err(misfit()),
            Token::Scalar(_) => {}
        }
    }
    shape.into_iter().map(|count| count.ok_or_else(misfit)).collect()
}

/// Reads `token`, the text of a valid JSON value, as one base64 string. `index` is its place among others, for the error.
///
/// # Errors
/// `InvalidArgument` when it is anything else.
pub(super) fn read_base64(token: &str, index: usize) -> Result<Bytes> {
    let mut bytes = Vec::new();
    decode_base64(&mut bytes, index, token)?;
    Ok(Bytes::from(bytes))
}

/// Reads `data`, the text of a valid JSON value, as a flat list of at most `max_count` base64 strings.
///
/// # Errors
/// `InvalidArgument` when it is anything else, `PayloadTooLarge` when there are more.
pub(super) fn read_base64_list(data: &str, max_count: usize) -> Result<Vec<Bytes>> {
    let mut list = Vec::new();
    let mut tokens = Tokens::new(data);
    if tokens.next() != Some(Token::Open) {
        return Err(Error::invalid("a list of base64 strings was expected"));
    }
    for token in tokens {
        match token {
            Token::Close => break,
            Token::Open => return Err(Error::invalid("a flat list of base64 strings was expected, not a nested one")),
            Token::Scalar(_) if list.len() == max_count => {
                return Err(Error::too_large(format!("there are more than {max_count} pictures in the request")));
            }
            Token::Scalar(token) => list.push(read_base64(token, list.len())?),
        }
    }
    Ok(list)
}

fn read_numbers<T: Element + FromStr>(data: &str, shape: Vec<usize>, accept: impl Fn(&T) -> bool) -> Result<Tensor> {
    let values = read_elements(data, T::DATA_TYPE, &shape, |token| token.parse().ok().filter(&accept))?;
    Tensor::from_vec(shape, values)
}

fn read_elements<T>(
    data: &str,
    data_type: DataType,
    shape: &[usize],
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>> {
    // A shape promises any size; the text bounds what can come, since an element takes two characters at least.
    let mut values = Vec::with_capacity(element_count(shape)?.min(data.len() / 2 + 1));
    walk(data, shape, |index, token| {
        let value = parse(token).ok_or_else(|| {
            Error::invalid(format!("element {index} of the data, `{}`, is not of type {data_type}", shortened(token)))
        })?;
        values.push(value);
        Ok(())
    })?;
    Ok(values)
}

/// Appends the element that `token` holds: a `u32` length and the bytes.
fn append_byte_string(bytes: &mut Vec<u8>, index: usize, token: &str) -> Result<()> {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    decode_base64(bytes, index, token)?;
    let length = u32::try_from(bytes.len() - start - 4)
        .map_err(|_| Error::too_large("an element of a BYTES tensor can hold at most 4 GiB"))?;
    bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

fn decode_base64(bytes: &mut Vec<u8>, index: usize, token: &str) -> Result<()> {
    let quoted = token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let Some(mut text) = quoted.map(Cow::Borrowed) else {
        return Err(Error::invalid(format!(
            "element {index} of the data, `{}`, is not a base64 string",
            shortened(token)
        )));
    };
    // Base64 needs no escapes, but some writers escape every `/`.
    if text.contains('\\') {
        text = Cow::Owned(serde_json::from_str(token).map_err(|error| Error::invalid(error.to_string()))?);
    }
    BASE64
        .decode_vec(text.as_bytes(), bytes)
        .map_err(|error| Error::invalid(format!("element {index} of the data is not base64: {error}")))
}

/// Calls `take` with every element's index and text, and checks that the elements lie as `shape` says.
fn walk(data: &str, shape: &[usize], mut take: impl FnMut(usize, &str) -> Result<()>) -> Result<()> {
    let expected = element_count(shape)?;
    let misfit = || Error::invalid(format!("the data is neither a flat list nor nested as the shape {shape:?} says"));
    // How many elements the open arrays have so far, from the outermost.
    let mut open = [0usize; MAX_RANK];
    let mut depth = 0;
    let mut is_nested = false;
    let mut count = 0;
    for token in Tokens::new(data) {
        match token {
            Token::Open => {
                if depth > 0 {
                    // Nesting begins with the very first element or not at all.
                    is_nested |= count == 0;
                    open[depth - 1] += 1;
                }
                if depth == shape.len().clamp(1, MAX_RANK) || (depth > 0 && !is_nested) {
                    return Err(misfit());
                }
                open[depth] = 0;
                depth += 1;
            }
            Token::Close => {
                depth -= 1;
                if is_nested && open[depth] != shape[depth] {
                    return Err(misfit());
                }
            }
            Token::Scalar(text) => {
                if depth == 0 || (is_nested && depth != shape.len()) {
                    return Err(misfit());
                }
                open[depth - 1] += 1;
                if count == expected {
                    return Err(Error::invalid(format!(
                        "the shape {shape:?} takes {expected} elements, but the data has more"
                    )));
                }
                take(count, text)?;
                count += 1;
            }
        }
    }
    if count != expected {
        return Err(Error::invalid(format!("the shape {shape:?} takes {expected} elements, but the data has {count}")));
    }
    Ok(())
}

#[derive(Debug, PartialEq)]
enum Token<'a> {
    Open,
    Close,
    /// A number, a string with its quotes, `true`, `false`, `null`; or, as an error to be, the start of an object.
    Scalar(&'a str),
}

/// The tokens of valid JSON text.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    fn split_off(&mut self, length: usize) -> &'a str {
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        token
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let is_separator = |byte: u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | b',');
        let bytes = self.rest.as_bytes();
        let skipped = bytes.iter().position(|&byte| !is_separator(byte))?;
        self.split_off(skipped);
        let bytes = self.rest.as_bytes();
        Some(match bytes[0] {
            b'[' => {
                self.split_off(1);
                Token::Open
            }
            b']' => {
                self.split_off(1);
                Token::Close
            }
            b'"' => {
                let mut end = 1;
                while end < bytes.len() && bytes[end] != b'"' {
                    end += if bytes[end] == b'\\' { 2 } else { 1 };
                }
                Token::Scalar(self.split_off((end + 1).min(bytes.len())))
            }
            _ => {
                let end = bytes.iter().position(|&byte| is_separator(byte) || byte == b']').unwrap_or(bytes.len());
                Token::Scalar(self.split_off(end))
            }
        })
    }
}

/// The start of `token`, short enough for an error message.
fn shortened(token: &str) -> &str {
    match token.char_indices().nth(24) {
        Some((end, _)) => &token[..end],
        None => token,
    }
}

/// A tensor's elements as a flat JSON list. Floats take the shortest form that reads back as the same value; NaN and the
/// infinities, which JSON does not have, become `null`.
#[derive(Debug)]
pub(super) struct JsonData<'a>(&'a Tensor);

impl<'a> JsonData<'a> {
    /// The JSON form of `tensor`.
    ///
    /// # Errors
    /// `InvalidArgument` for FP16.
    pub(super) fn new(name: &str, tensor: &'a Tensor) -> Result<Self> {
        if tensor.data_type() == DataType::Fp16 {
            return Err(Error::invalid(format!(
                "output `{name}` is FP16, which has no form in JSON here: ask for binary data"
            )));
        }
        Ok(Self(tensor))
    }
}

impl Serialize for JsonData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn numbers<T: Element + Serialize, S: Serializer>(tensor: &Tensor, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(tensor.to_slice::<T>().map_err(S::Error::custom)?.iter())
        }
        let tensor = self.0;
        match tensor.data_type() {
            DataType::Bool => serializer.collect_seq(tensor.bytes().iter().map(|&byte| byte != 0)),
            DataType::Uint8 => numbers::<u8, S>(tensor, serializer),
            DataType::Uint16 => numbers::<u16, S>(tensor, serializer),
            DataType::Uint32 => numbers::<u32, S>(tensor, serializer),
            DataType::Uint64 => numbers::<u64, S>(tensor, serializer),
            DataType::Int8 => numbers::<i8, S>(tensor, serializer),
            DataType::Int16 => numbers::<i16, S>(tensor, serializer),
            DataType::Int32 => numbers::<i32, S>(tensor, serializer),
            DataType::Int64 => numbers::<i64, S>(tensor, serializer),
            DataType::Fp16 => Err(S::Error::custom("FP16 has no form in JSON")),
            DataType::Fp32 => numbers::<f32, S>(tensor, serializer),
            DataType::Fp64 => numbers::<f64, S>(tensor, serializer),
            DataType::Bytes => {
                let strings = tensor.to_byte_strings().map_err(S::Error::custom)?;
                serializer.collect_seq(strings.iter().map(|string| String::from_utf8_lossy(string)))
            }
        }
    }
}

/// A tensor's elements as JSON lists that nest as its shape does.
#[derive(Debug)]
pub(super) struct NestedJson(Tensor);

impl NestedJson {
    /// The JSON form of `tensor`.
    ///
    /// # Errors
    /// `InvalidArgument` for FP16 and BYTES.
    pub(super) fn new(name: &str, tensor: &Tensor) -> Result<Self> {
        JsonData::new(name, tensor)?;
        if tensor.data_type() == DataType::Bytes {
            return Err(Error::invalid(format!("output `{name}` is BYTES, which has no rows of one size")));
        }
        Ok(Self(tensor.clone()))
    }

    /// The element at `index` of the first dimension.
    ///
    /// # Panics
    /// When there is none.
    pub(super) fn row(&self, index: usize) -> Self {
        let row = self.0.rows(index, 1).reshape(self.0.shape()[1..].to_vec());
        Self(row.expect("one row has as many elements as its other dimensions say"))
    }
}

impl Serialize for NestedJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self.0.shape() {
            [rows, _, ..] => serializer.collect_seq((0..rows).map(|index| self.row(index))),
            _ => JsonData(&self.0).serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests;
