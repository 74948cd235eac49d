//! A model that is being looked into, by one thread.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use image::RgbImage;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::cache::{Cache, Purpose, SharedGraphs};
use super::graphs::{Graphs, Plan, Values};
use super::network::Network;
use super::{ExplainMetrics, Heatmap, filters, picture};
use crate::engine::{GraphOptimization, Runtime};
use crate::error::{Error, Result};
use crate::postprocess::{self, Class, Scores};
use crate::preprocess::{self, Color, Extent, Frame, Interpolation, Layout, PictureLimits, Preprocessor, Recipe};
use crate::repository::{GraphModel, Model};
use crate::scheduler::{Answer, Submission};
use crate::telemetry::Trace;
use crate::tensor::{DataType, Tensor};

/// The longer side of the picture that a heatmap is laid over is at most this.
const DISPLAY_SIDE: u32 = 800;
/// The longer side of the network's input is at least this many pixels of it.
const LEAST_SHOWN: f64 = 16.0;

/// What explaining a model takes.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) runtime: Runtime,
    pub(super) cache: Arc<Cache>,
    pub(super) metrics: ExplainMetrics,
    pub(super) limits: PictureLimits,
    pub(super) model: Arc<Model>,
    pub(super) graph: Arc<GraphModel>,
    /// After this the answer is of no use.
    pub(super) deadline: Option<Instant>,
    /// Closed when nobody waits for the answer any more.
    pub(super) asked: watch::Receiver<()>,
    /// Where what a thread waits for is done.
    pub(super) tasks: Handle,
}

/// A picture as the network gets it.
#[derive(Debug)]
pub(super) struct Prepared {
    /// `[1, …]`
    pub(super) row: Tensor,
    pub(super) frame: Frame,
}

/// What a heatmap is laid over: the whole picture, upright, or of one so long that the network's input would be a speck of it, the input.
#[derive(Debug)]
pub(super) struct Display {
    picture: RgbImage,
    /// Where the network's input lies in it.
    frame: Frame,
}

impl Display {
    /// It with `heatmap` over it, as PNG.
    pub(super) fn overlaid(&self, heatmap: &Heatmap) -> Result<Vec<u8>> {
        picture::png(&picture::overlay(&self.picture, heatmap, &self.frame))
    }
}

impl Subject {
    /// The model's own graph. Reads its file.
    pub(super) fn network(&self) -> Result<Network> {
        let [a, b, c] = self.graph.preprocessor().row_shape();
        Network::new(self.graph.file().read()?, [a, b, c])
    }

