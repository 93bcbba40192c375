//! Kinds of smaller API groups.

use serde_json::Value;

use super::{
    access,
    built_in::{BuiltIn, field},
    columns::{AGE, CREATED_AT, Column, NAME, NAME_AND_AGE, NAME_AND_CREATED_AT, Row, conditions, pairs},
    definitions,
};
use crate::object::Object;

/// Nodes renew a lease of their own, each few seconds.
pub(super) const LEASE: BuiltIn = BuiltIn {
    managed: false,
    ..BuiltIn::namespaced(
        ("coordination.k8s.io", "v1", "Lease", "leases"),
        &[NAME, Column::new("Holder", |row| row.text(&["spec", "holderIdentity"])), AGE],
        |request| request.is_own() || request.creates(),
    )
};

pub(super) const ENDPOINT_SLICE: BuiltIn = BuiltIn::namespaced(
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    NAME_AND_AGE,
    access::read,
);

pub(super) const INGRESS: BuiltIn = BuiltIn {
    short_names: &["ing"],
    status: true,
    ..BuiltIn::namespaced(("networking.k8s.io", "v1", "Ingress", "ingresses"), NAME_AND_AGE, access::nothing)
};

pub(super) const NETWORK_POLICY: BuiltIn = BuiltIn {
    short_names: &["netpol"],
    ..BuiltIn::namespaced(
        ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
        &[
            NAME,
            Column::new("Pod-Selector", |row| pairs(row.object.at(&["spec", "podSelector", "matchLabels"]))),
            AGE,
        ],
        access::nothing,
    )
};

pub(super) const POD_DISRUPTION_BUDGET: BuiltIn = BuiltIn {
    short_names: &["pdb"],
    status: true,
    ..BuiltIn::namespaced(
        ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
        &[
            NAME,
            Column::new("Min Available", |row| row.field(&["spec", "minAvailable"], "N/A")),
            Column::new("Max Unavailable", |row| row.field(&["spec", "maxUnavailable"], "N/A")),
            Column::new("Allowed Disruptions", |row| row.field(&["status", "disruptionsAllowed"], "0")),
            AGE,
        ],
        access::nothing,
    )
};

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) const ROLE: BuiltIn = BuiltIn {
    any_name: true,
    ..BuiltIn::namespaced((RBAC, "v1", "Role", "roles"), NAME_AND_CREATED_AT, access::nothing)
};

pub(super) const ROLE_BINDING: BuiltIn = BuiltIn {
    any_name: true,
    ..BuiltIn::namespaced((RBAC, "v1", "RoleBinding", "rolebindings"), BINDING_COLUMNS, access::nothing)
};

pub(super) const CLUSTER_ROLE: BuiltIn = BuiltIn {
    any_name: true,
    ..BuiltIn::cluster((RBAC, "v1", "ClusterRole", "clusterroles"), NAME_AND_CREATED_AT, access::nothing)
};

pub(super) const CLUSTER_ROLE_BINDING: BuiltIn = BuiltIn {
    any_name: true,
    ..BuiltIn::cluster(
        (RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings"),
        BINDING_COLUMNS,
        access::nothing,
    )
};

const BINDING_COLUMNS: &[Column] = &[
    NAME,
    Column::new("Role", |row| {
        let of = |field: &str| row.object.text(&["roleRef", field]);
        format!("{}/{}", of("kind"), of("name")).into()
    }),
    AGE,
];

pub(super) const PRIORITY_CLASS: BuiltIn = BuiltIn {
    short_names: &["pc"],
    ..BuiltIn::cluster(
        ("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses"),
        &[
            NAME,
            Column::new("Value", |row| row.field(&["value"], "0")),
            Column::new("Global-Default", |row| row.field(&["globalDefault"], "false")),
            AGE,
            Column::wide("PreemptionPolicy", |row| row.field(&["preemptionPolicy"], "PreemptLowerPriority")),
        ],
        access::nothing,
    )
};

const STORAGE: &str = "storage.k8s.io";

pub(super) const STORAGE_CLASS: BuiltIn = BuiltIn {
    short_names: &["sc"],
    ..BuiltIn::cluster(
        (STORAGE, "v1", "StorageClass", "storageclasses"),
        &[
            NAME,
            Column::new("Provisioner", |row| row.field(&["provisioner"], "")),
            Column::new("ReclaimPolicy", |row| row.field(&["reclaimPolicy"], "Delete")),
            Column::new("VolumeBindingMode", |row| row.field(&["volumeBindingMode"], "Immediate")),
            Column::new("AllowVolumeExpansion", |row| row.field(&["allowVolumeExpansion"], "false")),
            AGE,
        ],
        access::nothing,
    )
};

pub(super) const CSI_NODE: BuiltIn =
    BuiltIn::cluster((STORAGE, "v1", "CSINode", "csinodes"), NAME_AND_AGE, access::nothing);

pub(super) const CSI_DRIVER: BuiltIn =
    BuiltIn::cluster((STORAGE, "v1", "CSIDriver", "csidrivers"), NAME_AND_AGE, access::nothing);

pub(super) const VOLUME_ATTACHMENT: BuiltIn = BuiltIn {
    status: true,
    ..BuiltIn::cluster((STORAGE, "v1", "VolumeAttachment", "volumeattachments"), NAME_AND_AGE, access::read)
};

pub(super) const CERTIFICATE_SIGNING_REQUEST: BuiltIn = BuiltIn {
    short_names: &["csr"],
    status: true,
    selectable: &[field("spec.signerName")],
    ..BuiltIn::cluster(
        ("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests"),
        &[
            NAME,
            AGE,
            Column::new("SignerName", |row| row.field(&["spec", "signerName"], "<none>")),
            Column::new("Requestor", |row| row.field(&["spec", "username"], "<none>")),
            Column::new("RequestedDuration", |row| row.field(&["spec", "expirationSeconds"], "<none>")),
            Column::new("Condition", condition_types),
        ],
        access::read_and_create,
    )
};

/// The types of all conditions, or Pending.
fn condition_types(row: &Row<'_>) -> Value {
    let types = conditions(row.object);
    if types.is_empty() { "Pending".into() } else { types.join(",").into() }
}

pub(super) const RUNTIME_CLASS: BuiltIn = BuiltIn::cluster(
    ("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses"),
    &[NAME, Column::new("Handler", |row| row.field(&["handler"], "")), AGE],
    access::nothing,
);

pub(super) const CUSTOM_RESOURCE_DEFINITION: BuiltIn = BuiltIn {
    short_names: &["crd", "crds"],
    status: true,
    defaults: definitions::fill,
    ..BuiltIn::cluster(
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"),
        &[NAME, CREATED_AT],
        access::nothing,
    )
};

pub(super) const VALIDATING_WEBHOOK_CONFIGURATION: BuiltIn = BuiltIn::cluster(
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
    ),
    NAME_AND_AGE,
    access::nothing,
);
