//! Where an object stands in the copy: group, kind, namespace and name.
//!
//! A row's name is `group/kind/namespace/name`: objects of one kind stand together, those of one namespace
//! within. The core group is written `core`. Objects of the cluster have an empty namespace. In each part
//! `/`, `%`, control characters and what is not ASCII are percent-encoded, so that three slashes are always
//! the separators.
//!
//! On the wire KubeEdge names objects `namespace/kind/name`, without a group; [`kinds`] knows the group of
//! each kind.

use std::fmt;

use kubeedge_core::{
    message::resource::{NO_NAMESPACE, ObjectPath},
    name::Resource,
};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::kinds;

/// What is escaped in a part of a row's name.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'/').add(b'%');
/// The core group in a row's name.
const CORE: &str = "core";

/// The identity of an object on this node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct ObjectKey {
    /// The API group; empty for the core group.
    pub group: String,
    /// The kind as KubeEdge's resources have it: in singular and lower case, such as `pod` or `configmap`.
    pub kind: String,
    /// The namespace; empty for an object of the cluster.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object of any group.
    pub fn new(
        group: impl Into<String>,
        kind: impl Into<String>,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self { group: group.into(), kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object whose kind KubeEdge knows, and with it the group. Unknown kinds count as the core
    /// group's.
    pub fn known(kind: &str, namespace: &str, name: &str) -> Self {
        Self::new(kinds::of(kind).group, kind, namespace, name)
    }

    /// The key of what a resource of KubeEdge names. A text that is no path of an object is the name of a row
    /// without kind.
    pub fn of_resource(resource: &str) -> Self {
        match ObjectPath::parse(resource) {
            Some(path) => Self::known(path.kind, scope(path.namespace), path.name),
            None => Self::new("", "", "", resource),
        }
    }

    /// As [`ObjectKey::of_resource`], in the group that the object itself states where the kind does not say
    /// it, or always if `trusts_object`.
    pub(super) fn of_object(resource: &str, stated: Option<&str>, trusts_object: bool) -> Self {
        let key = Self::of_resource(resource);
        let is_open = trusts_object || !kinds::is_known(&key.kind);
        match stated.filter(|_| is_open && !key.kind.is_empty()) {
            Some(group) => Self { group: group.to_owned(), ..key },
            None => key,
        }
    }

    /// The resource by which messages name it: `namespace/kind/name`, with `null` for no namespace.
    pub fn resource(&self) -> Resource {
        if self.kind.is_empty() {
            return self.name.as_str().into();
        }
        let namespace = if self.namespace.is_empty() { NO_NAMESPACE } else { &self.namespace };
        ObjectPath { namespace, kind: &self.kind, name: &self.name }.to_resource()
    }

    /// The name of its row in [`super::BUCKET`].
    pub fn row(&self) -> String {
        let Self { group, kind, namespace, name } = self;
        format!("{}/{}/{}/{}", group_part(group), part(kind), part(namespace), part(name))
    }

    /// Reads the name of a row; `None` when it is none.
    pub fn of_row(row: &str) -> Option<Self> {
        let mut parts = row.split('/').map(|part| percent_decode_str(part).decode_utf8().ok());
        let mut next = || parts.next().flatten().map(String::from);
        let (group, kind, namespace, name) = (next()?, next()?, next()?, next()?);
        let group = if group == CORE { String::new() } else { group };
        parts.next().is_none().then_some(Self { group, kind, namespace, name })
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.row())
    }
}

/// Which objects are listed or watched: those of one kind, of all namespaces or of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    group: String,
    kind: String,
    namespace: Option<String>,
}

impl Selector {
    /// All objects of this kind of this API group (empty: the core group).
    pub fn new(group: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { group: group.into(), kind: kind.into(), namespace: None }
    }

    /// All objects of a kind that KubeEdge knows.
    pub fn known(kind: &str) -> Self {
        Self::new(kinds::of(kind).group, kind)
    }

