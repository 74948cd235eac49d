//! What a pickle of tensors may call, and the storages that it names: here they make records.

use std::rc::Rc;

use super::super::records::{Global, StorageRecord, TensorRecord};
use super::{Machine, Value, malformed};
use crate::error::Result;

/// Most dimensions of a tensor, and most arguments of a function, that make sense here.
const MAX_ELEMENTS: usize = 8;

impl Machine<'_> {
    /// What `REDUCE` does: pushes what `function` makes of its arguments.
    pub(super) fn call(&mut self, function: Global, arguments: &[Value]) -> Result<()> {
        match (function, arguments) {
            (Global::OrderedDict, []) => self.push_dict(vec![]),
            // Python 2 hands over a list of pairs.
            (Global::OrderedDict, [pairs]) => {
                self.spend(self.sequence(pairs)?.len())?;
                let items = self
                    .sequence(pairs)?
                    .iter()
                    .map(|pair| match self.sequence(pair)? {
                        [key, value] => Ok((key.clone(), value.clone())),
                        _ => Err(malformed(self.position)),
                    })
                    .collect::<Result<Vec<_>>>()?;
                self.push_dict(items);
            }
            // Gradients and hooks follow.
            (Global::RebuildTensor, [Value::Storage(storage), offset, shape, strides, ..]) => {
                let record = TensorRecord {
                    storage: storage.clone(),
                    offset: self.size(offset)?,
                    shape: self.sizes(shape)?,
                    strides: self.sizes(strides)?,
                };
                self.stack.push(Value::Tensor(Rc::new(record)));
            }
            (Global::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => self.stack.push(tensor.clone()),
            _ => return Err(malformed(self.position)),
        }
        Ok(())
    }

    /// The persistent id of a storage: `("storage", type, key, device, elements)`, and a view in the old format.
    pub(super) fn storage(&self, id: &[Value]) -> Result<StorageRecord> {
        let [Value::Text(kind), Value::Global(Global::Storage(data_type)), Value::Text(key), _, elements, view @ ..] =
            id
        else {
            return Err(malformed(self.position));
        };
        if &**kind != "storage" {
            return Err(malformed(self.position));
        }
        let view = match view {
            [] | [Value::None] => None,
            [view] => match self.sequence(view)? {
                [_, offset, elements] => Some((self.size(offset)?, self.size(elements)?)),
                _ => return Err(malformed(self.position)),
            },
            _ => return Err(malformed(self.position)),
        };
        Ok(StorageRecord { data_type: *data_type, key: key.clone(), elements: self.size(elements)?, view })
    }

    fn size(&self, value: &Value) -> Result<usize> {
        match value {
            Value::Int(value) => usize::try_from(*value).map_err(|_| malformed(self.position)),
            _ => Err(malformed(self.position)),
        }
    }

    fn sizes(&self, value: &Value) -> Result<Vec<usize>> {
        self.short_sequence(value)?.iter().map(|size| self.size(size)).collect()
    }

    /// A sequence that is copied, and so must not be long: any number of opcodes may refer to the same one.
    pub(super) fn short_sequence(&self, value: &Value) -> Result<&[Value]> {
        self.sequence(value).and_then(|elements| match elements.len() {
            0..=MAX_ELEMENTS => Ok(elements),
            _ => Err(malformed(self.position)),
        })
    }
}
