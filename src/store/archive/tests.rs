//! Archives as tools write them, and as nobody should.

mod images;

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::super::location::Location;
use super::super::tree::Digest;
use super::*;

/// Room for archives, and a cache to read them into.
struct Scene {
    folder: TempDir,
    cache: Cache,
}

type Models = BTreeMap<String, Tree>;

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Archive("models.tar".into());
        Self { cache: Cache::open(Some(&folder.path().join("cache")), &location).unwrap(), folder }
    }

    fn read(&self, bytes: &[u8]) -> Result<Models> {
        self.read_with(bytes, 1 << 20, None)
    }

    fn read_with(&self, bytes: &[u8], max_bytes: u64, path: Option<&str>) -> Result<Models> {
        let archive = self.folder.path().join("models.tar");
        fs::write(&archive, bytes).unwrap();
        read_archive(&archive, &Options { max_bytes, path: path.map(str::to_owned) }, &self.cache)
    }

    /// What the archive comes to: `model/path=content`, in order.
    fn contents(&self, models: Models) -> Vec<String> {
        let files =
            models.into_iter().flat_map(|(model, tree)| tree.into_iter().map(move |file| (model.clone(), file)));
        let text = |file: &File| fs::read_to_string(self.cache.blob(&file.sha256)).unwrap();
        files.map(|(model, (path, file))| format!("{model}/{path}={}", text(&file))).collect()
    }

    fn refusal(&self, bytes: &[u8]) -> String {
        self.read(bytes).unwrap_err().chain()
    }
}

/// Members of an archive, and its end.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn of(files: &[(&str, &str)]) -> Vec<u8> {
        files.iter().fold(Self::default(), |tar, (path, text)| tar.file(path, text)).end()
    }

    fn file(self, path: &str, text: &str) -> Self {
        self.member(path.as_bytes(), EntryType::Regular, b"", text.as_bytes())
    }

    /// A member whose header says what it is told to, be it allowed or not.
    fn member(self, path: &[u8], entry_type: EntryType, link: &[u8], content: &[u8]) -> Self {
        self.member_of(path, entry_type, link, content, content.len() as u64)
    }

    fn member_of(mut self, path: &[u8], entry_type: EntryType, link: &[u8], content: &[u8], bytes: u64) -> Self {
        let mut header = Header::new_gnu();
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..path.len()].copy_from_slice(path);
        gnu.linkname[..link.len()].copy_from_slice(link);
        header.set_size(bytes);
        header.set_mode(0o644);
        header.set_entry_type(entry_type);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// As one frame, behind one that is to be skipped, and before an empty one.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let frame = |bytes: &[u8]| ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest);
    [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 7, 7][..], &frame(bytes), &frame(b"")].concat()
}

const PLAIN: [(&str, &str); 3] = [("m/1/model.onnx", "graph"), ("m/config.toml", "a = 1"), ("n/2/model.onnx", "other")];
const PLAIN_CONTENTS: [&str; 3] = ["m/1/model.onnx=graph", "m/config.toml=a = 1", "n/2/model.onnx=other"];

#[test]
fn an_archive_is_read_however_it_is_compressed() {
    let scene = Scene::new();
    let plain = Tar::of(&PLAIN);
    for bytes in [plain.clone(), gzip(&plain), zstd(&plain)] {
        assert_eq!(scene.contents(scene.read(&bytes).unwrap()), PLAIN_CONTENTS);
    }
    // A compressed one that is damaged, wherever that is, is none.
    for packed in [gzip(&plain), zstd(&plain)] {
        for cut in [packed.len() - 1, packed.len() / 2, 12] {
            assert!(scene.read(&packed[..cut]).is_err(), "{cut} of {}", packed.len());
        }
    }
}

