//! What a PyTorch pickle may import, and the records that become of it: tensors over storages, without their elements.

use std::rc::Rc;

use super::WeightType;
use crate::error::{Error, Result};

/// What a pickle may import.
#[derive(Debug, Clone, Copy)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(WeightType),
}

/// A storage that the checkpoint holds beside the pickle.
#[derive(Debug)]
pub(super) struct StorageRecord {
    pub(super) data_type: WeightType,
    pub(super) key: Rc<str>,
    /// How many elements the storage has.
    pub(super) elements: usize,
    /// Where the old format shares storages: the first element, and how many, of the storage `key`.
    pub(super) view: Option<(usize, usize)>,
}

/// A tensor over a storage. `offset` and `strides` count elements.
#[derive(Debug)]
pub(super) struct TensorRecord {
    pub(super) storage: Rc<StorageRecord>,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

impl Global {
    /// The global `name` of `module`.
    ///
    /// # Errors
    /// `InvalidArgument` for any that is not on this list.
    pub(super) fn find(module: &str, name: &str) -> Result<Self> {
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "BoolStorage") => Self::Storage(WeightType::Bool),
            ("torch", "ByteStorage") => Self::Storage(WeightType::Uint8),
            ("torch", "CharStorage") => Self::Storage(WeightType::Int8),
            ("torch", "ShortStorage") => Self::Storage(WeightType::Int16),
            ("torch", "IntStorage") => Self::Storage(WeightType::Int32),
            ("torch", "LongStorage") => Self::Storage(WeightType::Int64),
            ("torch", "HalfStorage") => Self::Storage(WeightType::Fp16),
            ("torch", "BFloat16Storage") => Self::Storage(WeightType::Bf16),
            ("torch", "FloatStorage") => Self::Storage(WeightType::Fp32),
            ("torch", "DoubleStorage") => Self::Storage(WeightType::Fp64),
            _ => {
                return Err(Error::invalid(format!(
                    "the pickle asks for {module:.99}.{name:.99}, which is not allowed: save the model's state_dict, not the model"
                )));
            }
        })
    }
}
