//! Operators that take elements from their input as they are, and put them elsewhere. Shapes are computed by these.

use super::{Call, MAX_INTEGERS, Value, axis, product};

impl Call<'_> {
    pub(super) fn reshape(&self) -> Option<Vec<usize>> {
        let input = self.shape(0)?;
        let allow_zero = self.int("allowzero", 0) != 0;
        let mut shape = Vec::new();
        let mut open = None;
        for (index, size) in self.ints_or_input("shape", 1)?.into_iter().enumerate() {
            shape.push(match size {
                -1 => {
                    open = Some(index);
                    1
                }
                0 if !allow_zero => *input.get(index)?,
                size => usize::try_from(size).ok()?,
            });
        }
        if let Some(index) = open {
            shape[index] = product(input)?.checked_div(product(&shape)?)?;
        }
        (product(&shape)? == product(input)?).then_some(shape)
    }

    pub(super) fn concat(&self) -> Option<Value> {
        let mut shape = self.shape(0)?.to_vec();
        let axis = axis(self.int("axis", 1), shape.len())?;
        for index in 1..self.inputs.len() {
            shape[axis] = shape[axis].checked_add(*self.shape(index)?.get(axis)?)?;
        }
        let integers = (0..self.inputs.len()).map(|index| self.integers(index)).collect::<Option<Vec<_>>>();
        let integers = integers.map(|parts| parts.concat()).filter(|integers| integers.len() <= MAX_INTEGERS);
        Some(Value { integers, ..Value::of_shape(shape) })
    }

    pub(super) fn split(&self) -> Option<Vec<Value>> {
        let shape = self.shape(0)?;
        let axis = axis(self.int("axis", 0), shape.len())?;
        let parts = self.node.output.len().max(1);
        let size = shape[axis].div_ceil(parts);
        let sizes = match self.ints_or_input("split", 1) {
            Some(sizes) => sizes.into_iter().map(|size| usize::try_from(size).ok()).collect::<Option<Vec<_>>>()?,
            None => {
                (0..parts).map(|part| Some(size.min(shape[axis].checked_sub(part * size)?))).collect::<Option<_>>()?
            }
        };
        let part = |size| {
            let mut shape = shape.to_vec();
            shape[axis] = size;
            Value::of_shape(shape)
        };
        Some(sizes.into_iter().map(part).collect())
    }

    pub(super) fn squeeze(&self) -> Option<Value> {
        let shape = self.shape(0)?;
        let axes = self.ints_or_input("axes", 1);
        if self.node.op_type == "Unsqueeze" {
            let axes = axes?;
            let rank = shape.len() + axes.len();
            let axes = axes.into_iter().map(|it| axis(it, rank)).collect::<Option<Vec<_>>>()?;
            let mut sizes = shape.iter();
            let mut size = |index| if axes.contains(&index) { Some(1) } else { sizes.next().copied() };
            return Some(Value::of_shape((0..rank).map(&mut size).collect::<Option<_>>()?));
        }
        let axes = axes.map(|axes| axes.into_iter().map(|it| axis(it, shape.len())).collect::<Option<Vec<_>>>());
        let axes = match axes {
            Some(axes) => axes?,
            None => (0..shape.len()).filter(|&index| shape[index] == 1).collect(),
        };
        let kept = shape.iter().enumerate().filter(|(index, _)| !axes.contains(index));
        Some(Value::of_shape(kept.map(|(_, &size)| size).collect()))
    }

    pub(super) fn slice(&self) -> Option<Value> {
        let input = self.shape(0)?;
        let (starts, ends) = (self.ints_or_input("starts", 1)?, self.ints_or_input("ends", 2)?);
        let sliced = self.ints_or_input("axes", 3).unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = self.integers(4).unwrap_or_else(|| vec![1; starts.len()]);
        let mut shape = input.to_vec();
        let mut integers = self.integers(0);
        for (index, &named) in sliced.iter().enumerate() {
            let axis = axis(named, shape.len())?;
            let size = i64::try_from(input[axis]).ok()?;
            let clamp = |bound: i64| if bound < 0 { bound.saturating_add(size) } else { bound }.clamp(0, size);
            let (start, end, step) = (clamp(*starts.get(index)?), clamp(*ends.get(index)?), *steps.get(index)?);
            // Backwards is not how a classifier slices.
            let step = usize::try_from(step).ok().filter(|&step| step > 0)?;
            shape[axis] = usize::try_from((end - start).max(0)).ok()?.div_ceil(step);
            integers = integers.and_then(|all| {
                let range = all.get(start as usize..end.max(start) as usize)?;
                Some(range.iter().step_by(step).copied().collect())
            });
        }
        Some(Value { integers, ..Value::of_shape(shape) })
    }

    pub(super) fn pad(&self) -> Option<Vec<usize>> {
        let mut shape = self.shape(0)?.to_vec();
        let pads = self.ints_or_input("pads", 1)?;
        if self.inputs.len() > 3 {
            // Pads of some axes only.
            return None;
        }
        let rank = shape.len();
        for (index, size) in shape.iter_mut().enumerate() {
            let added = i128::from(*pads.get(index)?) + i128::from(*pads.get(rank + index)?);
            *size = usize::try_from(*size as i128 + added).ok()?;
        }
        Some(shape)
    }

    pub(super) fn gather(&self) -> Option<Value> {
        let (shape, indices) = (self.shape(0)?, self.shape(1)?);
        let axis = axis(self.int("axis", 0), shape.len())?;
        let gathered = [&shape[..axis], indices, &shape[axis + 1..]].concat();
        let pick = |(all, indices): (Vec<i64>, Vec<i64>)| {
            let at =
                |&index: &i64| all.get(usize::try_from(if index < 0 { index + all.len() as i64 } else { index }).ok()?);
            indices.iter().map(|index| at(index).copied()).collect::<Option<Vec<_>>>()
        };
        let integers = self.integers(0).zip(self.integers(1)).and_then(pick);
        Some(Value { integers, ..Value::of_shape(gathered) })
    }
}
