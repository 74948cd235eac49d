//! Checkpoints that PyTorch wrote (`tests/reference/zoo.py`), damaged ones, and hostile ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;

use super::*;

/// The same tensors in every form.
const FILES: [&str; 5] = ["plain-legacy.pth", "plain.pth", "plain-zip64.pth", "training.pth", "plain.safetensors"];

#[derive(Deserialize)]
struct Expected {
    shape: Vec<usize>,
    values: Vec<f64>,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/zoo").join(name)
}

fn read(name: &str) -> Bytes {
    std::fs::read(fixture(name)).unwrap().into()
}

#[test]
fn an_archive_gives_no_more_than_it_has() {
    let bytes = read("plain.pth");
    let mut archive = archive::Archive::open(&bytes).unwrap();
    let name = archive.names().find(|name| name.ends_with("/data.pkl")).unwrap().to_owned();
    let size = archive.file(&name).unwrap().unwrap().len();
    let error = (1..=bytes.len() / size).find_map(|_| archive.file(&name).err()).unwrap();
    assert!(error.message().ends_with("lies in other entries"), "{error}");
}

#[test]
fn every_format_gives_the_tensors_that_were_saved() {
    let expected: BTreeMap<String, Expected> = serde_json::from_slice(&read("plain.json")).unwrap();
    for file in FILES {
        let checkpoint = Checkpoint::read(&fixture(file)).unwrap();
        let names: Vec<_> = checkpoint.iter().map(|(name, _)| name).collect();
        assert_eq!(names, expected.keys().collect::<Vec<_>>(), "{file}");
        for (name, tensor) in checkpoint.iter() {
            assert_eq!(tensor.shape(), expected[name].shape, "{file}: {name}");
            if name == "num_batches_tracked" {
                assert_eq!(**tensor.bytes(), 9i64.to_le_bytes());
                assert!(tensor.to_fp32(name).unwrap_err().message().contains("num_batches_tracked holds Int64"));
                continue;
            }
            let values: Vec<f32> = expected[name].values.iter().map(|&value| value as f32).collect();
            assert_eq!(*tensor.to_fp32(name).unwrap().to_slice::<f32>().unwrap(), values, "{file}: {name}");
        }
    }
}

#[test]
fn tensors_share_the_files_buffer() {
    for file in FILES {
        let bytes = read(file);
        let inside = bytes.as_ptr_range();
        let checkpoint = Checkpoint::parse(&bytes).unwrap();
        for name in ["full", "row", "parameter", "half"] {
            assert!(inside.contains(&checkpoint.get(name).unwrap().bytes().as_ptr()), "{file}: {name} was copied");
        }
    }
}

#[test]
fn a_model_saved_whole_is_refused_by_the_class_it_asks_for() {
    let error = Checkpoint::read(&fixture("whole-model.pth")).unwrap_err();
    assert!(error.message().contains("asks for torch.nn.modules.activation.ReLU, which is not allowed"), "{error}");
}

#[test]
fn files_that_are_no_checkpoints_are_refused() {
    for bytes in [&b""[..], b"PK\x03\x04", b"<html>", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", b"PK\x05\x06"] {
        assert!(Checkpoint::parse(&Bytes::from_static(bytes)).is_err(), "{bytes:?}");
    }
    assert!(Checkpoint::read(Path::new("absent.pth")).unwrap_err().message().contains("absent.pth cannot be read"));
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    for file in FILES {
        let bytes = read(file);
        for length in 0..bytes.len() {
            assert!(Checkpoint::parse(&bytes.slice(..length)).is_err(), "{file} cut off at {length}");
        }
    }
}

