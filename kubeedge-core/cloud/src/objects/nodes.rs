//! Registration and status of nodes.

use std::time::Duration;

use http::Method;
use kubeedge_core::{
    message::{Content, Message, resource},
    name::NodeName,
};
use serde_json::{Map, Value, json};

use super::{
    answer::{self, Answered},
    upstream::{Ask, CORE, Upstream, not_yours},
};
use crate::cluster::{self, Media, api_path, failure};

/// The annotation that names the cloudcore a node is connected to.
const CLOUDCORE: &str = "cloudcore";

impl Upstream {
    /// Creates the Node as the node itself; labels which a node may not set itself are set by us afterwards.
    pub(super) async fn register(&self, ask: &Ask<'_>) -> Answered {
        own_node(ask)?;
        let mut node: Value = ask
            .message
            .content
            .decode()
            .map_err(|error| failure(400, "BadRequest", format!("not a Node: {error}")))?;
        let reserved = prepare(&mut node, ask.name, &self.address)
            .ok_or_else(|| failure(400, "BadRequest", "not a Node: no object"))?;
        let path = api_path(CORE, &["nodes"]);
        let made = ask.client.post(&path, node.to_string()).await?;
        if reserved.is_empty() {
            return Ok(made);
        }
        let patch = json!({"metadata": {"labels": reserved}});
        cluster::merge(self.clients.ours(), &api_path(CORE, &["nodes", ask.name]), &patch).await
    }

    pub(super) async fn patch_node_status(&self, ask: &Ask<'_>) -> Answered {
        own_node(ask)?;
        let path = api_path(CORE, &["nodes", ask.name, "status"]);
        ask.client.call(Method::PATCH, &path, Media::StrategicPatch, ask.body()).await
    }

    /// Labels and annotations only; answered when it worked, as in Go.
    pub(super) async fn update_node(&self, ask: &Ask<'_>) -> Option<Message> {
        let done = self.merge_node_metadata(ask).await;
        self.answered_when_done(ask, done)
    }

    async fn merge_node_metadata(&self, ask: &Ask<'_>) -> Answered {
        own_node(ask)?;
        let node: Value = ask
            .message
            .content
            .decode()
            .map_err(|error| failure(400, "BadRequest", format!("not a Node: {error}")))?;
        let part = |name: &str| node.pointer(&format!("/metadata/{name}")).cloned().unwrap_or(Value::Null);
        let mut metadata = Map::new();
        for name in ["labels", "annotations"] {
            if let Value::Object(part) = part(name) {
                metadata.insert(name.to_owned(), Value::Object(part));
            }
        }
        let path = api_path(CORE, &["nodes", ask.name]);
        ask.client.merge(&path, &json!({"metadata": metadata})).await
    }

    /// The form of old edges: registration, or a whole status.
    pub(super) async fn node_status(&self, operation: &str, ask: &Ask<'_>) -> Option<Message> {
        let renamed = |mut answer: Message| {
            let path = resource::object(ask.namespace, "node", ask.name);
            answer.route.resource = resource::for_node(&ask.node, &path);
            answer
        };
        match operation {
            "insert" => {
                let path = api_path(CORE, &["nodes", ask.name]);
                let there = ask.client.get(&path).await;
                let done = if there.is_ok() { there } else { self.register(ask).await };
                let text = done.map_or_else(|status| status.message, |_| "OK".to_owned());
                Some(renamed(answer::response(ask.message, Content::text(&text))))
            }
            "update" => {
                let done = self.merge_node_status(ask).await;
                self.answered_when_done(ask, done).map(renamed)
            }
            _ => None,
        }
    }

