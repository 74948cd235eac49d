//! Messages from and to bytes: prost's codec, made fit for bytes that nobody vouches for.
//!
//! In protobuf an empty entry of a repeated field takes two bytes, and a hundred or more once it is decoded; a small whole number
//! takes one byte, and then eight: a message within the size limit could fill the memory. So entries and numbers are counted
//! before anything is decoded.

use std::marker::PhantomData;

use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message, Name};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// The most strings, byte strings and messages in one message. The largest that mean something have a few hundred.
const MAX_ENTRIES: usize = 4096;
/// The most whole numbers in one message: 64 MiB of them, decoded. What needs more has a raw form.
const MAX_NUMBERS: usize = 8 << 20;

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
        count(buf.chunk(), nesting(T::NAME), &mut Counts::default())?;
        T::decode(buf).map(Some).map_err(|error| malformed(&error))
    }
}

fn malformed(error: &DecodeError) -> Status {
    Status::invalid_argument(format!("the message is not the protobuf that it should be: {error}"))
}

/// What is in a length-delimited field, where that is to be counted, too.
enum Inside {
    /// A message, with these fields of its own.
    Message(&'static [(u32, Self)]),
    /// Whole numbers, packed.
    Numbers,
}

/// Where the entries and numbers of the message called `name` lie deeper than at its top.
fn nesting(name: &str) -> &'static [(u32, Inside)] {
    use Inside::{Message, Numbers};
    match name {
        // Of each input the shape and the contents, which have five fields of whole numbers; outputs.
        "ModelInferRequest" => &[
            (
                5,
                Message(&[
                    (3, Numbers),
                    (5, Message(&[(1, Numbers), (2, Numbers), (3, Numbers), (4, Numbers), (5, Numbers)])),
                ]),
            ),
            (6, Message(&[])),
        ],
        // The request.
        "ClassifyStreamRequest" => &[(2, Message(&[]))],
        _ => &[],
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Length-delimited fields.
    entries: usize,
    /// Numbers, packed or not.
    numbers: usize,
}

impl Counts {
    fn check(&self) -> Result<(), Status> {
        let refuse = |what: String| Err(Status::resource_exhausted(format!("the message has more than {what}")));
        if self.entries > MAX_ENTRIES {
            refuse(format!("{MAX_ENTRIES} entries"))
        } else if self.numbers > MAX_NUMBERS {
            refuse(format!("{MAX_NUMBERS} numbers outside raw_input_contents"))
        } else {
            Ok(())
        }
    }
}

/// Counts what is in `message` into `counts`.
fn count(mut message: &[u8], nesting: &[(u32, Inside)], counts: &mut Counts) -> Result<(), Status> {
    while !message.is_empty() {
        let (field, wire_type) = decode_key(&mut message).map_err(|error| malformed(&error))?;
        if wire_type != WireType::LengthDelimited {
            counts.numbers += 1;
            counts.check()?;
            skip_field(wire_type, field, &mut message, DecodeContext::default()).map_err(|error| malformed(&error))?;
            continue;
        }
        counts.entries += 1;
        counts.check()?;
        let length = decode_varint(&mut message).map_err(|error| malformed(&error))?;
        let value = usize::try_from(length).ok().and_then(|length| message.split_off(..length)).ok_or_else(|| {
            Status::invalid_argument(format!(
                "a field of the message says that it has {length} bytes, but {} are left",
                message.len()
            ))
        })?;
        match nesting.iter().find(|(nested, _)| *nested == field) {
            Some((_, Inside::Message(nesting))) => count(value, nesting, counts)?,
            Some((_, Inside::Numbers)) => {
                // Of a number's bytes only the last is below 128.
                counts.numbers += value.iter().filter(|&&byte| byte < 0x80).count();
                counts.check()?;
            }
            None => {}
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
    fn entries<T: Message + Name>(message: &T) -> Result<usize, Status> {
        let mut counts = Counts::default();
        count(&message.encode_to_vec(), nesting(T::NAME), &mut counts)?;
        Ok(counts.entries)
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
        assert_eq!(entries(&request).unwrap(), 1 + 1 + 4 + 3);
        // What is in a tensor's bytes is the tensor's own business, even if it looks like entries.
        request.raw_input_contents = vec![[0x2a, 0].repeat(MAX_ENTRIES).into()];
        assert_eq!(entries(&request).unwrap(), 10);
        request.inputs = vec![input; MAX_ENTRIES / 8];
        assert_eq!(entries(&request).unwrap_err().code(), tonic::Code::ResourceExhausted);

        let request = ClassifyRequest { images: vec!["".into(); MAX_ENTRIES - 1], ..Default::default() };
        assert_eq!(entries(&request).unwrap(), MAX_ENTRIES - 1);
        let message = ClassifyStreamRequest { id: "1".into(), request: Some(request) };
        assert_eq!(entries(&message).unwrap_err().code(), tonic::Code::ResourceExhausted);
    }

    #[test]
    fn numbers_are_counted_packed_and_unpacked() {
        let counted = |message: &[u8]| {
            let mut counts = Counts::default();
            count(message, nesting(ModelInferRequest::NAME), &mut counts).map(|()| counts.numbers)
        };
        let input = |shape: Vec<i64>, int64_contents: Vec<i64>| {
            let contents = InferTensorContents { int64_contents, fp32_contents: vec![0.5; 9], ..Default::default() };
            let input = InferInputTensor { shape, contents: Some(contents), ..Default::default() };
            ModelInferRequest { inputs: vec![input], ..Default::default() }.encode_to_vec()
        };
        assert_eq!(counted(&input(vec![1, -1], vec![0, 300, i64::MIN])).unwrap(), 2 + 3);
        // Field 3 of field 5, one number a field.
        assert_eq!(counted(&[0x2a, 4, 0x18, 1, 0x18, 2]).unwrap(), 2);
        for message in [input(vec![], vec![1; MAX_NUMBERS + 1]), input(vec![1; MAX_NUMBERS + 1], vec![])] {
            assert_eq!(counted(&message).unwrap_err().code(), tonic::Code::ResourceExhausted);
        }
    }
}
