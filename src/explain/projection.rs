//! Units projected back to the picture: what of the picture made them answer.

use image::RgbImage;

use super::adjoint::Rule;
use super::cache::{Purpose, SharedGraphs};
use super::graphs::{Graphs, Plan, Values};
use super::prepared::Prepared;
use super::request::check_finite;
use super::subject::{Subject, lock};
use super::{ExplainRequest, Explanation, Heatmap, Method, Unit, picture};
use crate::error::{Error, Result};

/// A unit at one place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Peak {
    pub(super) unit: usize,
    place: usize,
    /// By what units and pictures are told apart: the activation, before its bounds where it has such. At an upper bound all are alike.
    pub(super) strength: f32,
    pub(super) activation: f32,
}

impl Peak {
    /// # Errors
    /// `Internal` where the unit has no strongest place, because the network gave no numbers.
    pub(super) fn check_finite(self, layer: &str) -> Result<()> {
        if self.activation.is_finite() {
            return Ok(());
        }
        Err(Error::internal(format!(
            "the unit {} of the layer {layer} is not a finite number for this picture",
            self.unit
        )))
    }
}

/// The graphs that take a layer, or without one the class scores, back to the picture. Always as they are: where maxima lie must not
/// depend on how a graph was rewritten.
pub(super) fn graphs(subject: &Subject, rule: Rule, layer: Option<&str>) -> Result<SharedGraphs> {
    subject.graphs(Purpose::Projection(rule, layer.map(str::to_owned)), |network, make| {
        let logits = network.logits(subject.class_output());
        let value = layer.map_or(Ok(logits.clone()), |layer| network.layer(layer))?;
        let logits = layer.is_none().then_some(logits.as_str());
        // The strongest units of ReLU6 are at its upper bound, where they are alike, and where no gradient passes.
        let (from, bounded) = match network.before_bounds(&value) {
            Some(before) => (before, Some(value.as_str())),
            None => (value.as_str(), None),
        };
        make(Plan { network, from, bounded, back: Some((network.input(), rule)), logits, optimize: false })
    })
}

/// Projects the units that `request` asks for.
///
/// # Errors
/// `InvalidArgument` for a unit or class that there is not.
pub(super) fn projection(subject: &Subject, request: &ExplainRequest, rule: Rule) -> Result<Explanation> {
    let graphs = graphs(subject, rule, request.layer.as_deref())?;
    let is_of_classes = request.layer.is_none();
    let prepared =
        if is_of_classes { subject.prepare_with_crops(&request.picture) } else { subject.prepare(&request.picture) }?;
    let averaged = subject.averaged_scores(&prepared)?;
    let mut graphs = lock(&graphs);
    let values = graphs.forward(&prepared.row)?;
    let mut peaks = peaks(&values, &graphs)?;
    // Units of the class scores are classes, of which classification says which is the strongest.
    let unit = request.unit.or(request.class);
    let scores =
        if is_of_classes { Some(averaged.map_or_else(|| subject.own_scores(&graphs, &values), Ok)?) } else { None };
    let class = scores.as_ref().map(|scores| subject.class(scores, unit)).transpose()?;
    match unit {
        Some(unit) => peaks = vec![peak_of(&peaks, unit, &graphs.layer)?],
        None => {
            let score = |peak: &Peak| match &scores {
                Some(scores) => scores.row.get(peak.unit).copied().unwrap_or(f32::NEG_INFINITY),
                None => peak.strength,
            };
            peaks.sort_by(|a, b| score(b).total_cmp(&score(a)));
            peaks.truncate(request.count.unwrap_or(1));
        }
    }
    let mut units = Vec::new();
    for peak in peaks {
        subject.check_canceled()?;
        peak.check_finite(&graphs.layer)?;
        units.push(project(subject, &mut graphs, &values, peak, rule)?);
    }
    let layer = Some(graphs.layer.clone());
    let heatmap = saliency(subject, &units[0].projection)?;
    let cells: Vec<_> = units.iter().map(|unit| shown(subject, &unit.projection, picture::signed)).collect();
    let png = match cells.as_slice() {
        [cell] => picture::png(cell)?,
        cells => picture::png(&picture::grid(cells, picture::square(cells.len()), 1))?,
    };
    let Prepared { frame, .. } = prepared;
    Ok(Explanation { method: Method::Projection(rule), class, layer, units, heatmap, frame, png })
}

