//! One copy of a model's weights for all of its sessions.
//!
//! ONNX Runtime shares weights between sessions when each is given the same values for the graph's initializers. That alone
//! is of little use for convolutional networks: optimisation rewrites the weights (batch normalisation folded in, a
//! blocked layout), and every session would keep its own rewritten copy. So the graph is optimised once, written out, and read back:
//! the sessions then load the optimised graph as it is and share its initializers.

use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ort::session::builder::{PrepackedWeights, SessionBuilder};
use ort::value::{DynValue, PrimitiveTensorElementType};
use prost::Message;

use super::failed;
use crate::error::{Error, Result};
use crate::onnx::ModelProto;
use crate::tensor::{DataType, Element, Tensor};

/// Smaller initializers stay in the graph: shapes and axes must be constants there, and there is nothing to save.
const SMALLEST_SHARED_BYTES: usize = 1024;

pub(super) struct SharedWeights {
    /// The optimised graph, serialised.
    graph: Bytes,
    values: Vec<(String, Arc<DynValue>)>,
    prepacked: PrepackedWeights,
}

impl SharedWeights {
    /// Has `optimise` write the optimised graph to the path that it is given, and takes the weights out of it.
    pub(super) fn extract(optimise: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("convoy-").tempdir().map_err(|error| {
            Error::internal("no temporary folder can be made for the optimised graph").with_source(error)
        })?;
        let path = folder.path().join("optimized.onnx");
        optimise(&path)?;
        let graph = fs::read(&path)
            .map_err(|error| Error::internal("the optimised graph cannot be read").with_source(error))?;
        let graph = Bytes::from(graph);
        let model = ModelProto::decode(graph.clone())
            .map_err(|error| Error::internal("the optimised graph cannot be parsed").with_source(error))?;
        let mut values = Vec::new();
        for initializer in model.graph.iter().flat_map(|graph| &graph.initializer) {
            if initializer.raw_data.len() >= SMALLEST_SHARED_BYTES
                && let Some(value) = to_value(&initializer.to_tensor()?)?
            {
                values.push((initializer.name.clone(), Arc::new(value)));
            }
        }
        Ok(Self { graph, values, prepacked: PrepackedWeights::new() })
    }

    /// A session of the optimised graph that uses the shared weights.
    pub(super) fn open(&self, mut builder: SessionBuilder) -> Result<ort::session::Session> {
        let message = "a session with shared weights cannot be made";
        builder = builder.with_prepacked_weights(&self.prepacked).map_err(|error| failed(message, &error))?;
        for (name, value) in &self.values {
            builder = builder.with_initializer(name, Arc::clone(value)).map_err(|error| failed(message, &error))?;
        }
        builder.commit_from_memory(&self.graph).map_err(|error| failed(message, &error))
    }
}

/// The tensor as a value of ONNX Runtime's; `None` for the types that are not worth sharing.
fn to_value(tensor: &Tensor) -> Result<Option<DynValue>> {
    fn value<T>(tensor: &Tensor) -> Result<DynValue>
    where
        T: Element + PrimitiveTensorElementType + Debug,
    {
        let shape: Vec<i64> = tensor.shape().iter().map(|&dimension| dimension as i64).collect();
        let values = tensor.to_slice::<T>()?.into_owned();
        let value = ort::value::Tensor::from_array((shape, values));
        Ok(value.map_err(|error| failed("a weight cannot be shared", &error))?.into_dyn())
    }
    Ok(match tensor.data_type() {
        DataType::Fp32 => Some(value::<f32>(tensor)?),
        DataType::Fp16 => Some(value::<half::f16>(tensor)?),
        DataType::Int8 => Some(value::<i8>(tensor)?),
        DataType::Uint8 => Some(value::<u8>(tensor)?),
        _ => None,
    })
}
