//! What a workload has different in one group of nodes.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::EnvVar, apimachinery::pkg::util::intstr::IntOrString};
#[cfg(feature = "crds")]
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
#[cfg(feature = "crds")]
use serde_json::{Value, json};

use super::absent;

/// The changes of one group of nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Overriders {
    /// How many replicas a Deployment has there.
    #[serde(skip_serializing_if = "absent")]
    pub replicas: Option<i32>,
    /// Changes of image names.
    #[serde(skip_serializing_if = "absent")]
    pub image_overriders: Vec<ImageOverrider>,
    /// Changes of environment variables.
    #[serde(skip_serializing_if = "absent")]
    pub env_overriders: Vec<EnvOverrider>,
    /// Changes of commands.
    #[serde(skip_serializing_if = "absent")]
    pub command_overriders: Vec<WordsOverrider>,
    /// Changes of arguments.
    #[serde(skip_serializing_if = "absent")]
    pub args_overriders: Vec<WordsOverrider>,
    /// Changes of limits and requests.
    #[serde(skip_serializing_if = "absent")]
    pub resources_overriders: Vec<ResourcesOverrider>,
}

/// A change of one part of image names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
pub struct ImageOverrider {
    /// Which images; without, all of the pod's.
    #[serde(default, skip_serializing_if = "absent")]
    pub predicate: Option<ImagePredicate>,
    /// Which part of `[registry/]repository[:tag]`.
    #[cfg_attr(feature = "crds", schemars(extend("enum" = ["Registry", "Repository", "Tag"])))]
    pub component: String,
    /// What is done with it.
    #[cfg_attr(feature = "crds", schemars(extend("enum" = ["add", "remove", "replace"])))]
    pub operator: String,
    /// What is added or stands instead.
    #[serde(default, skip_serializing_if = "absent")]
    pub value: String,
}

/// Where an image name stands in an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
pub struct ImagePredicate {
    /// A JSON pointer.
    pub path: String,
}

/// A change of environment variables of one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EnvOverrider {
    /// The container.
    pub container_name: String,
    /// What is done with them.
    #[cfg_attr(feature = "crds", schemars(extend("enum" = ["add", "remove", "replace"])))]
    pub operator: String,
    /// The variables.
    #[cfg_attr(feature = "crds", schemars(transform = variables))]
    #[serde(default, skip_serializing_if = "absent")]
    pub value: Vec<EnvVar>,
}

/// A change of the words of a command or its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WordsOverrider {
    /// The container.
    pub container_name: String,
    /// What is done with them: added at the end, or each that is there removed.
    #[cfg_attr(feature = "crds", schemars(extend("enum" = ["add", "remove"])))]
    pub operator: String,
    /// The words.
    #[serde(default, skip_serializing_if = "absent")]
    pub value: Vec<String>,
}

/// Other limits and requests of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ResourcesOverrider {
    /// The container.
    pub container_name: String,
    /// What stands instead.
    pub value: Resources,
}

/// Limits and requests as users write them: a quantity may be a number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default)]
pub struct Resources {
    /// The most a container gets.
    #[cfg_attr(feature = "crds", schemars(transform = quantities))]
    #[serde(skip_serializing_if = "absent")]
    pub limits: BTreeMap<String, IntOrString>,
    /// What a container needs.
    #[cfg_attr(feature = "crds", schemars(transform = quantities))]
    #[serde(skip_serializing_if = "absent")]
    pub requests: BTreeMap<String, IntOrString>,
    /// Claims of the pod that the container uses.
    #[cfg_attr(feature = "crds", schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])))]
    #[serde(skip_serializing_if = "absent")]
    pub claims: Vec<ClaimName>,
}

/// A claim of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
pub struct ClaimName {
    /// Its name in the pod.
    pub name: String,
    /// One of its requests; empty for all.
    #[serde(default, skip_serializing_if = "absent")]
    pub request: String,
}

/// How Kubernetes writes quantities, such as `1`, `500m` or `64Mi`.
#[cfg(feature = "crds")]
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

#[cfg(feature = "crds")]
fn quantity() -> Value {
    json!({
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "pattern": QUANTITY,
        "x-kubernetes-int-or-string": true,
    })
}

/// The values of a map are quantities.
#[cfg(feature = "crds")]
fn quantities(schema: &mut Schema) {
    schema.insert("additionalProperties".to_owned(), quantity());
}

/// Sources of variables change as a whole; the name of a source may be left out, as of old.
#[cfg(feature = "crds")]
fn variables(schema: &mut Schema) {
    let sources = schema.pointer_mut("/items/properties/valueFrom/properties").and_then(Value::as_object_mut);
    for source in sources.into_iter().flatten().filter_map(|(_, source)| source.as_object_mut()) {
        source.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
        if let Some(Value::Array(required)) = source.get_mut("required") {
            required.retain(|field| field != "name");
        }
        let Some(fields) = source.get_mut("properties").and_then(Value::as_object_mut) else { continue };
        if let Some(name) = fields.get_mut("name").and_then(Value::as_object_mut) {
            name.insert("default".to_owned(), json!(""));
        }
        if let Some(divisor) = fields.get_mut("divisor") {
            *divisor = quantity();
        }
    }
}
