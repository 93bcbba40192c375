//! What a path is about.

use crate::{
    kinds::{Action, Kind},
    kubelet::Place,
    registry::Registry,
    status::{Refusal, Subject},
};

/// What a path is about.
#[derive(Debug)]
pub(super) struct Target {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub sub: String,
}

impl Target {
    /// Of the segments of a path; `None` for those that are not about objects.
    pub(super) async fn parse(registry: &Registry, parts: &[&str]) -> Result<Option<Self>, Refusal> {
        let (group, version, rest) = match parts {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return Ok(None),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..]
                if !rest.is_empty() && !matches!(rest, ["status" | "finalize"]) =>
            {
                (*namespace, rest)
            }
            rest => ("", rest),
        };
        let part = |at: usize| rest.get(at).copied().unwrap_or_default();
        let kind = registry.kind(group, version, part(0)).await?;
        let (name, sub) = (part(1).to_owned(), part(2).to_owned());
        let misplaced = if kind.is_namespaced() {
            namespace.is_empty() && !name.is_empty()
        } else {
            !namespace.is_empty()
        };
        if misplaced {
            return Err(Refusal::no_such_path());
        }
        Ok(Some(Self { kind, namespace: namespace.to_owned(), name, sub }))
    }

    pub(super) fn subject(&self) -> Subject<'_> {
        self.kind.subject(&self.name)
    }

    /// What a request to its subresource does, if that is not one of an object's own parts.
    pub(super) fn action(&self) -> Option<Action> {
        self.kind.subresource(&self.sub).map(|sub| sub.action)
    }

    /// Whether objects of the kind are in namespaces, and none is named.
    pub(super) fn lacks_namespace(&self) -> bool {
        self.kind.is_namespaced() && self.namespace.is_empty()
    }

    /// What a node is asked for.
    pub(super) fn place(&self) -> Place<'_> {
        Place { namespace: &self.namespace, pod: &self.name, sub: &self.sub }
    }
}
