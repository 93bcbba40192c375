//! Label and field selectors.

use serde_json::Value;

use super::{kinds::Kind, status::Refusal};
use crate::edit::At as _;

/// What objects a list or watch is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, bool, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Selector {
    pub(crate) fn parse(labels: &str, fields: &str) -> Result<Self, Refusal> {
        let labels = split_outside(labels).into_iter().map(requirement).collect::<Result<_, _>>()?;
        let fields =
            fields.split(',').filter(|part| !part.trim().is_empty()).map(field).collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    /// The selector of a request about a kind. Fields that the kind does not offer are refused: ignored, they would
    /// select everything or nothing without a word.
    pub(crate) fn of(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Refusal> {
        let selector = Self::parse(labels, fields)?;
        match selector.fields.iter().find(|(path, ..)| !is_selectable(kind, path)) {
            Some((path, ..)) => Err(Refusal::bad_request(format!("field label not supported: {path}"))),
            None => Ok(selector),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| object.at("/metadata/labels")?.get(key)?.as_str();
        let labels = self.labels.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|value| values.iter().any(|v| v == value)),
            Requirement::NotIn(key, values) => {
                label(key).is_none_or(|value| values.iter().all(|v| v != value))
            }
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
        });
        labels && self.fields.iter().all(|(path, equal, value)| (field_of(object, path) == *value) == *equal)
    }
}

/// Whether objects of a kind can be selected by a field: Kubernetes' own list, or that of the definition.
fn is_selectable(kind: &Kind, path: &str) -> bool {
    if path == "metadata.name" || path == "metadata.namespace" && kind.namespaced {
        return true;
    }
    let offered: &[&str] = match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("" | "events.k8s.io", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("apps", "replicasets") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        ("certificates.k8s.io", _) => &["spec.signerName"],
        _ => return kind.selectable.iter().any(|field| field.trim_start_matches('.') == path),
    };
    offered.contains(&path)
}

/// A field by its dotted path, as text; absent ones are empty.
fn field_of(object: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(object, |value, part| value.get(part));
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(value)) => value.to_string(),
        Some(Value::Number(value)) => value.to_string(),
        // Kubernetes' selectable flags are false when absent.
        None if matches!(path, "spec.unschedulable" | "spec.hostNetwork") => "false".to_owned(),
        _ => String::new(),
    }
}

/// Splits at commas that are not inside parentheses.
fn split_outside(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let parts = text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn requirement(text: &str) -> Result<Requirement, Refusal> {
    let bad = || Refusal::bad_request(format!("unable to parse requirement: {text:?} is no label selector"));
    let one = |key: &str, value: &str| (key.trim().to_owned(), vec![value.trim().to_owned()]);
    if let Some((key, value)) = text.split_once("!=") {
        let (key, values) = one(key, value);
        return Ok(Requirement::NotIn(key, values));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        let (key, values) = one(key, value);
        return Ok(Requirement::In(key, values));
    }
    if let Some((head, list)) = text.split_once('(') {
        let values =
            list.strip_suffix(')').ok_or_else(bad)?.split(',').map(|v| v.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => Ok(Requirement::In(key.to_owned(), values)),
            (Some(key), Some("notin"), None) => Ok(Requirement::NotIn(key.to_owned(), values)),
            _ => Err(bad()),
        };
    }
    match text.strip_prefix('!') {
        Some(key) => Ok(Requirement::Absent(key.trim().to_owned())),
        None if text.contains(char::is_whitespace) => Err(bad()),
        None => Ok(Requirement::Exists(text.to_owned())),
    }
}

fn field(text: &str) -> Result<(String, bool, String), Refusal> {
    let split = text.split_once("!=").map(|(path, value)| (path, false, value));
    let split = split.or_else(|| text.split_once("==").map(|(path, value)| (path, true, value)));
    let split = split.or_else(|| text.split_once('=').map(|(path, value)| (path, true, value)));
    let (path, equal, value) = split
        .ok_or_else(|| Refusal::bad_request(format!("invalid field selector: {text:?} has no operator")))?;
    Ok((path.trim().to_owned(), equal, value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_of_all_forms_match_as_kubernetes_does() {
        let pod = json!({"metadata": {"name": "a", "labels": {"app": "web", "tier": "front"}}, "spec": {"nodeName": "n1"}});
        for (labels, fields, expected) in [
            ("", "", true),
            ("app=web", "", true),
            ("app==web,tier!=back", "", true),
            ("app in (web, db),!gone", "", true),
            ("app notin (web)", "", false),
            ("gone", "", false),
            ("", "spec.nodeName=n1", true),
            ("", "metadata.name!=a", false),
            ("app", "spec.nodeName=", false),
            ("", "spec.unschedulable=false", true),
        ] {
            let selector = Selector::parse(labels, fields).unwrap();
            assert_eq!(selector.matches(&pod), expected, "{labels:?} {fields:?}");
        }
        assert!(Selector::parse("a b c", "").is_err() && Selector::parse("a in b(", "").is_err());
        assert!(Selector::parse("", "nonsense").is_err());
    }
}
