use super::*;
use crate::error::ErrorKind;

/// A request with one input of typed contents.
fn typed(datatype: &str, shape: &[i64], contents: InferTensorContents) -> ModelInferRequest {
    let input = InferInputTensor {
        name: "x".into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        contents: Some(contents),
        ..Default::default()
    };
    ModelInferRequest { inputs: vec![input], ..Default::default() }
}

fn tensor_of(request: ModelInferRequest) -> Result<Tensor> {
    read(request).map(|mut request| request.inputs.remove(0).1)
}

fn contents() -> InferTensorContents {
    InferTensorContents::default()
}

#[test]
fn every_datatype_has_its_field() {
    let bytes = |values: &[&[u8]]| values.concat();
    for (datatype, contents, expected) in [
        ("BOOL", InferTensorContents { bool_contents: vec![true, false], ..contents() }, vec![1, 0]),
        ("INT8", InferTensorContents { int_contents: vec![-128, 127], ..contents() }, vec![0x80, 0x7f]),
        (
            "INT16",
            InferTensorContents { int_contents: vec![-2, 300], ..contents() },
            bytes(&[&(-2i16).to_le_bytes(), &300i16.to_le_bytes()]),
        ),
        (
            "INT32",
            InferTensorContents { int_contents: vec![-2, i32::MAX], ..contents() },
            bytes(&[&(-2i32).to_le_bytes(), &i32::MAX.to_le_bytes()]),
        ),
        (
            "INT64",
            InferTensorContents { int64_contents: vec![-2, i64::MAX], ..contents() },
            bytes(&[&(-2i64).to_le_bytes(), &i64::MAX.to_le_bytes()]),
        ),
        ("UINT8", InferTensorContents { uint_contents: vec![0, 255], ..contents() }, vec![0, 255]),
        (
            "UINT16",
            InferTensorContents { uint_contents: vec![1, 65_535], ..contents() },
            bytes(&[&1u16.to_le_bytes(), &u16::MAX.to_le_bytes()]),
        ),
        (
            "UINT32",
            InferTensorContents { uint_contents: vec![1, u32::MAX], ..contents() },
            bytes(&[&1u32.to_le_bytes(), &u32::MAX.to_le_bytes()]),
        ),
        (
            "UINT64",
            InferTensorContents { uint64_contents: vec![1, u64::MAX], ..contents() },
            bytes(&[&1u64.to_le_bytes(), &u64::MAX.to_le_bytes()]),
        ),
        (
            "FP32",
            InferTensorContents { fp32_contents: vec![1.5, f32::NAN], ..contents() },
            bytes(&[&1.5f32.to_le_bytes(), &f32::NAN.to_le_bytes()]),
        ),
        (
            "FP64",
            InferTensorContents { fp64_contents: vec![1.5, -0.0], ..contents() },
            bytes(&[&1.5f64.to_le_bytes(), &(-0f64).to_le_bytes()]),
        ),
        (
            "BYTES",
            InferTensorContents { bytes_contents: vec!["ab".into(), "".into()], ..contents() },
            vec![2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0],
        ),
    ] {
        let tensor = tensor_of(typed(datatype, &[1, 2], contents)).unwrap();
        assert_eq!(
            (tensor.data_type().as_str(), tensor.shape(), &tensor.bytes()[..]),
            (datatype, &[1, 2][..], &*expected)
        );
    }
}

#[test]
fn typed_contents_that_do_not_fit_are_refused() {
    for (datatype, contents, said) in [
        ("INT8", InferTensorContents { int_contents: vec![0, 128], ..contents() }, "128 is no INT8"),
        ("INT16", InferTensorContents { int_contents: vec![0, -32_769], ..contents() }, "-32769 is no INT16"),
        ("UINT8", InferTensorContents { uint_contents: vec![0, 256], ..contents() }, "256 is no UINT8"),
        ("UINT16", InferTensorContents { uint_contents: vec![0, 65_536], ..contents() }, "65536 is no UINT16"),
        ("FP16", InferTensorContents { fp32_contents: vec![0.0; 2], ..contents() }, "FP16 has no typed contents"),
        (
            "FP32",
            InferTensorContents { fp64_contents: vec![0.0; 2], ..contents() },
            "into fp32_contents, not into fp64",
        ),
        ("UINT8", InferTensorContents { int_contents: vec![0; 2], ..contents() }, "into uint_contents, not into int_"),
        (
            "FP32",
            InferTensorContents { fp32_contents: vec![0.0; 2], bytes_contents: vec!["".into()], ..contents() },
            "not into bytes_contents",
        ),
        ("FP32", InferTensorContents { fp32_contents: vec![0.0; 3], ..contents() }, "2 elements"),
        ("BYTES", InferTensorContents { bytes_contents: vec!["".into()], ..contents() }, "[1]"),
        ("FP32", contents(), "2 elements"),
        ("fp32", contents(), "no datatype fp32"),
        ("", contents(), "no datatype"),
    ] {
        let error = tensor_of(typed(datatype, &[2], contents)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().starts_with("input x: "), "{error}");
        assert!(error.message().contains(said), "{error} does not say {said}");
    }
}

#[test]
fn raw_contents_are_not_copied() {
    let raw = Bytes::from_static(&[1, 2, 3, 4]);
    let mut request = typed("UINT8", &[2, 2], contents());
    request.inputs[0].contents = None;
    request.raw_input_contents = vec![raw.clone()];
    assert_eq!(tensor_of(request).unwrap().bytes().as_ptr(), raw.as_ptr());
}
