//! From a model's output row to classes: softmax where the graph has none, and the k best.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::tensor::{DataType, Tensor};

/// What a model's output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scores {
    /// Raw scores: softmax turns them into probabilities.
    Logits,
    /// Probabilities already: the graph ends in a softmax, which must not be applied twice.
    Probabilities,
}

/// A class with its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// The index in the model's output.
    pub index: usize,
    /// The label, where the model has labels.
    pub label: Option<Arc<str>>,
    /// The softmax probability.
    pub score: f32,
}

/// The indices and values of the `k` highest entries of `row`, highest first, equal ones by index. NaN ranks below
/// everything.
pub fn top_k(row: &[f32], k: usize) -> Vec<(usize, f32)> {
    let rank = |&a: &usize, &b: &usize| descending(row[a], row[b]).then(a.cmp(&b));
    let mut order: Vec<usize> = (0..row.len()).collect();
    if k < order.len() {
        if k == 0 {
            return Vec::new();
        }
        order.select_nth_unstable_by(k - 1, rank);
        order.truncate(k);
    }
    order.sort_unstable_by(rank);
    order.into_iter().map(|index| (index, row[index])).collect()
}

/// The `k` most probable classes of one output row (`[classes]`) and their probabilities.
///
/// # Errors
/// `Internal` when the row is empty or holds nothing finite: there is no most probable class then.
pub fn classify(row: &[f32], scores: Scores, k: usize) -> Result<Vec<(usize, f32)>> {
    let mut best = top_k(row, k.max(1));
    let highest = best.first().map_or(f32::NAN, |&(_, score)| score);
    if !highest.is_finite() {
        return Err(Error::internal("the model's output is not a finite number, so no class can be named"));
    }
    if scores == Scores::Logits {
        // Summed in f64: a thousand small terms beside one large one lose digits in f32.
        let exponential = |score: f32| if score.is_nan() { 0.0 } else { f64::from(score - highest).exp() };
        let sum: f64 = row.iter().map(|&score| exponential(score)).sum();
        for (_, score) in &mut best {
            *score = (exponential(*score) / sum) as f32;
        }
    } else {
        for (_, score) in &mut best {
            *score = if score.is_nan() { 0.0 } else { *score };
        }
    }
    Ok(best)
}

/// The probabilities of one output row (`[classes]`).
///
/// # Errors
/// As [`classify`].
pub fn probabilities(row: &[f32], scores: Scores) -> Result<Vec<f64>> {
    let mut probabilities = vec![0.0; row.len()];
    for (index, probability) in classify(row, scores, row.len())? {
        probabilities[index] = f64::from(probability);
    }
    Ok(probabilities)
}

/// The logits of one output row (`[classes]`), which are the logarithms where it holds probabilities.
///
/// # Errors
/// As [`classify`].
pub fn logits(row: &[f32], scores: Scores) -> Result<Vec<f64>> {
    classify(row, scores, 1)?;
    let logit = |&score: &f32| match scores {
        Scores::Logits => f64::from(score),
        Scores::Probabilities => f64::from(score).ln(),
    };
    Ok(row.iter().map(logit).collect())
}

/// Averages the probabilities of several output rows (`[classes]` each), and puts the average back into the form of `scores`:
/// the logarithms of the probabilities where the rows are logits. Their softmax is the average.
///
/// # Errors
/// As [`classify`].
pub fn average<'r>(rows: impl Iterator<Item = &'r [f32]>, scores: Scores) -> Result<Vec<f32>> {
    match scores {
        Scores::Probabilities => {
            let rows = rows.map(|row| Ok((1.0, probabilities(row, scores)?))).collect::<Result<Vec<_>>>()?;
            Ok(mean(rows.into_iter()))
        }
        Scores::Logits => {
            let rows = rows.map(log_probabilities).collect::<Result<Vec<_>>>()?;
            let classes = rows.first().map_or(0, Vec::len);
            Ok((0..classes).map(|class| log_mean(rows.iter().map(|row| row[class])) as f32).collect())
        }
    }
}

/// The logarithms of the probabilities of a row of logits. They tell classes apart whose probabilities are too small for any
/// number but 0.
fn log_probabilities(row: &[f32]) -> Result<Vec<f64>> {
    classify(row, Scores::Logits, 1)?;
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let below = |&score: &f32| if score.is_nan() { f64::NEG_INFINITY } else { f64::from(score) - f64::from(highest) };
    let sum = row.iter().map(|score| below(score).exp()).sum::<f64>().ln();
    Ok(row.iter().map(|score| below(score) - sum).collect())
}

/// The logarithm of the mean of the numbers that have these logarithms.
fn log_mean(logarithms: impl ExactSizeIterator<Item = f64> + Clone) -> f64 {
    let count = logarithms.len() as f64;
    let highest = logarithms.clone().fold(f64::NEG_INFINITY, f64::max);
    if highest == f64::NEG_INFINITY {
        return highest;
    }
    highest + (logarithms.map(|logarithm| (logarithm - highest).exp()).sum::<f64>() / count).ln()
}

/// The mean of several rows of one length, number by number, by their weights; empty without rows.
pub fn mean(rows: impl Iterator<Item = (f64, Vec<f64>)>) -> Vec<f32> {
    let mut weights = 0.0;
    let mut sums: Vec<f64> = Vec::new();
    for (weight, row) in rows {
        weights += weight;
        sums.resize(row.len(), 0.0);
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += weight * value;
        }
    }
    sums.into_iter().map(|sum| (sum / weights) as f32).collect()
}

