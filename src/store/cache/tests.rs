use std::os::unix::fs::MetadataExt;

use super::super::path::FilePath;
use super::*;

struct Scene {
    _folder: TempDir,
    cache: Cache,
}

fn location() -> Location {
    Location::S3 { bucket: "models".into(), prefix: "a/".into() }
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { cache: Cache::open(Some(folder.path()), &location()).unwrap(), _folder: folder }
    }

    fn put(&self, text: &str) -> File {
        let mut writer = self.cache.writer().unwrap();
        writer.put(text.as_bytes()).unwrap();
        writer.finish().unwrap()
    }

    fn tree(&self, files: &[(&str, &str)]) -> Tree {
        files.iter().map(|(path, text)| (FilePath::parse(path).unwrap(), self.put(text))).collect()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.cache.root().join(path)).unwrap_or_default()
    }

    fn count(&self, name: &str) -> usize {
        fs::read_dir(self.cache.folder.join(name)).unwrap().count()
    }
}

#[test]
fn a_model_is_replaced_whole_and_what_stays_is_the_same_file() {
    let scene = Scene::new();
    let first = scene.tree(&[("1/model.onnx", "one"), ("labels.txt", "cat")]);
    scene.cache.publish("m", &first).unwrap();
    let of = |path: &str| fs::metadata(scene.cache.root().join(path)).unwrap();
    let (labels, graph) = (of("m/labels.txt"), of("m/1/model.onnx"));
    let second = scene.tree(&[("1/model.onnx", "two"), ("labels.txt", "cat")]);
    scene.cache.publish("m", &second).unwrap();
    assert_eq!((scene.read("m/1/model.onnx"), scene.read("m/labels.txt")), ("two".into(), "cat".into()));
    assert_eq!(of("m/labels.txt").ino(), labels.ino());
    assert_ne!(of("m/1/model.onnx").modified().unwrap(), graph.modified().unwrap(), "as long, and seen to be another");
    assert!(of("m/1/model.onnx").modified().unwrap() < SystemTime::now() - Duration::from_hours(1));
    assert_eq!((scene.count("trees"), scene.count("incoming"), scene.count("blobs")), (1, 0, 3));
    scene.cache.prune(&second.values().map(|file| &file.sha256).collect());
    assert_eq!(scene.count("blobs"), 2);
    scene.cache.withdraw("m");
    assert_eq!((scene.count("trees"), scene.count("models")), (0, 0));
}

#[test]
fn a_publication_that_fails_leaves_what_was_there() {
    let scene = Scene::new();
    scene.cache.publish("m", &scene.tree(&[("1/model.onnx", "one")])).unwrap();
    let mut tree = scene.tree(&[("1/model.onnx", "two")]);
    tree.insert(FilePath::parse("labels.txt").unwrap(), File { sha256: Digest::of(&[0; 32]), bytes: 1 });
    scene.cache.publish("m", &tree).unwrap_err();
    assert_eq!((scene.read("m/1/model.onnx"), scene.count("trees")), ("one".into(), 1));
}

#[test]
fn a_file_that_is_damaged_on_the_disk_shows() {
    let scene = Scene::new();
    let tree = scene.tree(&[("1/model.onnx", "one")]);
    scene.cache.publish("m", &tree).unwrap();
    assert!(scene.cache.is_intact("m", &tree));
    let path = scene.cache.root().join("m/1/model.onnx");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, "uno").unwrap();
    assert!(!scene.cache.is_intact("m", &tree));
}

#[test]
fn two_servers_do_not_share_a_cache_and_leftovers_go() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(Some(folder.path()), &location()).unwrap();
    let other = Cache::open(Some(folder.path()), &location()).unwrap();
    assert!(!other.folder.starts_with(folder.path()) && cache.folder.starts_with(folder.path()));
    let mut writer = cache.writer().unwrap();
    writer.put(b"half").unwrap();
    std::mem::forget(writer);
    fs::create_dir(cache.folder.join("trees/m-unfinished")).unwrap();
    cache.write_state(&vec![1, 2]);
    drop(cache);
    let cache = Cache::open(Some(folder.path()), &location()).unwrap();
    assert_eq!(fs::read_dir(cache.folder.join("incoming")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(cache.folder.join("trees")).unwrap().count(), 0);
    assert_eq!(cache.read_state::<Vec<u8>>(), Some(vec![1, 2]));
    fs::write(cache.folder.join("state.json"), "[1, 2").unwrap();
    assert_eq!(cache.read_state::<Vec<u8>>(), None);
}

#[test]
fn a_cache_that_was_asked_for_and_cannot_be_is_an_error() {
    let file = NamedTempFile::new().unwrap();
    let error = Cache::open(Some(file.path()), &location()).unwrap_err();
    assert!(error.message().contains("model_store.cache"), "{error}");
}
