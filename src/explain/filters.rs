//! The filters of the first convolution, as pictures: what they look for can be seen, since they see the picture itself.

use image::RgbImage;

use super::network::Network;
use super::picture;
use crate::error::{Error, Result};
use crate::postprocess::to_f32;
use crate::preprocess::Color;

/// Cells of a grid are enlarged to at least this.
const CELL: u32 = 48;

/// The filters of the first convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct Filters {
    /// The convolution's name.
    pub layer: String,
    /// The shape of the weights: filters, 3 channels, height, width.
    pub shape: [usize; 4],
    /// The weights, in the graph's own order of channels, row-major.
    pub weights: Vec<f32>,
    /// The filters in rows, each from its own lowest weight (black) to its highest, in red, green and blue.
    pub png: Vec<u8>,
}

/// The first convolution's filters. Its channels are in the order that `color` says.
///
/// # Errors
/// `InvalidArgument` when there is no convolution, or the first one does not see the three channels of a picture.
pub(super) fn filters(network: &Network, color: Color) -> Result<Filters> {
    let convolutions = network.nodes().iter().filter(|node| node.op_type == "Conv");
    let first = convolutions.clone().find(|node| network.depends_on(&node.input[0], network.input()));
    let node = first.ok_or_else(|| Error::invalid("the model has no convolution"))?;
    let layer = network.layer_name(&node.output[0]).to_owned();
    let weights = node.input.get(1).and_then(|name| network.constant(name));
    let weights =
        weights.ok_or_else(|| Error::invalid(format!("the filters of {layer} are no constant of the file")))?;
    let &[count, 3, height, width] = weights.shape() else {
        let message =
            format!("the filters of {layer} have the shape {:?}: they do not see three channels", weights.shape());
        return Err(Error::invalid(message));
    };
    let values = to_f32(&weights)?.into_owned();
    let cells: Vec<RgbImage> = values
        .chunks_exact(3 * height * width)
        .map(|filter| picture::colors(&rgb(filter, color), width, height))
        .collect();
    let scale = CELL.div_ceil(width.max(height) as u32).max(1);
    let png = picture::png(&picture::grid(&cells, picture::square(count), scale))?;
    Ok(Filters { layer, shape: [count, 3, height, width], weights: values, png })
}

/// Planes of three channels in the order red, green, blue.
pub(super) fn rgb(planes: &[f32], color: Color) -> Vec<f32> {
    match color {
        Color::Bgr => planes.rchunks_exact(planes.len() / 3).flatten().copied().collect(),
        Color::Rgb | Color::Gray => planes.to_vec(),
    }
}
