//! Following the repository's folder: a change is acted on once it is over.
//!
//! The scan of the folder is the truth. What the file system tells of changes only has it scanned sooner, so that nothing
//! depends on it: network file systems tell nothing, and events get lost. It must not know how a model is loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::{debug, error, info, warn};

use super::fingerprint::Fingerprint;
use super::loader::Action;
use super::{Repository, layout};
use crate::error::Result;

/// At the start, how many settle times what does not come to rest is waited for.
const PATIENCE: u32 = 10;

/// What was found of every model: its fingerprint, or `None` where its folder could not be read.
type Scan = BTreeMap<String, Option<Fingerprint>>;

/// Decides when a change is over: when every file of the model has been the same for the settle time. It has no clock and
/// reads no files.
#[derive(Debug)]
pub(super) struct Settling {
    settle: Duration,
    models: BTreeMap<String, Seen>,
    /// The folder in which there were models.
    home: Folder,
}

/// What was seen of a model. `None` stands for no folder.
#[derive(Debug, Default)]
struct Seen {
    /// What was acted on last.
    acted: Option<Fingerprint>,
    /// What it has changed to, and since when it is so.
    pending: Option<(Option<Fingerprint>, Instant)>,
}

impl Settling {
    fn new(settle: Duration) -> Self {
        Self { settle, models: BTreeMap::new(), home: None }
    }

    /// Takes in what is there when the server starts. A model that was written to within the settle time may be half-written
    /// and has to wait like any change.
    pub(super) fn start(repository: &Repository) -> Self {
        let mut settling = Self::new(repository.control.poll_interval());
        // A repository that cannot be read was an error before this; if it has become so now, the next scan will tell.
        let folder = folder(&repository.root);
        let scan = scan(&repository.root).unwrap_or_default();
        settling.is_vacated(folder, &scan);
        settling.begin(scan, Instant::now(), SystemTime::now());
        settling
    }

    fn begin(&mut self, scan: Scan, now: Instant, wall_clock: SystemTime) {
        for (name, found) in scan {
            let Some(found) = found else { continue };
            let age = found.newest().and_then(|newest| wall_clock.duration_since(newest).ok());
            // A file from the future says nothing of its age: the clocks differ.
            let is_over = age.is_none_or(|age| age >= self.settle);
            let seen = if is_over {
                Seen { acted: Some(found), pending: None }
            } else {
                Seen { acted: None, pending: Some((Some(found), now)) }
            };
            self.models.insert(name, seen);
        }
    }

    /// The models that were there and not being written when the server started.
    pub(super) fn settled(&self) -> impl Iterator<Item = (&str, Fingerprint)> {
        self.models.iter().filter_map(|(name, seen)| Some((name.as_str(), seen.acted.clone()?)))
    }

    /// Takes in a scan, and returns what is to be done now.
    fn observe(&mut self, scan: &Scan, now: Instant) -> Vec<(String, Action)> {
        let mut actions = Vec::new();
        let names: BTreeSet<String> = self.models.keys().chain(scan.keys()).cloned().collect();
        for name in names {
            let seen = self.models.entry(name.clone()).or_default();
            let found = match scan.get(&name) {
                // Nothing is known of it just now, which is no change.
                Some(None) => {
                    seen.pending = None;
                    continue;
                }
                Some(Some(found)) => Some(found),
                None => None,
            };
            if found == seen.acted.as_ref() {
                seen.pending = None;
            } else if let Some((pending, since)) = &seen.pending
                && pending.as_ref() == found
            {
                if now.saturating_duration_since(*since) >= self.settle {
                    seen.acted = found.cloned();
                    seen.pending = None;
                    actions.push((name, found.cloned().map_or(Action::Remove, Action::Follow)));
                }
            } else {
                seen.pending = Some((found.cloned(), now));
            }
        }
        self.models.retain(|_, seen| seen.acted.is_some() || seen.pending.is_some());
        actions
    }

    /// Whether `scan` found no model since `folder` is another one than that in which there were some. A volume that is unmounted
    /// leaves its mount point behind, while whoever removes the models does so within their folder.
    fn is_vacated(&mut self, folder: Folder, scan: &Scan) -> bool {
        if scan.is_empty() && !self.models.is_empty() && self.home.is_some() {
            return folder != self.home;
        }
        self.home = folder;
        false
    }

    /// When the next change will be over, if it lasts.
    fn next_due(&self) -> Option<Instant> {
        self.models.values().filter_map(|seen| Some(seen.pending.as_ref()?.1 + self.settle)).min()
    }
}

