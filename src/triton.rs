//! Triton's model configuration: the message, its text form (`config.pbtxt`) and its JSON.
//!
//! The messages are generated from `proto/model_config.proto`, which holds the whole schema, so that every field that Triton knows can
//! be read. What a field means here, `repository` says; nothing here knows models or files.

use miette::Diagnostic;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use crate::tensor;

pub use proto::ModelConfig;

/// The generated messages. Nested types are in modules: `model_input::Format`, for instance.
pub mod proto {
    #![expect(missing_docs, clippy::pedantic, reason = "generated code; the schema documents itself")]

    include!(concat!(env!("OUT_DIR"), "/model_config/inference.rs"));
}

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/model_config/descriptors.bin"));

/// Reads a `config.pbtxt`.
///
/// # Errors
/// What is wrong, with line and column, both from 1: no text of that form, a field that the message does not have, one that is there
/// twice, or a value of another type.
pub fn parse_text(text: &str) -> Result<ModelConfig, String> {
    let (spelled, colons) = with_colons(text);
    let message = DynamicMessage::parse_text_format(descriptor(), &spelled).map_err(|error| {
        let offset = error.labels().and_then(|mut labels| labels.next()).map_or(spelled.len(), |label| label.offset());
        let offset = offset - colons.iter().filter(|&&colon| colon < offset).count();
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&letter| letter != '\n').count() + 1;
        format!("line {line}, column {column}: {error}")
    })?;
    typed(&message)
}

/// The text with a colon in front of each list that follows its field's name at once, and where these colons are. The form lets a list of
/// messages do without, and Triton's files always do, but `prost-reflect` asks for it.
fn with_colons(text: &str) -> (String, Vec<usize>) {
    let mut spelled = String::with_capacity(text.len() + text.len() / 16);
    let mut colons = Vec::new();
    // Whether what came last, but for spaces and comments, is a name.
    let mut follows_name = false;
    // What the comment or string that we are in ends with.
    let mut end = None;
    let mut is_escaped = false;
    for letter in text.chars() {
        match end {
            Some(_) if is_escaped => is_escaped = false,
            Some('"' | '\'') if letter == '\\' => is_escaped = true,
            // A string that does not end in its line is wrong, and what follows it is not in it.
            Some(last) if letter == last || letter == '\n' => end = None,
            Some(_) => {}
            None if letter == '#' => end = Some('\n'),
            None if letter.is_ascii_whitespace() => {}
            None => {
                if letter == '[' && follows_name {
                    colons.push(spelled.len());
                    spelled.push(':');
                }
                follows_name = letter.is_ascii_alphanumeric() || letter == '_';
                end = Some(letter).filter(|letter| matches!(letter, '"' | '\''));
            }
        }
        spelled.push(letter);
    }
    (spelled, colons)
}

/// Reads the JSON form: fields in `snake_case` or `camelCase`.
///
/// # Errors
/// What is wrong, with its place.
pub fn parse_json(text: &str) -> Result<ModelConfig, String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let message = DynamicMessage::deserialize(descriptor(), &mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    typed(&message)
}

/// The JSON form as Triton writes it: fields in `snake_case`, those at their defaults too, and whole numbers as numbers.
///
/// # Panics
/// Never: the message and what reads it here come from one schema.
pub fn to_json(config: &ModelConfig) -> Value {
    let options =
        SerializeOptions::new().stringify_64_bit_integers(false).use_proto_field_name(true).skip_default_fields(false);
    DynamicMessage::decode(descriptor(), config.encode_to_vec().as_slice())
        .expect("the message was generated from the same schema")
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("a message is an object with string keys")
}

/// Whether the message has a field that JSON calls `name`.
pub fn has_field(name: &str) -> bool {
    let descriptor = descriptor();
    descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name)).is_some()
}

fn descriptor() -> MessageDescriptor {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("the build wrote the descriptors");
    pool.get_message_by_name("inference.ModelConfig").expect("the schema has the message")
}

fn typed(message: &DynamicMessage) -> Result<ModelConfig, String> {
    message.transcode_to().map_err(|error| error.to_string())
}

impl From<tensor::DataType> for proto::DataType {
    fn from(data_type: tensor::DataType) -> Self {
        match data_type {
            tensor::DataType::Bool => Self::TypeBool,
            tensor::DataType::Uint8 => Self::TypeUint8,
            tensor::DataType::Uint16 => Self::TypeUint16,
            tensor::DataType::Uint32 => Self::TypeUint32,
            tensor::DataType::Uint64 => Self::TypeUint64,
            tensor::DataType::Int8 => Self::TypeInt8,
            tensor::DataType::Int16 => Self::TypeInt16,
            tensor::DataType::Int32 => Self::TypeInt32,
            tensor::DataType::Int64 => Self::TypeInt64,
            tensor::DataType::Fp16 => Self::TypeFp16,
            tensor::DataType::Fp32 => Self::TypeFp32,
            tensor::DataType::Fp64 => Self::TypeFp64,
            tensor::DataType::Bytes => Self::TypeString,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_get_their_colons_and_nothing_else_does() {
        for (text, spelled) in [
            ("input [ {} ]", "input :[ {} ]"),
            ("input[{}]", "input:[{}]"),
            ("input: [ {} ] output\n# a [\n[ {} ]", "input: [ {} ] output\n# a [\n:[ {} ]"),
            ("name: 'a [' name: \"b\\\" [\" \"c\" [", "name: 'a [' name: \"b\\\" [\" \"c\" ["),
            ("# it's\ninput [ ]", "# it's\ninput :[ ]"),
            ("[a.b]: { x [ ] }", "[a.b]: { x :[ ] }"),
        ] {
            assert_eq!(with_colons(text).0, spelled);
        }
    }

    #[test]
    fn a_mistake_is_where_it_was_written() {
        for (text, place) in [
            ("input [ { nmae: 'x' } ]", "line 1, column 11"),
            ("input [ { } ] output [ {\n  dims: \"ö\" dmis: 3 } ]", "line 2, column 9"),
            ("name: \"ö\" nmae: 'x'", "line 1, column 11"),
            ("input [ {", "line 1, column 10"),
        ] {
            let error = parse_text(text).unwrap_err();
            assert!(error.starts_with(place), "{error}");
        }
    }

    #[test]
    fn json_is_read_in_both_cases_and_written_as_triton_does() {
        let config =
            parse_json(r#"{"maxBatchSize": 4, "input": [{"dims": ["3", 8]}], "metric_tags": {"a": "b"}}"#).unwrap();
        let written = to_json(&config);
        assert_eq!(written["input"][0]["dims"], serde_json::json!([3, 8]));
        assert_eq!(written["input"][0]["data_type"], "TYPE_INVALID");
        assert_eq!((&written["backend"], &written["output"]), (&"".into(), &serde_json::json!([])));
        assert!(written.get("dynamic_batching").is_none() && written.get("version_policy").is_none());
        assert_eq!(parse_json(&written.to_string()).unwrap(), config);
        for (text, said) in
            [("{\"maxBatch\": 3}", "maxBatch"), ("{} {}", "line 1"), ("{\"max_batch_size\": \"x\"}", "line 1")]
        {
            let error = parse_json(text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        assert!(has_field("maxBatchSize") && has_field("max_batch_size") && !has_field("batching"));
    }
}
