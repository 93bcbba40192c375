//! The CustomResourceDefinitions of KubeEdge's kinds, made from the Rust types.

use schemars::{
    JsonSchema,
    generate::{SchemaGenerator, SchemaSettings},
};
use serde_json::{Value, json};

use super::{CustomKind, Scope, apps, devices, operations, policy, reliablesyncs, rules, structural};

/// The CustomResourceDefinition objects (`apiextensions.k8s.io/v1`) of all kinds here, by name; an API server
/// takes them as they are.
pub fn definitions() -> Vec<Value> {
    vec![
        definition::<apps::EdgeApplication>(&[]),
        definition::<apps::NodeGroup>(&[]),
        definition::<devices::Device>(&[]),
        definition::<devices::DeviceModel>(&[]),
        definition::<devices::DeviceStatus>(&[]),
        definition::<operations::v1alpha2::ConfigUpdateJob>(&[]),
        definition::<operations::v1alpha2::ImagePrePullJob>(&[version::<
            operations::v1alpha1::ImagePrePullJob,
        >()]),
        definition::<operations::v1alpha2::NodeUpgradeJob>(&[
            version::<operations::v1alpha1::NodeUpgradeJob>(),
        ]),
        definition::<policy::ServiceAccountAccess>(&[]),
        definition::<reliablesyncs::ClusterObjectSync>(&[]),
        definition::<reliablesyncs::ObjectSync>(&[]),
        definition::<rules::Rule>(&[]),
        definition::<rules::RuleEndpoint>(&[]),
    ]
}

/// The definition of one kind, served in its own version and in these older ones.
fn definition<K: CustomKind + JsonSchema>(older: &[Value]) -> Value {
    let mut names = json!({
        "kind": K::KIND, "listKind": format!("{}List", K::KIND),
        "plural": K::URL_PATH_SEGMENT, "singular": K::SINGULAR,
    });
    if let (Some(names), false) = (names.as_object_mut(), K::SHORT_NAMES.is_empty()) {
        names.insert("shortNames".to_owned(), json!(K::SHORT_NAMES));
    }
    let mut versions = older.to_vec();
    versions.push(version::<K>());
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{}", K::URL_PATH_SEGMENT, K::GROUP)},
        "spec": {
            "group": K::GROUP, "names": names,
            "scope": <K::Scope as Scope>::NAME,
            "versions": versions,
        },
    })
}

fn version<K: CustomKind + JsonSchema>() -> Value {
    let mut version = json!({
        "name": K::VERSION, "served": true, "storage": K::STORED,
        "schema": {"openAPIV3Schema": schema::<K>()},
    });
    if let (Some(fields), true) = (version.as_object_mut(), K::STATUS) {
        fields.insert("subresources".to_owned(), json!({"status": {}}));
    }
    version
}

fn schema<K: CustomKind + JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.meta_schema = None;
    settings.inline_subschemas = true;
    let mut schema = SchemaGenerator::new(settings).into_root_schema_for::<K>().to_value();
    structural::make(&mut schema);
    structural::head(&mut schema, K::REQUIRED);
    schema
}