/// Loads the models that were being written when the server started, as they come to rest, so that a server that says it is ready
/// has them, too. What never rests is not waited for for ever.
pub(super) async fn settle(repository: &Arc<Repository>, settling: &mut Settling) {
    let patience = Instant::now() + settling.settle * PATIENCE;
    let mut closed = repository.closed.subscribe();
    while let Some(due) = settling.next_due().filter(|due| *due < patience) {
        info!("models were written to just now: waiting for them to rest");
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            _ = closed.wait_for(|&closed| closed) => return,
        }
        // What cannot be read now is followed when it can be again.
        let Ok(scan) = repository.blocking(|repository| scan(&repository.root)).await else { return };
        let actions = settling.observe(&scan, Instant::now());
        let jobs: Vec<_> = actions.into_iter().map(|(name, action)| repository.enqueue(&name, action)).collect();
        for job in jobs {
            // Why a model could not be loaded is in the log and in the index.
            drop(job.await);
        }
    }
}

/// Follows the repository until it is closed.
pub(super) async fn follow(repository: Arc<Repository>, mut settling: Settling) {
    let interval = settling.settle;
    // Events come in thousands while a large file is copied.
    let rest = interval / 16;
    let changed = Arc::new(Notify::new());
    let mut events = Events::default();
    let mut is_lost = false;
    let mut closed = repository.closed.subscribe();
    loop {
        let now = Instant::now();
        let due = settling.next_due().map_or(interval, |due| due.saturating_duration_since(now).min(interval));
        tokio::select! {
            () = tokio::time::sleep(due.max(rest)) => {}
            () = async { changed.notified().await; tokio::time::sleep(rest).await } => {}
            // An error says that the repository is gone, which cannot be while this holds it.
            _ = closed.wait_for(|&closed| closed) => return,
        }
        let hint = Arc::clone(&changed);
        let scanned = repository.blocking(move |repository| {
            // Before the scan: what changes after it is then told.
            events.watch(&repository.root, hint);
            let folder = events.folder;
            Ok((scan(&repository.root), folder, events))
        });
        let Ok((scanned, folder, kept)) = scanned.await else { return };
        events = kept;
        match scanned {
            Ok(scan) if settling.is_vacated(folder, &scan) => {
                if !std::mem::replace(&mut is_lost, true) {
                    let folder = repository.root.display();
                    error!(
                        %folder,
                        "the model repository is another folder now, without a model: is its volume mounted? What is loaded goes on serving"
                    );
                }
            }
            Ok(scan) => {
                if std::mem::take(&mut is_lost) {
                    info!("the model repository can be read again");
                }
                for (name, action) in settling.observe(&scan, Instant::now()) {
                    info!(model = name, removed = action == Action::Remove, "the model's folder has changed");
                    // Its outcome is in the log and in the index, and the next change need not wait for it.
                    drop(repository.enqueue(&name, action));
                }
            }
            // A volume that is gone for a while must not take every model out of service.
            Err(error) if !std::mem::replace(&mut is_lost, true) => {
                warn!(cause = error.chain(), "the model repository cannot be read: what is loaded goes on serving");
            }
            Err(_) => {}
        }
    }
}

fn scan(root: &Path) -> Result<Scan> {
    let fingerprint = |(name, folder): (String, _)| match Fingerprint::of(folder) {
        Ok(Some(found)) => Some((name, Some(found))),
        // It has gone since the root was read.
        Ok(None) => None,
        Err(error) => {
            debug!(model = name, cause = error.to_string(), "the model's folder cannot be read");
            Some((name, None))
        }
    };
    let models = layout::models(root)?;
    Ok(models.iter().map(|(name, folder)| (name.clone(), folder.as_path())).filter_map(fingerprint).collect())
}

/// A folder by device and inode: one that was replaced, or over which a volume is mounted, is another.
type Folder = Option<(u64, u64)>;

