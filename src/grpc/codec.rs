//! Messages from and to bytes: prost's codec, made fit for bytes that nobody vouches for.
//!
//! In protobuf an empty entry of a repeated field takes two bytes, and a hundred or more once it is decoded: a message within
//! the size limit could fill the memory. So the entries are counted before anything is decoded.

use std::marker::PhantomData;

use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message, Name};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// The most strings, byte strings and messages in one message. The largest that mean something have a few hundred.
const MAX_ENTRIES: usize = 4096;

/// The codec of every RPC here, as `build.rs` says.
#[derive(Debug)]
pub struct MessageCodec<Encode, Decode>(PhantomData<(Encode, Decode)>);

impl<Encode, Decode> Default for MessageCodec<Encode, Decode> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Encode, Decode> Codec for MessageCodec<Encode, Decode>
where
    Encode: Message + Send + 'static,
    Decode: Message + Name + Default + Send + 'static,
{
    type Encode = Encode;
    type Decode = Decode;
    type Encoder = ProstEncoder<Encode>;
    type Decoder = MessageDecoder<Decode>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        MessageDecoder(PhantomData)
    }
}

/// Decodes one message type.
#[derive(Debug)]
pub struct MessageDecoder<T>(PhantomData<T>);

impl<T: Message + Name + Default> Decoder for MessageDecoder<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        // tonic hands over the message in one piece.
        count_entries(buf.chunk(), nesting(T::NAME), &mut 0)?;
        T::decode(buf).map(Some).map_err(|error| malformed(&error))
    }
}

fn malformed(error: &DecodeError) -> Status {
    Status::invalid_argument(format!("the message is not the protobuf that it should be: {error}"))
}

/// Fields whose value is a message with entries to be counted, and that message's own.
struct Nesting(&'static [(u32, Nesting)]);

/// Where the entries of the message called `name` lie deeper than at its top.
fn nesting(name: &str) -> &'static Nesting {
    match name {
        // inputs, and their contents; outputs.
        "ModelInferRequest" => &Nesting(&[(5, Nesting(&[(5, Nesting(&[]))])), (6, Nesting(&[]))]),
        // The request.
        "ClassifyStreamRequest" => &Nesting(&[(2, Nesting(&[]))]),
        _ => &Nesting(&[]),
    }
}

/// Counts the length-delimited fields of `message` into `count`.
fn count_entries(mut message: &[u8], nesting: &Nesting, count: &mut usize) -> Result<(), Status> {
    while !message.is_empty() {
        let (field, wire_type) = decode_key(&mut message).map_err(|error| malformed(&error))?;
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, field, &mut message, DecodeContext::default()).map_err(|error| malformed(&error))?;
            continue;
        }
        *count += 1;
        if *count > MAX_ENTRIES {
            return Err(Status::resource_exhausted(format!("the message has more than {MAX_ENTRIES} entries")));
        }
        let length = decode_varint(&mut message).map_err(|error| malformed(&error))?;
        let value = usize::try_from(length).ok().and_then(|length| message.split_off(..length)).ok_or_else(|| {
            Status::invalid_argument(format!(
                "a field of the message says that it has {length} bytes, but {} are left",
                message.len()
            ))
        })?;
        if let Some((_, nesting)) = nesting.0.iter().find(|(nested, _)| *nested == field) {
            count_entries(value, nesting, count)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::proto::convoy::v1::{ClassifyRequest, ClassifyStreamRequest};
    use crate::grpc::proto::inference::{
        InferTensorContents, ModelInferRequest, model_infer_request::InferInputTensor,
    };

    /// How many entries the message has, or why it is refused.
    fn count<T: Message + Name>(message: &T) -> Result<usize, Status> {
        let mut count = 0;
        count_entries(&message.encode_to_vec(), nesting(T::NAME), &mut count)?;
        Ok(count)
    }

    #[test]
    fn entries_are_counted_where_they_nest_and_nowhere_else() {
        let contents = InferTensorContents {
            bytes_contents: vec!["one".into(), "two".into()],
            fp32_contents: vec![0.0; 10_000],
            ..Default::default()
        };
        // A name, a datatype, a shape, the contents, and in these two strings and one run of floats.
        let input = InferInputTensor {
            name: "x".into(),
            datatype: "BYTES".into(),
            shape: vec![2],
            contents: Some(contents),
            ..Default::default()
        };
        let mut request =
            ModelInferRequest { model_name: "m".into(), inputs: vec![input.clone()], ..Default::default() };
        assert_eq!(count(&request).unwrap(), 1 + 1 + 4 + 3);
        // What is in a tensor's bytes is the tensor's own business, even if it looks like entries.
        request.raw_input_contents = vec![[0x2a, 0].repeat(MAX_ENTRIES).into()];
        assert_eq!(count(&request).unwrap(), 10);
        request.inputs = vec![input; MAX_ENTRIES / 8];
        assert_eq!(count(&request).unwrap_err().code(), tonic::Code::ResourceExhausted);

        let request = ClassifyRequest { images: vec!["".into(); MAX_ENTRIES - 1], ..Default::default() };
        assert_eq!(count(&request).unwrap(), MAX_ENTRIES - 1);
        let message = ClassifyStreamRequest { id: "1".into(), request: Some(request) };
        assert_eq!(count(&message).unwrap_err().code(), tonic::Code::ResourceExhausted);
    }
}
