//! The grammar of resource strings.
//!
//! Inside the cloud a message to a node carries `node/<node>/<namespace>/<type>[/<name>]`; on the wire the
//! first two elements are gone. Cluster-scoped objects use the literal namespace `null`.

use crate::name::{NodeName, Resource};

/// The namespace element of cluster-scoped objects: the four letters `null`.
pub const NO_NAMESPACE: &str = "null";

/// A resource as the edge sees it: `<namespace>/<type>[/<name>]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectPath<'a> {
    /// The namespace, or `null`.
    pub namespace: &'a str,
    /// The type in singular and lower case: `pod`, `configmap`, `nodepatch`, …
    pub kind: &'a str,
    /// The name; empty in the two-element form.
    pub name: &'a str,
}

impl<'a> ObjectPath<'a> {
    /// Reads two or three elements; anything else is not the path of an object.
    pub fn parse(resource: &'a str) -> Option<Self> {
        let mut parts = resource.split('/');
        let (namespace, kind) = (parts.next()?, parts.next()?);
        let name = parts.next().unwrap_or_default();
        (parts.next().is_none() && !kind.is_empty()).then_some(Self { namespace, kind, name })
    }

    /// Prints the path; two elements when there is no name.
    pub fn to_resource(self) -> Resource {
        let Self { namespace, kind, name } = self;
        if name.is_empty() { format!("{namespace}/{kind}") } else { format!("{namespace}/{kind}/{name}") }
            .into()
    }
}

/// The resource of an object: `<namespace>/<type>/<name>`, with `null` for no namespace.
pub fn object(namespace: &str, kind: &str, name: &str) -> Resource {
    let namespace = if namespace.is_empty() { NO_NAMESPACE } else { namespace };
    ObjectPath { namespace, kind, name }.to_resource()
}

/// Puts `node/<node>/` before a resource, as every message inside the cloud carries it.
pub fn for_node(node: &NodeName, resource: &Resource) -> Resource {
    let mut text = String::new();
    write_for_node(&mut text, node, resource);
    text.into()
}

/// As [`for_node`], in the place of what the text holds.
pub fn write_for_node(text: &mut String, node: &NodeName, resource: &Resource) {
    text.clear();
    text.extend(["node/", node.as_str(), "/", resource.as_str()]);
}

/// The node a cloud message is for: the element after the first element that is `node`.
pub fn target_node(resource: &Resource) -> Option<NodeName> {
    let mut parts = resource.as_str().split('/');
    parts.find(|part| *part == "node")?;
    parts.next().filter(|node| !node.is_empty()).map(NodeName::from)
}

/// What goes on the wire: without `node/<node>/` when the resource starts with `node` and has at least three
/// elements, otherwise unchanged.
pub fn trimmed(resource: &Resource) -> Resource {
    let text = resource.as_str();
    if !text.starts_with("node") {
        return resource.clone();
    }
    match text.splitn(3, '/').nth(2) {
        Some(rest) => rest.into(),
        None => resource.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_prefix_is_added_and_trimmed_as_go_does() {
        for (full, wire, node) in [
            ("node/edge-1/default/pod/nginx", "default/pod/nginx", Some("edge-1")),
            ("node/edge-1/membership", "membership", Some("edge-1")),
            (
                "operations.kubeedge.io/v1alpha2/nodeupgradejob/j1/node/edge-1",
                "operations.kubeedge.io/v1alpha2/nodeupgradejob/j1/node/edge-1",
                Some("edge-1"),
            ),
            ("node/edge-1", "node/edge-1", Some("edge-1")),
            ("rule/x", "rule/x", None),
        ] {
            assert_eq!(trimmed(&full.into()), wire);
            assert_eq!(target_node(&full.into()), node.map(NodeName::from));
        }
        assert_eq!(for_node(&"n".into(), &"a/pod/b".into()), "node/n/a/pod/b");
    }

    #[test]
    fn object_paths_have_two_or_three_elements() {
        assert_eq!(
            ObjectPath::parse("default/pod/web"),
            Some(ObjectPath { namespace: "default", kind: "pod", name: "web" })
        );
        assert_eq!(ObjectPath::parse("default/pod").unwrap().name, "");
        assert_eq!(ObjectPath::parse("membership"), None);
        assert_eq!(ObjectPath::parse("a/b/c/d"), None);
        assert_eq!(object("", "node", "n"), "null/node/n");
    }
}
