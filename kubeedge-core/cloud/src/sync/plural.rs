//! From an object's kind to its place in the API, as KubeEdge guesses it.

use kube::core::{GroupVersionKind, gvk::GroupVersion};

/// Group, version and kind from `apiVersion` and `kind`.
pub(super) fn gvk(api_version: &str, kind: &str) -> Option<GroupVersionKind> {
    let version: GroupVersion = api_version.parse().ok()?;
    Some(GroupVersionKind::gvk(&version.group, &version.version, kind))
}

/// The plural of a kind in lower case.
pub(super) fn of(kind: &str) -> String {
    let lower = kind.to_lowercase();
    match lower.as_str() {
        "endpoints" | "podstatus" | "nodestatus" | "leases" => lower,
        _ if lower.ends_with('s') => format!("{lower}es"),
        _ => match lower.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => format!("{lower}s"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_plurals_kubeedge_gives_them() {
        for (kind, plural) in [
            ("Pod", "pods"),
            ("ConfigMap", "configmaps"),
            ("DeviceStatus", "devicestatuses"),
            ("Endpoints", "endpoints"),
            ("NetworkPolicy", "networkpolicies"),
            ("DeviceModel", "devicemodels"),
        ] {
            assert_eq!(of(kind), plural);
        }
        let gvk = gvk("devices.kubeedge.io/v1beta1", "Device").unwrap();
        assert_eq!((gvk.group.as_str(), gvk.version.as_str()), ("devices.kubeedge.io", "v1beta1"));
        assert_eq!(super::gvk("v1", "Pod").unwrap().group, "");
    }
}
