//! The adjoints of operators that move values about: convolution, pooling, and what selects or reorders.

use super::super::network::switches;
use super::Call;
use super::writer::Writer;
use crate::error::Result;
use crate::onnx::AttributeProto;
use crate::onnx::proto::attribute_proto::AttributeType;
use crate::onnx::proto::tensor_proto::DataType as OnnxType;

/// Windows along one dimension.
#[derive(Debug, Clone, Copy)]
struct Windows {
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    before: usize,
    after: usize,
}

impl Windows {
    /// What a transposed convolution must cut off behind, and what it must add, for its output to be as large as the input was.
    fn transposed(self) -> (usize, usize) {
        let reach = self.reach();
        let end = reach.saturating_sub(self.before);
        (end.saturating_sub(self.input), self.input.saturating_sub(end))
    }

    /// The places from the first of the first window to the last of the last.
    fn reach(self) -> usize {
        self.stride * self.output.saturating_sub(1) + self.dilation * self.kernel.saturating_sub(1) + 1
    }

    /// How many places window number `index` averages over.
    fn count(self, index: usize, with_padding: bool) -> usize {
        let start = index * self.stride;
        let end = start + self.kernel;
        // In places of the padded input. A window may hang over even that, in which case nobody counts what is outside.
        let (first, last) = if with_padding {
            (0, self.before + self.input + self.after)
        } else {
            (self.before, self.before + self.input)
        };
        end.min(last).saturating_sub(start.max(first)).max(1)
    }
}