#[test]
fn archives_of_tools_are_read() {
    let scene = Scene::new();
    // As `tar cf models.tar .` and as `tar cf models.tar models` have it, folders and hidden files included.
    for prefix in ["./", "models/", "./models/"] {
        let tar = Tar::default().member(prefix.as_bytes(), EntryType::Directory, b"", b"");
        let tar = tar.member(format!("{prefix}m/").as_bytes(), EntryType::Directory, b"", b"");
        let tar = PLAIN.iter().fold(tar, |tar, (path, text)| tar.file(&format!("{prefix}{path}"), text));
        let tar = tar.file(&format!("{prefix}m/.DS_Store"), "x").end();
        assert_eq!(scene.contents(scene.read(&tar).unwrap()), PLAIN_CONTENTS, "{prefix}");
    }
    // A model that is called `models` is one.
    let tar = Tar::of(&[("models/1/model.onnx", "graph")]);
    assert_eq!(scene.contents(scene.read(&tar).unwrap()), ["models/1/model.onnx=graph"]);
    let tar = Tar::of(&[("a/b/m/1/model.onnx", "graph"), ("elsewhere/x", "x")]);
    assert_eq!(scene.contents(scene.read_with(&tar, 1 << 20, Some("a/b")).unwrap()), ["m/1/model.onnx=graph"]);
    // Names that are longer than a header's field, as GNU and as POSIX write them.
    let long = format!("m/{}/1/model.onnx", "x".repeat(200));
    let mut gnu = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(5);
    gnu.append_data(&mut header, &long, &b"graph"[..]).unwrap();
    let record = |key: &str, value: &str| {
        let rest = format!(" {key}={value}\n");
        format!("{}{rest}", rest.len() + 3)
    };
    let record = record("path", &long);
    let pax =
        Tar::default().member(b"PaxHeaders/m", EntryType::XHeader, b"", record.as_bytes()).file("short", "graph").end();
    for bytes in [gnu.into_inner().unwrap(), pax] {
        assert_eq!(scene.contents(scene.read(&bytes).unwrap()), [format!("{long}=graph")]);
    }
    // Another name of an earlier file, as tar has it for files with two names; and the later of two of one name.
    let tar = Tar::default().file("m/1/model.onnx", "old").file("m/1/model.onnx", "graph");
    let tar = tar.member(b"m/2/model.onnx", EntryType::Link, b"m/1/model.onnx", b"").end();
    assert_eq!(scene.contents(scene.read(&tar).unwrap()), ["m/1/model.onnx=graph", "m/2/model.onnx=graph"]);
}

#[test]
fn hostile_archives_are_refused() {
    let scene = Scene::new();
    let link = |entry_type, target: &[u8]| Tar::default().member(b"m/1/model.onnx", entry_type, target, b"").end();
    let header = |entry_type, bytes| Tar::default().member_of(b"x", entry_type, b"", b"", bytes).end();
    let sizes =
        Tar::default().member(b"x", EntryType::XHeader, b"", b"10 size=9\n").file("m/1/model.onnx", "graph").end();
    let sparse = Tar::default()
        .member(b"x", EntryType::XHeader, b"", b"22 GNU.sparse.major=1\n")
        .file("m/1/model.onnx", "x")
        .end();
    let folder = |tar: Tar| tar.member(b"m/1/model.onnx/", EntryType::Directory, b"", b"").end();
    let graph = || Tar::default().file("m/1/model.onnx", "graph");
    for (what, bytes, said) in [
        ("a file below a file", graph().file("m/1/model.onnx/x", "x").end(), "m/1/model.onnx is both"),
        (
            "a file above a file",
            Tar::of(&[("m/1/model.onnx/x", "x"), ("m/1/model.onnx", "x")]),
            "m/1/model.onnx is both",
        ),
        ("a folder instead of a file", folder(graph()), "m/1/model.onnx is both"),
        ("up", Tar::of(&[("../evil", "x")]), "straight"),
        ("up within", Tar::of(&[("m/../../evil", "x")]), "straight"),
        ("absolute", Tar::of(&[("/etc/evil", "x")]), "absolute"),
        ("symbolic link", link(EntryType::Symlink, b"/etc/passwd"), "a symbolic link"),
        ("hard link out", link(EntryType::Link, b"/etc/passwd"), "absolute"),
        ("hard link up", link(EntryType::Link, b"../x"), "straight"),
        ("hard link to nothing", link(EntryType::Link, b"m/0"), "not in the archive before it"),
        ("hard link to itself", link(EntryType::Link, b"m/1/model.onnx"), "not in the archive before it"),
        ("device", link(EntryType::Block, b""), "a device"),
        ("pipe", link(EntryType::Fifo, b""), "a named pipe"),
        ("not UTF-8", Tar::default().member(b"m/\xff", EntryType::Regular, b"", b"").end(), "not UTF-8"),
        ("a long name of a gigabyte", header(EntryType::GNULongName, 1 << 30), "an extended header"),
        ("attributes of a gigabyte", header(EntryType::XHeader, 1 << 30), "an extended header"),
        ("a file of more than there is", header(EntryType::Regular, 1 << 40), "cut off"),
        ("two sizes", sizes, "two different sizes"),
        ("holes", sparse, "holes"),
        ("no archive", b"not an archive at all".repeat(100), "cannot be read"),
        ("nothing", Vec::new(), "no end"),
    ] {
        let refusal = scene.refusal(&bytes);
        assert!(refusal.contains(said), "{what}: {refusal}");
    }
    assert_eq!(fs::read_dir(scene.folder.path()).unwrap().count(), 2, "the archive and the cache");
}

