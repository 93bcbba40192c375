//! The kinds that are served: Kubernetes' own and those of CustomResourceDefinitions.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::edit::At as _;
use crate::edit::put;

use super::storage::{ObjectKey, Storage};

/// A kind in one version.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kind {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub status: bool,
    pub scale: bool,
    /// Columns of a custom kind's table: (name, type, JSON path, priority).
    pub columns: Vec<(String, String, String, i64)>,
    /// JSON paths of the fields a custom kind can be selected by.
    pub selectable: Vec<String>,
    /// The schema of a custom kind.
    pub schema: Option<Arc<Value>>,
}

/// The group of custom resource definitions.
pub(crate) const CRD_GROUP: &str = "apiextensions.k8s.io";
/// Their plural.
pub(crate) const CRDS: &str = "customresourcedefinitions";

const N: u8 = 1;
const STATUS: u8 = 2;
const SCALE: u8 = 4;
const ALL: u8 = 8;

/// (group, version, kind, plural, short names, flags)
const BUILT_IN: [(&str, &str, &str, &str, &str, u8); 36] = [
    ("", "v1", "Pod", "pods", "po", N | STATUS | ALL),
    ("", "v1", "Node", "nodes", "no", STATUS),
    ("", "v1", "Namespace", "namespaces", "ns", STATUS),
    ("", "v1", "ConfigMap", "configmaps", "cm", N),
    ("", "v1", "Secret", "secrets", "", N),
    ("", "v1", "Service", "services", "svc", N | STATUS | ALL),
    ("", "v1", "Endpoints", "endpoints", "ep", N),
    ("", "v1", "Event", "events", "ev", N),
    ("", "v1", "ServiceAccount", "serviceaccounts", "sa", N),
    ("", "v1", "PersistentVolume", "persistentvolumes", "pv", STATUS),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", N | STATUS),
    ("", "v1", "LimitRange", "limitranges", "limits", N),
    ("", "v1", "ResourceQuota", "resourcequotas", "quota", N | STATUS),
    ("apps", "v1", "Deployment", "deployments", "deploy", N | STATUS | SCALE | ALL),
    ("apps", "v1", "ReplicaSet", "replicasets", "rs", N | STATUS | SCALE | ALL),
    ("apps", "v1", "ControllerRevision", "controllerrevisions", "", N),
    ("batch", "v1", "Job", "jobs", "", N | STATUS | ALL),
    ("coordination.k8s.io", "v1", "Lease", "leases", "", N),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "", N),
    ("events.k8s.io", "v1", "Event", "events", "ev", N),
    ("networking.k8s.io", "v1", "Ingress", "ingresses", "ing", N | STATUS),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "netpol", N),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", N | STATUS),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles", "", N),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", "", N),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", "", 0),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", "", 0),
    ("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "pc", 0),
    ("storage.k8s.io", "v1", "StorageClass", "storageclasses", "sc", 0),
    ("storage.k8s.io", "v1", "CSINode", "csinodes", "", 0),
    ("storage.k8s.io", "v1", "CSIDriver", "csidrivers", "", 0),
    ("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments", "", STATUS),
    ("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests", "csr", STATUS),
    ("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", "", 0),
    (CRD_GROUP, "v1", "CustomResourceDefinition", CRDS, "crd,crds", STATUS),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        "",
        0,
    ),
];

impl Kind {
    /// `v1` or `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether it comes from a CustomResourceDefinition.
    pub(crate) fn is_custom(&self) -> bool {
        self.schema.is_some()
    }