    /// Those of one namespace; an empty one for objects of the cluster.
    #[must_use]
    pub fn in_namespace(self, namespace: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), ..self }
    }

    /// Whether an object is one of these.
    pub fn matches(&self, key: &ObjectKey) -> bool {
        let is_there = self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace);
        self.group == key.group && self.kind == key.kind && is_there
    }

    /// What the names of their rows start with.
    pub(super) fn prefix(&self) -> String {
        let kind = format!("{}/{}/", group_part(&self.group), part(&self.kind));
        match &self.namespace {
            Some(namespace) => format!("{kind}{}/", part(namespace)),
            None => kind,
        }
    }
}

/// The namespace of a path, empty for no namespace.
fn scope(namespace: &str) -> &str {
    if namespace == NO_NAMESPACE { "" } else { namespace }
}

fn part(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, ESCAPED)
}

fn group_part(group: &str) -> impl fmt::Display + '_ {
    part(if group.is_empty() { CORE } else { group })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn resources_become_keys_and_rows() {
        for (resource, row) in [
            ("default/pod/web", "core/pod/default/web"),
            ("null/node/edge-1", "core/node//edge-1"),
            ("default/device/valve", "devices.kubeedge.io/device/default/valve"),
            ("kube-node-lease/lease/n", "coordination.k8s.io/lease/kube-node-lease/n"),
            ("default/pod", "core/pod/default/"),
            ("a/rule/r", "rules.kubeedge.io/rule/a/r"),
            ("node/nodeID/namespace/devicemapper/m", "core///node%2FnodeID%2Fnamespace%2Fdevicemapper%2Fm"),
        ] {
            let key = ObjectKey::of_resource(resource);
            assert_eq!(key.row(), row);
            assert_eq!(key.resource(), resource);
            assert_eq!(ObjectKey::of_row(row), Some(key));
        }
        for row in ["default/pod/web", "core/pod/default/web/more", "", "core/%ff/a/b"] {
            assert_eq!(ObjectKey::of_row(row), None, "{row}");
        }
    }

    #[test]
    fn objects_state_the_group_of_unknown_kinds_only() {
        let group = |resource, stated, trusts| ObjectKey::of_object(resource, stated, trusts).group;
        assert_eq!(group("a/deployment/d", Some("apps"), false), "apps");
        assert_eq!(group("a/deployment/d", None, true), "");
        assert_eq!(group("a/device/d", Some("acme.io"), false), "devices.kubeedge.io");
        assert_eq!(group("a/service/s", Some("serving.knative.dev"), true), "serving.knative.dev");
        assert_eq!(group("no-path", Some("apps"), true), "");
    }

    #[test]
    fn prefixes_end_where_kinds_and_namespaces_end() {
        let pods = Selector::known("pod");
        assert_eq!(pods.prefix(), "core/pod/");
        assert_eq!(pods.clone().in_namespace("a/b").prefix(), "core/pod/a%2Fb/");
        assert!(!ObjectKey::known("podpatch", "a", "b").row().starts_with(&pods.prefix()));
        assert!(!pods.clone().in_namespace("a").matches(&ObjectKey::known("pod", "ab", "c")));
        assert!(pods.matches(&ObjectKey::known("pod", "ab", "c")));
    }

    proptest! {
        #[test]
        fn any_key_is_read_again_from_its_row(parts in proptest::array::uniform4(".{0,12}")) {
            let [group, kind, namespace, name] = parts;
            prop_assume!(group != CORE);
            let key = ObjectKey::new(group, kind, namespace, name);
            let row = key.row();
            prop_assert_eq!(row.matches('/').count(), 3);
            let selector = Selector::new(&*key.group, &*key.kind).in_namespace(&*key.namespace);
            prop_assert!(row.starts_with(&selector.prefix()) && selector.matches(&key));
            prop_assert_eq!(ObjectKey::of_row(&row), Some(key));
        }
    }
}
