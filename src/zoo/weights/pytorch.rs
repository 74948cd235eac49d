//! PyTorch checkpoints: a pickle of tensor records, and beside it the storages that they point into.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::WeightTensor;
use super::archive::Archive;
use super::pickle::{Pickle, Value};
use super::records::{StorageRecord, TensorRecord};
use crate::error::{Error, Result};
use crate::tensor::element_count;

/// How files begin that were written before PyTorch 1.6: the pickle of the number `0x1950a86a20f9469cfc6c`.
pub(super) const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// The keys under which training scripts keep the weights, beside the epoch and the optimizer.
const NESTED: [&str; 2] = ["state_dict", "model"];

/// Reads the zip format: `NAME/data.pkl`, and each storage in a file `NAME/data/KEY`.
pub(super) fn read_archive(bytes: &Bytes) -> Result<BTreeMap<String, WeightTensor>> {
    let mut archive = Archive::open(bytes)?;
    let root = archive
        .names()
        .find_map(|name| name.strip_suffix("/data.pkl"))
        .ok_or_else(|| Error::invalid("the archive has no data.pkl: it is no PyTorch checkpoint"))?
        .to_owned();
    if archive.file(&format!("{root}/byteorder"))?.is_some_and(|order| &*order != b"little") {
        return Err(Error::invalid("the checkpoint was written on a big-endian machine"));
    }
    let Some(pickle) = archive.file(&format!("{root}/data.pkl"))? else {
        return Err(Error::invalid("the archive has no data.pkl"));
    };
    let mut storages = HashMap::new();
    state_dict(&Pickle::read(&pickle)?, bytes.len(), |storage| {
        if let Some(content) = storages.get(&storage.key) {
            return Ok(Bytes::clone(content));
        }
        let content = archive
            .file(&format!("{root}/data/{}", storage.key))?
            .ok_or_else(|| Error::invalid(format!("the archive has no storage {}", storage.key)))?;
        storages.insert(storage.key.clone(), content.clone());
        Ok(content)
    })
}

/// Reads the old format: pickles of the magic number, the protocol version, the writer's machine, the object and the list of
/// storage keys; then for each key the number of elements as an `i64`, and the elements.
pub(super) fn read_legacy(bytes: &Bytes) -> Result<BTreeMap<String, WeightTensor>> {
    let mut rest = bytes.slice(LEGACY_MAGIC.len()..);
    let mut next = || -> Result<Pickle> {
        let pickle = Pickle::read(&rest)?;
        rest = rest.slice(pickle.length..);
        Ok(pickle)
    };
    let version = next()?;
    if !matches!(version.root, Value::Int(1001)) {
        return Err(Error::invalid("the checkpoint has a protocol version that is not known"));
    }
    let _machine = next()?;
    let object = next()?;
    let keys = next()?;

    let mut types = HashMap::new();
    for storage in &object.storages {
        types.insert(storage.key.clone(), storage.data_type);
    }
    let mut storages = HashMap::new();
    for key in keys.sequence(&keys.root).unwrap_or_default() {
        let Value::Text(key) = key else {
            return Err(Error::invalid("the checkpoint's list of storages is malformed"));
        };
        let cut_off = || Error::invalid(format!("the checkpoint ends inside its storage {key}"));
        let data_type = types.get(key).ok_or_else(|| Error::invalid(format!("no tensor uses the storage {key}")))?;
        let (&elements, _) = rest.split_first_chunk().ok_or_else(cut_off)?;
        let end = usize::try_from(i64::from_le_bytes(elements))
            .ok()
            .and_then(|elements| elements.checked_mul(data_type.size())?.checked_add(size_of::<i64>()))
            .filter(|&end| end <= rest.len())
            .ok_or_else(cut_off)?;
        storages.insert(key.clone(), rest.slice(size_of::<i64>()..end));
        rest = rest.slice(end..);
    }
    state_dict(&object, bytes.len(), |storage| {
        storages
            .get(&storage.key)
            .cloned()
            .ok_or_else(|| Error::invalid(format!("the checkpoint has no storage {}", storage.key)))
    })
}

