//! Which ConfigMaps and Secrets go to which nodes: those that a pod on the node refers to.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, PodSpec, Volume};
use kubeedge_core::name::NodeName;

use crate::informer::ObjectKey;

/// What a reference is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Referent {
    ConfigMap,
    Secret,
}

/// The nodes of each ConfigMap and Secret. Entries go with the object or the node, not with the pod, as in
/// Go: a pod that comes back finds its ConfigMaps up to date.
#[derive(Debug, Default)]
pub(super) struct Locations {
    nodes: HashMap<(Referent, ObjectKey), BTreeSet<NodeName>>,
}

impl Locations {
    /// A pod of this namespace runs on the node.
    pub(super) fn add_pod(&mut self, node: &NodeName, namespace: &str, spec: &PodSpec) {
        for (referent, name) in references(spec) {
            let key = (referent, ObjectKey::new(namespace, name));
            self.nodes.entry(key).or_default().insert(node.clone());
        }
    }

    /// The nodes an object goes to.
    pub(super) fn of(&self, referent: Referent, key: &ObjectKey) -> Vec<NodeName> {
        self.nodes.get(&(referent, key.clone())).into_iter().flatten().cloned().collect()
    }

    /// Whether a pod on the node refers, or referred, to the object.
    pub(super) fn has(&self, referent: Referent, key: &ObjectKey, node: &NodeName) -> bool {
        self.nodes.get(&(referent, key.clone())).is_some_and(|nodes| nodes.contains(node))
    }

    /// The node is gone.
    pub(super) fn forget_node(&mut self, node: &NodeName) {
        self.nodes.retain(|_, nodes| {
            nodes.remove(node);
            !nodes.is_empty()
        });
    }
}

/// The ConfigMaps and Secrets a pod refers to.
pub(super) fn references(spec: &PodSpec) -> Vec<(Referent, String)> {
    let mut found = Vec::new();
    for secret in spec.image_pull_secrets.iter().flatten() {
        found.push((Referent::Secret, secret.name.clone()));
    }
    for volume in spec.volumes.iter().flatten() {
        of_volume(volume, &mut found);
    }
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        of_container(container, &mut found);
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        of_ephemeral(container, &mut found);
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

fn of_volume(volume: &Volume, found: &mut Vec<(Referent, String)>) {
    if let Some(map) = &volume.config_map {
        found.push((Referent::ConfigMap, map.name.clone()));
    }
    other_secrets(&serde_json::to_value(volume).unwrap_or_default(), found);
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        found.extend(source.config_map.iter().map(|map| (Referent::ConfigMap, map.name.clone())));
        found.extend(source.secret.iter().map(|secret| (Referent::Secret, secret.name.clone())));
    }
}

/// Secrets of storage plugins: `secretRef` and the like, wherever they stand in the volume.
fn other_secrets(value: &serde_json::Value, found: &mut Vec<(Referent, String)>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let name = match key.as_str() {
            "secretRef" | "nodePublishSecretRef" => value.get("name"),
            "secretName" => Some(value),
            _ => None,
        };
        if let Some(name) = name.and_then(serde_json::Value::as_str) {
            found.push((Referent::Secret, name.to_owned()));
        }
        other_secrets(value, found);
    }
}

fn of_container(container: &Container, found: &mut Vec<(Referent, String)>) {
    of_environment(container.env_from.as_deref(), container.env.as_deref(), found);
}

fn of_ephemeral(container: &EphemeralContainer, found: &mut Vec<(Referent, String)>) {
    of_environment(container.env_from.as_deref(), container.env.as_deref(), found);
}

fn of_environment(
    from: Option<&[k8s_openapi::api::core::v1::EnvFromSource]>,
    variables: Option<&[k8s_openapi::api::core::v1::EnvVar]>,
    found: &mut Vec<(Referent, String)>,
) {
    for source in from.into_iter().flatten() {
        found.extend(source.config_map_ref.iter().map(|map| (Referent::ConfigMap, map.name.clone())));
        found.extend(source.secret_ref.iter().map(|secret| (Referent::Secret, secret.name.clone())));
    }
    for from in variables.into_iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        found.extend(from.config_map_key_ref.iter().map(|map| (Referent::ConfigMap, map.name.clone())));
        found.extend(from.secret_key_ref.iter().map(|secret| (Referent::Secret, secret.name.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_a_pod_can_refer_to_a_config_map_or_secret_counts() {
        let spec: PodSpec = serde_json::from_value(serde_json::json!({
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "a", "configMap": {"name": "vol"}},
                {"name": "b", "secret": {"secretName": "vol"}},
                {"name": "d", "csi": {"driver": "x", "nodePublishSecretRef": {"name": "csi"}}},
                {"name": "c", "projected": {"sources": [{"configMap": {"name": "proj"}}, {"secret": {"name": "proj"}}]}},
            ],
            "containers": [{"name": "m", "envFrom": [{"configMapRef": {"name": "from"}}, {"secretRef": {"name": "from"}}]}],
            "initContainers": [{"name": "i", "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "key", "key": "k"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}},
            ]}],
        }))
        .unwrap();
        let mut locations = Locations::default();
        locations.add_pod(&"n".into(), "default", &spec);
        for name in ["vol", "proj", "from", "key"] {
            let key = ObjectKey::new("default", name);
            assert_eq!(locations.of(Referent::ConfigMap, &key), [NodeName::of("n")], "{name}");
            assert_eq!(locations.of(Referent::Secret, &key), [NodeName::of("n")], "{name}");
        }
        assert_eq!(locations.of(Referent::Secret, &ObjectKey::new("default", "pull")), [NodeName::of("n")]);
        assert!(locations.of(Referent::Secret, &ObjectKey::new("other", "pull")).is_empty());
        assert!(locations.has(Referent::Secret, &ObjectKey::new("default", "csi"), &NodeName::of("n")));
        locations.forget_node(&"n".into());
        assert!(locations.nodes.is_empty());
    }
}
