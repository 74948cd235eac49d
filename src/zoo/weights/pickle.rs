//! A reader of Python's pickles that executes nothing.
//!
//! A pickle is a program for a stack machine, and its `GLOBAL` and `REDUCE` opcodes can call any function that Python can
//! import. This machine knows the opcodes that PyTorch writes and, of all functions, those few that rebuild tensors, which
//! become records here. Everything else is an error that names it.
//!
//! Every opcode adds at most one value, and there is a limit on both, so a small pickle cannot become a large structure.
//! Containers live in an arena and are referred to by index: there is no recursion, and no cycle can be leaked.

use std::collections::HashMap;
use std::rc::Rc;

use super::WeightType;
use crate::error::{Error, Result};

/// How many opcodes a pickle may have. A tensor takes some 30: this is room for 30,000 tensors.
const MAX_OPCODES: usize = 1 << 20;

/// Most dimensions of a tensor, and most arguments of a function, that make sense here.
const MAX_ELEMENTS: usize = 8;

/// A value on the machine's stack. Containers are indices into the [`Pickle`] they came from.
#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool,
    Int(i64),
    Float,
    Text(Rc<str>),
    Global(Global),
    /// A list or a tuple.
    Sequence(usize),
    Dict(usize),
    Storage(Rc<StorageRecord>),
    Tensor(Rc<TensorRecord>),
}

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

/// A pickle that was read.
#[derive(Debug)]
pub(super) struct Pickle {
    pub(super) root: Value,
    /// How many bytes the pickle took.
    pub(super) length: usize,
    /// Every storage that is mentioned.
    pub(super) storages: Vec<Rc<StorageRecord>>,
    sequences: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
}

impl Pickle {
    /// Reads the pickle that `bytes` begin with.
    ///
    /// # Errors
    /// `InvalidArgument` when it is cut off or malformed, or uses an opcode or a function that is not allowed.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        Machine { bytes, budget: MAX_OPCODES, ..Machine::default() }.run()
    }

    /// The items of a dictionary, `None` for any other value.
    pub(super) fn dict(&self, value: &Value) -> Option<&[(Value, Value)]> {
        let Value::Dict(index) = value else { return None };
        self.dicts.get(*index).map(Vec::as_slice)
    }

    /// The elements of a list or tuple, `None` for any other value.
    pub(super) fn sequence(&self, value: &Value) -> Option<&[Value]> {
        let Value::Sequence(index) = value else { return None };
        self.sequences.get(*index).map(Vec::as_slice)
    }
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    /// How many more opcodes, and values that one opcode adds beyond its first, there may be.
    budget: usize,
    stack: Vec<Value>,
    /// Heights of the stack where `MARK` was met.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    storages: Vec<Rc<StorageRecord>>,
    sequences: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
}

