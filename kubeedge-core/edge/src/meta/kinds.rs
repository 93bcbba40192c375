//! What MetaManager knows of each kind: one row per kind.

/// What a kind means to the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs on the node.
    Pod,
    /// The node itself.
    Node,
    /// A sign of life, worth nothing without a link.
    Lease,
    /// Reported to the cluster and not kept.
    Event,
    /// DeviceTwin acts on it.
    Device,
    /// Anything else.
    Other,
}

/// Who answers a question for an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// The copy alone.
    Copy,
    /// The copy; where it has none and the link is up, the cloud, which then sends changes by itself.
    CopyFirst,
    /// The cloud; without a link, the copy.
    CloudFirst,
    /// The cloud alone.
    Cloud,
    /// The token that is kept, while it is good.
    Token,
}

/// A kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KindInfo {
    /// As it stands in resources.
    pub name: &'static str,
    /// Its API group; empty for the core group.
    pub group: &'static str,
    pub role: Role,
    pub read: Read,
    /// Whether the cloud sends an answer with such an object again until it is told that it is stored.
    pub acknowledged: bool,
}

const fn kind(name: &'static str, group: &'static str, role: Role, read: Read) -> KindInfo {
    KindInfo { name, group, role, read, acknowledged: false }
}

const fn acknowledged(name: &'static str, group: &'static str, read: Read) -> KindInfo {
    KindInfo { name, group, role: Role::Other, read, acknowledged: true }
}

const DEVICES: &str = "devices.kubeedge.io";
const RULES: &str = "rules.kubeedge.io";

const KINDS: &[KindInfo] = &[
    kind("pod", "", Role::Pod, Read::Copy),
    kind("podpatch", "", Role::Other, Read::Copy),
    kind("podstatus", "", Role::Other, Read::Copy),
    kind("node", "", Role::Node, Read::Copy),
    kind("nodepatch", "", Role::Other, Read::Copy),
    kind("nodestatus", "", Role::Other, Read::Copy),
    acknowledged("configmap", "", Read::CopyFirst),
    acknowledged("secret", "", Read::CopyFirst),
    acknowledged("persistentvolume", "", Read::CloudFirst),
    acknowledged("persistentvolumeclaim", "", Read::CloudFirst),
    acknowledged("volumeattachment", "storage.k8s.io", Read::CloudFirst),
    kind("certificatesigningrequest", "certificates.k8s.io", Role::Other, Read::CloudFirst),
    kind("serviceaccounttoken", "authentication.k8s.io", Role::Other, Read::Token),
    kind("serviceaccountaccess", "policy.kubeedge.io", Role::Other, Read::Copy),
    kind("lease", "coordination.k8s.io", Role::Lease, Read::Cloud),
    kind("event", "", Role::Event, Read::Copy),
    kind("service", "", Role::Other, Read::Copy),
    kind("endpoints", "", Role::Other, Read::Copy),
    kind("device", DEVICES, Role::Device, Read::Copy),
    kind("devicemodel", DEVICES, Role::Device, Read::Copy),
    kind("devicestatus", DEVICES, Role::Other, Read::Copy),
    kind("rule", RULES, Role::Other, Read::Copy),
    kind("ruleendpoint", RULES, Role::Other, Read::Copy),
    // The certificate of the cluster's CA, asked for as `k8s/ca.crt`.
    kind("ca.crt", "", Role::Other, Read::CloudFirst),
];

const UNKNOWN: KindInfo = kind("", "", Role::Other, Read::Copy);

/// What is known of a kind; for one that is not known, what holds for all others.
pub(super) fn of(kind: &str) -> &'static KindInfo {
    KINDS.iter().find(|known| known.name == kind).unwrap_or(&UNKNOWN)
}

/// Whether a kind is one of the table.
pub(super) fn is_known(kind: &str) -> bool {
    !of(kind).name.is_empty()
}
