//! The identity of an object or of a message, as the key of what a session knows of it.

use std::{fmt, sync::Arc};

use uuid::Uuid;

/// Text that identifies: nearly always a UUID as Kubernetes and KubeEdge write one, which is held and
/// compared in place. Of thousands of edges' objects, each text compared would be a look into memory that no
/// cache holds.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Id {
    /// Exactly the text that this UUID is written as.
    Uuid(Uuid),
    /// Any other.
    Text(Arc<str>),
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        let is_canonical = |uuid: &Uuid| *uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *text;
        match Uuid::try_parse(text).ok().filter(is_canonical) {
            Some(uuid) => Self::Uuid(uuid),
            None => Self::Text(text.into()),
        }
    }
}

impl Id {
    /// A fresh one, as every message has its own.
    pub(super) fn random() -> Self {
        Self::Uuid(Uuid::new_v4())
    }

    /// The text it was made of, written into the buffer where it is not held.
    pub(super) fn text<'a>(&'a self, buffer: &'a mut [u8; Self::LONGEST]) -> &'a str {
        match self {
            Self::Uuid(uuid) => uuid.hyphenated().encode_lower(buffer),
            Self::Text(text) => text,
        }
    }

    /// The longest text that is not held, in bytes.
    pub(super) const LONGEST: usize = uuid::fmt::Hyphenated::LENGTH;
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text(&mut [0; Self::LONGEST]))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_uuids_of_kubernetes_are_held_in_place() {
        assert!(matches!(Id::from("8f2a3c1e-0b7d-4a55-9c1f-1d2e3f405162"), Id::Uuid(_)));
    }

    proptest! {
        #[test]
        fn texts_that_differ_are_different_identities(
            uuid in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", other in ".{0,40}", upper in 0..36_usize,
        ) {
            let mut shouted = uuid.clone();
            shouted[upper..=upper].make_ascii_uppercase();
            for text in [uuid.clone(), shouted, uuid.replace('-', ""), format!("{{{uuid}}}"), other] {
                let id = Id::from(text.as_str());
                prop_assert_eq!(id.to_string(), text.as_str());
                prop_assert_eq!(id == Id::from(uuid.as_str()), text == uuid);
            }
        }
    }
}