#[test]
fn an_archive_that_is_cut_off_anywhere_is_none() {
    let scene = Scene::new();
    // Zeros at the end of a file are not the end of the archive.
    let zeros = "\0".repeat(3 * 512);
    let whole = Tar::of(&[&PLAIN[..], &[("n/3/model.onnx", &zeros)]].concat());
    // At every block, between members too, where it still looks like an archive.
    for blocks in 0..whole.len() / 512 {
        assert!(scene.read(&whole[..blocks * 512]).is_err(), "{blocks} blocks");
    }
    assert!(scene.read(&whole).is_ok());
}

#[test]
fn an_archive_that_unpacks_to_too_much_is_refused_early() {
    let scene = Scene::new();
    let zeros = "\0".repeat(2 << 20);
    let bomb = gzip(&Tar::of(&[("m/1/model.onnx", &zeros)]));
    assert!(bomb.len() < 8 << 10);
    assert!(scene.refusal(&bomb).contains("more than 1048576 bytes"), "{}", scene.refusal(&bomb));
    // However much is allowed, what shrinks a thousandfold is not taken.
    let mut unpacked = Unpacked::new(&bomb[..], 1, u64::MAX).unwrap();
    let bounded = io::copy(&mut unpacked.by_ref().take(u64::MAX), &mut io::sink()).unwrap();
    assert_eq!(bounded, (zeros.len() + 512 + 1024) as u64);
    let unpacked = Unpacked::new(io::repeat(0), 10, u64::MAX).unwrap();
    let error = io::copy(&mut { unpacked }, &mut io::sink()).unwrap_err();
    assert!(error.to_string().contains(&format!("more than {} bytes", (64 << 20) + 1000)), "{error}");
}

#[test]
fn a_list_of_checksums_is_held_against_the_files() {
    let scene = Scene::new();
    let sums = |text: &str| format!("{}  1/model.onnx\n", Digest::of(&Sha256::digest(text)));
    let archive = |sums: &str| Tar::of(&[("m/1/model.onnx", "graph"), ("m/extra", "x"), ("m/SHA256SUMS", sums)]);
    let models = scene.read(&archive(&sums("graph"))).unwrap();
    assert_eq!(scene.contents(models), ["m/1/model.onnx=graph"], "what is not named is left out");
    let refusal = scene.refusal(&archive(&sums("another")));
    assert!(refusal.contains("the model m: 1/model.onnx is not the file"), "{refusal}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the bytes are, reading them ends, writes nothing outside the cache, and gives paths that lie where they should.
    #[test]
    fn any_bytes_are_read_or_refused(
        headers in proptest::collection::vec(
            ("[a-z./]{0,12}", 0_u8..=128, "[a-z./]{0,8}", proptest::collection::vec(any::<u8>(), 0..600), any::<bool>()),
            0..6,
        ),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        is_packed in any::<bool>(),
    ) {
        let scene = Scene::new();
        let mut bytes = headers.iter().fold(Tar::default(), |tar, (path, entry_type, link, content, lies)| {
            let size = if *lies { content.len() as u64 * 3 } else { content.len() as u64 };
            tar.member_of(path.as_bytes(), EntryType::new(*entry_type), link.as_bytes(), content, size)
        }).end();
        if is_packed {
            bytes = gzip(&bytes);
        }
        for (index, byte) in flips {
            let index = index.index(bytes.len());
            bytes[index] ^= byte;
        }
        if let Ok(models) = scene.read(&bytes) {
            for (model, tree) in models {
                prop_assert!(!model.contains('/') && !model.starts_with('.'));
                scene.cache.publish(&model, &tree).unwrap();
            }
        }
        prop_assert_eq!(fs::read_dir(scene.folder.path()).unwrap().count(), 2);
    }
}
