//! The secrets in namespace `kubeedge` that hold CA, server certificate and join token.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use kube::core::Status;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cluster::{ApiClient, Media, NAMESPACE, api_path, failure, namespaced};

/// The CA's certificate and key.
pub const CA_SECRET: &str = "casecret";
/// The hub's certificate and key.
pub const SERVER_SECRET: &str = "cloudcoresecret";
/// The join token.
pub const TOKEN_SECRET: &str = "tokensecret";

/// A secret's values, decoded.
pub(super) type Values = BTreeMap<String, Vec<u8>>;

#[derive(Deserialize)]
struct Secret {
    #[serde(default)]
    data: BTreeMap<String, String>,
}

/// Makes the namespace if it is missing.
pub(super) async fn ensure_namespace(client: &ApiClient) -> Result<(), Box<Status>> {
    let path = api_path("/api/v1", &["namespaces", NAMESPACE]);
    match client.get(&path).await {
        Err(status) if status.is_not_found() => {}
        known => return known.map(drop),
    }
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    match client.post("/api/v1/namespaces", body.to_string()).await {
        Err(status) if !status.is_already_exists() => Err(status),
        _ => Ok(()),
    }
}

/// The values of a secret; `None` when there is no such secret.
pub(super) async fn read(client: &ApiClient, name: &str) -> Result<Option<Values>, Box<Status>> {
    let bytes = match client.get(&namespaced("/api/v1", NAMESPACE, "secrets", &[name])).await {
        Err(status) if status.is_not_found() => return Ok(None),
        answer => answer?,
    };
    let unreadable = |error: &dyn std::fmt::Display| {
        failure(500, "InternalError", format!("secret {NAMESPACE}/{name} cannot be read: {error}"))
    };
    let secret: Secret = serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))?;
    let mut values = Values::new();
    for (key, value) in secret.data {
        values.insert(key, STANDARD.decode(value).map_err(|error| unreadable(&error))?);
    }
    Ok(Some(values))
}

/// Makes the secret, or sets these values in the one there is. Read and replaced, not patched: KubeEdge's
/// chart grants cloudcore no patches of secrets. Fails with a conflict when somebody else writes it
/// meanwhile.
pub(super) async fn write(client: &ApiClient, name: &str, values: &Values) -> Result<(), Box<Status>> {
    match create(client, name, values).await {
        Err(status) if status.is_already_exists() => {}
        done => return done,
    }
    let path = namespaced("/api/v1", NAMESPACE, "secrets", &[name]);
    let unreadable = |why: &dyn std::fmt::Display| {
        failure(500, "InternalError", format!("secret {NAMESPACE}/{name} cannot be read: {why}"))
    };
    let there = client.get(&path).await?;
    let mut secret: Map<String, Value> =
        serde_json::from_slice(&there).map_err(|error| unreadable(&error))?;
    let data = secret.entry("data").or_insert_with(|| json!({}));
    let data = data.as_object_mut().ok_or_else(|| unreadable(&"data is no object"))?;
    let wanted = encoded(values);
    if wanted.iter().all(|(key, value)| data.get(key) == Some(value)) {
        return Ok(());
    }
    data.extend(wanted);
    let body = Value::Object(secret).to_string();
    client.call(Method::PUT, &path, Media::Json, body).await.map(drop)
}

/// Makes the secret; fails when there is one.
pub(super) async fn create(client: &ApiClient, name: &str, values: &Values) -> Result<(), Box<Status>> {
    let body = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": name, "namespace": NAMESPACE}, "data": encoded(values),
    });
    client.post(&namespaced("/api/v1", NAMESPACE, "secrets", &[]), body.to_string()).await.map(drop)
}

fn encoded(values: &Values) -> Map<String, Value> {
    values.iter().map(|(key, value)| (key.clone(), STANDARD.encode(value).into())).collect()
}
