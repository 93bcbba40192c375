//! The kinds that are served: Kubernetes' own and those of CustomResourceDefinitions.
//!
//! Everything that is known of a built-in kind stands in one [`BuiltIn`] in the file of its API group: names,
//! columns, defaults, checks, what a node may do. A new kind is one such value and a line in [`BUILT_IN`]; no
//! other file asks which kind it has before it.

mod access;
mod built_in;
mod columns;
mod config;
mod core_v1;
mod custom;
mod definitions;
mod discovery;
mod lists;
mod namespaces;
mod nodes;
mod other_groups;
mod pod_spec;
mod pods;
mod reviews;
#[cfg(test)]
mod tests;
mod workloads;

use std::sync::Arc;

use serde_json::Value;

use self::custom::CustomKind;
pub(crate) use self::{
    access::NodeRequest,
    built_in::{Action, BuiltIn, Scope, Subresource},
    columns::{NAME_AND_AGE, Row},
    custom::CustomColumn,
    lists::{Items, is_atomic_map, map_keys, merge_key},
};
use crate::{
    key::{Collection, ObjectKey},
    status::{Problem, Subject},
};

/// All built-in kinds, in the order that discovery tells them in.
const BUILT_IN: [&BuiltIn; 36] = [
    &pods::POD,
    &nodes::NODE,
    &namespaces::NAMESPACE,
    &config::CONFIG_MAP,
    &config::SECRET,
    &core_v1::SERVICE,
    &core_v1::ENDPOINTS,
    &core_v1::EVENT,
    &core_v1::SERVICE_ACCOUNT,
    &core_v1::PERSISTENT_VOLUME,
    &core_v1::PERSISTENT_VOLUME_CLAIM,
    &core_v1::LIMIT_RANGE,
    &core_v1::RESOURCE_QUOTA,
    &workloads::DEPLOYMENT,
    &workloads::REPLICA_SET,
    &workloads::CONTROLLER_REVISION,
    &workloads::JOB,
    &other_groups::LEASE,
    &other_groups::ENDPOINT_SLICE,
    &core_v1::NEWER_EVENT,
    &other_groups::INGRESS,
    &other_groups::NETWORK_POLICY,
    &other_groups::POD_DISRUPTION_BUDGET,
    &other_groups::ROLE,
    &other_groups::ROLE_BINDING,
    &other_groups::CLUSTER_ROLE,
    &other_groups::CLUSTER_ROLE_BINDING,
    &other_groups::PRIORITY_CLASS,
    &other_groups::STORAGE_CLASS,
    &other_groups::CSI_NODE,
    &other_groups::CSI_DRIVER,
    &other_groups::VOLUME_ATTACHMENT,
    &other_groups::CERTIFICATE_SIGNING_REQUEST,
    &other_groups::RUNTIME_CLASS,
    &other_groups::CUSTOM_RESOURCE_DEFINITION,
    &other_groups::VALIDATING_WEBHOOK_CONFIGURATION,
];

/// Those that are answered and never stored.
const REVIEWS: [&BuiltIn; 4] = [
    &reviews::SELF_SUBJECT_ACCESS_REVIEW,
    &reviews::SUBJECT_ACCESS_REVIEW,
    &reviews::SELF_SUBJECT_RULES_REVIEW,
    &reviews::SELF_SUBJECT_REVIEW,
];

/// The kinds that parts of the server work with.
pub(crate) const PODS: Kind = Kind::BuiltIn(&pods::POD);
pub(crate) const NAMESPACES: Kind = Kind::BuiltIn(&namespaces::NAMESPACE);
pub(crate) const SERVICE_ACCOUNTS: Kind = Kind::BuiltIn(&core_v1::SERVICE_ACCOUNT);
pub(crate) const DEFINITIONS: Kind = Kind::BuiltIn(&other_groups::CUSTOM_RESOURCE_DEFINITION);

/// Those that its controllers work with besides, and tests.
#[cfg(any(feature = "controllers", test))]
pub(crate) use self::controlled::*;

#[cfg(any(feature = "controllers", test))]
mod controlled {
    use super::*;

    pub(crate) const NODES: Kind = Kind::BuiltIn(&nodes::NODE);
    pub(crate) const CONFIG_MAPS: Kind = Kind::BuiltIn(&config::CONFIG_MAP);
    pub(crate) const DEPLOYMENTS: Kind = Kind::BuiltIn(&workloads::DEPLOYMENT);
    #[cfg(feature = "controllers")]
    pub(crate) const EVENTS: Kind = Kind::BuiltIn(&core_v1::EVENT);
    #[cfg(feature = "controllers")]
    pub(crate) const REPLICA_SETS: Kind = Kind::BuiltIn(&workloads::REPLICA_SET);
    #[cfg(feature = "controllers")]
    pub(crate) const LEASES: Kind = Kind::BuiltIn(&other_groups::LEASE);
}

/// A kind in one version. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    BuiltIn(&'static BuiltIn),
    Custom(Arc<CustomKind>),
}

impl Kind {
    pub(crate) fn group(&self) -> &str {
        match self {
            Self::BuiltIn(kind) => kind.group,
            Self::Custom(kind) => &kind.group,
        }
    }

    pub(crate) fn version(&self) -> &str {
        match self {
            Self::BuiltIn(kind) => kind.version,
            Self::Custom(kind) => &kind.version,
        }
    }