fn folder(root: &Path) -> Folder {
    std::fs::metadata(root).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// What the file system tells of changes, where it does.
#[derive(Default)]
struct Events {
    watcher: Option<RecommendedWatcher>,
    /// The folder that is watched.
    folder: Folder,
}

impl Events {
    /// Has `changed` notified of what changes under `root` from now on.
    fn watch(&mut self, root: &Path, changed: Arc<Notify>) {
        let folder = folder(root);
        if folder == self.folder {
            return;
        }
        self.folder = folder;
        let notify = move |event: notify::Result<notify::Event>| {
            // That something was read changes nothing, and the scan itself reads.
            if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                changed.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(notify).and_then(|mut watcher| {
            watcher.watch(root, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                debug!(cause = error.to_string(), "the file system does not tell of changes: the repository is polled");
                self.watcher = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(5);

    /// A repository whose state at each moment is written down, not waited for.
    struct Scene {
        root: tempfile::TempDir,
        settling: Settling,
        start: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self { root: tempfile::tempdir().unwrap(), settling: Settling::new(SETTLE), start: Instant::now() }
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn remove(&self, path: &str) {
            std::fs::remove_dir_all(self.root.path().join(path)).unwrap();
        }

        fn scan(&self) -> Scan {
            scan(self.root.path()).unwrap()
        }

        /// What is done after a scan at `second`.
        fn at(&mut self, second: u64) -> Vec<(String, Action)> {
            let scan = self.scan();
            self.observe(&scan, second)
        }

        fn observe(&mut self, scan: &Scan, second: u64) -> Vec<(String, Action)> {
            self.settling.observe(scan, self.start + Duration::from_secs(second))
        }

        fn follow(&self, name: &str) -> Vec<(String, Action)> {
            vec![(name.to_owned(), Action::Follow(self.scan()[name].clone().unwrap()))]
        }
    }

    #[test]
    fn a_file_that_grows_is_left_alone_until_it_rests() {
        let mut scene = Scene::new();
        for second in 0..40 {
            // A piece every two seconds, over many settle times.
            if second % 2 == 0 {
                scene.write("m/1/model.onnx", &"x".repeat(1 + second as usize));
            }
            assert_eq!(scene.at(second), [], "at {second}");
        }
        assert_eq!(scene.at(42), []);
        assert_eq!(scene.settling.next_due(), Some(scene.start + Duration::from_secs(38) + SETTLE));
        assert_eq!(scene.at(43), scene.follow("m"));
        assert_eq!((scene.at(44), scene.settling.next_due()), (vec![], None));
    }

    #[test]
    fn changes_of_one_model_do_not_hold_up_another() {
        let mut scene = Scene::new();
        scene.write("quick/1/model.onnx", "q");
        for second in 0..5 {
            scene.write("slow/1/model.onnx", &"x".repeat(1 + second as usize));
            assert_eq!(scene.at(second), []);
        }
        assert_eq!(scene.at(5), scene.follow("quick"));
        assert_eq!(scene.at(9), scene.follow("slow"));
    }

    #[test]
    fn a_folder_that_goes_for_a_moment_is_no_change_and_one_that_stays_away_is() {
        let mut scene = Scene::new();
        scene.write("m/1/model.onnx", "x");
        scene.at(0);
        assert_eq!(scene.at(5).len(), 1);
        let there = scene.scan();
        assert_eq!(scene.observe(&Scan::new(), 6), []);
        assert_eq!(scene.observe(&there, 10), []);
        assert_eq!(scene.observe(&there, 20), []);

        scene.remove("m");
        assert_eq!(scene.at(21), []);
        assert_eq!(scene.at(26), [("m".to_owned(), Action::Remove)]);
        assert!(scene.settling.models.is_empty());
        scene.write("m/1/model.onnx", "y");
        assert_eq!(scene.at(27), []);
        assert_eq!(scene.at(32), scene.follow("m"));
    }

    #[test]
    fn a_model_of_which_nothing_is_known_has_not_changed() {
        let mut scene = Scene::new();
        scene.write("m/1/model.onnx", "x");
        scene.at(0);
        scene.at(5);
        scene.write("m/1/model.onnx", "xy");
        let unreadable = Scan::from([("m".to_owned(), None)]);
        assert_eq!(scene.at(6), []);
        assert_eq!(scene.observe(&unreadable, 9), []);
        // Its rest counts anew, for nobody has seen what was in between.
        assert_eq!(scene.at(12), []);
        assert_eq!(scene.at(17), scene.follow("m"));
    }

    #[test]
    fn at_the_start_only_what_was_just_written_waits() {
        let mut scene = Scene::new();
        scene.write("old/1/model.onnx", "x");
        scene.write("new/1/model.onnx", "x");
        let wall_clock = SystemTime::now();
        let old = std::fs::File::options().write(true).open(scene.root.path().join("old/1/model.onnx")).unwrap();
        old.set_modified(wall_clock - SETTLE).unwrap();
        let (scan, start) = (scene.scan(), scene.start);
        scene.settling.begin(scan, start, wall_clock);
        assert_eq!(scene.settling.settled().map(|(name, _)| name).collect::<Vec<_>>(), ["old"]);
        assert_eq!(scene.at(4), []);
        assert_eq!(scene.at(5), scene.follow("new"));
    }
}
