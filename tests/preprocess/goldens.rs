//! Against Pillow and torchvision, to the bit: `tests/reference/preprocess.py` draws the pictures and works out what has to
//! come out of them.

use convoy::preprocess::{PictureLimits, Preprocessor, Recipe, RowMut};
use convoy::tensor::{DataType, Tensor};
use half::f16;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::read;

#[derive(Debug, Deserialize)]
struct Golden {
    file: String,
    recipe: Recipe,
    shape: Vec<i64>,
    data_type: DataType,
    sha256: String,
    samples: Vec<f64>,
}

/// The rows that preprocessing makes of `golden`'s picture, and the shape of one.
fn preprocess(golden: &Golden) -> (Tensor, [usize; 3]) {
    let preprocessor = Preprocessor::new(&golden.recipe, &golden.shape, golden.data_type).unwrap();
    let shape = preprocessor.row_shape();
    let length = golden.recipe.crops * shape.iter().product::<usize>();
    let encoded = read(&golden.file);
    let limits = PictureLimits::default();
    let tensor = match golden.data_type {
        DataType::Fp32 => {
            let mut row = vec![f32::NAN; length];
            preprocessor.run(&encoded, &limits, RowMut::F32(&mut row)).unwrap();
            Tensor::from_vec(vec![length], row)
        }
        DataType::Fp16 => {
            let mut row = vec![f16::NAN; length];
            preprocessor.run(&encoded, &limits, RowMut::F16(&mut row)).unwrap();
            Tensor::from_vec(vec![length], row)
        }
        _ => {
            let mut row = vec![0xAA; length];
            preprocessor.run(&encoded, &limits, RowMut::U8(&mut row)).unwrap();
            Tensor::from_vec(vec![length], row)
        }
    };
    (tensor.unwrap(), shape)
}

fn value(tensor: &Tensor, index: usize) -> f64 {
    match tensor.data_type() {
        DataType::Fp32 => f64::from(tensor.to_slice::<f32>().unwrap()[index]),
        DataType::Fp16 => f64::from(tensor.to_slice::<f16>().unwrap()[index]),
        _ => f64::from(tensor.to_slice::<u8>().unwrap()[index]),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn tensors_equal_pillows_to_the_bit() {
    let goldens: Vec<Golden> = serde_json::from_slice(&read("golden.json")).unwrap();
    assert!(goldens.len() > 200, "the goldens are there");
    let mut wrong = Vec::new();
    for golden in &goldens {
        let (tensor, shape) = preprocess(golden);
        assert_eq!(shape.map(|side| side as i64).as_slice(), golden.shape, "{golden:?}");
        if hex(&Sha256::digest(tensor.bytes())) != golden.sha256 {
            let samples: Vec<f64> = (0..8).map(|part| value(&tensor, tensor.len() * part / 8)).collect();
            let Golden { file, recipe, samples: expected, .. } = golden;
            wrong.push(format!("{file} under {recipe:?}\n  {expected:?} was expected at 8 places\n  {samples:?} is"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), goldens.len(), wrong.join("\n"));
}
