//! The name of a record, hashed once.

use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

use foldhash::fast::FixedState;

/// `<node>.<uid>`. Looked up with each confirmation of an edge: copies share the text, and those of one name
/// that are the same copy are found without a look at it.
#[derive(Clone)]
pub(crate) struct RecordName {
    text: Arc<str>,
    hash: u64,
}

impl RecordName {
    pub(super) fn new(text: &str) -> Self {
        // Whoever names nodes does not choose the UIDs: nobody can make many names of one hash.
        Self { text: text.into(), hash: FixedState::default().hash_one(text) }
    }
}

impl Deref for RecordName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl PartialEq for RecordName {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}

impl Eq for RecordName {}

impl Hash for RecordName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}
