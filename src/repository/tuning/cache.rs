//! What was chosen, kept between starts: one small JSON file for each key in one folder.
//!
//! The cache is a convenience. Nothing about it is an error: what cannot be read is measured again, what cannot be written is
//! said in the log.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::grid::{Setup, Space};
use super::search::Measurement;
use crate::engine::{GraphOptimization, Provider};
use crate::error::{Error, Result};
use crate::sha256;

/// The form of the files, and how is chosen. Another number makes all that is cached useless, which is what it is for.
const FORMAT: u32 = 1;

/// What a choice depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    format: u32,
    /// The SHA-256 of model.onnx. Weights in files of their own do not count: they have no part in how fast a graph runs.
    model: String,
    row_shape: [usize; 3],
    onnxruntime: String,
    /// With its options.
    provider: Provider,
    optimization: GraphOptimization,
    machine: Machine,
    space: Space,
    max_batch_latency_us: Option<u64>,
}

/// The processors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Machine {
    architecture: String,
    cpu: String,
    cores: usize,
    /// Empty where no GPU runs the model.
    gpus: Vec<String>,
}

/// A file of the cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) choice: Setup,
    pub(super) measurements: Vec<Measurement>,
}

impl Key {
    /// # Errors
    /// `NotFound` when the model's file cannot be read.
    pub(super) fn new(
        path: &Path,
        row_shape: [usize; 3],
        onnxruntime: &str,
        provider: &Provider,
        optimization: GraphOptimization,
        space: &Space,
        max_batch_latency: Option<Duration>,
    ) -> Result<Self> {
        let model = sha256::of_file(path).map_err(|error| Error::not_found(format!("{}: {error}", path.display())))?;
        Ok(Self {
            format: FORMAT,
            model: sha256::hex(&model),
            row_shape,
            onnxruntime: onnxruntime.to_owned(),
            provider: provider.clone(),
            optimization,
            machine: Machine::this(space.cores, space.is_gpu),
            space: space.clone(),
            max_batch_latency_us: max_batch_latency.map(|bound| bound.as_micros() as u64),
        })
    }

    fn path(&self, folder: &Path) -> PathBuf {
        let key = serde_json::to_vec(self).expect("a key has only strings for keys");
        folder.join(format!("{}.json", &sha256::hex(&Sha256::digest(key))[..32]))
    }
}

impl Machine {
    fn this(cores: usize, is_gpu: bool) -> Self {
        // x86 names the model, ARM only numbers.
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = values(&cpu, &["model name", "CPU implementer", "CPU part"]).join(", ");
        Self {
            architecture: std::env::consts::ARCH.to_owned(),
            cpu,
            cores,
            gpus: if is_gpu { nvidia_gpus() } else { Vec::new() },
        }
    }
}

/// What NVIDIA's driver calls its GPUs.
fn nvidia_gpus() -> Vec<String> {
    let folders = fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let mut files: Vec<_> = folders.map(|folder| folder.path().join("information")).collect();
    files.sort();
    files.iter().flat_map(|file| values(&fs::read_to_string(file).unwrap_or_default(), &["Model"])).collect()
}

/// The values of lines `name : value`, each once, in the order in which they come.
fn values(text: &str, names: &[&str]) -> Vec<String> {
    let mut values: Vec<String> = Vec::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if names.contains(&name.trim()) && !values.iter().any(|other| other == value) {
            values.push(value.to_owned());
        }
    }
    values
}

/// What is cached for `key` in `folder`.
pub(super) fn read(folder: &Path, key: &Key) -> Option<Entry> {
    let path = key.path(folder);
    let shown = path.display();
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            warn!("the cached tuning {shown} cannot be read: {error}");
            return None;
        }
    };
    let entry = match serde_json::from_slice::<Entry>(&text) {
        Ok(entry) => entry,
        Err(error) => {
            warn!("the cached tuning {shown} is damaged and is ignored: {error}");
            return None;
        }
    };
    // Whatever a file says, no more instances or threads are made than could have been chosen.
    if entry.key != *key || !key.space.all().contains(&entry.choice) {
        warn!("the cached tuning {shown} is not what its name says and is ignored");
        return None;
    }
    Some(entry)
}

