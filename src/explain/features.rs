//! The feature maps of a layer.

use image::RgbImage;

use super::cache::Purpose;
use super::graphs::{Graphs, Plan};
use super::subject::{Subject, lock};
use super::{ChannelStatistics, Features, picture};
use crate::error::{Error, Result};

/// Maps are enlarged to at least this.
const CELL: usize = 32;
/// Single values are squares of this side.
const VALUE: usize = 8;

/// What the layer called `layer` gives for a picture.
///
/// # Errors
/// `NotFound` when there is no such layer, `InvalidArgument` when it has no channels.
pub(super) fn features(subject: &Subject, encoded: &[u8], layer: &str) -> Result<Features> {
    let graphs = subject.graphs(Purpose::Features(layer.to_owned()), |network, make| {
        let from = network.layer(layer)?;
        make(Plan { network, from: &from, bounded: None, back: None, logits: None, optimize: subject.optimizes() })
    })?;
    let prepared = subject.prepare(encoded)?;
    let (values, layer, shape) = {
        let mut graphs = lock(&graphs);
        let run = graphs.forward(&prepared.row)?;
        (Graphs::row(&run, &graphs.from)?, graphs.layer.clone(), graphs.shape.clone())
    };
    let shape = shape.get(1..).unwrap_or_default().to_vec();
    let [channels, places @ ..] = shape.as_slice() else {
        return Err(Error::invalid(format!("the layer {layer} has no channels")));
    };
    let area = places.iter().product::<usize>();
    if *channels == 0 || area == 0 {
        return Err(Error::invalid(format!("the layer {layer} has no values")));
    }
    let statistics = values.chunks_exact(area).map(statistics).collect();
    let (cells, scale): (Vec<_>, _) = match places {
        [height, width] if area > 1 => {
            let cells = values.chunks_exact(area).map(|map| picture::gray(map, *width, *height)).collect();
            (cells, CELL.div_ceil(*width.max(height)))
        }
        // A single value has no range of its own.
        _ if area == 1 => {
            let row = picture::gray(&values, values.len(), 1);
            (row.pixels().map(|pixel| RgbImage::from_pixel(1, 1, *pixel)).collect(), VALUE)
        }
        // Without rows and columns each channel is a row of pixels.
        _ => (vec![picture::gray(&values, area, *channels)], 1),
    };
    let png = picture::png(&picture::grid(&cells, picture::square(cells.len()), scale as u32))?;
    Ok(Features { layer, shape, values, channels: statistics, png })
}

fn statistics(map: &[f32]) -> ChannelStatistics {
    let (min, max) = picture::range(map);
    let count = map.len() as f64;
    let mean = map.iter().copied().map(f64::from).sum::<f64>() / count;
    let variance = map.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
    let active = map.iter().filter(|&&value| value > 0.0).count() as f64 / count;
    ChannelStatistics { min, max, mean: mean as f32, std: variance.sqrt() as f32, active: active as f32 }
}