#[test]
fn damaged_files_neither_panic_nor_claim_memory() {
    let mut random = random::normal(1, "mutations").map(|z| (z * 1e9).abs() as usize);
    let mut random = move |below: usize| random.next().expect("the numbers never end") % below;
    for file in FILES {
        let original = read(file);
        for _ in 0..5_000 {
            let mut bytes = original.to_vec();
            for _ in 0..=random(4) {
                let position = random(bytes.len());
                bytes[position] = [random(256) as u8, 0, 0xff, bytes[position] ^ 1 << random(8)][random(4)];
            }
            let bytes = Bytes::from(bytes);
            let Ok(checkpoint) = Checkpoint::parse(&bytes) else { continue };
            let inside = bytes.as_ptr_range();
            let copied: usize = checkpoint
                .iter()
                .filter(|(_, tensor)| !inside.contains(&tensor.bytes().as_ptr()))
                .map(|(_, tensor)| tensor.bytes().len())
                .sum();
            assert!(copied <= bytes.len(), "{file} became {copied} bytes of copies");
        }
    }
}

#[test]
fn a_directory_beyond_four_gigabytes_is_found_through_the_zip64_record() {
    // PyTorch always writes the record; only in large files do the old fields point to it.
    let mut bytes = read("plain.pth").to_vec();
    let end = bytes.windows(4).rposition(|window| window == b"PK\x05\x06").unwrap();
    bytes[end + 10..end + 12].fill(0xff);
    bytes[end + 16..end + 20].fill(0xff);
    let found = Checkpoint::parse(&bytes.into()).unwrap();
    assert_eq!(found, Checkpoint::read(&fixture("plain.pth")).unwrap());
}

#[test]
fn a_damaged_storage_is_found_by_its_checksum() {
    let mut bytes = read("plain.pth").to_vec();
    let value = (23f32 / 7.0).to_le_bytes();
    let position = bytes.windows(4).position(|window| window == value).unwrap();
    bytes[position] ^= 1;
    let error = Checkpoint::parse(&bytes.into()).unwrap_err();
    assert!(error.message().contains("its checksum is wrong"), "{error}");
}

/// A file of the old format with this object and one storage called `0` of four FP32 elements, 1 to 4.
fn legacy(object: &[u8]) -> Bytes {
    let mut bytes = pytorch::LEGACY_MAGIC.to_vec();
    bytes.extend(b"\x80\x02M\xe9\x03.\x80\x02}.");
    bytes.extend(object);
    bytes.extend(b"\x80\x02]X\x01\x00\x00\x000a.");
    bytes.extend(4i64.to_le_bytes());
    bytes.extend([1f32, 2.0, 3.0, 4.0].into_iter().flat_map(f32::to_le_bytes));
    bytes.into()
}

/// The pickle of a dictionary with one tensor called `x`.
fn tensor(elements: i32, view: Option<[i32; 2]>, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let int = |value: &i32| [&b"J"[..], &value.to_le_bytes()].concat();
    let tuple = |values: &[i32]| [b"(", &*values.iter().flat_map(int).collect::<Vec<_>>(), b"t"].concat();
    let view = view
        .map_or(b"N".to_vec(), |[first, count]| [b"(X\x01\x00\x00\x00v", &*int(&first), &*int(&count), b"t"].concat());
    [
        b"\x80\x02}X\x01\x00\x00\x00xctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n",
        &b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu"[..],
        &int(&elements),
        &view,
        b"tQ",
        &int(&offset),
        &tuple(shape),
        &tuple(strides),
        b"\x89NtRs.",
    ]
    .concat()
}

fn values(object: &[u8]) -> Result<Vec<f32>> {
    let checkpoint = Checkpoint::parse(&legacy(object))?;
    let tensor = checkpoint.get("x").unwrap().to_fp32("x")?;
    Ok(tensor.to_slice()?.into_owned())
}

