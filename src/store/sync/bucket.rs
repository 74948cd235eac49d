//! Taking a bucket's models, each by itself.

use std::collections::BTreeMap;

use tracing::warn;

use super::{Held, Kept};
use crate::error::{Error, Result};
use crate::store::Store;
use crate::store::archive::read_sums;
use crate::store::listing::{Object, Unit};
use crate::store::path::FilePath;
use crate::store::s3::Bucket;
use crate::store::tree::{SUMS_FILE, parse_sums};

impl Store {
    /// Fetches what has changed of a bucket's model, checks it, and publishes the model.
    pub(super) fn take_model(&self, held: &mut Held, bucket: &Bucket, model: &str, unit: &Unit) -> Result<()> {
        let mut fetched = BTreeMap::new();
        let result = self.fetch_files(held, bucket, model, unit, &mut fetched);
        // Whatever comes of it, the next try need not fetch these again.
        held.fetched.insert(model.to_owned(), fetched.clone());
        result?;
        self.publish(held, model, fetched)?;
        held.fetched.remove(model);
        Ok(())
    }

    fn fetch_files(
        &self,
        held: &Held,
        bucket: &Bucket,
        model: &str,
        unit: &Unit,
        fetched: &mut BTreeMap<FilePath, Kept>,
    ) -> Result<()> {
        let known = |path: &FilePath, object: &Object| {
            let models = [&held.fetched, &held.state.models];
            let kept = models.into_iter().filter_map(|models| models.get(model)?.get(path));
            let mut kept = kept.filter(|kept| kept.version == object.version && kept.file.bytes == object.bytes);
            kept.find(|kept| self.cache.has(&kept.file)).cloned()
        };
        let fetch = |objects: Vec<(&FilePath, &Object)>, into: &mut BTreeMap<FilePath, Kept>| -> Result<()> {
            let (there, absent): (Vec<_>, Vec<_>) = objects
                .into_iter()
                .map(|(path, object)| (path, object, known(path, object)))
                .partition(|found| found.2.is_some());
            into.extend(there.into_iter().filter_map(|(path, _, kept)| Some((path.clone(), kept?))));
            let absent: Vec<_> = absent.into_iter().map(|(path, object, _)| (path, object)).collect();
            let mut files = BTreeMap::new();
            let result = bucket.fetch(model, absent.iter().copied(), &self.cache, &mut files);
            for (path, object) in absent {
                if let Some(file) = files.remove(path) {
                    self.metrics.fetched_bytes.inc_by(file.bytes);
                    into.insert(path.clone(), Kept { file, version: object.version.clone() });
                }
            }
            result
        };
        let Some((path, object)) = unit.0.iter().find(|(path, _)| path.as_str() == SUMS_FILE) else {
            return fetch(unit.0.iter().collect(), fetched);
        };
        fetch(vec![(path, object)], fetched)?;
        let list = fetched.get(path).map(|kept| kept.file.clone());
        let list = list.ok_or_else(|| Error::internal("a list of checksums was fetched and is not there"))?;
        let sums = parse_sums(&read_sums(&list, &self.cache)?)?;
        let mut wanted = Vec::new();
        for path in sums.keys() {
            let object = unit.0.get(path);
            let object = object.ok_or_else(|| Error::invalid(format!("{path} is missing, which {SUMS_FILE} names")))?;
            wanted.push((path, object));
        }
        if sums.len() + 1 < unit.0.len() {
            warn!(model, "{SUMS_FILE} does not name all files in the model's folder: the others are left out");
        }
        fetch(wanted, fetched)?;
        for (path, digest) in &sums {
            if fetched.get(path).is_none_or(|kept| kept.file.sha256 != *digest) {
                return Err(Error::invalid(format!("{path} is not the file that {SUMS_FILE} names")));
            }
        }
        Ok(())
    }
}