/// The tensors by name. Entries that are no tensors are passed over.
///
/// Tensors are slices of their storages. Those with other strides are copied, together no more than `copy_limit` bytes.
fn state_dict(
    pickle: &Pickle,
    mut copy_limit: usize,
    mut read_storage: impl FnMut(&StorageRecord) -> Result<Bytes>,
) -> Result<BTreeMap<String, WeightTensor>> {
    let root = pickle.dict(&pickle.root).ok_or_else(|| Error::invalid("the checkpoint holds no state_dict"))?;
    let nested = root.iter().find_map(|(key, value)| match key {
        Value::Text(key) if NESTED.contains(&&**key) => pickle.dict(value).filter(|items| has_tensors(items)),
        _ => None,
    });
    let mut tensors = BTreeMap::new();
    for (key, value) in nested.unwrap_or(root) {
        let (Value::Text(key), Value::Tensor(record)) = (key, value) else { continue };
        let storage = read_storage(&record.storage)?;
        let tensor = tensor(record, &storage, &mut copy_limit)
            .ok_or_else(|| Error::invalid(format!("the tensor {key} lies outside its storage")))?;
        tensors.insert(key.to_string(), tensor);
    }
    Ok(tensors)
}

/// Whether a dictionary holds weights: some scripts keep the model's options under one of [`NESTED`].
fn has_tensors(items: &[(Value, Value)]) -> bool {
    items.iter().any(|(_, value)| matches!(value, Value::Tensor(_)))
}

/// The tensor that `record` describes, `None` where it lies outside its storage or takes more than `copy_limit`.
fn tensor(record: &TensorRecord, storage: &Bytes, copy_limit: &mut usize) -> Option<WeightTensor> {
    let TensorRecord { offset, shape, strides, .. } = record;
    let data_type = record.storage.data_type;
    let size = data_type.size();
    let (first, elements) = record.storage.view.unwrap_or((0, record.storage.elements));
    let start = first.checked_mul(size)?;
    let storage =
        storage.get(start..start.checked_add(elements.checked_mul(size)?)?).map(|it| storage.slice_ref(it))?;
    let count = element_count(shape).ok()?;
    // An expanded tensor has more elements than its storage. Weights are never that, and it is no way to claim memory.
    if shape.len() != strides.len() || count > elements {
        return None;
    }
    if count == 0 {
        return WeightTensor::new(data_type, shape.clone(), Bytes::new()).ok();
    }
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(*offset, |last, (dimension, stride)| last.checked_add((dimension - 1).checked_mul(*stride)?))?;
    if last >= elements {
        return None;
    }
    let bytes = if is_contiguous(shape, strides) {
        storage.slice(offset * size..(offset + count) * size)
    } else {
        *copy_limit = copy_limit.checked_sub(count * size)?;
        gather(&storage, size, *offset, shape, strides)
    };
    WeightTensor::new(data_type, shape.clone(), bytes).ok()
}

/// Whether elements lie in row-major order without gaps. The stride of a dimension of one element is never used.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&dimension, &stride)| {
        let fits = dimension == 1 || stride == expected;
        expected *= dimension;
        fits
    })
}

/// Copies elements of `size` bytes into row-major order.
fn gather(storage: &[u8], size: usize, offset: usize, shape: &[usize], strides: &[usize]) -> Bytes {
    let count: usize = shape.iter().product();
    let mut bytes = Vec::with_capacity(count * size);
    let mut index = vec![0; shape.len()];
    for _ in 0..count {
        let at = offset + index.iter().zip(strides).map(|(index, stride)| index * stride).sum::<usize>();
        bytes.extend_from_slice(&storage[at * size..(at + 1) * size]);
        for (index, dimension) in index.iter_mut().zip(shape).rev() {
            *index += 1;
            if *index < *dimension {
                break;
            }
            *index = 0;
        }
    }
    bytes.into()
}
