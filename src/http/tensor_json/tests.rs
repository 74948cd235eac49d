use super::*;
use crate::error::ErrorKind;

const MANY: usize = 1 << 20;

fn read(data: &str, data_type: DataType, shape: &[usize]) -> Result<Tensor> {
    // What `read_tensor` relies on.
    serde_json::from_str::<serde::de::IgnoredAny>(data).unwrap();
    read_tensor(data, data_type, shape.to_vec(), MANY)
}

fn floats(data: &str, shape: &[usize]) -> Result<Vec<f32>> {
    read(data, DataType::Fp32, shape).map(|tensor| tensor.to_slice::<f32>().unwrap().into_owned())
}

#[test]
fn data_is_flat_or_nested_as_the_shape_says() {
    for (data, shape, expected) in [
        ("[1,2,3,4]", vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]),
        ("[[1,2],[3,4]]", vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]),
        (" [ [ [ 1 , 2 ] ] ,\n[ [ 3 ,\t4 ] ] ] ", vec![2, 1, 2], vec![1.0, 2.0, 3.0, 4.0]),
        ("[[[[5]]]]", vec![1, 1, 1, 1], vec![5.0]),
        ("[5]", vec![1, 1, 1, 1], vec![5.0]),
        ("[5]", vec![], vec![5.0]),
        ("[]", vec![0, 3], vec![]),
        ("[[],[]]", vec![2, 0], vec![]),
    ] {
        assert_eq!(floats(data, &shape).unwrap(), expected, "{data} as {shape:?}");
    }
}

#[test]
fn data_of_another_form_is_refused() {
    for (data, shape) in [
        ("[1,2,3]", vec![2, 2]),
        ("[1,2,3,4,5]", vec![2, 2]),
        ("[]", vec![1]),
        ("5", vec![1]),
        ("5", vec![]),
        ("\"5\"", vec![1]),
        ("null", vec![1]),
        ("{}", vec![1]),
        ("[{}]", vec![1]),
        ("[{\"a\":[1]}]", vec![1]),
        // Ragged, though the number of elements is right.
        ("[[1,2,3],[4]]", vec![2, 2]),
        ("[[1],[2],[3],[4]]", vec![2, 2]),
        ("[[1,2,3,4]]", vec![2, 2]),
        ("[[1,2],[3,4],[]]", vec![2, 2]),
        ("[[1,2],3,4]", vec![2, 2]),
        ("[1,2,[3,4]]", vec![2, 2]),
        ("[[[1,2],[3,4]]]", vec![2, 2]),
        ("[[1,2]]", vec![2]),
        ("[[]]", vec![0]),
        ("[[],[],[]]", vec![2, 0]),
    ] {
        assert!(floats(data, &shape).is_err(), "{data} as {shape:?}");
    }
}

#[test]
fn floats_are_rounded_once_and_stay_in_range() {
    // The fourth lies just under the middle of two floats: rounded to a double on the way, it would go up.
    let data = "[0.1,16777217,1e-45,1.00000017881393432617187499,-0.0,3.4028235e38]";
    let bits: Vec<u32> = floats(data, &[6]).unwrap().into_iter().map(f32::to_bits).collect();
    assert_eq!(bits, [0x3dcc_cccd, 0x4b80_0000, 1, 0x3f80_0001, 0x8000_0000, 0x7f7f_ffff]);
    for data in ["[1e39]", "[-1e39]", "[1e400]", "[true]", "[null]", "[\"1\"]", "[\"NaN\"]"] {
        assert!(floats(data, &[1]).is_err(), "{data}");
    }
    let double = read("[0.1]", DataType::Fp64, &[1]).unwrap();
    assert_eq!(double.to_slice::<f64>().unwrap()[0].to_bits(), 0x3fb9_9999_9999_999a);
    assert!(read("[1e400]", DataType::Fp64, &[1]).is_err());
}

#[test]
fn integers_stay_in_the_range_of_their_type() {
    let in_range = [
        ("[0,255]", DataType::Uint8, vec![0, 255]),
        ("[65535]", DataType::Uint16, vec![255, 255]),
        ("[4294967295]", DataType::Uint32, vec![255; 4]),
        ("[18446744073709551615]", DataType::Uint64, vec![255; 8]),
        ("[-128,127]", DataType::Int8, vec![128, 127]),
        ("[-32768]", DataType::Int16, vec![0, 128]),
        ("[-2147483648]", DataType::Int32, vec![0, 0, 0, 128]),
        ("[-9223372036854775808]", DataType::Int64, vec![0, 0, 0, 0, 0, 0, 0, 128]),
        ("[true,false]", DataType::Bool, vec![1, 0]),
    ];
    for (data, data_type, bytes) in in_range {
        let count = data.matches(',').count() + 1;
        assert_eq!(read(data, data_type, &[count]).unwrap().bytes(), &bytes, "{data}");
    }
    for (data, data_type) in [
        ("[256]", DataType::Uint8),
        ("[-1]", DataType::Uint8),
        ("[65536]", DataType::Uint16),
        ("[4294967296]", DataType::Uint32),
        ("[18446744073709551616]", DataType::Uint64),
        ("[128]", DataType::Int8),
        ("[32768]", DataType::Int16),
        ("[2147483648]", DataType::Int32),
        ("[9223372036854775808]", DataType::Int64),
        ("[1.5]", DataType::Int64),
        ("[1e3]", DataType::Int32),
        ("[1]", DataType::Bool),
        ("[1.0]", DataType::Fp16),
    ] {
        assert_eq!(read(data, data_type, &[1]).unwrap_err().kind(), ErrorKind::InvalidArgument, "{data}");
    }
}

