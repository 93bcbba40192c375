//! The other kinds of the core group: services and endpoints, events, service accounts, volumes, limits.

use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use serde_json::Value;

use super::{
    access,
    built_in::{Action, BuiltIn, Lifecycle, Selectable, Subresource, Types, field},
    columns::{AGE, Column, NAME, NAME_AND_AGE, NAME_AND_CREATED_AT, Row, access_modes, or_none, pairs},
    pod_spec::default,
};
use crate::{object::Object, times};

pub(super) const SERVICE: BuiltIn = BuiltIn {
    short_names: &["svc"],
    in_all: true,
    status: true,
    types: Types::of::<Service>(),
    selectable: &[field("spec.clusterIP"), field("spec.type")],
    defaults: service_defaults,
    ..BuiltIn::namespaced(("", "v1", "Service", "services"), SERVICE_COLUMNS, access::read)
};

const SERVICE_COLUMNS: &[Column] = &[
    NAME,
    Column::new("Type", |row| row.text(&["spec", "type"])),
    Column::new("Cluster-IP", |row| row.text_or_none(&["spec", "clusterIP"])),
    Column::new("External-IP", |_| "<none>".into()),
    Column::new("Port(s)", ports),
    AGE,
    Column::wide("Selector", |row| pairs(row.object.at(&["spec", "selector"]))),
];

fn ports(row: &Row<'_>) -> Value {
    let port = |port: &Value| {
        let (number, protocol) = (port.integer(&["port"]), port.text(&["protocol"]));
        match port.number(&["nodePort"]) {
            Some(node) => format!("{number}:{node}/{protocol}"),
            None => format!("{number}/{protocol}"),
        }
    };
    let ports: Vec<_> = row.object.list(&["spec", "ports"]).iter().map(port).collect();
    or_none(&ports.join(","))
}

fn service_defaults(service: &mut Value) {
    let Some(spec) = service.at_mut(&["spec"]).and_then(Value::as_object_mut) else { return };
    default(spec, &[("type", "ClusterIP".into()), ("sessionAffinity", "None".into())]);
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let number = port.get("port").cloned().unwrap_or_default();
        if let Some(port) = port.as_object_mut() {
            default(port, &[("protocol", "TCP".into()), ("targetPort", number)]);
        }
    }
}

pub(super) const ENDPOINTS: BuiltIn = BuiltIn {
    short_names: &["ep"],
    ..BuiltIn::namespaced(("", "v1", "Endpoints", "endpoints"), NAME_AND_AGE, access::read)
};

pub(super) const EVENT: BuiltIn = BuiltIn {
    short_names: &["ev"],
    selectable: EVENT_FIELDS,
    managed: false,
    lifecycle: Lifecycle { in_ending_namespaces: true, ..Lifecycle::PLAIN },
    ..BuiltIn::namespaced(("", "v1", "Event", "events"), EVENT_COLUMNS, access::everything)
};

/// The newer group of events is the same store, as in Kubernetes.
pub(super) const NEWER_EVENT: BuiltIn =
    BuiltIn { group: "events.k8s.io", stored_under: EVENT.group, ..EVENT };

const EVENT_FIELDS: &[Selectable] = &[
    field("involvedObject.kind"),
    field("involvedObject.namespace"),
    field("involvedObject.name"),
    field("involvedObject.uid"),
    field("involvedObject.apiVersion"),
    field("involvedObject.resourceVersion"),
    field("involvedObject.fieldPath"),
    field("reason"),
    field("reportingComponent"),
    field("source"),
    field("type"),
];

const EVENT_COLUMNS: &[Column] = &[
    Column::new("Last Seen", last_seen),
    Column::new("Type", |row| row.text(&["type"])),
    Column::new("Reason", |row| row.text(&["reason"])),
    Column::new("Object", about),
    Column::new("Message", |row| row.text(&["message"])),
    Column::wide("Name", |row| row.object.name().into()),
];