    /// Its name in `kind`.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::BuiltIn(kind) => kind.kind,
            Self::Custom(kind) => &kind.kind,
        }
    }

    pub(crate) fn plural(&self) -> &str {
        match self {
            Self::BuiltIn(kind) => kind.plural,
            Self::Custom(kind) => &kind.plural,
        }
    }

    pub(crate) fn is_namespaced(&self) -> bool {
        match self {
            Self::BuiltIn(kind) => kind.scope == Scope::Namespaced,
            Self::Custom(kind) => kind.namespaced,
        }
    }

    /// Whether its status is written apart.
    pub(crate) fn has_status(&self) -> bool {
        match self {
            Self::BuiltIn(kind) => kind.status,
            Self::Custom(kind) => kind.status,
        }
    }

    /// Whether its `spec.replicas` can be written as a Scale.
    pub(crate) fn has_scale(&self) -> bool {
        self.built_in().is_some_and(|kind| kind.scale)
    }

    /// `v1` or `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        let (group, version) = (self.group(), self.version());
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
    }

    /// What is known of it, if it is one of Kubernetes' own.
    pub(crate) fn built_in(&self) -> Option<&'static BuiltIn> {
        match self {
            Self::BuiltIn(kind) => Some(kind),
            Self::Custom(_) => None,
        }
    }

    /// The schema of a custom kind.
    pub(crate) fn schema(&self) -> Option<&Value> {
        match self {
            Self::BuiltIn(_) => None,
            Self::Custom(kind) => Some(&kind.schema),
        }
    }

    /// The columns of a custom kind's table; none where it has those of any kind.
    pub(crate) fn custom_columns(&self) -> &[CustomColumn] {
        match self {
            Self::BuiltIn(_) => &[],
            Self::Custom(kind) => &kind.columns,
        }
    }

    /// Whether it is this kind, in whatever version.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.group(), self.plural()) == (other.group(), other.plural())
    }

    /// Whether it is kept who owns which field of its objects.
    pub(crate) fn is_managed(&self) -> bool {
        match self {
            Self::BuiltIn(kind) => kind.managed,
            Self::Custom(kind) => kind.is_managed(),
        }
    }

    /// What a field counts as where it is absent; `None` if objects cannot be selected by it.
    pub(crate) fn selectable(&self, path: &str) -> Option<&'static str> {
        if path == "metadata.name" || path == "metadata.namespace" && self.is_namespaced() {
            return Some("");
        }
        match self {
            Self::BuiltIn(kind) => {
                kind.selectable.iter().find(|field| field.path == path).map(|field| field.absent)
            }
            Self::Custom(kind) => kind.is_selectable(path).then_some(""),
        }
    }

    /// A subresource beside `status` and `scale`.
    pub(crate) fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.built_in()?.subresources.iter().find(|sub| sub.name == name)
    }

    /// Whether a node may do this.
    pub(crate) fn node_may(&self, request: &NodeRequest<'_>) -> bool {
        self.built_in().is_some_and(|kind| (kind.node_may)(request))
    }

    /// Fills in what was left out.
    pub(crate) fn fill(&self, object: &mut Value) {
        if let Some(kind) = self.built_in() {
            (kind.defaults)(object);
        }
    }

    /// What a built-in kind's checks would refuse of a change.
    pub(crate) fn check_update(&self, before: &Value, new: &Value) -> Option<Problem> {
        (self.built_in()?.check_update)(before, new)
    }

    /// Its entry in discovery, and those of its subresources.
    pub(crate) fn discovery(&self) -> Vec<Value> {
        discovery::entries(self)
    }

    /// The group its objects are stored under.
    pub(crate) fn stored_under(&self) -> &str {
        self.built_in().map_or_else(|| self.group(), |kind| kind.stored_under)
    }

    /// The key of an object of this kind.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> ObjectKey {
        let namespace = if self.is_namespaced() { namespace } else { "" };
        ObjectKey {
            group: self.stored_under().to_owned(),
            plural: self.plural().to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// All objects of this kind, or those of one namespace.
    pub(crate) fn collection(&self, namespace: &str) -> Collection {
        Collection {
            group: self.stored_under().to_owned(),
            plural: self.plural().to_owned(),
            namespace: namespace.to_owned(),
        }
    }

    /// Whether a key is of an object of this kind.
    #[cfg(feature = "controllers")]
    pub(crate) fn has(&self, key: &ObjectKey) -> bool {
        key.plural == self.plural() && key.group == self.stored_under()
    }

    /// What a failure says it is about.
    pub(crate) fn subject<'a>(&'a self, name: &'a str) -> Subject<'a> {
        Subject { group: self.group(), plural: self.plural(), name }
    }
}

/// The built-in kind with this group, version and plural, reviews among them; asked for with each request.
pub(crate) fn built_in(group: &str, version: &str, plural: &str) -> Option<Kind> {
    let is = |kind: &&&BuiltIn| kind.group == group && kind.plural == plural && kind.version == version;
    BUILT_IN.iter().chain(&REVIEWS).find(is).map(|kind| Kind::BuiltIn(kind))
}

/// All built-in kinds that are stored.
pub(crate) fn stored() -> impl Iterator<Item = Kind> {
    BUILT_IN.into_iter().map(Kind::BuiltIn)
}

/// The kinds that are answered and never stored.
pub(crate) fn answered() -> impl Iterator<Item = Kind> {
    REVIEWS.into_iter().map(Kind::BuiltIn)
}

/// The kinds that a CustomResourceDefinition defines: one per served version.
pub(crate) fn of_definition(definition: &Value) -> Vec<Kind> {
    custom::of_definition(definition).into_iter().map(|kind| Kind::Custom(Arc::new(kind))).collect()
}