#[test]
fn errors_name_the_element_and_stay_short() {
    let error = floats("[1,2,true]", &[3]).unwrap_err();
    assert_eq!(error.message(), "element 2 of the data, `true`, is not of type FP32");
    let error = floats(&format!("[\"{}\"]", "é".repeat(1000)), &[1]).unwrap_err();
    assert!(error.message().len() < 120, "{error}");
}

#[test]
fn a_shape_is_checked_before_its_size_is_taken() {
    assert_eq!(floats("[1]", &[MANY, MANY]).unwrap_err().kind(), ErrorKind::PayloadTooLarge);
    assert_eq!(floats("[1]", &[usize::MAX, 2]).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(floats("[1]", &[usize::MAX]).unwrap_err().kind(), ErrorKind::PayloadTooLarge);
    assert_eq!(read("[]", DataType::Bytes, &[MANY + 1]).unwrap_err().kind(), ErrorKind::PayloadTooLarge);
}

#[test]
fn byte_strings_are_base64() {
    // "aGk=" is "hi"; padding may be left out, and any character escaped.
    let tensor = read(r#"["aGk=", "aGk", "", "\u0061Gk="]"#, DataType::Bytes, &[4]).unwrap();
    assert_eq!(tensor.to_byte_strings().unwrap(), [b"hi".as_slice(), b"hi", b"", b"hi"]);
    let escaped = read(r#"[["Pz8\/"]]"#, DataType::Bytes, &[1, 1]).unwrap();
    assert_eq!(escaped.bytes(), b"\x03\0\0\0???".as_slice());
    for data in [r#"["a"]"#, r#"["aGk*"]"#, r#"["aGk=","aGk="]"#, "[1]", "[null]", r#"["data:image/png;base64,aGk="]"#]
    {
        assert!(read(data, DataType::Bytes, &[1]).is_err(), "{data}");
    }
}

#[test]
fn lists_of_pictures_are_flat_and_counted() {
    assert_eq!(read_base64_list(r#"["aGk=","aG8="]"#, 2).unwrap(), [b"hi".as_slice(), b"ho"]);
    assert_eq!(read_base64_list("[]", 2).unwrap(), Vec::<Bytes>::new());
    assert_eq!(read_base64_list(r#"["","",""]"#, 2).unwrap_err().kind(), ErrorKind::PayloadTooLarge);
    for data in ["\"aGk=\"", "{}", "null", "[[\"aGk=\"]]", "[1]", "[{\"b64\":\"aGk=\"}]"] {
        assert_eq!(read_base64_list(data, 2).unwrap_err().kind(), ErrorKind::InvalidArgument, "{data}");
    }
}

#[test]
fn nested_output_has_the_tensors_shape() {
    let tensor = Tensor::from_vec(vec![2, 1, 3], vec![1i32, 2, 3, 4, 5, 6]).unwrap();
    let nested = NestedJson::new("out", &tensor).unwrap();
    assert_eq!(serde_json::to_string(&nested).unwrap(), "[[[1,2,3]],[[4,5,6]]]");
    assert_eq!(serde_json::to_string(&nested.row(1)).unwrap(), "[[4,5,6]]");
    let strings = Tensor::from_byte_strings(&["a"]).unwrap();
    assert_eq!(NestedJson::new("out", &strings).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

fn written(tensor: &Tensor) -> String {
    serde_json::to_string(&JsonData::new("out", tensor).unwrap()).unwrap()
}

#[test]
fn outputs_are_written_in_the_shortest_form_that_reads_back() {
    let values = vec![0.1f32, 1.0, 16_777_216.0, f32::MIN_POSITIVE, -0.0, f32::NAN, f32::INFINITY];
    let text = written(&Tensor::from_vec(vec![7], values.clone()).unwrap());
    assert_eq!(text, "[0.1,1.0,16777216.0,1.1754944e-38,-0.0,null,null]");
    let read_back = floats(&text.replace("null", "0"), &[7]).unwrap();
    assert_eq!(read_back[..5], values[..5]);

    assert_eq!(written(&Tensor::from_vec(vec![2], vec![i64::MIN, 1]).unwrap()), "[-9223372036854775808,1]");
    let labels = Tensor::from_byte_strings(&["1.5:0:a \"cat\"", "é"]).unwrap();
    assert_eq!(written(&labels), r#"["1.5:0:a \"cat\"","é"]"#);
    let flags = Tensor::new(DataType::Bool, vec![2], Bytes::from_static(&[0, 1])).unwrap();
    assert_eq!(written(&flags), "[false,true]");
    let half = Tensor::from_vec(vec![1], vec![half::f16::ONE]).unwrap();
    assert_eq!(JsonData::new("out", &half).unwrap_err().kind(), ErrorKind::InvalidArgument);
}