#[test]
fn offsets_strides_and_views_are_honoured() {
    assert_eq!(values(&tensor(4, None, 0, &[2, 2], &[2, 1])).unwrap(), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(values(&tensor(4, None, 0, &[2, 2], &[1, 2])).unwrap(), [1.0, 3.0, 2.0, 4.0]);
    assert_eq!(values(&tensor(4, None, 1, &[2], &[2])).unwrap(), [2.0, 4.0]);
    assert_eq!(values(&tensor(4, None, 3, &[1, 1], &[9, 9])).unwrap(), [4.0]);
    assert_eq!(values(&tensor(2, Some([1, 2]), 1, &[1], &[1])).unwrap(), [3.0]);
}

#[test]
fn the_weights_are_the_nested_dictionary_that_has_tensors() {
    // {"model": {}, "state_dict": {"x": …}}: the first holds a script's options.
    let weights = tensor(4, None, 0, &[4], &[1]);
    let weights = &weights[2..weights.len() - 1];
    let object = [&b"\x80\x02}X\x05\x00\x00\x00model}sX\x0a\x00\x00\x00state_dict"[..], weights, b"s."].concat();
    assert_eq!(values(&object).unwrap(), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn weights_that_no_trained_network_has_are_refused_by_name() {
    let one = |key: &str, value: f32| {
        let bytes = value.to_le_bytes();
        let view = TensorView::new(Dtype::F32, vec![1], &bytes).unwrap();
        let file = safetensors::serialize([(key, view)], None).unwrap();
        Weights::from_checkpoint(Checkpoint::parse(&file.into()).unwrap(), "file.pth").tensor(key, &[1])
    };
    for (key, value) in [("bn.weight", -1.0), ("bn.running_var", 0.0), ("fc.bias", f32::MIN)] {
        assert!(one(key, value).is_ok(), "{key}: {value}");
    }
    for (key, value) in [("fc.weight", f32::NAN), ("fc.weight", f32::NEG_INFINITY), ("bn.running_var", -0.5)] {
        let message = one(key, value).unwrap_err().message().to_owned();
        assert_eq!(message, format!("the tensor {key} of file.pth holds {value}"));
    }
}

#[test]
fn a_classifier_without_rows_does_not_make_a_network_without_classes() {
    let file = safetensors::serialize([("fc.weight", TensorView::new(Dtype::F32, vec![0, 4], &[]).unwrap())], None);
    let weights = Weights::from_checkpoint(Checkpoint::parse(&file.unwrap().into()).unwrap(), "file.pth");
    assert_eq!(weights.rows("fc.weight"), None);
}

#[test]
fn tensors_outside_their_storage_are_refused() {
    let outside = [
        tensor(4, None, 0, &[5], &[1]),
        tensor(4, None, 1, &[4], &[1]),
        tensor(4, None, 0, &[2, 2], &[3, 1]),
        tensor(4, None, 0, &[2], &[4]),
        tensor(4, None, i32::MAX, &[1], &[1]),
        tensor(5, None, 0, &[5], &[1]),
        tensor(i32::MAX, None, 0, &[i32::MAX], &[0]),
        tensor(4, None, 0, &[i32::MAX; 3], &[0, 0, 0]),
        tensor(4, None, 0, &[i32::MAX; 8], &[i32::MAX; 8]),
        tensor(4, None, 0, &[4], &[]),
        tensor(2, Some([3, 2]), 0, &[1], &[1]),
        tensor(2, Some([i32::MAX, i32::MAX]), 0, &[1], &[1]),
    ];
    for (index, object) in outside.iter().enumerate() {
        let error = values(object).unwrap_err();
        assert!(error.message().contains("the tensor x lies outside its storage"), "{index}: {error}");
    }
    for negative in [tensor(4, None, -1, &[1], &[1]), tensor(4, None, 0, &[-1], &[1]), tensor(4, None, 0, &[1], &[-1])]
    {
        assert!(values(&negative).unwrap_err().message().contains("malformed"));
    }
}

#[test]
fn hostile_pickles_are_refused() {
    let hostile: [(&[u8], &str); 10] = [
        (b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.", "asks for posix.system, which is not allowed"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "asks for builtins.eval, which is not allowed"),
        // INST, OBJ, NEWOBJ and EXT1 would make objects too.
        (b"\x80\x02(iposix\nsystem\n.", "the opcode 0x69"),
        (b"\x80\x02(cposix\nsystem\no.", "asks for posix.system"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "the opcode 0x81"),
        (b"\x80\x02\x82\x01.", "the opcode 0x82"),
        // A text of 2 GiB, an empty stack, and a mark that nothing may reach under.
        (b"\x80\x02X\xff\xff\xff\x7fa.", "cut off"),
        (b"\x80\x02R.", "malformed"),
        (b"\x80\x02]N(a.", "malformed"),
        (b"\x80\x02N0.", "the opcode 0x30"),
    ];
    for (object, expected) in hostile {
        let error = Checkpoint::parse(&legacy(object)).unwrap_err();
        assert!(error.message().contains(expected), "{error}");
    }
}

#[test]
fn pickles_cannot_grow_beyond_the_opcodes_they_have() {
    let endless = [b"\x80\x02".to_vec(), vec![b'N'; 2 << 20], b".".to_vec()].concat();
    assert!(values(&endless).unwrap_err().message().contains("opcodes"));

    // 1,000 pairs, handed to OrderedDict 2,000 times.
    let pairs = [&b"\x80\x02]q\x00("[..], &b"NN\x86".repeat(1_000), b"e"].concat();
    let bomb = [pairs, b"ccollections\nOrderedDict\nh\x00\x85R".repeat(2_000), b".".to_vec()].concat();
    assert!(values(&bomb).unwrap_err().message().contains("opcodes"));

    // A shape of 100,000 dimensions.
    let shape = tensor(4, None, 0, &vec![1; 100_000], &[1]);
    assert!(values(&shape).unwrap_err().message().contains("malformed"));
}

#[test]
fn random_weights_are_those_of_the_reference_bit_for_bit() {
    let expected: BTreeMap<String, Vec<u32>> = serde_json::from_slice(&read("random.json")).unwrap();
    let shapes: [(&str, &[usize]); 5] = [
        ("conv.weight", &[2, 3, 3, 3]),
        ("bn.weight", &[4]),
        ("bn.running_var", &[4]),
        ("bn.bias", &[4]),
        ("fc.weight", &[3, 5]),
    ];
    assert_eq!(expected.len(), shapes.len());
    for (key, shape) in shapes {
        let bits: Vec<_> = random::values(7, key, shape).into_iter().map(f32::to_bits).collect();
        assert_eq!(bits, expected[key], "{key}");
    }
}

#[test]
fn random_numbers_are_nearly_normal() {
    let sample: Vec<_> = random::normal(0, "sample").take(100_000).collect();
    let mean = sample.iter().sum::<f64>() / sample.len() as f64;
    let variance = sample.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / sample.len() as f64;
    assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let weights = || Weights::open(&Origin::File(fixture("plain.safetensors"))).unwrap();
    let all: BTreeMap<String, Vec<usize>> = serde_json::from_slice::<BTreeMap<String, Expected>>(&read("plain.json"))
        .unwrap()
        .into_iter()
        .map(|(key, expected)| (key, expected.shape))
        .collect();
    assert!(weights().check(&all, &all).is_ok());

    let mut missing = all.clone();
    missing.insert("head.weight".to_owned(), vec![10, 4]);
    let mut reshaped = all.clone();
    reshaped.insert("full".to_owned(), vec![6, 4]);
    let mut unknown = all.clone();
    unknown.remove("full");
    for (expected, sentence) in [
        (missing, "the tensor head.weight is missing, which the architecture takes with the shape [10, 4]"),
        (reshaped, "the tensor full has the shape [4, 6], where the architecture takes [6, 4]"),
        (unknown, "the architecture has no tensor full, which is here with the shape [4, 6]"),
    ] {
        let error = weights().check(&expected, &expected).unwrap_err();
        assert_eq!(error.message(), format!("plain.safetensors does not fit the architecture: {sentence}"));
    }
}

#[test]
fn the_command_lines_word_for_weights() {
    assert_eq!("random:7".parse::<Origin>().unwrap(), Origin::Random(7));
    assert_eq!("a/b.pth".parse::<Origin>().unwrap(), Origin::File("a/b.pth".into()));
    assert!("random:".parse::<Origin>().unwrap_err().message().contains("whole number"));
}
