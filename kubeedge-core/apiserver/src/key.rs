//! Which object, and which objects together.

use std::fmt;

/// Which object: group, plural, namespace (empty for none) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The API group; empty for the core group.
    pub group: String,
    /// The plural of the kind.
    pub plural: String,
    /// Empty for objects of the whole cluster.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.group, self.plural, self.namespace, self.name)
    }
}

/// All objects of a kind, or those of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Collection {
    /// The API group; empty for the core group.
    pub group: String,
    /// The plural of the kind.
    pub plural: String,
    /// Empty for all namespaces, and for objects of the whole cluster.
    pub namespace: String,
}

impl Collection {
    /// Whether an object is one of these.
    pub fn has(&self, key: &ObjectKey) -> bool {
        key.plural == self.plural
            && key.group == self.group
            && (self.namespace.is_empty() || key.namespace == self.namespace)
    }

    /// The key of an object of this kind.
    pub fn key(&self, namespace: &str, name: &str) -> ObjectKey {
        ObjectKey {
            group: self.group.clone(),
            plural: self.plural.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.group, self.plural, self.namespace)
    }
}