impl Call<'_> {
    /// The windows of a convolution or pooling along each of the dimensions behind the channels.
    fn windows(&self, writer: &Writer<'_>, kernel: &[usize]) -> Result<Vec<Windows>> {
        let (input, output) = (self.input_shape(writer)?, self.output_shape(writer)?);
        let list = |name: &str, default: usize, length: usize| -> Vec<usize> {
            let ints =
                self.attribute(name).map(|attribute| attribute.ints.iter().map(|&it| it.max(0) as usize).collect());
            ints.filter(|ints: &Vec<usize>| ints.len() == length).unwrap_or_else(|| vec![default; length])
        };
        let rank = kernel.len();
        if input.len() != rank + 2 || output.len() != rank + 2 {
            return Err(self.unsupported());
        }
        let (strides, dilations) = (list("strides", 1, rank), list("dilations", 1, rank));
        let pads = list("pads", 0, 2 * rank);
        let auto_pad = self.attribute("auto_pad").map_or(&b"NOTSET"[..], |attribute| &attribute.s);
        let windows = (0..rank).map(|index| {
            let mut windows = Windows {
                input: input[index + 2],
                output: output[index + 2],
                kernel: kernel[index],
                stride: strides[index],
                dilation: dilations[index],
                before: pads[index],
                after: pads[rank + index],
            };
            if auto_pad.starts_with(b"SAME") {
                let padding = windows.reach().saturating_sub(windows.input);
                windows.before = if auto_pad == b"SAME_UPPER" { padding / 2 } else { padding.div_ceil(2) };
                windows.after = padding - windows.before;
            }
            windows
        });
        Ok(windows.collect())
    }

    /// The attributes of the transposed convolution that gives back what `windows` took.
    fn transposed(windows: &[Windows]) -> Vec<AttributeProto> {
        let (after, added): (Vec<_>, Vec<_>) = windows.iter().map(|it| it.transposed()).unzip();
        vec![
            AttributeProto::ints("kernel_shape", windows.iter().map(|it| it.kernel)),
            AttributeProto::ints("strides", windows.iter().map(|it| it.stride)),
            AttributeProto::ints("dilations", windows.iter().map(|it| it.dilation)),
            AttributeProto::ints("pads", windows.iter().map(|it| it.before).chain(after)),
            AttributeProto::ints("output_padding", added),
        ]
    }

    pub(super) fn conv(&self, writer: &mut Writer<'_>) -> Result<String> {
        let name = &self.node.input[1];
        let kernel = writer.network.shape(name)?.get(2..).unwrap_or_default().to_vec();
        let mut attributes = Self::transposed(&self.windows(writer, &kernel)?);
        attributes.push(AttributeProto::int("group", self.int("group", 1)));
        let filters = writer.forward(name)?;
        Ok(writer.node("ConvTranspose", &[self.arrived, &filters], attributes))
    }

    fn kernel(&self) -> Result<Vec<usize>> {
        let kernel = self.attribute("kernel_shape").ok_or_else(|| self.unsupported())?;
        Ok(kernel.ints.iter().map(|&size| size.max(1) as usize).collect())
    }

    /// Puts what came back where the maxima were. Windows that share their maximum add up there, which `MaxUnpool` gets wrong.
    pub(super) fn max_pool(&self, writer: &mut Writer<'_>) -> Result<String> {
        if self.int("storage_order", 0) != 0 || writer.network.opset() < 8 {
            return Err(self.refused("does not say where its maxima were, and cannot be run backwards"));
        }
        let name = switches(self.node);
        let shape = self.output_shape(writer)?;
        let places = writer.saved(&name, OnnxType::Int64, &shape);
        let places = writer.reshape(&places, &[shape.iter().product()])?;
        self.scatter(writer, &places)
    }

    /// Adds what came back to zeros of the input's shape, each value at the place that `places` says of it.
    fn scatter(&self, writer: &mut Writer<'_>, places: &str) -> Result<String> {
        let (input, output) = (self.input_shape(writer)?, self.output_shape(writer)?);
        let size = writer.integers(&[input.iter().product()])?;
        let zeros = writer.node("ConstantOfShape", &[&size], vec![]);
        let values = writer.reshape(self.arrived, &[output.iter().product()])?;
        let add = AttributeProto {
            name: "reduction".to_owned(),
            r#type: AttributeType::String.into(),
            s: b"add".as_slice().into(),
            ..AttributeProto::default()
        };
        let attributes = vec![AttributeProto::int("axis", 0), add];
        let sums = writer.node("ScatterElements", &[&zeros, places, &values], attributes);
        writer.reshape(&sums, &input)
    }

    /// Spreads each mean over the places that it is the mean of.
    pub(super) fn average_pool(&self, writer: &mut Writer<'_>) -> Result<String> {
        let windows = self.windows(writer, &self.kernel()?)?;
        if windows.iter().any(|it| it.dilation != 1) {
            return Err(self.unsupported());
        }
        let with_padding = self.int("count_include_pad", 0) != 0;
        let (input, output) = (self.input_shape(writer)?, self.output_shape(writer)?);
        let window_count: usize = output[2..].iter().product();
        let share = |window: usize| {
            // From the last dimension to the first.
            let (_, count) = windows.iter().rev().fold((window, 1), |(rest, count), it| {
                (rest / it.output, count * it.count(rest % it.output, with_padding))
            });
            1.0 / count as f32
        };
        let weights: Vec<f32> = (0..window_count).map(share).collect();
        let weights = writer.constant(&[&[1, 1], &output[2..]].concat(), weights)?;
        let shared = writer.node("Mul", &[self.arrived, &weights], vec![]);
        // Every channel by itself, as if it were a picture of its own.
        let planes = output[0] * output[1];
        let shared = writer.reshape(&shared, &[&[planes, 1], &output[2..]].concat())?;
        let kernel = [&[1, 1], self.kernel()?.as_slice()].concat();
        let ones = writer.constant(&kernel, vec![1f32; kernel.iter().product()])?;
        let spread = writer.node("ConvTranspose", &[&shared, &ones], Self::transposed(&windows));
        writer.reshape(&spread, &input)
    }

    /// Spreads a mean over `axes`, which the output may have or lack.
    pub(super) fn mean(&self, writer: &mut Writer<'_>, axes: &[usize]) -> Result<String> {
        let input = self.input_shape(writer)?;
        let kept: Vec<_> = (0..input.len()).map(|axis| if axes.contains(&axis) { 1 } else { input[axis] }).collect();
        let count: usize = axes.iter().map(|&axis| input[axis]).product();
        let weight = writer.scalar(1.0 / count as f32)?;
        let part = writer.reshape(self.arrived, &kept)?;
        let part = writer.node("Mul", &[&part, &weight], vec![]);
        let shape = writer.integers(&input)?;
        Ok(writer.node("Expand", &[&part, &shape], vec![]))
    }

    pub(super) fn reduce_mean(&self, writer: &mut Writer<'_>) -> Result<String> {
        let rank = self.input_shape(writer)?.len();
        let axes = self.ints(writer, "axes", 1)?.unwrap_or_else(|| (0..rank as i64).collect());
        let axes: Vec<_> = axes.into_iter().map(|axis| self.axis(axis, rank)).collect::<Result<_>>()?;
        self.mean(writer, &axes)
    }

    fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let axis = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
        usize::try_from(axis).ok().filter(|&axis| axis < rank).ok_or_else(|| self.unsupported())
    }

    pub(super) fn concat(&self, writer: &mut Writer<'_>) -> Result<Vec<(usize, String)>> {
        let axis = self.axis(self.int("axis", 1), self.output_shape(writer)?.len())?;
        let mut start = 0;
        let mut parts = Vec::new();
        for (index, name) in self.node.input.iter().enumerate() {
            let end = start + writer.network.shape(name)?[axis];
            if self.is_input_active[index] {
                let bounds = [&[start], &[end], &[axis]].map(|value| writer.integers(value));
                let [start, end, axis] = bounds;
                parts.push((index, writer.node("Slice", &[self.arrived, &start?, &end?, &axis?], vec![])));
            }
            start = end;
        }
        Ok(parts)
    }

    pub(super) fn transpose(&self, writer: &mut Writer<'_>) -> Result<String> {
        let rank = self.input_shape(writer)?.len();
        let order = match self.attribute("perm") {
            Some(order) => order.ints.iter().map(|&axis| self.axis(axis, rank)).collect::<Result<Vec<_>>>()?,
            None => (0..rank).rev().collect(),
        };
        let mut back = vec![0; rank];
        for (to, &from) in order.iter().enumerate() {
            back[from] = to;
        }
        Ok(writer.node("Transpose", &[self.arrived], vec![AttributeProto::ints("perm", back)]))
    }

    /// Puts what came back where it was taken from.
    pub(super) fn selection(&self, writer: &mut Writer<'_>) -> Result<String> {
        let input = self.input_shape(writer)?;
        let rank = input.len();
        // For each axis of the input, the places along it that are taken.
        let mut taken: Vec<Vec<usize>> = input.iter().map(|&size| (0..size).collect()).collect();
        match self.node.op_type.as_str() {
            "Gather" => {
                let axis = self.axis(self.int("axis", 0), rank)?;
                let indices = self.ints(writer, "", 1)?.unwrap_or_default();
                taken[axis] = indices.into_iter().map(|at| self.axis(at, input[axis])).collect::<Result<_>>()?;
            }
            "Split" => {
                let axis = self.axis(self.int("axis", 0), rank)?;
                let size = |output: &String| writer.network.shape(output).map(|shape| shape[axis]);
                let before: usize = self.node.output[..self.output].iter().map(size).sum::<Result<_>>()?;
                taken[axis] = (before..before + size(&self.node.output[self.output])?).collect();
            }
            _ => {
                let starts = self.ints(writer, "starts", 1)?.unwrap_or_default();
                let ends = self.ints(writer, "ends", 2)?.unwrap_or_default();
                let axes = self.ints(writer, "axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
                let steps = self.ints(writer, "steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
                for (((start, end), named), step) in starts.into_iter().zip(ends).zip(axes).zip(steps) {
                    let along = self.axis(named, rank)?;
                    let size = input[along] as i64;
                    let within = |bound: i64| if bound < 0 { bound.saturating_add(size) } else { bound }.clamp(0, size);
                    let step = usize::try_from(step).ok().filter(|&step| step > 0).ok_or_else(|| self.unsupported())?;
                    taken[along] = (within(start) as usize..within(end) as usize).step_by(step).collect();
                }
            }
        }
        let places = taken.iter().zip(&input).fold(vec![0usize], |places, (taken, size)| {
            places.iter().flat_map(|place| taken.iter().map(move |at| place * size + at)).collect()
        });
        if places.len() != self.output_shape(writer)?.iter().product::<usize>() {
            return Err(self.unsupported());
        }
        let places = writer.integers(&places)?;
        self.scatter(writer, &places)
    }

    /// Cuts off what was added.
    pub(super) fn pad(&self, writer: &mut Writer<'_>) -> Result<String> {
        let is_constant = self.attribute("mode").is_none_or(|mode| &mode.s[..] == b"constant");
        let pads = self.ints(writer, "pads", 1)?.unwrap_or_default();
        let input = self.input_shape(writer)?;
        if !is_constant || pads.len() != 2 * input.len() || pads.iter().any(|&pad| pad < 0) || self.node.input.len() > 3
        {
            return Err(self.unsupported());
        }
        let starts: Vec<_> = pads[..input.len()].iter().map(|&pad| pad as usize).collect();
        let ends: Vec<_> = starts.iter().zip(&input).map(|(start, size)| start + size).collect();
        let [starts, ends] = [writer.integers(&starts)?, writer.integers(&ends)?];
        Ok(writer.node("Slice", &[self.arrived, &starts, &ends], vec![]))
    }
}
