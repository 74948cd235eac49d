//! Where this user's programs keep what they can make again.

use std::path::PathBuf;

/// `$XDG_CACHE_HOME/convoy`, else `~/.cache/convoy`; `None` where there is no home directory.
pub fn default() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    cache.map(|cache| cache.join("convoy"))
}
