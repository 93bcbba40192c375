//! Label and field selectors.

use serde_json::Value;

use super::{kinds::Kind, status::Refusal};
use crate::object::Object;

/// What objects a list or watch is about: all of them by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
    /// As the client wrote them.
    text: (String, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// A field by its dotted path, and what it must, or must not, be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldRequirement {
    path: String,
    equal: bool,
    value: String,
    /// What it counts as where it is absent.
    absent: &'static str,
}

impl Selector {
    /// Objects with labels such as `app=web,tier!=back`; `None` if it is no label selector.
    pub fn of_labels(labels: &str) -> Option<Self> {
        let requirements = split_outside(labels).into_iter().map(requirement).collect::<Result<_, _>>();
        let text = (labels.to_owned(), String::new());
        Some(Self { labels: requirements.ok()?, fields: Vec::new(), text })
    }

    /// The selector of a request about a kind. Fields that the kind does not offer are refused: ignored, they
    /// would select everything or nothing without a word.
    pub(crate) fn of(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Refusal> {
        let text = (labels.to_owned(), fields.to_owned());
        let labels = split_outside(labels).into_iter().map(requirement).collect::<Result<_, _>>()?;
        let fields = fields.split(',').filter(|part| !part.trim().is_empty()).map(|part| {
            let mut field = field(part)?;
            let unknown = || Refusal::bad_request(format!("field label not supported: {}", field.path));
            field.absent = kind.selectable(&field.path).ok_or_else(unknown)?;
            Ok(field)
        });
        Ok(Self { labels, fields: fields.collect::<Result<_, Refusal>>()?, text })
    }

    /// `labelSelector` as the client wrote it, for storages that ask somebody else.
    pub fn labels(&self) -> &str {
        &self.text.0
    }

    /// `fieldSelector` as the client wrote it.
    pub fn fields(&self) -> &str {
        &self.text.1
    }

    /// Whether every object matches.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object matches.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = self.labels.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                object.label(key).is_some_and(|value| values.iter().any(|v| v == value))
            }
            Requirement::NotIn(key, values) => {
                object.label(key).is_none_or(|value| values.iter().all(|v| v != value))
            }
            Requirement::Exists(key) => object.label(key).is_some(),
            Requirement::Absent(key) => object.label(key).is_none(),
        });
        labels && self.fields.iter().all(|field| field.holds(object))
    }
}

impl FieldRequirement {
    fn holds(&self, object: &Value) -> bool {
        let found = self.path.split('.').try_fold(object, |value, part| value.get(part));
        let same = match found {
            Some(Value::String(text)) => *text == self.value,
            Some(Value::Bool(value)) => value.to_string() == self.value,
            Some(Value::Number(value)) => value.to_string() == self.value,
            None => self.absent == self.value,
            Some(_) => self.value.is_empty(),
        };
        same == self.equal
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

fn field(text: &str) -> Result<FieldRequirement, Refusal> {
    let split = text.split_once("!=").map(|(path, value)| (path, false, value));
    let split = split.or_else(|| text.split_once("==").map(|(path, value)| (path, true, value)));
    let split = split.or_else(|| text.split_once('=').map(|(path, value)| (path, true, value)));
    let (path, equal, value) = split
        .ok_or_else(|| Refusal::bad_request(format!("invalid field selector: {text:?} has no operator")))?;
    Ok(FieldRequirement { path: path.trim().to_owned(), equal, value: value.trim().to_owned(), absent: "" })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::{NODES, PODS};

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
            ("", "spec.hostNetwork=false", true),
        ] {
            let selector = Selector::of(&PODS, labels, fields).unwrap();
            assert_eq!(selector.matches(&pod), expected, "{labels:?} {fields:?}");
        }
        assert!(Selector::of(&PODS, "a b c", "").is_err() && Selector::of(&PODS, "a in b(", "").is_err());
        assert!(Selector::of(&PODS, "", "nonsense").is_err());
        assert!(
            Selector::of_labels("app=web").unwrap().matches(&pod) && Selector::of_labels("a b c").is_none()
        );
        assert!(Selector::of(&NODES, "", "spec.unschedulable=false").unwrap().matches(&json!({})));
        assert!(Selector::of(&NODES, "", "spec.nodeName=n").is_err());
    }
}
