//! The feature maps of a layer.

use super::cache::Purpose;
use super::graphs::{Graphs, Plan};
use super::subject::{Subject, lock};
use super::{ChannelStatistics, Features, picture};
use crate::error::{Error, Result};

/// Cells of a grid are enlarged to at least this.
const CELL: usize = 32;

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
    let cells: Vec<_> = match places {
        [height, width] if area > 1 => {
            values.chunks_exact(area).map(|map| picture::gray(map, *width, *height)).collect()
        }
        // Without rows and columns, all values are one row of pixels.
        _ => vec![picture::gray(&values, values.len(), 1)],
    };
    let side = cells.first().map_or(1, |cell| cell.width().max(cell.height()) as usize);
    let scale = if cells.len() == 1 { 1 } else { CELL.div_ceil(side).max(1) };
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
