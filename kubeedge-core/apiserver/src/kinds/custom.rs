//! Kinds that CustomResourceDefinitions define.

use serde_json::{Value, json};

use crate::object::Object;

/// A kind of a definition, in one version.
#[derive(Debug)]
pub(crate) struct CustomKind {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub status: bool,
    /// The columns of its table beside the name.
    pub columns: Vec<CustomColumn>,
    /// JSON paths of the fields that objects can be selected by.
    pub selectable: Vec<String>,
    pub schema: Value,
}

/// A column of a custom kind's table.
#[derive(Debug)]
pub(crate) struct CustomColumn {
    pub name: String,
    /// `string`, `integer`, `date` …
    pub of: String,
    pub json_path: String,
    pub priority: i64,
}

/// Custom kinds written so often, and by one writer each, that keeping owners of fields would only cost:
/// KubeEdge's own records of deliveries. Group and plural.
const NOT_MANAGED: [(&str, &str); 2] =
    [("reliablesyncs.kubeedge.io", "objectsyncs"), ("reliablesyncs.kubeedge.io", "clusterobjectsyncs")];

impl CustomKind {
    /// Whether it is kept who owns which field.
    pub(super) fn is_managed(&self) -> bool {
        !NOT_MANAGED.contains(&(self.group.as_str(), self.plural.as_str()))
    }

    /// Whether objects can be selected by a field, by its dotted path.
    pub(super) fn is_selectable(&self, path: &str) -> bool {
        self.selectable.iter().any(|field| field.trim_start_matches('.') == path)
    }
}

fn texts(list: &[Value]) -> Vec<String> {
    list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// The kinds that a CustomResourceDefinition defines: one per served version.
pub(super) fn of_definition(definition: &Value) -> Vec<CustomKind> {
    let text = |path: &[&str]| definition.text(path).to_owned();
    let served = definition.list(&["spec", "versions"]).iter().filter(|version| version.is(&["served"]));
    let kind = |version: &Value| CustomKind {
        group: text(&["spec", "group"]),
        version: version.text(&["name"]).to_owned(),
        kind: text(&["spec", "names", "kind"]),
        plural: text(&["spec", "names", "plural"]),
        short_names: texts(definition.list(&["spec", "names", "shortNames"])),
        categories: texts(definition.list(&["spec", "names", "categories"])),
        namespaced: definition.text(&["spec", "scope"]) == "Namespaced",
        status: version.at(&["subresources", "status"]).is_some(),
        columns: version.list(&["additionalPrinterColumns"]).iter().map(column).collect(),
        selectable: {
            let fields = version.list(&["selectableFields"]).iter();
            fields.filter_map(|field| Some(field.get("jsonPath")?.as_str()?.to_owned())).collect()
        },
        schema: version.at(&["schema", "openAPIV3Schema"]).cloned().unwrap_or_else(|| json!({})),
    };
    served.map(kind).collect()
}

fn column(column: &Value) -> CustomColumn {
    let text = |key: &str| column.text(&[key]).to_owned();
    CustomColumn {
        name: text("name"),
        of: text("type"),
        json_path: text("jsonPath"),
        priority: column.integer(&["priority"]),
    }
}
