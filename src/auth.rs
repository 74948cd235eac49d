//! API keys: who may do what.
//!
//! It knows keys and rights. What a call needs, and how it carries its key, is known where the calls come in.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::error::{Error, ErrorKind, Result};
use crate::reload::Reloaded;
use crate::{sha256, toml_file};

/// The `[auth]` table of the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// The file of the keys that are taken; without one, no key is asked for.
    pub keys_file: Option<PathBuf>,
}

/// What a key allows. The higher includes the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Using the models: inference, metadata, statistics.
    Infer,
    /// Changing what the server serves: loading and unloading models.
    Admin,
}

impl Right {
    /// As the keys file spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::Admin => "admin",
        }
    }
}

/// The SHA-256 of a key. Keys are long and random, so that nothing slower is needed to keep a hash from being guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The fewest bytes of a key that [`KeyHash::of_new`] takes.
    pub const MIN_KEY_BYTES: usize = 16;

    fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// The hash of a key that is about to be put into use.
    ///
    /// # Errors
    /// `InvalidArgument` when it could be guessed, or does not fit into a header.
    pub fn of_new(key: &str) -> Result<Self> {
        if key.len() < Self::MIN_KEY_BYTES {
            return Err(Error::invalid(format!(
                "a key needs at least {} characters, or it could be guessed from its hash",
                Self::MIN_KEY_BYTES
            )));
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::invalid("a key must be visible ASCII characters without spaces"));
        }
        Ok(Self::of(key.as_bytes()))
    }

    /// The hash in hexadecimal digits, as the keys file has it.
    pub fn to_hex(self) -> String {
        sha256::hex(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
        let Some(digits) = digits.filter(|digits| digits.len() == 64) else {
            return Err(D::Error::custom("a SHA-256 has 64 hexadecimal digits"));
        };
        Ok(Self(std::array::from_fn(|index| (digits[2 * index] << 4 | digits[2 * index + 1]) as u8)))
    }
}

/// The keys file: TOML, a `[[keys]]` table for each key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    keys: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    sha256: KeyHash,
    right: Right,
}

/// The keys that are taken. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keys(Option<Reloaded<Vec<Entry>>>);

impl Keys {
    /// Reads the keys file, where there is one.
    ///
    /// # Errors
    /// `NotFound` when the file cannot be read, `InvalidArgument` naming file and line where something is wrong in it.
    pub fn open(config: &AuthConfig) -> Result<Self> {
        let Some(path) = config.keys_file.clone() else { return Ok(Self(None)) };
        Reloaded::open("the API keys", vec![path.clone()], move || read(&path)).map(|keys| Self(Some(keys)))
    }

    /// Whether keys are asked for at all.
    pub fn are_needed(&self) -> bool {
        self.0.is_some()
    }

    /// Checks the `authorization` header of a call that needs a right.
    ///
    /// # Errors
    /// `Unauthenticated` without a key that is known, `PermissionDenied` with one that has not the right.
    pub fn check(&self, authorization: Option<&[u8]>, needed: Right) -> Result<()> {
        let Some(keys) = &self.0 else { return Ok(()) };
        let unauthenticated = |message| Error::new(ErrorKind::Unauthenticated, message);
        let key = authorization
            .and_then(bearer)
            .ok_or_else(|| unauthenticated("an API key is needed, in the header `authorization: Bearer <key>`"))?;
        let hash = KeyHash::of(key);
        // All of them are compared, and each to its end: how long it takes tells nothing of how near a guess was.
        let matching = |entry: &&Entry| bool::from(entry.sha256.0.ct_eq(&hash.0));
        match keys.current().iter().filter(matching).map(|entry| entry.right).max() {
            Some(right) if right >= needed => Ok(()),
            Some(_) => Err(Error::new(
                ErrorKind::PermissionDenied,
                "the API key may use the models, but not administer the server: that takes the right `admin`",
            )),
            None => Err(unauthenticated("the API key is not one that is known here")),
        }
    }

    /// Reads the file again whenever it changes, and never ends.
    pub async fn watch(self) {
        match self.0 {
            Some(keys) => keys.watch().await,
            None => std::future::pending().await,
        }
    }
}

