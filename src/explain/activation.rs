//! Class activation: where in the picture the evidence for a class lies, as the last feature maps have it.

use super::adjoint::Rule;
use super::cache::{Purpose, SharedGraphs};
use super::graphs::{Graphs, Plan};
use super::network::Network;
use super::occlusion::occlusion;
use super::subject::{Subject, lock};
use super::{ExplainRequest, Explanation, Heatmap, Method};
use crate::error::{Error, ErrorKind, Result};

/// Operators of a head that is pooling and a linear layer.
const LINEAR: &[&str] = &[
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Concat",
    "Conv",
    "Dropout",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "Identity",
    "MatMul",
    "ReduceMean",
    "Reshape",
    "Slice",
    "Squeeze",
    "Sub",
    "Transpose",
    "Unsqueeze",
];

/// Explains by what suits the model: the map of a class, or where there are no feature maps, or no way back to them, occlusion, which any
/// model can have.
///
/// # Errors
/// Those of both, but for what only keeps a model from the first.
pub(super) fn automatic(subject: &Subject, request: &ExplainRequest) -> Result<Explanation> {
    let impossible = |error: &Error| matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::Unimplemented);
    match graphs(subject, request.layer.as_deref()) {
        Err(error) if request.layer.is_none() && impossible(&error) => occlusion(subject, request),
        graphs => map(subject, request, &graphs?),
    }
}

/// The map of `request.class`: the maps of a layer, each weighted by what it means to the class.
///
/// # Errors
/// `InvalidArgument` when CAM is asked for and the head is not linear, or the layer has no maps; `Unimplemented` naming the node that
/// there is no way back through.
pub(super) fn activation(subject: &Subject, request: &ExplainRequest) -> Result<Explanation> {
    map(subject, request, &graphs(subject, request.layer.as_deref())?)
}

fn map(subject: &Subject, request: &ExplainRequest, graphs: &SharedGraphs) -> Result<Explanation> {
    let (prepared, display) = subject.prepare_with_display(&request.picture)?;
    // Not under the lock: it waits in the model's queue.
    let averaged = subject.averaged_scores(&prepared)?;
    let (maps, [height, width], weights, class, layer, method) = {
        let mut graphs = lock(graphs);
        let method = match (request.method, &graphs.nonlinear) {
            (Some(Method::Cam), Some(error)) => return Err(error.clone()),
            (Some(method), _) => method,
            (None, Some(_)) => Method::Gradcam,
            (None, None) => Method::Cam,
        };
        let values = graphs.forward(&prepared.row)?;
        let scores = averaged.map_or_else(|| subject.own_scores(&graphs, &values), Ok)?;
        let class = subject.class(&scores, request.class)?;
        let mut seed = vec![0.0; class.index + 1];
        seed[class.index] = 1.0;
        let weights = graphs.back(&values, seed)?;
        let &[_, _, height, width] = Graphs::shape_of(&values, &graphs.to)? else {
            return Err(Error::internal("the feature maps have no rows"));
        };
        let maps = Graphs::row(&values, &graphs.to)?;
        (maps, [height, width], weights, class, graphs.layer.clone(), method)
    };
    let area = height * width;
    let mut data = vec![0f64; area];
    for (map, gradient) in maps.chunks_exact(area).zip(weights.chunks_exact(area)) {
        let weight: f64 = gradient.iter().copied().map(f64::from).sum();
        // In a linear head that is the weight of the map's mean, CAM's; Grad-CAM has the mean of the gradient.
        let weight = if method == Method::Cam { weight } else { weight / area as f64 };
        data.iter_mut().zip(map).for_each(|(sum, &value)| *sum += weight * f64::from(value));
    }
    let floor = if method == Method::Cam { f64::NEG_INFINITY } else { 0.0 };
    let data = data.into_iter().map(|value| value.max(floor) as f32).collect();
    let heatmap = Heatmap::new(height, width, data)?;
    let png = display.overlaid(&heatmap)?;
    Ok(Explanation {
        method,
        class: Some(class),
        layer: Some(layer),
        units: Vec::new(),
        heatmap,
        frame: prepared.frame,
        png,
    })
}

/// The graphs that take the class scores back to a layer, or without one to the last feature maps.
fn graphs(subject: &Subject, layer: Option<&str>) -> Result<SharedGraphs> {
    subject.graphs(Purpose::Activation(layer.map(str::to_owned)), |network, make| {
        let logits = network.logits(subject.class_output());
        let maps = match layer {
            Some(layer) => network.layer(layer)?,
            None => network.last_maps(&logits)?,
        };
        if !matches!(network.shape(&maps)?, [_, _, _, _]) {
            return Err(Error::invalid(format!("the layer {} has no feature maps", network.layer_name(&maps))));
        }
        let mut graphs = make(Plan {
            network,
            from: &logits,
            bounded: None,
            back: Some((&maps, Rule::Gradient)),
            logits: Some(&logits),
            optimize: subject.optimizes(),
        })?;
        graphs.nonlinear = check_linear(network, &logits, &maps).err();
        Ok(graphs)
    })
}

/// Checks that nothing but pooling and linear layers is between `maps` and `logits`.
fn check_linear(network: &Network, logits: &str, maps: &str) -> Result<()> {
    let (behind, before) = (network.dependents(maps), network.ancestors([logits]));
    let is_between = |name: &String| behind.contains(name.as_str()) && before.contains(name.as_str());
    let is_pointwise = |name: &str| network.shape(name).is_ok_and(|shape| shape.iter().skip(2).all(|&size| size == 1));
    let head = network
        .nodes()
        .iter()
        .filter(|node| node.output.iter().any(is_between) && !node.output.iter().any(|output| output == maps));
    for node in head {
        let is_linear = match node.op_type.as_str() {
            // Another than a 1x1 convolution mixes places.
            "Conv" => node.input.get(1).is_some_and(|weights| is_pointwise(weights)),
            "BatchNormalization" => node.attribute("training_mode").is_none_or(|mode| mode.i == 0),
            operator => LINEAR.contains(&operator),
        };
        if !is_linear {
            return Err(Error::invalid(format!(
                "cam takes a head of pooling and a linear layer, but the node {} is {}: ask for gradcam",
                node.called(),
                node.op_type
            )));
        }
    }
    Ok(())
}
