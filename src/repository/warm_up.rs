//! The first runs of a model's sessions: they put memory and kernels in place before the first request, and measure how long
//! batches take.

use std::time::Duration;

use crate::engine::Session;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Runs zeros through every session in each size that counts, and returns these sizes, ascending, with their times.
///
/// With `buckets` they are the sizes, since no other will be run; else 1, 2, 4 and so on up to `max_batch_size`, and what is
/// between them is interpolated.
///
/// # Errors
/// `Internal` when a run fails, or the graph does not keep its batch dimension.
pub(super) fn warm_up(
    sessions: &mut [Session],
    row_shape: [usize; 3],
    max_batch_size: usize,
    buckets: &[usize],
) -> Result<Vec<(usize, Duration)>> {
    let sizes = if buckets.is_empty() { powers_of_two(max_batch_size) } else { buckets.to_vec() };
    let mut measured: Vec<_> = sizes.iter().map(|&rows| (rows, Duration::MAX)).collect();
    for session in sessions {
        // The largest first: smaller ones then find room in its memory. A session's very first run prepares what all later ones
        // use, so it is not measured.
        run(session, row_shape, max_batch_size)?;
        for (rows, fastest) in measured.iter_mut().rev() {
            *fastest = run(session, row_shape, *rows)?.min(*fastest);
        }
    }
    Ok(measured)
}

/// 1, 2, 4 and so on, and `largest`.
pub(super) fn powers_of_two(largest: usize) -> Vec<usize> {
    let powers = std::iter::successors(Some(1usize), |size| size.checked_mul(2));
    powers.take_while(|&size| size < largest).chain([largest]).collect()
}

fn run(session: &mut Session, row_shape: [usize; 3], rows: usize) -> Result<Duration> {
    let [a, b, c] = row_shape;
    let zeros = Tensor::zeros(session.input().data_type, vec![rows, a, b, c])?;
    let (outputs, times) = session.run(&[zeros], rows)?;
    if let Some(output) = outputs.iter().find(|output| output.shape().first() != Some(&rows)) {
        return Err(Error::internal(format!(
            "a batch of {rows} gave an output of shape {:?}: the graph does not keep its batch dimension",
            output.shape()
        )));
    }
    Ok(times.input + times.infer + times.output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_double_up_to_the_largest() {
        for (largest, sizes) in
            [(1, &[1][..]), (2, &[1, 2]), (4, &[1, 2, 4]), (6, &[1, 2, 4, 6]), (9, &[1, 2, 4, 8, 9])]
        {
            assert_eq!(powers_of_two(largest), sizes);
        }
    }
}
