//! The columns of kinds whose cells are a field each, as kubectl's users know them.

use serde_json::Value;
use time::OffsetDateTime;

use super::{
    kinds::Kind,
    registry::{parse_time, text},
    table::{human, pairs},
};
use crate::edit::At as _;

/// What is in a column.
#[derive(Clone, Copy, Debug)]
enum Cell {
    Name,
    Age,
    /// A field; this text where it is absent.
    Field(&'static str, &'static str),
    /// Access modes in their short form.
    Modes(&'static str),
    /// `namespace/name` of a reference.
    Reference(&'static str),
    /// The pairs of a map.
    Map(&'static str),
    /// Counts of succeeded and wished completions.
    Completions,
    /// What the last of Complete, Failed and Suspended says.
    JobStatus,
    /// From start to completion.
    Duration,
    /// The types of all conditions, or Pending.
    Conditions,
    /// `Kind/name` of a role.
    Role,
}

type Column = (&'static str, i64, Cell);

const NAME: Column = ("Name", 0, Cell::Name);
const AGE: Column = ("Age", 0, Cell::Age);
const CREATED: Column = ("Created At", 0, Cell::Field("/metadata/creationTimestamp", ""));

const JOBS: &[Column] = &[
    NAME,
    ("Status", 0, Cell::JobStatus),
    ("Completions", 0, Cell::Completions),
    ("Duration", 0, Cell::Duration),
    AGE,
];
const VOLUMES: &[Column] = &[
    NAME,
    ("Capacity", 0, Cell::Field("/spec/capacity/storage", "")),
    ("Access Modes", 0, Cell::Modes("/spec/accessModes")),
    ("Reclaim Policy", 0, Cell::Field("/spec/persistentVolumeReclaimPolicy", "Retain")),
    ("Status", 0, Cell::Field("/status/phase", "Pending")),
    ("Claim", 0, Cell::Reference("/spec/claimRef")),
    ("StorageClass", 0, Cell::Field("/spec/storageClassName", "")),
    ("Reason", 0, Cell::Field("/status/reason", "")),
    AGE,
    ("VolumeMode", 1, Cell::Field("/spec/volumeMode", "Filesystem")),
];
const CLAIMS: &[Column] = &[
    NAME,
    ("Status", 0, Cell::Field("/status/phase", "Pending")),
    ("Volume", 0, Cell::Field("/spec/volumeName", "")),
    ("Capacity", 0, Cell::Field("/status/capacity/storage", "")),
    ("Access Modes", 0, Cell::Modes("/status/accessModes")),
    ("StorageClass", 0, Cell::Field("/spec/storageClassName", "")),
    AGE,
    ("VolumeMode", 1, Cell::Field("/spec/volumeMode", "Filesystem")),
];
const REQUESTS: &[Column] = &[
    NAME,
    AGE,
    ("SignerName", 0, Cell::Field("/spec/signerName", "<none>")),
    ("Requestor", 0, Cell::Field("/spec/username", "<none>")),
    ("RequestedDuration", 0, Cell::Field("/spec/expirationSeconds", "<none>")),
    ("Condition", 0, Cell::Conditions),
];
const CLASSES: &[Column] = &[
    NAME,
    ("Provisioner", 0, Cell::Field("/provisioner", "")),
    ("ReclaimPolicy", 0, Cell::Field("/reclaimPolicy", "Delete")),
    ("VolumeBindingMode", 0, Cell::Field("/volumeBindingMode", "Immediate")),
    ("AllowVolumeExpansion", 0, Cell::Field("/allowVolumeExpansion", "false")),
    AGE,
];
const BUDGETS: &[Column] = &[
    NAME,
    ("Min Available", 0, Cell::Field("/spec/minAvailable", "N/A")),
    ("Max Unavailable", 0, Cell::Field("/spec/maxUnavailable", "N/A")),
    ("Allowed Disruptions", 0, Cell::Field("/status/disruptionsAllowed", "0")),
    AGE,
];
const PRIORITIES: &[Column] = &[
    NAME,
    ("Value", 0, Cell::Field("/value", "0")),
    ("Global-Default", 0, Cell::Field("/globalDefault", "false")),
    AGE,
    ("PreemptionPolicy", 1, Cell::Field("/preemptionPolicy", "PreemptLowerPriority")),
];
const POLICIES: &[Column] = &[NAME, ("Pod-Selector", 0, Cell::Map("/spec/podSelector/matchLabels")), AGE];
const RUNTIMES: &[Column] = &[NAME, ("Handler", 0, Cell::Field("/handler", "")), AGE];
const BINDINGS: &[Column] = &[NAME, ("Role", 0, Cell::Role), AGE];
const CREATED_AT: &[Column] = &[NAME, CREATED];

fn of(kind: &Kind) -> Option<&'static [Column]> {
    Some(match (kind.group.as_str(), kind.plural.as_str()) {
        ("batch", "jobs") => JOBS,
        ("", "persistentvolumes") => VOLUMES,
        ("", "persistentvolumeclaims") => CLAIMS,
        ("certificates.k8s.io", _) => REQUESTS,
        ("storage.k8s.io", "storageclasses") => CLASSES,
        ("policy", "poddisruptionbudgets") => BUDGETS,
        ("scheduling.k8s.io", _) => PRIORITIES,
        ("networking.k8s.io", "networkpolicies") => POLICIES,
        ("node.k8s.io", "runtimeclasses") => RUNTIMES,
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => BINDINGS,
        ("rbac.authorization.k8s.io", _) | ("", "limitranges") => CREATED_AT,
        _ => return None,
    })
}

/// The columns of a kind and their priorities, if it is one of these.
pub(super) fn names(kind: &Kind) -> Option<Vec<(&'static str, i64)>> {
    Some(of(kind)?.iter().map(|(name, priority, _)| (*name, *priority)).collect())
}

/// The cells of an object of such a kind.
pub(super) fn cells(kind: &Kind, object: &Value, age: &str, now: OffsetDateTime) -> Option<Vec<Value>> {
    Some(of(kind)?.iter().map(|(.., shown)| cell(*shown, object, age, now)).collect())
}

fn cell(shown: Cell, object: &Value, age: &str, now: OffsetDateTime) -> Value {
    match shown {
        Cell::Name => text(object, "/metadata/name").into(),
        Cell::Age => age.into(),
        Cell::Field(pointer, absent) => plain(object.at(pointer), absent).into(),
        Cell::Modes(pointer) => modes(object.at(pointer)).into(),
        Cell::Reference(pointer) => match object.at(pointer) {
            Some(to) => format!("{}/{}", text(to, "/namespace"), text(to, "/name")).into(),
            None => "".into(),
        },
        Cell::Map(pointer) => pairs(object.at(pointer)),
        Cell::Completions => {
            let wished = plain(object.at("/spec/completions"), "1");
            format!("{}/{wished}", plain(object.at("/status/succeeded"), "0")).into()
        }
        Cell::JobStatus => job_status(object).into(),
        Cell::Duration => {
            let time = |pointer: &str| parse_time(text(object, pointer));
            let end = time("/status/completionTime").unwrap_or(now);
            time("/status/startTime").map_or_else(String::new, |start| human(end - start)).into()
        }
        Cell::Conditions => {
            let types = conditions(object);
            if types.is_empty() { "Pending".into() } else { types.join(",").into() }
        }
        Cell::Role => format!("{}/{}", text(object, "/roleRef/kind"), text(object, "/roleRef/name")).into(),
    }
}

fn plain(value: Option<&Value>, absent: &str) -> String {
    match value {
        None | Some(Value::Null) => absent.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn conditions(object: &Value) -> Vec<&str> {
    let list = object.at("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    list.filter(|condition| text(condition, "/status") != "False").map(|c| text(c, "/type")).collect()
}

fn job_status(object: &Value) -> &'static str {
    let is = |kind: &str| conditions(object).contains(&kind);
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if object.at("/metadata/deletionTimestamp").is_some() => "Terminating",
        () if is("Suspended") => "Suspended",
        () => "Running",
    }
}

fn modes(list: Option<&Value>) -> String {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        Some("ReadWriteOncePod") => "RWOP",
        _ => "?",
    };
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.map(short).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{kinds::built_in_kind, table::table};

    #[test]
    fn jobs_volumes_and_requests_show_what_kubectl_users_know() {
        let row = |group: &str, plural: &str, object: Value| {
            let shown =
                table(&built_in_kind(group, plural), &[object], OffsetDateTime::UNIX_EPOCH, "1", "None");
            let (columns, cells) = (&shown["columnDefinitions"], &shown["rows"][0]["cells"]);
            assert_eq!(columns.as_array().unwrap().len(), cells.as_array().unwrap().len(), "{plural}");
            cells.as_array().unwrap()[..5].to_vec()
        };
        let job = json!({"metadata": {"name": "j"}, "spec": {"completions": 3}, "status": {"succeeded": 3, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:07Z", "conditions": [{"type": "Complete", "status": "True"}]}});
        assert_eq!(row("batch", "jobs", job), ["j", "Complete", "3/3", "7s", "<unknown>"]);
        let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}, "status": {"phase": "Bound"}});
        assert_eq!(row("", "persistentvolumes", volume), ["v", "1Gi", "RWO,ROX", "Retain", "Bound"]);
        let request = json!({"metadata": {"name": "r"}, "spec": {"signerName": "s", "username": "u"}});
        assert_eq!(
            row("certificates.k8s.io", "certificatesigningrequests", request),
            ["r", "<unknown>", "s", "u", "<none>"]
        );
    }
}