    /// The graphs for `purpose`, made by `plan` where they are not kept.
    pub(super) fn graphs(
        &self,
        purpose: Purpose,
        make: impl FnOnce(&Network, &dyn Fn(Plan<'_>) -> Result<Graphs>) -> Result<Graphs>,
    ) -> Result<SharedGraphs> {
        let graphs = self.cache.get(&self.graph, purpose, || {
            self.metrics.graphs_made.inc();
            let mut network = self.network()?;
            network.measure_shapes(&self.runtime, self.graph.interface().input.data_type);
            make(&network, &|plan| Graphs::new(&self.runtime, plan))
        });
        self.metrics.cache_bytes.set(self.cache.bytes() as i64);
        graphs
    }

    /// Whether graphs may be rewritten to run faster.
    pub(super) fn optimizes(&self) -> bool {
        self.model.config().graph_optimization != GraphOptimization::None
    }

    /// The name of the graph's output that holds the class scores.
    pub(super) fn class_output(&self) -> &str {
        let interface = self.graph.interface();
        &interface.outputs[interface.class_output.index].name
    }

    /// # Errors
    /// `Unavailable` when nobody waits for the answer any more.
    pub(super) fn check_canceled(&self) -> Result<()> {
        if self.asked.has_changed().is_err() { Err(canceled()) } else { Ok(()) }
    }

    /// Has the model run `rows`, `[N, …]`, behind all that its clients want. Returns its class scores.
    ///
    /// Where the rows had to wait, others want what they run on: then these get fourteen times as long before this returns.
    ///
    /// # Errors
    /// The run's own, and as [`Subject::check_canceled`].
    pub(super) fn class_scores(&self, rows: Tensor) -> Result<Tensor> {
        /// The least urgent there is: every request goes first.
        const PRIORITY: u32 = u32::MAX;
        /// An instance that is idle takes longer than this only when all are busy.
        const AT_ONCE: Duration = Duration::from_millis(2);
        const LEFT_TO_OTHERS: u32 = 14;
        let count = rows.shape()[0];
        let scheduler = self.graph.scheduler();
        let at_once = AT_ONCE + scheduler.options().policy.max_queue_delay;
        let pending = scheduler.submit(Submission {
            rows,
            priority: PRIORITY,
            deadline: self.deadline,
            trace: Trace::default(),
        })?;
        let run = async {
            let answer = pending.await?;
            if answer.queue > at_once {
                let used = answer.compute.mul_f64(count as f64 / answer.batch_size.max(count) as f64);
                tokio::time::sleep(used * LEFT_TO_OTHERS).await;
            }
            Ok(answer)
        };
        let mut asked = self.asked.clone();
        // What is dropped leaves the queue.
        let answer: Answer = self.tasks.block_on(async {
            tokio::select! {
                answer = run => answer,
                _ = asked.changed() => Err(canceled()),
            }
        })?;
        let output = answer.outputs.get(self.graph.interface().class_output.index);
        output.cloned().ok_or_else(|| Error::internal("the model's answer lacks the class scores"))
    }

    /// Makes an encoded picture the network's input: of several crops, the one in the middle.
    pub(super) fn prepare(&self, encoded: &[u8]) -> Result<Prepared> {
        self.decode(encoded, |_| Ok(None)).map(|(prepared, _)| prepared)
    }

    /// As [`Subject::prepare`], with the network's input as pixels.
    pub(super) fn prepare_with_pixels(&self, encoded: &[u8]) -> Result<(Prepared, RgbImage)> {
        let (prepared, pixels) = self.decode(encoded, |_| self.input_pixels().map(Some))?;
        Ok((prepared, pixels.ok_or_else(unlike)?))
    }

    /// As [`Subject::prepare`], with what a heatmap is laid over.
    pub(super) fn prepare_with_display(&self, encoded: &[u8]) -> Result<(Prepared, Display)> {
        let mut is_whole = true;
        let (prepared, picture) = self.decode(encoded, |own| {
            let Some((width, height)) = display_size(&own.frame(encoded, &self.limits)?) else {
                is_whole = false;
                return self.input_pixels().map(Some);
            };
            let recipe = Recipe {
                resize: Extent::Size([height, width]),
                crop: Extent::NONE,
                interpolation: Interpolation::Bilinear,
                color: Some(Color::Rgb),
                layout: Some(Layout::Nhwc),
                exif_orientation: self.model.config().preprocess.exif_orientation,
                ..Recipe::default()
            };
            pixels(&recipe, height, width).map(Some)
        })?;
        let picture = picture.ok_or_else(unlike)?;
        let frame = if is_whole {
            prepared.frame
        } else {
            let (picture_width, picture_height) = picture.dimensions();
            let (width, height) = (picture_width as f32, picture_height as f32);
            Frame { picture_width, picture_height, x: 0.0, y: 0.0, width, height }
        };
        Ok((prepared, Display { picture, frame }))
    }

    /// Decodes a picture once, for the network and for what `beside` says to the network's own preprocessor.
    fn decode(
        &self,
        encoded: &[u8],
        beside: impl FnOnce(&Preprocessor) -> Result<Option<Preprocessor>>,
    ) -> Result<(Prepared, Option<RgbImage>)> {
        let own = self.graph.preprocessor();
        let middle = if own.crops() == 1 { None } else { Some(self.middle_crop()?) };
        let own = middle.as_ref().unwrap_or(own);
        let beside = beside(own)?;
        let wanted: Vec<_> = std::iter::once(own).chain(&beside).collect();
        let mut tensors = preprocess::tensors(encoded, &self.limits, &wanted)?.into_iter();
        let (row, frame) = tensors.next().ok_or_else(unlike)?;
        let picture = tensors.next().map(|(pixels, _)| rgb(&pixels)).transpose()?;
        Ok((Prepared { row, frame }, picture))
    }

    /// What makes a picture the network's input where the recipe takes several crops.
    fn middle_crop(&self) -> Result<Preprocessor> {
        let recipe = Recipe { crops: 1, ..self.model.config().preprocess.clone() };
        let shape = self.graph.preprocessor().row_shape().map(|size| size as i64);
        preprocessor(&recipe, &shape, self.graph.interface().input.data_type)
    }

    /// What makes a picture the pixels of the network's input.
    fn input_pixels(&self) -> Result<Preprocessor> {
        let (height, width) = self.graph.input_size();
        let recipe = Recipe {
            crops: 1,
            color: Some(Color::Rgb),
            layout: Some(Layout::Nhwc),
            scale: None,
            mean: None,
            std: None,
            ..self.model.config().preprocess.clone()
        };
        pixels(&recipe, height as u32, width as u32)
    }

    /// A row of the network's input, or what came back to it, as planes `[3, height, width]` of red, green and blue; of gray pictures one
    /// plane.
    pub(super) fn planes(&self, row: &[f32]) -> Vec<f32> {
        let preprocessor = self.graph.preprocessor();
        let (height, width) = preprocessor.input_size();
        let area = height * width;
        let planes = match preprocessor.layout() {
            Layout::Nchw => row.to_vec(),
            Layout::Nhwc => {
                let channels = row.len() / area;
                (0..channels).flat_map(|channel| row.iter().skip(channel).step_by(channels).copied()).collect()
            }
        };
        if planes.len() == area { planes } else { filters::rgb(&planes, preprocessor.color()) }
    }

    /// What the logits of a run say of `class`, or of the most probable one.
    pub(super) fn class(&self, graphs: &Graphs, values: &Values, class: Option<usize>) -> Result<Class> {
        let output = self.graph.interface().class_output;
        let name = graphs.logits.as_deref().unwrap_or(self.class_output());
        let scores = if name == self.class_output() { output.scores } else { Scores::Logits };
        self.scored(&Graphs::row(values, name)?, scores, class)
    }

    /// What a row of class scores says of `class`, or of the most probable one.
    pub(super) fn scored(&self, row: &[f32], scores: Scores, class: Option<usize>) -> Result<Class> {
        let index = match class {
            Some(class) if class < row.len() => class,
            Some(class) => {
                return Err(Error::invalid(format!("there is no class {class}: the model has {}", row.len())));
            }
            None => postprocess::classify(row, scores, 1)?[0].0,
        };
        let score = postprocess::probabilities(row, scores)?[index] as f32;
        Ok(self.model.class(index, score))
    }
}

fn canceled() -> Error {
    Error::unavailable("nobody waits for the answer any more")
}

fn preprocessor(recipe: &Recipe, shape: &[i64], data_type: DataType) -> Result<Preprocessor> {
    Preprocessor::new(recipe, shape, data_type).map_err(|error| {
        Error::internal("the picture cannot be prepared for an explanation").with_source(error.to_string())
    })
}

/// The width and height that a picture is shown with; none where that would leave next to nothing of the network's input to be seen.
fn display_size(frame: &Frame) -> Option<(u32, u32)> {
    let (width, height) = (frame.picture_width, frame.picture_height);
    let scale = (f64::from(DISPLAY_SIDE) / f64::from(width.max(height))).min(1.0);
    let side = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
    let shown = f64::from(frame.width.max(frame.height)) * scale;
    // A picture that is hardly larger than that itself is shown whole.
    let least = LEAST_SHOWN.min(f64::from(width.max(height)) / 2.0);
    (shown >= least).then(|| (side(width), side(height)))
}

/// What gives a picture's pixels as `recipe` has them.
fn pixels(recipe: &Recipe, height: u32, width: u32) -> Result<Preprocessor> {
    preprocessor(recipe, &[i64::from(height), i64::from(width), 3], DataType::Uint8)
}

fn unlike() -> Error {
    Error::internal("a picture became something else than was asked for")
}

/// A tensor `[1, height, width, 3]` of pixels.
fn rgb(tensor: &Tensor) -> Result<RgbImage> {
    let &[1, height, width, 3] = tensor.shape() else { return Err(unlike()) };
    RgbImage::from_raw(width as u32, height as u32, tensor.bytes().to_vec()).ok_or_else(unlike)
}

/// The graphs, for as long as this caller uses them.
pub(super) fn lock(graphs: &SharedGraphs) -> MutexGuard<'_, Graphs> {
    graphs.lock().unwrap_or_else(PoisonError::into_inner)
}
