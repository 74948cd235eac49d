//! Reading JSON bodies: their depth limit, bounded lists, and keeping long parsing off the runtime's workers.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Result};
use crate::serde_words::in_words;

/// Work on more bytes than this leaves the runtime's workers. Below it, the hop costs more than the work.
const INLINE_BYTES: usize = 64 << 10;

/// Parses `body` as a `T`, which must be an object. `what` names it in the error: "an inference request".
///
/// # Errors
/// `InvalidArgument` when the body is not UTF-8, nests deeper than `max_depth` or is not a `T`.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], max_depth: usize, what: &str) -> Result<T> {
    let text = str::from_utf8(body).map_err(|error| Error::invalid("the JSON is not UTF-8").with_source(error))?;
    check_depth(body, max_depth)?;
    let Object(value) = serde_json::from_str(text)
        .map_err(|error| Error::invalid(format!("the JSON is not {what}: {}", in_words(&error))))?;
    Ok(value)
}

/// A `T` that is written as an object. Those that serde derives would also be read from a list of their fields' values, which is nothing
/// that any protocol here knows.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfObject<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfObject<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(OfObject(PhantomData)).map(Self)
    }
}

/// Runs `work`, which goes over `bytes` bytes: here when they are few, else on the blocking pool.
///
/// # Errors
/// What `work` fails with; `Internal` when it panics.
pub(super) async fn off_worker<T, F>(bytes: usize, work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    if bytes <= INLINE_BYTES {
        return work();
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("the server failed on this request").with_source(error))?
}

/// Refuses a body that nests deeper than `max_depth`, before any parser follows it down.
fn check_depth(body: &[u8], max_depth: usize) -> Result<()> {
    // Long runs of numbers or of base64 have none of the bytes that matter, so they are skipped 32 at a time.
    const STRIDE: usize = 32;
    let mut depth = 0usize;
    let mut in_string = false;
    let mut position = 0;
    while position < body.len() {
        if let Some(chunk) = body.get(position..position + STRIDE)
            && chunk.iter().fold(0, |found, &byte| found | is_structural(byte)) == 0
        {
            position += STRIDE;
            continue;
        }
        match body[position] {
            b'\\' if in_string => position += 1,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > max_depth {
                    return Err(Error::invalid(format!("the JSON nests deeper than {max_depth} levels")));
                }
            }
            // Unbalanced brackets are the parser's to report.
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        position += 1;
    }
    Ok(())
}

/// 1 for a byte that matters to [`check_depth`], else 0: numbers instead of `bool`s, so that the compiler sees no branches and
/// takes a whole stride at once.
fn is_structural(byte: u8) -> u8 {
    // `[` and `{` differ in one bit, and so do `]` and `}`, and `\` and `|`.
    let folded = byte | 0x20;
    u8::from(folded == b'{') | u8::from(folded == b'}') | u8::from(folded == b'|') | u8::from(byte == b'"')
}

/// A list of at most `MAX` elements: a short body cannot ask for much memory by naming many small things.
#[derive(Debug)]
pub(super) struct Bounded<T, const MAX: usize>(pub(super) Vec<T>);

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = elements.next_element()? {
                    if list.len() == MAX {
                        return Err(A::Error::custom(format_args!("a list has more than {MAX} elements")));
                    }
                    list.push(element);
                }
                Ok(list)
            }
        }
        deserializer.deserialize_seq(List::<T, MAX>(PhantomData)).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings_only() {
        for (text, depth) in [
            ("1", 0),
            ("[]", 1),
            (r#"{"a":[{"b":[1,2]}]}"#, 4),
            (r#"["[[[[", "\"[[[", "\\", [1]]"#, 2),
            ("[[],[],[[]]]", 3),
        ] {
            assert!(check_depth(text.as_bytes(), depth).is_ok(), "{text}");
            if depth > 0 {
                assert!(check_depth(text.as_bytes(), depth - 1).is_err(), "{text}");
            }
        }
    }

    #[test]
    fn the_skipping_of_plain_runs_changes_nothing() {
        // Whatever the alignment of the bracket within a stride, it is found; and a quote before it hides it.
        for padding in 0..70 {
            let spaces = " ".repeat(padding);
            assert!(check_depth(format!("[{spaces}[{spaces}]]").as_bytes(), 1).is_err());
            assert!(check_depth(format!("[\"{spaces}[{spaces}\"]").as_bytes(), 1).is_ok());
            assert!(check_depth(format!("[\"{spaces}\\\"[{spaces}\"]").as_bytes(), 1).is_ok());
            assert!(check_depth(format!("[\"{spaces}\\\\\",[{spaces}]]").as_bytes(), 1).is_err());
        }
    }

    #[test]
    fn a_depth_bomb_has_its_own_error() {
        let bomb = "[".repeat(1 << 20);
        let error = parse::<serde_json::Value>(bomb.as_bytes(), 32, "a request").unwrap_err();
        assert_eq!(error.message(), "the JSON nests deeper than 32 levels");
    }

    #[test]
    fn errors_say_where() {
        type Bytes = std::collections::BTreeMap<String, u8>;
        let error = parse::<Bytes>(b"{\"a\": 1,\n\"b\": \"2\"}", 8, "a table of bytes").unwrap_err();
        let expected = "the JSON is not a table of bytes: invalid type: string \"2\", expected a whole number that is not negative at line \
                        2 column 8";
        assert_eq!(error.message(), expected);
        assert_eq!(parse::<String>(b"\"\xff\"", 8, "a string").unwrap_err().message(), "the JSON is not UTF-8");
    }

    #[test]
    fn a_list_is_no_object() {
        #[derive(Debug, serde::Deserialize)]
        struct Pair {
            #[expect(dead_code, reason = "only whether it can be read matters")]
            one: u8,
        }
        parse::<Pair>(b"{\"one\": 1}", 8, "a pair").unwrap();
        let error = parse::<Pair>(b"[1]", 8, "a pair").unwrap_err();
        assert_eq!(
            error.message(),
            "the JSON is not a pair: invalid type: list, expected an object at line 1 column 0"
        );
    }

    #[test]
    fn lists_are_bounded() {
        assert_eq!(serde_json::from_str::<Bounded<u8, 3>>("[1,2,3]").unwrap().0, [1, 2, 3]);
        let error = serde_json::from_str::<Bounded<u8, 3>>("[1,2,3,4]").unwrap_err();
        assert!(error.to_string().starts_with("a list has more than 3 elements"), "{error}");
    }

    #[tokio::test]
    async fn panics_off_the_workers_are_internal_errors() {
        for size in [INLINE_BYTES, INLINE_BYTES + 1] {
            assert_eq!(off_worker(size, || Ok(7)).await.unwrap(), 7);
        }
        let error = off_worker::<(), _>(INLINE_BYTES + 1, || panic!("no")).await.unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Internal);
    }
}