/// Puts `entry` into `folder`, whole or not at all.
pub(super) fn write(folder: &Path, entry: &Entry) {
    if let Err(error) = try_write(folder, entry) {
        info!("the tuning is not cached in {}: {error}", folder.display());
    }
}

fn try_write(folder: &Path, entry: &Entry) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // Whoever runs `convoy tune` may be another user than the server's.
    let readable = Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().prefix(".convoy-").permissions(readable).tempfile_in(folder)?;
    serde_json::to_writer_pretty(&mut file, entry)?;
    file.write_all(b"\n")?;
    file.persist(entry.key.path(folder)).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(folder: &Path, model: &str) -> Entry {
        let path = folder.join("model.onnx");
        fs::write(&path, model).unwrap();
        let space = Space {
            max_batch_size: None,
            intra_op_threads: None,
            instances: None,
            largest_batch: 8,
            cores: 2,
            is_gpu: false,
        };
        let bound = Some(Duration::from_millis(5));
        let key = Key::new(&path, [3, 8, 8], "1.0", &Provider::Cpu {}, GraphOptimization::All, &space, bound).unwrap();
        let choice = Setup { max_batch_size: 4, intra_op_threads: 1, instances: 2 };
        let measurement = Measurement { setup: choice, images_per_second: 12.5, batch_latency_ms: 320.0, score: 0.0 };
        Entry { key, choice, measurements: vec![measurement] }
    }

    #[test]
    fn what_was_written_is_read_under_its_own_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("made/when/needed");
        let first = entry(folder.path(), "abc");
        // `printf abc | sha256sum`
        assert!(first.key.model.starts_with("ba7816bf8f01cfea"));
        assert_eq!(read(&cache, &first.key), None);
        write(&cache, &first);
        assert_eq!(read(&cache, &first.key), Some(first.clone()));
        let names: Vec<_> = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(fs::metadata(cache.join(&names[0])).unwrap().permissions().mode() & 0o777, 0o644);

        let other = |change: &dyn Fn(&mut Key)| {
            let mut key = first.key.clone();
            change(&mut key);
            key
        };
        for (what, key) in [
            ("model", entry(folder.path(), "abd").key),
            ("input", other(&|key| key.row_shape = [3, 9, 8])),
            ("runtime", other(&|key| key.onnxruntime = "1.1".to_owned())),
            ("provider", other(&|key| key.provider = Provider::Cuda(crate::engine::CudaOptions::default()))),
            ("rewriting", other(&|key| key.optimization = GraphOptimization::Basic)),
            ("cpu", other(&|key| key.machine.cpu = "another".to_owned())),
            ("cores", other(&|key| key.machine.cores = 3)),
            ("settled", other(&|key| key.space.instances = Some(1))),
            ("bound", other(&|key| key.max_batch_latency_us = None)),
            ("format", other(&|key| key.format += 1)),
        ] {
            assert_eq!(read(&cache, &key), None, "{what}");
        }
    }

    #[test]
    fn what_is_damaged_is_ignored_and_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let good = entry(folder.path(), "abc");
        let path = good.key.path(folder.path());
        let whole = serde_json::to_string(&good).unwrap();
        let too_many = whole.replace("\"choice\":{\"max_batch_size\":4", "\"choice\":{\"max_batch_size\":4000");
        let elsewhere = serde_json::to_string(&entry(folder.path(), "other")).unwrap();
        assert_ne!(too_many, whole);
        for damaged in ["", "{}", "\u{0}", &whole[..whole.len() / 2], &too_many, &elsewhere] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(read(folder.path(), &good.key), None, "{damaged}");
            write(folder.path(), &good);
            assert_eq!(read(folder.path(), &good.key), Some(good.clone()));
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let good = entry(folder.path(), "abc");
        let file = folder.path().join("a-file");
        fs::write(&file, "").unwrap();
        write(&file, &good);
        assert_eq!(read(&file, &good.key), None);
        assert_eq!(fs::read(&file).unwrap(), b"");
    }

    #[test]
    fn processors_are_named_once() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 2: 3\n\nprocessor\t: 1\nmodel name\t: A CPU @ 2: 3\n";
        assert_eq!(values(text, &["model name"]), ["A CPU @ 2: 3"]);
        assert_eq!(values("no lines", &["Model"]), Vec::<String>::new());
    }
}