/// The strongest place of each channel.
pub(super) fn peaks(values: &Values, graphs: &Graphs) -> Result<Vec<Peak>> {
    let row = Graphs::row(values, &graphs.from)?;
    let bounded = graphs.bounded.as_ref().map(|name| Graphs::row(values, name)).transpose()?;
    let units = graphs.shape.get(1).copied().unwrap_or_default();
    if units == 0 || row.len() < units {
        return Err(Error::invalid(format!("the layer {} has no channels", graphs.layer)));
    }
    let size = row.len() / units;
    let peak = |(unit, places): (usize, &[f32])| {
        // The first of equals.
        let (place, strength) =
            places.iter().copied().enumerate().fold((0, f32::NEG_INFINITY), |best, (place, value)| {
                if value > best.1 { (place, value) } else { best }
            });
        // Where there is no strongest place, there is no activation either.
        let bounded = bounded.as_ref().filter(|_| strength > f32::NEG_INFINITY);
        let activation = bounded.and_then(|row| row.get(unit * size + place)).copied().unwrap_or(strength);
        Peak { unit, place, strength, activation }
    };
    Ok(row.chunks_exact(size).enumerate().map(peak).collect())
}

/// The peak of one unit.
///
/// # Errors
/// `InvalidArgument` when there is no such unit.
pub(super) fn peak_of(peaks: &[Peak], unit: usize, layer: &str) -> Result<Peak> {
    let missing = || {
        let last = peaks.len().saturating_sub(1);
        Error::invalid(format!("there is no unit {unit}: the layer {layer} has the units 0 to {last}"))
    };
    peaks.get(unit).copied().ok_or_else(missing)
}

/// Projects one unit back.
pub(super) fn project(subject: &Subject, graphs: &mut Graphs, values: &Values, peak: Peak, rule: Rule) -> Result<Unit> {
    let places = graphs.shape.iter().skip(2).product::<usize>();
    let mut seed = vec![0.0; graphs.shape.iter().skip(1).product()];
    // What its lower bound has raised has not answered, so that but by `deconvnet`, which does not ask, nothing goes back. What its upper
    // bound has cut off has.
    let has_answered = peak.activation <= peak.strength;
    seed[peak.unit * places + peak.place] = if has_answered || rule == Rule::Deconvnet { 1.0 } else { 0.0 };
    let back = graphs.back(values, seed)?;
    check_finite(&back)?;
    let columns = graphs.shape.get(3).copied().unwrap_or(1);
    Ok(Unit {
        unit: peak.unit,
        row: peak.place / columns,
        column: peak.place % columns,
        activation: peak.activation,
        projection: subject.planes(&back),
    })
}

/// A projection as it is shown, drawn by `draw`.
pub(super) fn shown(subject: &Subject, projection: &[f32], draw: fn(&[f32], usize, usize) -> RgbImage) -> RgbImage {
    let (height, width) = subject.graph.input_size();
    let planes = if projection.len() == height * width { &projection.repeat(3) } else { projection };
    draw(planes, width, height)
}

/// The largest magnitude of the channels: Simonyan et al. 2013, section 3.1.
fn saliency(subject: &Subject, projection: &[f32]) -> Result<Heatmap> {
    let (height, width) = subject.graph.input_size();
    let mut data = vec![0f32; height * width];
    for plane in projection.chunks_exact(height * width) {
        for (largest, value) in data.iter_mut().zip(plane) {
            // A NaN must not be lost beside a number.
            if value.is_nan() || value.abs() > *largest {
                *largest = value.abs();
            }
        }
    }
    Heatmap::new(height, width, data)
}