/// The key of `Bearer <key>`; the scheme's name is in any case.
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = authorization.split_at_checked(7)?;
    Some(key.trim_ascii()).filter(|key| scheme.eq_ignore_ascii_case(b"bearer ") && !key.is_empty())
}

fn read(path: &Path) -> Result<Vec<Entry>> {
    toml_file::read::<File>(path, "the keys file").map(|file| file.keys)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Keys and what `printf <key> | sha256sum` says of them.
    const INFER: (&str, &str) =
        ("a-key-for-inference", "e388b3c7ea4a865216dd0fcaf08b3f4d534a8c39fc495305dd864fe2d640b323");
    const ADMIN: (&str, &str) =
        ("a-key-for-admins", "268accfd06a9ea4464d5024db854a5ae9a3ae7f33547084d6ee9b56519ad97e5");

    fn keys(text: &str) -> Result<Keys> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        fs::write(&path, text).unwrap();
        Keys::open(&AuthConfig { keys_file: Some(path) })
    }

    fn entry(hash: &str, right: &str) -> String {
        format!("[[keys]]\nsha256 = \"{hash}\"\nright = \"{right}\"\n")
    }

    #[test]
    fn a_key_allows_what_its_right_says() {
        let keys = keys(&(entry(&INFER.1.to_uppercase(), "infer") + &entry(ADMIN.1, "admin"))).unwrap();
        let check = |authorization: &str, needed| {
            keys.check(Some(authorization.as_bytes()), needed).map_err(|error| error.kind())
        };
        let (infer, admin) = (format!("Bearer {}", INFER.0), format!("bearer  {} ", ADMIN.0));
        assert_eq!(check(&infer, Right::Infer), Ok(()));
        assert_eq!(check(&infer, Right::Admin), Err(ErrorKind::PermissionDenied));
        assert_eq!(check(&admin, Right::Infer), Ok(()));
        assert_eq!(check(&admin, Right::Admin), Ok(()));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer a-key",
            INFER.0,
            "Basic YTpi",
            "Bearer A-key-for-inference",
            &format!("Bearer {}", INFER.1),
            &format!("Bearer{}", INFER.0),
            &format!("{infer} {}", INFER.0),
        ] {
            assert_eq!(check(wrong, Right::Infer), Err(ErrorKind::Unauthenticated), "{wrong}");
        }
        assert_eq!(keys.check(None, Right::Infer).unwrap_err().kind(), ErrorKind::Unauthenticated);
        assert_eq!(check("Bearer \u{ff}", Right::Infer), Err(ErrorKind::Unauthenticated));
    }

    #[test]
    fn without_a_file_no_key_is_asked_for_and_with_an_empty_one_none_is_taken() {
        let open = Keys::open(&AuthConfig::default()).unwrap();
        assert!(!open.are_needed());
        open.check(None, Right::Admin).unwrap();
        let closed = keys("").unwrap();
        assert!(closed.are_needed());
        assert!(closed.check(Some(b"Bearer a-key-for-inference"), Right::Infer).is_err());
    }

    #[test]
    fn what_is_wrong_in_the_file_is_named_with_its_line() {
        for (text, said) in [
            (entry("abc", "infer"), "line 2: a SHA-256 has 64"),
            (entry(&"é".repeat(32), "infer"), "line 2: a SHA-256 has 64"),
            (entry(&"0".repeat(63), "infer"), "line 2: a SHA-256 has 64"),
            (entry(INFER.1, "all"), "line 3: unknown variant `all`"),
            ("[[keys]]\nkey = \"secret\"\n".to_owned(), "line 2: unknown field `key`"),
            ("[[key]]\n".to_owned(), "line 1: unknown field `key`"),
        ] {
            let error = keys(&text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.message().contains(said), "{error}");
        }
        let missing = AuthConfig { keys_file: Some("/nonexistent/keys".into()) };
        assert_eq!(Keys::open(&missing).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn new_keys_must_be_hard_to_guess_and_fit_a_header() {
        assert_eq!(KeyHash::of_new(INFER.0).unwrap().to_hex(), INFER.1);
        for key in ["", "short", "with a space in it", "with-an-é-in-it-too"] {
            assert!(KeyHash::of_new(key).is_err(), "{key}");
        }
    }
}