/// The elements of a floating-point output.
///
/// # Errors
/// `InvalidArgument` for an output of another type.
pub fn to_f32(tensor: &Tensor) -> Result<Cow<'_, [f32]>> {
    Ok(match tensor.data_type() {
        DataType::Fp16 => tensor.to_slice::<half::f16>()?.iter().map(|value| value.to_f32()).collect(),
        DataType::Fp64 => tensor.to_slice::<f64>()?.iter().map(|&value| value as f32).collect(),
        DataType::Fp32 => tensor.to_slice::<f32>()?,
        other => return Err(Error::invalid(format!("an output of {other} holds no class scores"))),
    })
}

/// A floating-point output of `data_type`, rounded from `values`.
///
/// # Errors
/// `InvalidArgument` when `shape` is not of as many elements.
pub fn from_f32(data_type: DataType, shape: Vec<usize>, values: &[f32]) -> Result<Tensor> {
    match data_type {
        DataType::Fp16 => Tensor::from_vec(shape, values.iter().map(|&value| half::f16::from_f32(value)).collect()),
        DataType::Fp64 => Tensor::from_vec(shape, values.iter().map(|&value| f64::from(value)).collect()),
        _ => Tensor::from_vec(shape, values.to_vec()),
    }
}

fn descending(a: f32, b: f32) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => b.partial_cmp(&a).unwrap_or(Ordering::Equal),
        (a_is_nan, b_is_nan) => a_is_nan.cmp(&b_is_nan),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_come_first_and_ties_go_by_index() {
        let row = [0.5, 2.0, -1.0, 2.0, 0.5, f32::NEG_INFINITY, 0.0, -0.0];
        assert_eq!(top_k(&row, 3), [(1, 2.0), (3, 2.0), (0, 0.5)]);
        let all: Vec<_> = top_k(&row, 99).into_iter().map(|(index, _)| index).collect();
        assert_eq!(all, [1, 3, 0, 4, 6, 7, 2, 5]);
        assert!(top_k(&row, 0).is_empty());
        assert!(top_k(&[], 5).is_empty());
    }

    #[test]
    fn softmax_agrees_with_figures_worked_out_by_hand() {
        // exp(0..3) = 1, e, e², e³; their sum is 31.192875.
        let classes = classify(&[0.0, 1.0, 2.0, 3.0], Scores::Logits, 2).unwrap();
        assert_eq!(classes[0].0, 3);
        assert!((classes[0].1 - 0.643_914_3).abs() < 1e-6);
        assert!((classes[1].1 - 0.236_882_8).abs() < 1e-6);
        // Large logits do not overflow.
        let classes = classify(&[1e30, -1e30, 0.0], Scores::Logits, 3).unwrap();
        assert_eq!(classes, [(0, 1.0), (2, 0.0), (1, 0.0)]);
    }

    #[test]
    fn probabilities_are_left_alone() {
        let classes = classify(&[0.25, 0.75], Scores::Probabilities, 5).unwrap();
        assert_eq!(classes, [(1, 0.75), (0, 0.25)]);
    }

    #[test]
    fn the_average_is_of_probabilities_and_its_softmax_gives_it_back() {
        // Logits whose softmax is (1/4, 3/4) and (1/2, 1/2): the average is (3/8, 5/8).
        let rows = [[0.0, 3f32.ln()], [7.0, 7.0]];
        let logits = average(rows.iter().map(<[f32; 2]>::as_slice), Scores::Logits).unwrap();
        assert!((logits[0] - 0.375f32.ln()).abs() < 1e-6 && (logits[1] - 0.625f32.ln()).abs() < 1e-6, "{logits:?}");
        let classes = classify(&logits, Scores::Logits, 2).unwrap();
        assert!((classes[0].1 - 0.625).abs() < 1e-6 && (classes[1].1 - 0.375).abs() < 1e-6, "{classes:?}");
        let rows = [[0.25, 0.75], [0.5, 0.5]];
        let averaged = average(rows.iter().map(<[f32; 2]>::as_slice), Scores::Probabilities).unwrap();
        assert_eq!(averaged, [0.375, 0.625]);
        // The second class's probabilities, e^-2000 and e^-1000, are no numbers; the logarithm of their mean is -1000 - ln 2.
        let rows = [[0.0, -2000.0], [1000.0, 0.0]];
        let logits = average(rows.iter().map(<[f32; 2]>::as_slice), Scores::Logits).unwrap();
        assert_eq!(logits, [0.0, -1000.0 - 2f32.ln()]);
        let impossible = [[0.0, f32::NEG_INFINITY, f32::NAN]; 2];
        let logits = average(impossible.iter().map(<[f32; 3]>::as_slice), Scores::Logits).unwrap();
        assert_eq!(logits, [0.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
        let broken = [[f32::NAN, f32::NAN]];
        assert!(average(broken.iter().map(<[f32; 2]>::as_slice), Scores::Logits).is_err());
    }

    #[test]
    fn nan_ranks_last_and_never_panics() {
        let classes = classify(&[f32::NAN, 1.0, f32::NAN, 1.0], Scores::Logits, 4).unwrap();
        assert_eq!(classes, [(1, 0.5), (3, 0.5), (0, 0.0), (2, 0.0)]);
        assert!(classify(&[f32::NAN; 3], Scores::Logits, 1).is_err());
        assert!(classify(&[f32::INFINITY, 0.0], Scores::Logits, 1).is_err());
        assert!(classify(&[], Scores::Logits, 1).is_err());
    }
}