    async fn merge_node_status(&self, ask: &Ask<'_>) -> Answered {
        own_node(ask)?;
        let body: Map<String, Value> = ask
            .message
            .content
            .decode()
            .map_err(|error| failure(400, "BadRequest", format!("not a node status: {error}")))?;
        let status = body.get("Status").cloned().unwrap_or_default();
        if let Some(Value::Object(extended)) = body.get("ExtendResources") {
            let annotations: Map<String, Value> = extended
                .iter()
                .map(|(name, resources)| (name.clone(), Value::String(resources.to_string())))
                .collect();
            let patch = json!({"metadata": {"annotations": annotations}});
            cluster::merge(self.clients.ours(), &api_path(CORE, &["nodes", ask.name]), &patch).await?;
        }
        let path = api_path(CORE, &["nodes", ask.name, "status"]);
        ask.client.merge(&path, &json!({"status": status})).await
    }

    /// Failures of these requests are not answered; the edge tries again with its next one.
    fn answered_when_done(&self, ask: &Ask<'_>, done: Answered) -> Option<Message> {
        match done {
            Ok(_) => Some(answer::response(ask.message, Content::text("OK"))),
            Err(status) => {
                self.complain(ask, &status, "a node was not updated");
                None
            }
        }
    }

    /// Writes down which cloudcore the node is connected to; three attempts, a second apart.
    pub(super) async fn annotate(&self, node: &NodeName) {
        let patch = json!({"metadata": {"annotations": {CLOUDCORE: self.address}}});
        let path = api_path(CORE, &["nodes", node.as_str()]);
        for attempt in 0..3_u32 {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            match cluster::merge(self.clients.ours(), &path, &patch).await {
                Ok(_) => return,
                // A node that connects for the first time is annotated when it registers.
                Err(status) if status.is_not_found() => return,
                Err(status) => tracing::warn!(%node, attempt, error = %status, "a node was not annotated"),
            }
        }
    }
}

/// A node reads and writes no Node but its own.
pub(super) fn own_node(ask: &Ask<'_>) -> Result<(), Box<kube::core::Status>> {
    if ask.name == ask.node.as_str() { Ok(()) } else { Err(not_yours("node", ask)) }
}

/// Fills in name and annotation; takes out and returns the labels a node may not set itself.
fn prepare(node: &mut Value, name: &str, address: &str) -> Option<Map<String, Value>> {
    let node = node.as_object_mut()?;
    node.insert("apiVersion".to_owned(), "v1".into());
    node.insert("kind".to_owned(), "Node".into());
    let metadata = node.entry("metadata").or_insert_with(|| json!({})).as_object_mut()?;
    metadata.insert("name".to_owned(), name.into());
    if let Some(annotations) = child(metadata, "annotations") {
        annotations.insert(CLOUDCORE.to_owned(), address.into());
    }
    let mut reserved = Map::new();
    if let Some(labels) = child(metadata, "labels") {
        for (key, value) in std::mem::take(labels) {
            let into = if is_reserved(&key) { &mut reserved } else { &mut *labels };
            into.insert(key, value);
        }
    }
    Some(reserved)
}

fn child<'a>(of: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    let value = of.entry(name).or_insert_with(|| json!({}));
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

/// `kubernetes.io/…` and `….kubernetes.io/…`: guarded by the NodeRestriction admission plugin.
fn is_reserved(label: &str) -> bool {
    let mut parts = label.split('/');
    let (prefix, name, more) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    name.is_some() && more.is_none() && (prefix == "kubernetes.io" || prefix.ends_with(".kubernetes.io"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_guarded_by_node_restriction_are_kept_apart() {
        let mut node = json!({"metadata": {"labels": {
            "node-role.kubernetes.io/edge": "", "kubernetes.io/arch": "amd64", "rack": "7", "acme.io/x": "y"}}});
        let reserved = prepare(&mut node, "n", "10.0.0.1").unwrap();
        assert_eq!(
            reserved.keys().collect::<Vec<_>>(),
            ["kubernetes.io/arch", "node-role.kubernetes.io/edge"]
        );
        assert_eq!(node["metadata"]["labels"], json!({"rack": "7", "acme.io/x": "y"}));
        assert_eq!(node["metadata"]["name"], "n");
        assert_eq!(node["metadata"]["annotations"]["cloudcore"], "10.0.0.1");
    }
}
