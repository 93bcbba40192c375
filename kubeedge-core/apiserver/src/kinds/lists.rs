//! The lists and maps of Kubernetes' own types: what their items are told apart by, and which are one value.
//! Kubernetes says it per type; a field's name and that of the field around it say as much.

/// How the items of a list are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Items<K> {
    /// Objects, by this key.
    By(K),
    /// Plain values, each once.
    Set,
    /// Not at all: the list is one value.
    Atomic,
}

fn of_container(around: &str) -> bool {
    matches!(around, "containers" | "initContainers" | "ephemeralContainers")
}

/// The merge key of a list, for strategic merge patches.
pub(crate) fn merge_key(around: &str, field: &str) -> Items<&'static str> {
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "resourceClaims" => Items::By("name"),
        "secrets" if around.is_empty() => Items::By("name"),
        "volumeMounts" => Items::By("mountPath"),
        "volumeDevices" => Items::By("devicePath"),
        "ports" if of_container(around) => Items::By("containerPort"),
        "ports" if around == "spec" => Items::By("port"),
        "hostAliases" | "podIPs" | "hostIPs" => Items::By("ip"),
        "conditions" | "addresses" if around == "status" => Items::By("type"),
        "ownerReferences" => Items::By("uid"),
        "topologySpreadConstraints" => Items::By("topologyKey"),
        "finalizers" => Items::Set,
        _ => Items::Atomic,
    }
}

/// The keys of a list, all of which together tell its items apart, for server-side apply.
pub(crate) fn map_keys(around: &str, field: &str) -> Items<&'static [&'static str]> {
    match field {
        "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "env" => Items::By(&["name"]),
        "resourceClaims" | "claims" | "schedulingGates" | "drivers" | "webhooks" => Items::By(&["name"]),
        "imagePullSecrets" if around == "spec" => Items::By(&["name"]),
        "secrets" if around.is_empty() => Items::By(&["name"]),
        "volumeMounts" => Items::By(&["mountPath"]),
        "volumeDevices" => Items::By(&["devicePath"]),
        "ports" if of_container(around) => Items::By(&["containerPort", "protocol"]),
        "ports" if around == "spec" => Items::By(&["port", "protocol"]),
        "hostAliases" | "podIPs" => Items::By(&["ip"]),
        "conditions" | "addresses" if around == "status" => Items::By(&["type"]),
        "ownerReferences" => Items::By(&["uid"]),
        "topologySpreadConstraints" => Items::By(&["topologyKey", "whenUnsatisfiable"]),
        "finalizers" if around == "metadata" => Items::Set,
        "podCIDRs" => Items::Set,
        _ => Items::Atomic,
    }
}

/// Whether an object is one value.
pub(crate) fn is_atomic_map(field: &str) -> bool {
    matches!(
        field,
        "selector"
            | "labelSelector"
            | "namespaceSelector"
            | "podSelector"
            | "nodeSelector"
            | "scopeSelector"
            | "configMapKeyRef"
            | "secretKeyRef"
            | "fieldRef"
            | "resourceFieldRef"
            | "secretRef"
            | "claimRef"
            | "roleRef"
            | "targetRef"
            | "involvedObject"
            | "dataSource"
    )
}