fn last_seen(row: &Row<'_>) -> Value {
    let event = row.object;
    let seen = [event.text(&["lastTimestamp"]), event.text(&["eventTime"]), event.created()];
    let seen = seen.into_iter().find(|time| !time.is_empty()).unwrap_or_default();
    times::since(seen, row.now).into()
}

fn about(row: &Row<'_>) -> Value {
    let of = |field: &str| row.object.text(&["involvedObject", field]);
    format!("{}/{}", of("kind").to_lowercase(), of("name")).into()
}

pub(super) const SERVICE_ACCOUNT: BuiltIn = BuiltIn {
    short_names: &["sa"],
    types: Types::of::<ServiceAccount>(),
    subresources: &[Subresource {
        name: "token",
        verbs: &["create"],
        kind: "TokenRequest",
        group: "authentication.k8s.io",
        action: Action::Token,
    }],
    ..BuiltIn::namespaced(
        ("", "v1", "ServiceAccount", "serviceaccounts"),
        &[NAME, Column::new("Secrets", |row| row.object.list(&["secrets"]).len().into()), AGE],
        |request| request.sub == "token" || request.reads(),
    )
};

pub(super) const PERSISTENT_VOLUME: BuiltIn = BuiltIn {
    short_names: &["pv"],
    status: true,
    ..BuiltIn::cluster(("", "v1", "PersistentVolume", "persistentvolumes"), VOLUME_COLUMNS, access::read)
};

const VOLUME_COLUMNS: &[Column] = &[
    NAME,
    Column::new("Capacity", |row| row.field(&["spec", "capacity", "storage"], "")),
    Column::new("Access Modes", |row| access_modes(row.object.list(&["spec", "accessModes"]))),
    Column::new("Reclaim Policy", |row| row.field(&["spec", "persistentVolumeReclaimPolicy"], "Retain")),
    Column::new("Status", |row| row.field(&["status", "phase"], "Pending")),
    Column::new("Claim", claim),
    Column::new("StorageClass", |row| row.field(&["spec", "storageClassName"], "")),
    Column::new("Reason", |row| row.field(&["status", "reason"], "")),
    AGE,
    Column::wide("VolumeMode", |row| row.field(&["spec", "volumeMode"], "Filesystem")),
];

fn claim(row: &Row<'_>) -> Value {
    let of = |field: &str| row.object.text(&["spec", "claimRef", field]);
    match row.object.at(&["spec", "claimRef"]) {
        Some(_) => format!("{}/{}", of("namespace"), of("name")).into(),
        None => "".into(),
    }
}

pub(super) const PERSISTENT_VOLUME_CLAIM: BuiltIn = BuiltIn {
    short_names: &["pvc"],
    status: true,
    ..BuiltIn::namespaced(
        ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
        CLAIM_COLUMNS,
        access::read,
    )
};

const CLAIM_COLUMNS: &[Column] = &[
    NAME,
    Column::new("Status", |row| row.field(&["status", "phase"], "Pending")),
    Column::new("Volume", |row| row.field(&["spec", "volumeName"], "")),
    Column::new("Capacity", |row| row.field(&["status", "capacity", "storage"], "")),
    Column::new("Access Modes", |row| access_modes(row.object.list(&["status", "accessModes"]))),
    Column::new("StorageClass", |row| row.field(&["spec", "storageClassName"], "")),
    AGE,
    Column::wide("VolumeMode", |row| row.field(&["spec", "volumeMode"], "Filesystem")),
];

pub(super) const LIMIT_RANGE: BuiltIn = BuiltIn {
    short_names: &["limits"],
    ..BuiltIn::namespaced(("", "v1", "LimitRange", "limitranges"), NAME_AND_CREATED_AT, access::nothing)
};

pub(super) const RESOURCE_QUOTA: BuiltIn = BuiltIn {
    short_names: &["quota"],
    status: true,
    ..BuiltIn::namespaced(("", "v1", "ResourceQuota", "resourcequotas"), NAME_AND_AGE, access::nothing)
};
