//! The id that follows a request through logs and answers.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest id that is taken from a client.
const MAX_LENGTH: usize = 128;

/// Gives out ids that no other process gives out.
#[derive(Debug)]
pub struct RequestIds {
    /// Tells the ids of this process from those of others.
    prefix: u32,
    next: AtomicU64,
}

impl RequestIds {
    /// Ids from 0 on, behind a prefix of this process.
    pub fn new() -> Self {
        // The hasher's random keys are the standard library's only source of randomness; uniqueness is all that is needed.
        let prefix = RandomState::new().hash_one(std::process::id()) as u32;
        Self { prefix, next: AtomicU64::new(0) }
    }

    /// The id that the client chose, where it is fit for a log line and a header, or a new one. Always visible ASCII.
    pub fn choose(&self, chosen: Option<&[u8]>) -> String {
        let is_fit = |id: &&[u8]| {
            (1..=MAX_LENGTH).contains(&id.len())
                && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(byte))
        };
        match chosen.filter(is_fit) {
            Some(id) => id.iter().map(|&byte| char::from(byte)).collect(),
            None => format!("{:08x}-{:08x}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_id_is_kept_where_it_is_fit() {
        let ids = RequestIds::new();
        assert_eq!(ids.choose(Some(b"a-1_B.c:+/=")), "a-1_B.c:+/=");
        let longest = [b'x'; MAX_LENGTH];
        assert_eq!(ids.choose(Some(&longest)).len(), MAX_LENGTH);
        for unfit in [Some(b"".as_slice()), Some(b"a b"), Some(b"a\n"), Some(&[b'x'; MAX_LENGTH + 1]), None] {
            let id = ids.choose(unfit);
            assert_eq!(id.len(), 17, "{id}");
            assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'), "{id}");
        }
        assert_ne!(ids.choose(None), ids.choose(None));
    }
}
