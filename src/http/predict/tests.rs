use super::*;
use crate::error::ErrorKind;

const LIMITS: ReadLimits = ReadLimits { json_depth: 32, pictures: 3, tensor_bytes: 1 << 20 };

fn tensor(instances: &str) -> Result<Tensor> {
    let body = format!(r#"{{"signature_name": "serving_default", "instances": {instances}}}"#);
    match read::<Options>(body.as_bytes(), "a predict request", DataType::Fp32, LIMITS)? {
        (Instances::Tensor(tensor), None) => Ok(tensor),
        other => panic!("{other:?}"),
    }
}

#[test]
fn numbers_are_a_tensor_of_the_shape_in_which_they_nest() {
    for (text, shape) in
        [("[1, 2, 3]", &[3][..]), (" [ [1, 2, 3] , [4, 5, 6]\n]", &[2, 3]), ("[[[[1]], [[2]], [[3]]]]", &[1, 3, 1, 1])]
    {
        let tensor = tensor(text).unwrap();
        assert_eq!(tensor.shape(), shape, "{text}");
        let values: Vec<f32> = (1..=tensor.len()).map(|value| value as f32).collect();
        assert_eq!(*tensor.to_slice::<f32>().unwrap(), values, "{text}");
    }
    for text in [
        "1",
        "null",
        "\"aGk=\"",
        "{}",
        "[1, [2]]",
        "[[1], 2]",
        "[[1, 2], [3]]",
        "[[1], [2, 3]]",
        "[1, {\"b64\": \"\"}]",
        "[1, {\"b64\": [1]}]",
        "[[1], {\"a\": [[]]}]",
        "[\"aGk=\"]",
        "[[]]",
        "[1e99]",
    ] {
        match tensor(text) {
            Ok(tensor) => assert!(tensor.is_empty(), "{text}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}"),
        }
    }
    let deep = format!("{}1{}", "[".repeat(31), "]".repeat(31));
    assert_eq!(tensor(&deep).unwrap().shape(), [1; 31]);
}

#[test]
fn objects_are_pictures() {
    let pictures = |instances: &str| -> Result<Vec<Bytes>> {
        let body = format!(r#"{{"instances": {instances}, "parameters": {{"top_k": 2}}}}"#);
        match read::<Options>(body.as_bytes(), "a predict request", DataType::Fp32, LIMITS)? {
            (Instances::Pictures(pictures), Some(Options { top_k: 2, .. })) => Ok(pictures),
            other => panic!("{other:?}"),
        }
    };
    let both = r#"[{"b64": "aGk="}, {"image_bytes": {"b64": "aG8"}}]"#;
    assert_eq!(pictures(both).unwrap(), [b"hi".as_slice(), b"ho"]);
    let many = format!("[{}{{}}]", "{},".repeat(100_000));
    assert_eq!(pictures(&many).unwrap_err().kind(), ErrorKind::PayloadTooLarge);
    for text in [
        "[{}]",
        r#"[{"b64": 1}]"#,
        r#"[{"b64": "*"}]"#,
        r#"[{"b64": "aGk="}, [1]]"#,
        r#"[{"b64": "aGk=", "image_bytes": {"b64": "aGk="}}]"#,
        r#"[{"image_bytes": "aGk="}]"#,
        r#"[{"picture": {"b64": "aGk="}}]"#,
    ] {
        assert_eq!(pictures(text).unwrap_err().kind(), ErrorKind::InvalidArgument, "{text}");
    }
}
