use super::*;
use crate::error::ErrorKind;

const LIMITS: ReadLimits = ReadLimits { max_json_depth: 32, max_tensor_bytes: 1 << 20 };

fn read_json(text: &str) -> Result<ParsedRequest> {
    read(&Bytes::copy_from_slice(text.as_bytes()), None, LIMITS)
}

/// A request of these inputs in JSON, with `binary` behind it and the right header.
fn read_binary(inputs: &str, binary: &[u8]) -> Result<ParsedRequest> {
    let json = format!(r#"{{"inputs":[{inputs}]}}"#);
    let body = [json.as_bytes(), binary].concat();
    read(&Bytes::from(body), Some(json.len()), LIMITS)
}

#[test]
fn keys_may_come_in_any_order() {
    let fields = [r#""data":[[1.5,-2]]"#, r#""shape":[1,2]"#, r#""datatype":"FP32""#, r#""name":"x""#];
    for first in 0..4 {
        for second in (0..4).filter(|&second| second != first) {
            let rest = (0..4).filter(|&index| index != first && index != second);
            let order: Vec<_> = [first, second].into_iter().chain(rest).map(|index| fields[index]).collect();
            let request = read_json(&format!(r#"{{"inputs":[{{{}}}]}}"#, order.join(","))).unwrap();
            let (name, tensor) = &request.inputs[0];
            assert_eq!((name.as_str(), tensor.shape()), ("x", [1, 2].as_slice()));
            assert_eq!(*tensor.to_slice::<f32>().unwrap(), [1.5, -2.0]);
        }
    }
}

#[test]
fn parameters_are_honoured_and_zero_means_the_default() {
    let input = r#"{"name":"x","shape":[1],"datatype":"FP32","data":[1]}"#;
    let request = read_json(&format!(
        r#"{{"id":"7","parameters":{{"priority":2,"timeout":1500,"top_k":3,"binary_data_output":true,"own":[1,{{}}]}},
        "inputs":[{input}],"outputs":[{{"name":"b","parameters":{{"binary_data":false}}}},
        {{"name":"a","parameters":{{"classification":4}}}}]}}"#
    ))
    .unwrap();
    assert_eq!((request.priority, request.top_k), (Some(2), Some(3)));
    assert_eq!(request.timeout, Some(Duration::from_micros(1500)));
    assert_eq!(request.form.id.as_deref(), Some("7"));
    let outputs: Vec<_> = request.outputs.iter().map(|output| (output.name.as_str(), output.classification)).collect();
    assert_eq!(outputs, [("b", None), ("a", Some(4))]);
    assert_eq!([request.form.is_binary(0), request.form.is_binary(1)], [false, true]);

    let request = read_json(&format!(
        r#"{{"id":null,"parameters":{{"priority":0,"timeout":0,"top_k":0}},"inputs":[{input}],"outputs":null}}"#
    ))
    .unwrap();
    assert_eq!((request.priority, request.timeout, request.top_k), (None, None, None));
    assert!(!request.form.is_binary(0));
}

#[test]
fn malformed_requests_are_refused() {
    let with_input = |input: &str| format!(r#"{{"inputs":[{input}]}}"#);
    let good = r#"{"name":"x","shape":[1],"datatype":"FP32","data":[1]}"#;
    assert!(read_json(&with_input(good)).is_ok());
    for text in [
        "",
        "[]",
        "{",
        "{}",
        r#"{"inputs":{}}"#,
        r#"{"inputs":[1]}"#,
        r#"{"inputs":[],"inputs":[]}"#,
        r#"{"id":1,"inputs":[]}"#,
        r#"{"inputs":[],"parameters":{"priority":-1}}"#,
        r#"{"inputs":[],"parameters":{"timeout":1.5}}"#,
        r#"{"inputs":[],"parameters":{"timeout":"1"}}"#,
        r#"{"inputs":[]} {}"#,
        &with_input(r#"{"name":"x","shape":[1],"datatype":"FP32"}"#),
        &with_input(r#"{"name":"x","shape":[1],"datatype":"FP32","data":null}"#),
        &with_input(r#"{"name":"x","shape":[1],"datatype":"FLOAT","data":[1]}"#),
        &with_input(r#"{"name":"x","shape":[1],"datatype":"fp32","data":[1]}"#),
        &with_input(r#"{"name":"x","shape":[-1],"datatype":"FP32","data":[1]}"#),
        &with_input(r#"{"name":"x","shape":[1.0],"datatype":"FP32","data":[1]}"#),
        &with_input(r#"{"name":"x","shape":[99999999999999999999],"datatype":"FP32","data":[1]}"#),
        &with_input(r#"{"name":"x","shape":1,"datatype":"FP32","data":[1]}"#),
        &with_input(r#"{"name":"x","shape":[4294967296,4294967296],"datatype":"FP32","data":[1]}"#),
        &with_input(&format!(r#"{{"name":"x","shape":[{}1],"datatype":"FP32","data":[1]}}"#, "1,".repeat(32))),
        &with_input(r#"{"name":"x","shape":[1],"datatype":"FP32","data":[1],"data":[1]}"#),
        &with_input(r#"{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}"#),
        &with_input(
            r#"{"name":"x","shape":[1],"datatype":"FP32","data":[1],"parameters":{"shared_memory_region":"r"}}"#,
        ),
        // Binary data that the header knows nothing of.
        &with_input(r#"{"name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}"#),
        &with_input(&format!("{good},{good}")),
        &with_input(&vec![good; 65].join(",")),
    ] {
        let error = read_json(text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
    }
    let bomb = with_input(&format!(r#"{{"name":"x","shape":[1],"datatype":"FP32","data":{}"#, "[".repeat(100_000)));
    assert_eq!(read_json(&bomb).unwrap_err().message(), "the JSON nests deeper than 32 levels");
}

#[test]
fn an_error_names_its_input() {
    let error = read_json(r#"{"inputs":[{"name":"x","shape":[2],"datatype":"UINT8","data":[1,256]}]}"#).unwrap_err();
    assert_eq!(error.message(), "input x: element 1 of the data, `256`, is not of type UINT8");
}

#[test]
fn binary_tensors_are_slices_of_the_body() {
    let inputs = r#"{"name":"a","shape":[2],"datatype":"UINT8","parameters":{"binary_data_size":2}},
        {"name":"b","shape":[1],"datatype":"INT16","data":[7]},
        {"name":"c","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":6}}"#;
    let request = read_binary(inputs, b"\x01\x02\x02\0\0\0hi").unwrap();
    let tensor = |index: usize| &request.inputs[index].1;
    assert_eq!(tensor(0).bytes(), [1u8, 2].as_slice());
    assert_eq!(tensor(1).bytes(), [7u8, 0].as_slice());
    assert_eq!(tensor(2).to_byte_strings().unwrap(), [b"hi".as_slice()]);
    assert_eq!(tensor(0).bytes().as_ptr() as usize + 2, tensor(2).bytes().as_ptr() as usize);
}

#[test]
fn binary_sizes_that_do_not_add_up_are_refused() {
    let input = |shape: &str, data_type: &str, size: &str| {
        format!(r#"{{"name":"x","shape":{shape},"datatype":"{data_type}","parameters":{{"binary_data_size":{size}}}}}"#)
    };
    let both = r#"{"name":"x","shape":[1],"datatype":"UINT8","data":[1],"parameters":{"binary_data_size":1}}"#;
    let cases: &[(String, &[u8])] = &[
        (input("[2]", "UINT8", "2"), &[1]),
        (input("[2]", "UINT8", "2"), &[1, 2, 3]),
        (input("[2]", "UINT8", "1"), &[1]),
        (input("[2]", "UINT8", "3"), &[1, 2, 3]),
        (input("[2]", "FP32", "4"), &[0; 4]),
        (input("[1]", "UINT8", "18446744073709551615"), &[1]),
        (input("[1]", "UINT8", "18446744073709551616"), &[1]),
        (input("[1]", "UINT8", "-1"), &[1]),
        (input("[18446744073709551615]", "FP64", "8"), &[0; 8]),
        // Byte strings: a truncated length, a truncated element, one of 1 GiB, and too few.
        (input("[1]", "BYTES", "3"), &[1, 0, 0]),
        (input("[1]", "BYTES", "5"), &[2, 0, 0, 0, 1]),
        (input("[1]", "BYTES", "5"), &[0, 0, 0, 64, 1]),
        (input("[2]", "BYTES", "5"), &[1, 0, 0, 0, 1]),
        (both.to_owned(), &[1]),
    ];
    for (input, binary) in cases {
        let error = read_binary(input, binary).expect_err(input);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{input}");
    }
    // The header points past the body, and into the middle of the JSON.
    let body = Bytes::from_static(br#"{"inputs":[]}"#);
    assert!(read(&body, Some(14), LIMITS).is_err());
    assert!(read(&body, Some(5), LIMITS).is_err());
    assert!(read(&body, Some(13), LIMITS).is_ok());
}

#[test]
fn a_raw_request_takes_its_shape_from_the_model() {
    let spec = |data_type, shape: &[i64]| TensorSpec { name: "x".to_owned(), data_type, shape: shape.to_vec() };
    let shape = |spec: &TensorSpec, bytes: usize| {
        read_raw(Bytes::from(vec![0; bytes]), spec).map(|request| request.inputs[0].1.shape().to_vec())
    };
    assert_eq!(shape(&spec(DataType::Fp32, &[-1, 3, 2]), 24).unwrap(), [1, 3, 2]);
    assert_eq!(shape(&spec(DataType::Uint8, &[2, 3]), 6).unwrap(), [2, 3]);
    assert_eq!(shape(&spec(DataType::Fp32, &[-1, 3, -1]), 48).unwrap(), [1, 3, 4]);
    for (spec, bytes) in [
        (spec(DataType::Fp32, &[-1, 3, 2]), 23),
        (spec(DataType::Fp32, &[-1, 3, 2]), 48),
        (spec(DataType::Fp32, &[-1, 3, -1]), 16),
        (spec(DataType::Fp32, &[-1, -1, -1]), 16),
        (spec(DataType::Fp32, &[-1, 0, -1]), 16),
    ] {
        assert!(shape(&spec, bytes).is_err(), "{spec:?} {bytes}");
    }
    let request = read_raw(Bytes::from_static(b"hi"), &spec(DataType::Bytes, &[-1, 1])).unwrap();
    assert_eq!(request.inputs[0].1.shape(), [1, 1]);
    assert_eq!(request.inputs[0].1.to_byte_strings().unwrap(), [b"hi".as_slice()]);
    assert!(request.form.is_binary(0));
}
