//! A reader of Python's pickles that executes nothing.
//!
//! A pickle is a program for a stack machine, and its `GLOBAL` and `REDUCE` opcodes can call any function that Python can
//! import. This machine knows the opcodes that PyTorch writes and, of all functions, those few that rebuild tensors, which
//! become records here. Everything else is an error that names it.
//!
//! Every opcode adds at most one value, and there is a limit on both, so a small pickle cannot become a large structure.
//! Containers live in an arena and are referred to by index: there is no recursion, and no cycle can be leaked.

mod rebuild;

use std::collections::HashMap;
use std::rc::Rc;

use super::opcode;
use super::records::{Global, StorageRecord, TensorRecord};
use crate::error::{Error, Result};

/// How many opcodes a pickle may have. A tensor takes some 30: this is room for 30,000 tensors.
const MAX_OPCODES: usize = 1 << 20;

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
            let [code] = self.take()?;
            if code == opcode::STOP {
                let root = self.pop()?;
                let Self { position: length, storages, sequences, dicts, .. } = self;
                return Ok(Pickle { root, length, storages, sequences, dicts });
            }
            self.step(code, at)?;
        }
    }

    fn spend(&mut self, count: usize) -> Result<()> {
        self.budget = self
            .budget
            .checked_sub(count)
            .ok_or_else(|| Error::invalid(format!("the pickle has more than {MAX_OPCODES} opcodes")))?;
        Ok(())
    }

    fn step(&mut self, code: u8, at: usize) -> Result<()> {
        match code {
            // These two say nothing that is needed here.
            opcode::PROTO => self.skip(1)?,
            opcode::FRAME => self.skip(8)?,
            opcode::MARK => self.marks.push(self.stack.len()),
            opcode::NONE => self.stack.push(Value::None),
            opcode::NEWTRUE | opcode::NEWFALSE => self.stack.push(Value::Bool),
            opcode::BININT => self.integer(|machine| Ok(i32::from_le_bytes(machine.take()?).into()))?,
            opcode::BININT1 => self.integer(|machine| Ok(u8::from_le_bytes(machine.take()?).into()))?,
            opcode::BININT2 => self.integer(|machine| Ok(u16::from_le_bytes(machine.take()?).into()))?,
            opcode::LONG1 => self.integer(Self::take_long)?,
            opcode::BINFLOAT => {
                self.skip(8)?;
                self.stack.push(Value::Float);
            }
            opcode::BINUNICODE | opcode::BINSTRING => {
                let length = u32::from_le_bytes(self.take()?);
                self.text(length as usize)?;
            }
            opcode::SHORT_BINUNICODE | opcode::SHORT_BINSTRING => {
                let [length] = self.take()?;
                self.text(length.into())?;
            }
            opcode::BINPUT => {
                let [key] = self.take()?;
                self.memoize(key.into())?;
            }
            opcode::LONG_BINPUT => {
                let key = u32::from_le_bytes(self.take()?);
                self.memoize(key)?;
            }
            opcode::MEMOIZE => self.memoize(self.memo.len() as u32)?,
            opcode::BINGET => {
                let [key] = self.take()?;
                self.recall(key.into())?;
            }
            opcode::LONG_BINGET => {
                let key = u32::from_le_bytes(self.take()?);
                self.recall(key)?;
            }
            opcode::EMPTY_TUPLE | opcode::EMPTY_LIST => self.push_sequence(vec![]),
            opcode::EMPTY_DICT => self.push_dict(vec![]),
            opcode::TUPLE1 => self.tuple(1)?,
            opcode::TUPLE2 => self.tuple(2)?,
            opcode::TUPLE3 => self.tuple(3)?,
            opcode::TUPLE => {
                let elements = self.pop_to_mark()?;
                self.push_sequence(elements);
            }
            opcode::APPEND => {
                let element = self.pop()?;
                self.append(vec![element])?;
            }
            opcode::APPENDS => {
                let elements = self.pop_to_mark()?;
                self.append(elements)?;
            }
            opcode::SETITEM => {
                let pair = self.pop_many(2)?;
                self.set_items(&pair)?;
            }
            opcode::SETITEMS => {
                let pairs = self.pop_to_mark()?;
                self.set_items(&pairs)?;
            }
            opcode::GLOBAL => {
                let module = self.take_line()?;
                let name = self.take_line()?;
                self.stack.push(Value::Global(Global::find(&module, &name)?));
            }
            opcode::STACK_GLOBAL => {
                let names = self.pop_many(2)?;
                let [Value::Text(module), Value::Text(name)] = names.as_slice() else { return Err(malformed(at)) };
                self.stack.push(Value::Global(Global::find(module, name)?));
            }
            opcode::REDUCE => {
                let arguments = self.pop()?;
                let arguments = self.short_sequence(&arguments)?.to_vec();
                let Value::Global(function) = self.pop()? else { return Err(malformed(at)) };
                self.call(function, &arguments)?;
            }
            opcode::BINPERSID => {
                let id = self.pop()?;
                let storage = Rc::new(self.storage(self.sequence(&id)?)?);
                self.storages.push(storage.clone());
                self.stack.push(Value::Storage(storage));
            }
            // The attributes of a dictionary, `_metadata` for instance, are no weights.
            opcode::BUILD => {
                self.pop()?;
                let Some(Value::Dict(_)) = self.stack.last() else { return Err(malformed(at)) };
            }
            _ => {
                return Err(Error::invalid(format!(
                    "the pickle has the opcode 0x{code:02x} at byte {at}, which is not allowed"
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

    /// A length, then a little-endian integer in two's complement.
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
}

fn cut_off() -> Error {
    Error::invalid("the pickle is cut off")
}

fn malformed(at: usize) -> Error {
    Error::invalid(format!("the pickle is malformed at byte {at}"))
}
