//! Tensors whose elements a model keeps in files beside its own.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::proto::tensor_proto::DataLocation;
use super::{ModelProto, TensorProto};
use crate::error::{Error, Result};

/// Reads the elements of initializers that `model`, whose file lies in `folder`, keeps in other files into the model. Returns these
/// files. Each is read once, and the tensors share its buffer.
///
/// # Errors
/// `InvalidArgument` when a file is not below `folder`, cannot be read or is too short.
pub fn read_external_data(model: &mut ModelProto, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files: HashMap<PathBuf, Bytes> = HashMap::new();
    let initializers = model.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    for tensor in initializers.filter(|tensor| tensor.data_location() == DataLocation::External) {
        let place = Place::of(tensor)?;
        let path = folder.join(&place.location);
        let bytes = match files.get(&path) {
            Some(bytes) => bytes.clone(),
            None => {
                let unread = |error| Error::invalid(format!("{} cannot be read", path.display())).with_source(error);
                let bytes = Bytes::from(fs::read(&path).map_err(unread)?);
                files.insert(path, bytes.clone());
                bytes
            }
        };
        let end = place.length.map_or(Some(bytes.len()), |length| place.offset.checked_add(length));
        let end = end.filter(|&end| place.offset <= end && end <= bytes.len());
        let end =
            end.ok_or_else(|| Error::invalid(format!("the file with the tensor {} is too short", tensor.name)))?;
        tensor.raw_data = bytes.slice(place.offset..end);
        tensor.external_data.clear();
        tensor.set_data_location(DataLocation::Default);
    }
    Ok(files.into_keys().collect())
}

/// The files, each once, that initializers of `model`, whose file lies in `folder`, have their elements in.
///
/// # Errors
/// `InvalidArgument` when one is not below `folder`.
pub fn external_files(model: &ModelProto, folder: &Path) -> Result<Vec<PathBuf>> {
    let initializers = model.graph.iter().flat_map(|graph| &graph.initializer);
    let external = initializers.filter(|tensor| tensor.data_location() == DataLocation::External);
    let files: Result<BTreeSet<_>> = external.map(|tensor| Ok(folder.join(Place::of(tensor)?.location))).collect();
    Ok(files?.into_iter().collect())
}

/// Where a tensor's elements lie.
struct Place {
    location: PathBuf,
    offset: usize,
    /// `None`: to the end of the file.
    length: Option<usize>,
}

impl Place {
    fn of(tensor: &TensorProto) -> Result<Self> {
        let wrong = || Error::invalid(format!("the tensor {} does not say where its elements are", tensor.name));
        let entry = |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        let number = |key: &str| entry(key).map(|text| text.parse::<usize>().map_err(|_| wrong())).transpose();
        let location = PathBuf::from(entry("location").ok_or_else(wrong)?);
        if !location.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(wrong());
        }
        Ok(Self { location, offset: number("offset")?.unwrap_or(0), length: number("length")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::tensor_proto::DataType as OnnxType;
    use crate::onnx::{GraphProto, StringStringEntryProto};

    fn model(entries: &[(&str, &str)]) -> ModelProto {
        let tensor = TensorProto {
            name: "weights".to_owned(),
            dims: vec![2],
            data_type: OnnxType::Float.into(),
            data_location: DataLocation::External.into(),
            external_data: entries.iter().map(|&(key, value)| StringStringEntryProto::new(key, value)).collect(),
            ..TensorProto::default()
        };
        ModelProto {
            graph: Some(GraphProto { initializer: vec![tensor], ..GraphProto::default() }),
            ..ModelProto::default()
        }
    }

    #[test]
    fn elements_are_read_from_where_they_are_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let numbers = [1f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat();
        fs::write(folder.path().join("weights.bin"), numbers).unwrap();
        for (entries, expected) in [
            (&[("location", "weights.bin"), ("offset", "4"), ("length", "8")][..], [2.0, 3.0]),
            (&[("location", "./weights.bin"), ("offset", "8")], [3.0, 4.0]),
        ] {
            let mut model = model(entries);
            assert_eq!(external_files(&model, folder.path()).unwrap(), [folder.path().join("weights.bin")]);
            let files = read_external_data(&mut model, folder.path()).unwrap();
            assert_eq!(files.len(), 1);
            let tensor = model.graph.unwrap().initializer[0].to_tensor().unwrap();
            assert_eq!(*tensor.to_slice::<f32>().unwrap(), expected);
        }
    }

    #[test]
    fn what_cannot_be_there_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("weights.bin"), [0; 8]).unwrap();
        for entries in [
            &[][..],
            &[("location", "../weights.bin")],
            &[("location", "/etc/hostname")],
            &[("location", "none.bin")],
            &[("location", "weights.bin"), ("offset", "-1")],
            &[("location", "weights.bin"), ("offset", "9")],
            &[("location", "weights.bin"), ("length", "9")],
            &[("location", "weights.bin"), ("offset", "8"), ("length", "18446744073709551615")],
        ] {
            assert!(read_external_data(&mut model(entries), folder.path()).is_err(), "{entries:?}");
        }
    }
}