impl Machine<'_> {
    fn run(mut self) -> Result<Pickle> {
        loop {
            self.spend(1)?;
            let at = self.position;
            let [opcode] = self.take()?;
            if opcode == b'.' {
                let root = self.pop()?;
                let Self { position: length, storages, sequences, dicts, .. } = self;
                return Ok(Pickle { root, length, storages, sequences, dicts });
            }
            self.step(opcode, at)?;
        }
    }

    fn spend(&mut self, count: usize) -> Result<()> {
        self.budget = self
            .budget
            .checked_sub(count)
            .ok_or_else(|| Error::invalid(format!("the pickle has more than {MAX_OPCODES} opcodes")))?;
        Ok(())
    }

    fn step(&mut self, opcode: u8, at: usize) -> Result<()> {
        match opcode {
            // PROTO and FRAME say nothing that is needed here.
            0x80 => self.skip(1)?,
            0x95 => self.skip(8)?,
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.stack.push(Value::None),
            0x88 | 0x89 => self.stack.push(Value::Bool),
            b'J' => self.integer(|machine| Ok(i32::from_le_bytes(machine.take()?).into()))?,
            b'K' => self.integer(|machine| Ok(u8::from_le_bytes(machine.take()?).into()))?,
            b'M' => self.integer(|machine| Ok(u16::from_le_bytes(machine.take()?).into()))?,
            0x8a => self.integer(Self::take_long)?,
            b'G' => {
                self.skip(8)?;
                self.stack.push(Value::Float);
            }
            b'X' | b'T' => {
                let length = u32::from_le_bytes(self.take()?);
                self.text(length as usize)?;
            }
            0x8c | b'U' => {
                let [length] = self.take()?;
                self.text(length.into())?;
            }
            b'q' => {
                let [key] = self.take()?;
                self.memoize(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.take()?);
                self.memoize(key)?;
            }
            0x94 => self.memoize(self.memo.len() as u32)?,
            b'h' => {
                let [key] = self.take()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.take()?);
                self.recall(key)?;
            }
            b')' | b']' => self.push_sequence(vec![]),
            b'}' => self.push_dict(vec![]),
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let elements = self.pop_to_mark()?;
                self.push_sequence(elements);
            }
            b'a' => {
                let element = self.pop()?;
                self.append(vec![element])?;
            }
            b'e' => {
                let elements = self.pop_to_mark()?;
                self.append(elements)?;
            }
            b's' => {
                let pair = self.pop_many(2)?;
                self.set_items(&pair)?;
            }
            b'u' => {
                let pairs = self.pop_to_mark()?;
                self.set_items(&pairs)?;
            }
            b'c' => {
                let module = self.take_line()?;
                let name = self.take_line()?;
                self.stack.push(Value::Global(global(&module, &name)?));
            }
            0x93 => {
                let names = self.pop_many(2)?;
                let [Value::Text(module), Value::Text(name)] = names.as_slice() else { return Err(malformed(at)) };
                self.stack.push(Value::Global(global(module, name)?));
            }
            b'R' => {
                let arguments = self.pop()?;
                let arguments = self.short_sequence(&arguments)?.to_vec();
                let Value::Global(function) = self.pop()? else { return Err(malformed(at)) };
                self.call(function, &arguments)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = Rc::new(self.storage(self.sequence(&id)?)?);
                self.storages.push(storage.clone());
                self.stack.push(Value::Storage(storage));
            }
            // BUILD: the attributes of a dictionary, `_metadata` for instance, are no weights.
            b'b' => {
                self.pop()?;
                let Some(Value::Dict(_)) = self.stack.last() else { return Err(malformed(at)) };
            }
            _ => {
                return Err(Error::invalid(format!(
                    "the pickle has the opcode 0x{opcode:02x} at byte {at}, which is not allowed"
                )));
            }
        }
        Ok(())
    }

    fn take<const SIZE: usize>(&mut self) -> Result<[u8; SIZE]> {
        let (chunk, _) = self.bytes[self.position..].split_first_chunk().ok_or_else(cut_off)?;
        self.position += SIZE;
        Ok(*chunk)
    }

    fn skip(&mut self, length: usize) -> Result<()> {
        self.take_slice(length).map(|_| ())
    }

    fn take_slice(&mut self, length: usize) -> Result<&[u8]> {
        let slice = self.bytes[self.position..].get(..length).ok_or_else(cut_off)?;
        self.position += length;
        Ok(slice)
    }

    fn take_line(&mut self) -> Result<String> {
        let length = self.bytes[self.position..].iter().position(|&byte| byte == b'\n').ok_or_else(cut_off)?;
        let line = String::from_utf8_lossy(self.take_slice(length)?).into_owned();
        self.position += 1;
        Ok(line)
    }

    /// LONG1: a length, then a little-endian integer in two's complement.
    fn take_long(&mut self) -> Result<i64> {
        let at = self.position;
        let [length] = self.take()?;
        let bytes = self.take_slice(length.into())?;
        if bytes.len() > 8 {
            return Err(malformed(at));
        }
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(wide))
    }

    fn integer(&mut self, take: impl Fn(&mut Self) -> Result<i64>) -> Result<()> {
        let value = take(self)?;
        self.stack.push(Value::Int(value));
        Ok(())
    }

    fn text(&mut self, length: usize) -> Result<()> {
        let at = self.position;
        let text = str::from_utf8(self.take_slice(length)?).map_err(|_| malformed(at))?.into();
        self.stack.push(Value::Text(text));
        Ok(())
    }

    fn memoize(&mut self, key: u32) -> Result<()> {
        let value = self.stack.last().ok_or_else(|| malformed(self.position))?.clone();
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<()> {
        let value = self.memo.get(&key).ok_or_else(|| malformed(self.position))?.clone();
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value> {
        // What lies below a mark belongs to whoever set it.
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(malformed(self.position));
        }
        self.stack.pop().ok_or_else(|| malformed(self.position))
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Value>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= floor => Ok(self.stack.split_off(start)),
            _ => Err(malformed(self.position)),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop().ok_or_else(|| malformed(self.position))?;
        Ok(self.stack.split_off(mark))
    }

    fn push_sequence(&mut self, elements: Vec<Value>) {
        self.stack.push(Value::Sequence(self.sequences.len()));
        self.sequences.push(elements);
    }

    fn push_dict(&mut self, items: Vec<(Value, Value)>) {
        self.stack.push(Value::Dict(self.dicts.len()));
        self.dicts.push(items);
    }

    fn tuple(&mut self, count: usize) -> Result<()> {
        let elements = self.pop_many(count)?;
        self.push_sequence(elements);
        Ok(())
    }

    fn append(&mut self, elements: Vec<Value>) -> Result<()> {
        let Some(&Value::Sequence(index)) = self.stack.last() else { return Err(malformed(self.position)) };
        self.sequences[index].extend(elements);
        Ok(())
    }

    fn set_items(&mut self, pairs: &[Value]) -> Result<()> {
        let Some(&Value::Dict(index)) = self.stack.last() else { return Err(malformed(self.position)) };
        if !pairs.len().is_multiple_of(2) {
            return Err(malformed(self.position));
        }
        self.dicts[index].extend(pairs.as_chunks().0.iter().map(|[key, value]| (key.clone(), value.clone())));
        Ok(())
    }

    fn sequence(&self, value: &Value) -> Result<&[Value]> {
        match value {
            Value::Sequence(index) => Ok(&self.sequences[*index]),
            _ => Err(malformed(self.position)),
        }
    }

    /// A sequence that is copied, and so must not be long: any number of opcodes may refer to the same one.
    fn short_sequence(&self, value: &Value) -> Result<&[Value]> {
        self.sequence(value).and_then(|elements| match elements.len() {
            0..=MAX_ELEMENTS => Ok(elements),
            _ => Err(malformed(self.position)),
        })
    }

    fn call(&mut self, function: Global, arguments: &[Value]) -> Result<()> {
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
    fn storage(&self, id: &[Value]) -> Result<StorageRecord> {
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
}

fn global(module: &str, name: &str) -> Result<Global> {
    Ok(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("torch", "BoolStorage") => Global::Storage(WeightType::Bool),
        ("torch", "ByteStorage") => Global::Storage(WeightType::Uint8),
        ("torch", "CharStorage") => Global::Storage(WeightType::Int8),
        ("torch", "ShortStorage") => Global::Storage(WeightType::Int16),
        ("torch", "IntStorage") => Global::Storage(WeightType::Int32),
        ("torch", "LongStorage") => Global::Storage(WeightType::Int64),
        ("torch", "HalfStorage") => Global::Storage(WeightType::Fp16),
        ("torch", "BFloat16Storage") => Global::Storage(WeightType::Bf16),
        ("torch", "FloatStorage") => Global::Storage(WeightType::Fp32),
        ("torch", "DoubleStorage") => Global::Storage(WeightType::Fp64),
        _ => {
            return Err(Error::invalid(format!(
                "the pickle asks for {module}.{name}, which is not allowed: save the model's state_dict, not the model"
            )));
        }
    })
}

fn cut_off() -> Error {
    Error::invalid("the pickle is cut off")
}

fn malformed(at: usize) -> Error {
    Error::invalid(format!("the pickle is malformed at byte {at}"))
}
