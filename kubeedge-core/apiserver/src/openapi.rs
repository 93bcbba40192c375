//! OpenAPI v3 documents: enough for `kubectl apply` to validate and for `kubectl explain`.
//!
//! Schemas of built-in kinds come from the Kubernetes types themselves, those of custom kinds from their
//! definitions.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::object::Object;

use super::kinds::Kind;

/// The version kubectl and client-go are told; that of the Kubernetes API served.
pub(super) const GIT_VERSION: &str = "v1.32.10+kubeedge";

/// The document of one group and version.
pub(super) fn document(kinds: &[Kind]) -> Value {
    let mut generator = SchemaSettings::openapi3().into_generator();
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for kind in kinds {
        let name = schema_name(kind);
        schemas.insert(name.clone(), with_kind(schema(kind, &mut generator), kind));
        let prefix = if kind.group().is_empty() {
            "/api/v1".to_owned()
        } else {
            format!("/apis/{}", kind.api_version())
        };
        let scope = if kind.is_namespaced() { "/namespaces/{namespace}" } else { "" };
        let all = format!("{prefix}{scope}/{}", kind.plural());
        paths.insert(
            all.clone(),
            json!({"get": operation(kind, "list", &name), "post": operation(kind, "post", &name)}),
        );
        let verbs = [("get", "get"), ("put", "put"), ("patch", "patch"), ("delete", "delete")];
        let one: Map<_, _> = verbs
            .iter()
            .map(|(method, action)| ((*method).to_owned(), operation(kind, action, &name)))
            .collect();
        paths.insert(format!("{all}/{{name}}"), Value::Object(one));
    }
    for (name, schema) in generator.take_definitions(true) {
        schemas.entry(name).or_insert(schema);
    }
    json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": GIT_VERSION}, "paths": paths, "components": {"schemas": schemas}})
}

fn schema_name(kind: &Kind) -> String {
    let group: Vec<_> = kind.group().split('.').rev().collect();
    let group = if kind.group().is_empty() { "core".to_owned() } else { group.join(".") };
    format!("{group}.{}.{}", kind.version(), kind.name())
}

fn schema(kind: &Kind, generator: &mut SchemaGenerator) -> Value {
    if let Some(schema) = kind.schema() {
        return schema.clone();
    }
    let Some(types) = kind.built_in().and_then(|kind| kind.types.as_ref()) else {
        return json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    };
    let reference = (types.schema)(generator);
    // The kind's own schema stands under its own name, as clients look it up by group, version and kind.
    let name = reference
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|path| path.rsplit('/').next())
        .map(str::to_owned);
    let found = name.and_then(|name| generator.definitions().get(&name).cloned());
    found.unwrap_or(reference)
}

fn gvk(kind: &Kind) -> Value {
    json!({"group": kind.group(), "version": kind.version(), "kind": kind.name()})
}

fn with_kind(mut schema: Value, kind: &Kind) -> Value {
    schema.set(&["x-kubernetes-group-version-kind"], json!([gvk(kind)]));
    schema
}

/// One operation. No strategic merge patch is offered in the description: with it kubectl would compute
/// patches from the schemas' list keys, which these do not carry; without it kubectl takes the keys it was
/// built with.
fn operation(kind: &Kind, action: &str, schema: &str) -> Value {
    let parameter =
        |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let parameters: Vec<_> = match action {
        "post" | "put" | "patch" => ["dryRun", "fieldManager", "fieldValidation"].map(parameter).into(),
        _ => Vec::new(),
    };
    let content = json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}});
    json!({
        "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(kind), "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": content}},
    })
}
