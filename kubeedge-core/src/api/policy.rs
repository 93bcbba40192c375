//! `policy.kubeedge.io/v1alpha1`: what service accounts may do, for nodes that are asked while they are cut
//! off.

use k8s_openapi::api::{
    core::v1::ObjectReference,
    rbac::v1::{PolicyRule, RoleRef, Subject},
};
#[cfg(feature = "crds")]
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
#[cfg(feature = "crds")]
use serde_json::json;
use std::collections::BTreeMap;

use super::{absent, devices::LocalObjectReference, kind};

kind! {
    /// One service account with the roles bound to it; the cloud makes it, nodes with pods of the account get
    /// it.
    ServiceAccountAccess of "policy.kubeedge.io" "v1alpha1", "serviceaccountaccesses", NamespaceResourceScope,
    {
        /// The account and its roles.
        spec: AccessSpec,
        /// Where it is needed.
        #[serde(skip_serializing_if = "absent")]
        status: AccessStatus,
    },
    {
        const SINGULAR: &'static str = "serviceaccountaccess";
        const SHORT_NAMES: &'static [&'static str] = &["saaccess"];
        const STATUS: bool = true;
        const REQUIRED: &'static [&'static str] = &["spec"];
    }
}

/// A service account and its roles.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct AccessSpec {
    /// The account.
    #[serde(skip_serializing_if = "absent")]
    pub service_account: Account,
    /// Its uid.
    #[serde(skip_serializing_if = "absent")]
    pub service_account_uid: String,
    /// What it may do in the namespace.
    #[serde(skip_serializing_if = "absent")]
    pub access_role_binding: Vec<AccessRoleBinding>,
    /// What it may do everywhere.
    #[serde(skip_serializing_if = "absent")]
    pub access_cluster_role_binding: Vec<AccessClusterRoleBinding>,
}

/// Where the access is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct AccessStatus {
    /// Nodes with pods of the account.
    #[serde(skip_serializing_if = "absent")]
    pub node_list: Vec<String>,
}

/// What is kept of the metadata of an object inside of another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default)]
pub struct InnerMeta {
    /// Its name.
    #[serde(skip_serializing_if = "absent")]
    pub name: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "absent")]
    pub namespace: String,
    /// Its labels.
    #[serde(skip_serializing_if = "absent")]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(skip_serializing_if = "absent")]
    pub annotations: BTreeMap<String, String>,
    /// Its finalizers.
    #[serde(skip_serializing_if = "absent")]
    pub finalizers: Vec<String>,
}

/// A ServiceAccount inside of another object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Account {
    /// `v1`, or empty.
    #[serde(skip_serializing_if = "absent")]
    pub api_version: String,
    /// `ServiceAccount`, or empty.
    #[serde(skip_serializing_if = "absent")]
    pub kind: String,
    /// Its name and namespace.
    #[serde(skip_serializing_if = "absent")]
    pub metadata: InnerMeta,
    /// Secrets that pods of the account may use.
    #[cfg_attr(feature = "crds", schemars(transform = secrets))]
    #[serde(skip_serializing_if = "absent")]
    pub secrets: Vec<ObjectReference>,
    /// Secrets with accounts of image registries.
    #[cfg_attr(feature = "crds", schemars(transform = atomic_items))]
    #[serde(skip_serializing_if = "absent")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Whether pods get a token of the account.
    #[serde(skip_serializing_if = "absent")]
    pub automount_service_account_token: Option<bool>,
}

/// A RoleBinding, and the rules of the role it binds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct AccessRoleBinding {
    /// The binding.
    #[serde(skip_serializing_if = "absent")]
    pub role_binding: Option<Binding>,
    /// The rules.
    #[serde(skip_serializing_if = "absent")]
    pub rules: Vec<PolicyRule>,
}

/// A ClusterRoleBinding, and the rules of the role it binds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct AccessClusterRoleBinding {
    /// The binding.
    #[serde(skip_serializing_if = "absent")]
    pub cluster_role_binding: Option<Binding>,
    /// The rules.
    #[serde(skip_serializing_if = "absent")]
    pub rules: Vec<PolicyRule>,
}

/// A RoleBinding or ClusterRoleBinding inside of another object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// `rbac.authorization.k8s.io/v1`, or empty.
    #[serde(default, skip_serializing_if = "absent")]
    pub api_version: String,
    /// `RoleBinding`, `ClusterRoleBinding`, or empty.
    #[serde(default, skip_serializing_if = "absent")]
    pub kind: String,
    /// Its name and namespace.
    #[serde(default, skip_serializing_if = "absent")]
    pub metadata: InnerMeta,
    /// Who may.
    #[cfg_attr(feature = "crds", schemars(transform = atomic_items))]
    #[serde(default, skip_serializing_if = "absent")]
    pub subjects: Vec<Subject>,
    /// What they may.
    #[cfg_attr(feature = "crds", schemars(extend("x-kubernetes-map-type" = "atomic")))]
    pub role_ref: RoleRef,
}

/// The items of a list change as a whole, not field by field.
#[cfg(feature = "crds")]
fn atomic_items(schema: &mut Schema) {
    if let Some(items) = schema.pointer_mut("/items").and_then(|items| items.as_object_mut()) {
        items.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
    }
}

/// Secrets are told apart by their names.
#[cfg(feature = "crds")]
fn secrets(schema: &mut Schema) {
    atomic_items(schema);
    if let Some(items) = schema.pointer_mut("/items").and_then(|items| items.as_object_mut()) {
        items.insert("required".to_owned(), json!(["name"]));
    }
    schema.insert("x-kubernetes-list-type".to_owned(), json!("map"));
    schema.insert("x-kubernetes-list-map-keys".to_owned(), json!(["name"]));
}
