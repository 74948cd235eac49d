//! The files that lie beside a model's graph: its configuration, its labels, its golden picture.
//!
//! Whoever may load a model says by its configuration which they are. So they lie in the model's folder and not elsewhere on the
//! machine, and they are files that end.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Component, Path};

/// How long such a file may be. Labels for a million classes take a quarter of it.
const MAX_BYTES: u64 = 64 << 20;

/// Checks that `path` leads to something in the model's folder.
///
/// # Errors
/// What is wrong, to be put behind the key.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let stays = !path.as_os_str().is_empty() && path.components().all(|part| matches!(part, Component::Normal(_)));
    if stays { Ok(()) } else { Err(format!("`{}` is no path within the model's folder", path.display())) }
}

/// Reads the file at `path`. A link is followed: mounted secrets and volumes are made of them.
///
/// # Errors
/// Also for what is no regular file, and could be waited for or read for ever, and for one that is too long.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut content = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {MAX_BYTES} bytes")));
    }
    Ok(content)
}

/// Reads the text at `path`.
///
/// # Errors
/// As [`read`], and for what is not UTF-8.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_path_stays_in_the_folder() {
        for path in ["labels.txt", "texts/labels.txt"] {
            check(Path::new(path)).unwrap();
        }
        for path in ["", ".", "/etc/passwd", "../labels.txt", "texts/../../labels.txt", "./labels.txt"] {
            assert!(check(Path::new(path)).unwrap_err().contains("within the model's folder"), "{path}");
        }
    }

    #[test]
    fn only_what_ends_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let [endless, pipe, long, text] = ["endless", "pipe", "long", "text"].map(|name| folder.path().join(name));
        symlink("/dev/zero", &endless).unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        File::create(&long).unwrap().set_len(MAX_BYTES + 1).unwrap();
        fs::write(&text, [0xff]).unwrap();
        for (path, reason) in
            [(&endless, "regular file"), (&pipe, "regular file"), (&long, "more than"), (&text, "UTF-8")]
        {
            let error = read_text(path).unwrap_err();
            assert!(error.to_string().contains(reason), "{}: {error}", path.display());
        }
        let missing = read(&folder.path().join("nothing")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