    /// The key of an object of this kind.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> ObjectKey {
        let namespace = if self.namespaced { namespace } else { "" };
        // The two groups of events are one store, as in Kubernetes.
        let group = if self.group == "events.k8s.io" { "" } else { &self.group };
        ObjectKey {
            group: group.to_owned(),
            plural: self.plural.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Its entry, and those of its subresources, in discovery.
    pub(crate) fn discovery(&self) -> Vec<Value> {
        let verbs =
            json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
        let entry = |name: String, verbs: &Value| json!({"name": name, "singularName": "", "namespaced": self.namespaced, "kind": self.kind, "verbs": verbs});
        let mut main = entry(self.plural.clone(), &verbs);
        put(&mut main, &["singularName"], self.kind.to_lowercase());
        if !self.short_names.is_empty() {
            put(&mut main, &["shortNames"], json!(self.short_names));
        }
        if !self.categories.is_empty() {
            put(&mut main, &["categories"], json!(self.categories));
        }
        let mut entries = vec![main];
        let write = json!(["get", "patch", "update"]);
        if self.status {
            entries.push(entry(format!("{}/status", self.plural), &write));
        }
        if self.scale {
            let mut scale = entry(format!("{}/scale", self.plural), &write);
            put(&mut scale, &["kind"], "Scale");
            put(&mut scale, &["group"], "autoscaling");
            put(&mut scale, &["version"], "v1");
            entries.push(scale);
        }
        let (read, make) = (json!(["get"]), json!(["create"]));
        let stream = json!(["create", "get"]);
        // Kind, group and version are those of what is sent there: kubectl drains by evictions only if it finds them.
        let others: &[(&str, &Value, &str, &str)] = match (self.group.as_str(), self.plural.as_str()) {
            ("", "pods") => &[
                ("log", &read, "Pod", ""),
                ("exec", &stream, "PodExecOptions", ""),
                ("attach", &stream, "PodAttachOptions", ""),
                ("binding", &make, "Binding", ""),
                ("eviction", &make, "Eviction", "policy"),
            ],
            ("", "serviceaccounts") => &[("token", &make, "TokenRequest", "authentication.k8s.io")],
            _ => &[],
        };
        for (sub, verbs, kind, group) in others {
            let mut other = entry(format!("{}/{sub}", self.plural), verbs);
            put(&mut other, &["kind"], *kind);
            if !group.is_empty() {
                put(&mut other, &["group"], *group);
                put(&mut other, &["version"], "v1");
            }
            entries.push(other);
        }
        entries
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A row of the table.
type BuiltIn = (&'static str, &'static str, &'static str, &'static str, &'static str, u8);

fn built_in() -> impl Iterator<Item = Kind> {
    BUILT_IN.iter().map(of_row)
}

/// The one with this group and plural, and of this version where one is given; asked for with each request.
fn built_in_of(group: &str, version: Option<&str>, plural: &str) -> Option<Kind> {
    let is =
        |row: &&BuiltIn| row.0 == group && row.3 == plural && version.is_none_or(|version| row.1 == version);
    BUILT_IN.iter().find(is).map(of_row)
}

fn of_row(row: &BuiltIn) -> Kind {
    let (group, version, kind, plural, short, flags) = *row;
    Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        short_names: words(short),
        categories: if flags & ALL != 0 { vec!["all".to_owned()] } else { Vec::new() },
        namespaced: flags & N != 0,
        status: flags & STATUS != 0,
        scale: flags & SCALE != 0,
        ..Kind::default()
    }
}

/// The kinds a CustomResourceDefinition defines: one per served version.
fn of_definition(definition: &Value) -> Vec<Kind> {
    let text = |path: &str| definition.at(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |path: &str| -> Vec<String> {
        let found = definition.at(path).and_then(Value::as_array).into_iter().flatten();
        found.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let versions = definition.at("/spec/versions").and_then(Value::as_array).into_iter().flatten();
    let served = versions.filter(|version| version.get("served") == Some(&Value::Bool(true)));
    let kinds = served.map(|version| Kind {
        group: text("/spec/group"),
        version: version.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        kind: text("/spec/names/kind"),
        plural: text("/spec/names/plural"),
        short_names: list("/spec/names/shortNames"),
        categories: list("/spec/names/categories"),
        namespaced: text("/spec/scope") == "Namespaced",
        status: version.at("/subresources/status").is_some(),
        scale: false,
        columns: columns(version),
        selectable: {
            let fields = version.get("selectableFields").and_then(Value::as_array).into_iter().flatten();
            fields.filter_map(|field| Some(field.get("jsonPath")?.as_str()?.to_owned())).collect()
        },
        schema: Some(Arc::new(version.at("/schema/openAPIV3Schema").cloned().unwrap_or_else(|| json!({})))),
    });
    kinds.collect()
}

fn columns(version: &Value) -> Vec<(String, String, String, i64)> {
    let list = version.get("additionalPrinterColumns").and_then(Value::as_array).into_iter().flatten();
    let text =
        |column: &Value, key: &str| column.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let column = |column: &Value| {
        let priority = column.get("priority").and_then(Value::as_i64).unwrap_or(0);
        (text(column, "name"), text(column, "type"), text(column, "jsonPath"), priority)
    };
    list.map(column).collect()
}

/// All kinds served now.
pub(crate) fn all(storage: &Storage) -> Vec<Kind> {
    let (definitions, _) = storage.list(CRD_GROUP, CRDS, "");
    built_in().chain(definitions.iter().flat_map(|definition| of_definition(definition))).collect()
}

/// The kind with this group, version and plural.
pub(crate) fn find(storage: &Storage, group: &str, version: &str, plural: &str) -> Option<Kind> {
    built_in_of(group, Some(version), plural).or_else(|| {
        let key = ObjectKey {
            group: CRD_GROUP.to_owned(),
            plural: CRDS.to_owned(),
            namespace: String::new(),
            name: format!("{plural}.{group}"),
        };
        let matches = |kind: &Kind| kind.group == group && kind.version == version && kind.plural == plural;
        storage.definitions().find(storage, &key, matches)
    })
}

/// The kinds that definitions define, read once from each: its schema alone is larger than most objects.
#[derive(Debug, Default)]
pub(super) struct Definitions(Mutex<HashMap<ObjectKey, Defined>>);

#[derive(Debug)]
struct Defined {
    by: Arc<Value>,
    kinds: Vec<Kind>,
}

impl Defined {
    fn of(definition: Arc<Value>) -> Self {
        Self { kinds: of_definition(&definition), by: definition }
    }
}

impl Definitions {
    /// The kind that matches among those of a definition as it is now; `None` if there is none.
    fn find(&self, storage: &Storage, key: &ObjectKey, matches: impl Fn(&Kind) -> bool) -> Option<Kind> {
        let mut read = self.0.lock();
        let Some(definition) = storage.get(key) else {
            read.remove(key);
            return None;
        };
        let defined = read.entry(key.clone()).or_insert_with(|| Defined::of(definition.clone()));
        if !Arc::ptr_eq(&defined.by, &definition) {
            *defined = Defined::of(definition);
        }
        defined.kinds.iter().find(|kind| matches(kind)).cloned()
    }
}

/// A built-in kind by its plural in the core group or `apps`; for our own controllers.
pub(crate) fn built_in_kind(group: &str, plural: &str) -> Kind {
    built_in_of(group, None, plural).unwrap_or_default()
}
