//! Images as tools write them, and as nobody should.

use std::fs;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType};
use tempfile::TempDir;

use super::super::super::tree::Digest;
use super::super::*;
use super::{Models, Scene, Tar, gzip, zstd};

/// An image layout, in a folder.
struct Image<'a> {
    scene: &'a Scene,
    folder: TempDir,
}

impl<'a> Image<'a> {
    fn new(scene: &'a Scene) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        Self { scene, folder }
    }

    fn blob(&self, bytes: &[u8], media_type: &str) -> serde_json::Value {
        let digest = Digest::of(&Sha256::digest(bytes));
        fs::write(self.folder.path().join(format!("blobs/sha256/{digest}")), bytes).unwrap();
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    }

    fn manifest(&self, layers: &[Vec<u8>]) -> serde_json::Value {
        let layer = |bytes: &Vec<u8>| self.blob(bytes, "application/vnd.oci.image.layer.v1.tar+gzip");
        let manifest = json!({"schemaVersion": 2, "layers": layers.iter().map(layer).collect::<Vec<_>>()});
        self.blob(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json")
    }

    fn index(&self, manifests: &[serde_json::Value]) {
        fs::write(self.folder.path().join("index.json"), json!({"manifests": manifests}).to_string()).unwrap();
    }

    fn with_layers(scene: &'a Scene, layers: &[Vec<u8>]) -> Self {
        let image = Self::new(scene);
        let manifest = image.manifest(layers);
        image.index(&[manifest]);
        image
    }

    fn read(&self) -> Result<Models> {
        read_layout(self.folder.path(), &Options { max_bytes: 1 << 20, path: None }, &self.scene.cache)
    }

    fn contents(&self) -> Vec<String> {
        self.scene.contents(self.read().unwrap())
    }

    fn refusal(&self) -> String {
        self.read().unwrap_err().chain()
    }
}

#[test]
fn layers_are_applied_in_order_and_take_away() {
    let scene = Scene::new();
    let base = Tar::default()
        .member(b"bin", EntryType::Symlink, b"usr/bin", b"")
        .member(b"dev/null", EntryType::Char, b"", b"")
        .file("models/m/1/model.onnx", "one")
        .file("models/m/labels.txt", "cat")
        .file("models/gone/1/model.onnx", "gone")
        .file("models/emptied/1/model.onnx", "old")
        .file("models/file", "a file")
        .file("models/n/1", "a file where a folder comes")
        .end();
    let upper = Tar::default()
        .member(b"models/.wh.gone", EntryType::Regular, b"", b"")
        // What an opaque folder hides is the lower layers' only, wherever its mark stands.
        .file("models/emptied/2/model.onnx", "new")
        .member(b"models/emptied/.wh..wh..opq", EntryType::Regular, b"", b"")
        .file("models/m/2/model.onnx", "two")
        .member(b"models/m/3/model.onnx", EntryType::Link, b"models/m/1/model.onnx", b"")
        .member(b"models/m/.wh.labels.txt", EntryType::Regular, b"", b"")
        .file("models/n/1/model.onnx", "n")
        .end();
    let expected = [
        "emptied/2/model.onnx=new",
        "m/1/model.onnx=one",
        "m/2/model.onnx=two",
        "m/3/model.onnx=one",
        "n/1/model.onnx=n",
    ];
    let layers = [gzip(&base), zstd(&upper)];
    let image = Image::with_layers(&scene, &layers);
    assert_eq!(image.contents(), expected);
    // The same in an archive, as skopeo writes it.
    let mut archive = Builder::new(Vec::new());
    archive.append_dir_all(".", image.folder.path()).unwrap();
    let archive = archive.into_inner().unwrap();
    for bytes in [gzip(&archive), archive] {
        assert_eq!(scene.contents(scene.read(&bytes).unwrap()), expected);
    }
}

#[test]
fn an_image_for_this_machine_is_picked() {
    let scene = Scene::new();
    let image = Image::new(&scene);
    let manifest = |text: &str, os: &str, architecture: &str| {
        let mut manifest = image.manifest(&[gzip(&Tar::of(&[("models/m/1/model.onnx", text)]))]);
        manifest["platform"] = json!({"os": os, "architecture": architecture});
        manifest
    };
    let this = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let mine = manifest("mine", "linux", this);
    let others = [manifest("s390x", "linux", "s390x"), manifest("attestation", "unknown", "unknown")];
    let inner = json!({"manifests": [others[0], mine, others[1]]}).to_string();
    let inner = image.blob(inner.as_bytes(), "application/vnd.oci.image.index.v1+json");
    image.index(&[inner]);
    assert_eq!(image.contents(), ["m/1/model.onnx=mine"]);
    image.index(&others);
    assert!(image.refusal().contains("no image for linux/"));
    image.index(&[mine, image.manifest(&[])]);
    assert!(image.refusal().contains("2 images"));
}

#[test]
fn an_image_with_other_bytes_than_it_says_is_refused() {
    let scene = Scene::new();
    let tar = Tar::of(&[("models/m/1/model.onnx", "graph")]);
    let image = Image::with_layers(&scene, &[gzip(&tar)]);
    assert_eq!(image.contents(), ["m/1/model.onnx=graph"]);
    let blobs = || fs::read_dir(image.folder.path().join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    for path in blobs() {
        let whole = fs::read(&path).unwrap();
        // Something behind the end, which no reader of archives or documents looks at; and one letter.
        let mut other = whole.clone();
        *other.last_mut().unwrap() ^= 1;
        for damaged in [[&whole[..], b" "].concat(), other, whole[..whole.len() - 1].to_vec()] {
            fs::write(&path, damaged).unwrap();
            assert!(image.refusal().contains("is another"), "{}", image.refusal());
        }
        fs::remove_file(&path).unwrap();
        assert!(image.refusal().contains("cannot be read"), "{}", image.refusal());
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(image.contents(), ["m/1/model.onnx=graph"]);
}

#[test]
fn a_hostile_image_is_refused() {
    let scene = Scene::new();
    let with = |path: &str, entry_type, link: &str| {
        let tar = Tar::default().file("models/m/1/model.onnx", "graph");
        gzip(&tar.member(path.as_bytes(), entry_type, link.as_bytes(), b"").end())
    };
    for (layer, said) in [
        (with("models", EntryType::Symlink, "/etc"), "models lie in /models"),
        (with("models/m/2", EntryType::Symlink, "/etc"), "a symbolic link"),
        (with("models/m/2", EntryType::Link, "etc/passwd"), "not among the models"),
        (with("models/m/2", EntryType::Block, ""), "a device"),
        (with("../models/m/2", EntryType::Regular, ""), "straight"),
        (with("models/m/.wh.", EntryType::Regular, ""), "empty"),
        (with("models/m/.wh...", EntryType::Regular, ""), "straight"),
        (b"nothing that is packed".repeat(40), "cannot be read"),
    ] {
        let refusal = Image::with_layers(&scene, &[layer]).refusal();
        assert!(refusal.contains(said), "{said}: {refusal}");
    }
    let empty = Image::with_layers(&scene, &[gzip(&Tar::of(&[("app/x", "x")]))]);
    assert!(empty.read().unwrap().is_empty());
    // An index that is its own cannot be made, as its digest would be in it; a deep one can.
    let image = Image::new(&scene);
    let nested = (0..5).fold(image.manifest(&[]), |inner, _| {
        let index = json!({"manifests": [inner]}).to_string();
        image.blob(index.as_bytes(), "application/vnd.oci.image.index.v1+json")
    });
    image.index(&[nested]);
    assert!(image.refusal().contains("deep"), "{}", image.refusal());
    // A digest is a path's part, and must be nothing else.
    let image = Image::new(&scene);
    image.index(&[json!({"mediaType": "x", "digest": "sha256:../../../../etc/passwd", "size": 1})]);
    assert!(image.refusal().contains("no SHA-256"), "{}", image.refusal());
}
