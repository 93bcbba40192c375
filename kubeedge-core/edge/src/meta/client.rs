//! What Edged asks of the cluster: read from the edge's own copy where that is good enough, otherwise asked
//! of the cloud by way of MetaManager.

use std::{fmt, time::Duration};

use k8s_openapi::{
    api::{
        authentication::v1::TokenRequest,
        coordination::v1::Lease,
        core::v1::{ConfigMap, Event, Node, Pod, Secret},
    },
    apimachinery::pkg::apis::meta::v1::Status,
};
use kubeedge_core::{
    bus::{Bus, RequestError},
    failure::chain,
    message::{
        Content, ContentError, Message,
        resource::{self, ObjectPath},
    },
    name::{Group, ModuleName, Operation},
    store::StoreError,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    handle::MetaHandle,
    key::{ObjectKey, Selector},
};

/// A Kubernetes Status that says why something was refused.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ApiStatus(pub Status);

impl fmt::Display for ApiStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            self.0.message.as_deref().or(self.0.reason.as_deref()).unwrap_or("refused without a reason"),
        )
    }
}

/// A request to the cluster failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The API server refused: not found, conflict, forbidden, …
    #[error("{resource}: {status}")]
    Api {
        /// What was asked for.
        resource: String,
        /// Why it was refused.
        status: Box<ApiStatus>,
    },
    /// The answer needs the cloud and the link is down, or MetaManager failed.
    #[error("{resource}: {why}")]
    Failed {
        /// What was asked for.
        resource: String,
        /// Why there is no answer.
        why: String,
    },
    /// The edge's own copy cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody answered.
    #[error(transparent)]
    Unanswered(#[from] RequestError),
    /// The answer is not what was asked for.
    #[error("{resource}: {source}")]
    Malformed {
        /// What was asked for.
        resource: String,
        /// What is wrong with it.
        source: ContentError,
    },
}

impl ClientError {
    /// The API server's reason: `NotFound`, `AlreadyExists`, `Conflict`, …; `None` for other failures.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Api { status, .. } => status.0.reason.as_deref(),
            _ => None,
        }
    }

    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.reason() == Some("NotFound")
    }
}

/// A typed view of the cluster for modules of the edge. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    meta: MetaHandle,
    bus: Bus,
    within: Duration,
}

/// How KubeEdge wraps the answer to a write: Go struct names, both always present.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wrapped {
    #[serde(default)]
    object: Value,
    #[serde(default)]
    err: Value,
}

impl Client {
    /// Reads from this copy and asks MetaManager over this bus; each request may take `within` (KubeEdge: 60
    /// s).
    pub fn new(meta: MetaHandle, bus: Bus, within: Duration) -> Self {
        Self { meta, bus, within }
    }

    /// All pods the edge knows of, of all namespaces; always answered locally. One that cannot be read is
    /// left out with an error in the log, so that it does not keep the others from running.
    pub async fn pods(&self) -> Result<Vec<Pod>, ClientError> {
        let stored = self.meta.list(&Selector::known("pod")).await?;
        let readable = stored.iter().filter_map(|pod| {
            let read = pod.decode();
            let told = |error: &StoreError| {
                tracing::error!(error = %chain(error), "a stored pod cannot be read and is left out");
            };
            read.inspect_err(told).ok()
        });
        Ok(readable.collect())
    }

    /// A ConfigMap: the edge's copy, or the cloud's when the edge has none.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<ConfigMap, ClientError> {
        self.fetch(namespace, "configmap", name).await
    }

    /// A Secret: the edge's copy, or the cloud's when the edge has none.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Secret, ClientError> {
        self.fetch(namespace, "secret", name).await
    }

    /// The node as the edge knows it; `None` before it was registered.
    pub async fn node(&self, name: &str) -> Result<Option<Node>, ClientError> {
        let node = self.meta.get(&ObjectKey::known("node", "", name)).await?;
        Ok(node.map(|node| node.decode()).transpose()?)
    }

    /// Registers the node; `AlreadyExists` when it is registered.
    pub async fn register_node(&self, node: &Node) -> Result<Node, ClientError> {
        let name = node.metadata.name.clone().unwrap_or_default();
        self.write(Operation::INSERT, "", "node", &name, node).await
    }

    /// Patches the node's status with a strategic merge patch.
    pub async fn patch_node_status(&self, name: &str, patch: &Value) -> Result<Node, ClientError> {
        self.write(Operation::PATCH, "", "nodepatch", name, &patch.to_string()).await
    }

    /// Patches a pod's status with a strategic merge patch; the patch names the pod's uid.
    pub async fn patch_pod_status(
        &self,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<Pod, ClientError> {
        self.write(Operation::PATCH, namespace, "podpatch", name, &patch.to_string()).await
    }

    /// Tells the cluster that a pod is gone from the node. No error when the cluster has forgotten it
    /// already.
    pub async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ClientError> {
        let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
        let resource = resource::object(namespace, "pod", name);
        let content = content(resource.as_str(), &options)?;
        let answer = self.ask(Operation::DELETE, resource.as_str(), content).await?;
        if answer.content.is_ok_text() { Ok(()) } else { refused(resource.as_str(), &answer.content) }
    }

    /// The node's lease; `None` when there is none yet.
    pub async fn lease(&self, name: &str) -> Result<Option<Lease>, ClientError> {
        let resource = resource::object("kube-node-lease", "lease", name);
        let answer = self.ask(Operation::QUERY, resource.as_str(), Content::empty()).await?;
        match unwrap(resource.as_str(), &answer.content) {
            Err(error) if error.is_not_found() => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Creates or renews the node's lease: creates when it carries no resourceVersion.
    pub async fn put_lease(&self, lease: &Lease) -> Result<Lease, ClientError> {
        let name = lease.metadata.name.clone().unwrap_or_default();
        let known = lease.metadata.resource_version.is_some();
        let operation = if known { Operation::UPDATE } else { Operation::INSERT };
        self.write(operation, "kube-node-lease", "lease", &name, lease).await
    }

    /// Reports an event; nobody answers.
    pub async fn event(&self, event: &Event) -> Result<(), ClientError> {
        let (namespace, name) = (event.metadata.namespace.as_deref(), event.metadata.name.as_deref());
        let resource = resource::object(namespace.unwrap_or_default(), "event", name.unwrap_or_default());
        let content = content(resource.as_str(), event)?;
        self.tell(Operation::INSERT, resource.as_str(), content).await
    }

    /// Reports that an event happened again: the event as it is now, and the merge patch that makes it so.
    pub async fn event_again(&self, event: &Event, patch: &Value) -> Result<(), ClientError> {
        let (namespace, name) = (event.metadata.namespace.as_deref(), event.metadata.name.as_deref());
        let resource = resource::object(namespace.unwrap_or_default(), "event", name.unwrap_or_default());
        let content = content(resource.as_str(), &json!({"event": event, "patchData": patch.to_string()}))?;
        self.tell(Operation::PATCH, resource.as_str(), content).await
    }

    /// A token for a service account.
    pub async fn token(
        &self,
        namespace: &str,
        service_account: &str,
        request: &TokenRequest,
    ) -> Result<TokenRequest, ClientError> {
        let resource = resource::object(namespace, "serviceaccounttoken", service_account);
        let content = content(resource.as_str(), request)?;
        let answer = self.ask(Operation::QUERY, resource.as_str(), content).await?;
        plain(resource.as_str(), &answer.content)
    }

    async fn fetch<T: DeserializeOwned>(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
    ) -> Result<T, ClientError> {
        if let Some(object) = self.meta.get(&ObjectKey::known(kind, namespace, name)).await? {
            return Ok(object.decode()?);
        }
        let resource = resource::object(namespace, kind, name);
        let answer = self.ask(Operation::QUERY, resource.as_str(), Content::empty()).await?;
        plain(resource.as_str(), &answer.content)
    }

    async fn write<T: DeserializeOwned>(
        &self,
        operation: Operation,
        namespace: &str,
        kind: &str,
        name: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<T, ClientError> {
        let resource = resource::object(namespace, kind, name);
        let content = content(resource.as_str(), body)?;
        let answer = self.ask(operation, resource.as_str(), content).await?;
        unwrap(resource.as_str(), &answer.content)
    }

    async fn ask(
        &self,
        operation: Operation,
        resource: &str,
        content: Content,
    ) -> Result<Message, ClientError> {
        let message =
            Message::new(ModuleName::EDGED, operation, resource).in_group(Group::META).with(content);
        let answer = self.bus.request(&ModuleName::META_MANAGER, message, self.within).await?;
        if answer.route.operation == Operation::ERROR {
            let why = String::from_utf8_lossy(&answer.content.data()).into_owned();
            return Err(ClientError::Failed { resource: resource.to_owned(), why });
        }
        Ok(answer)
    }

    async fn tell(&self, operation: Operation, resource: &str, content: Content) -> Result<(), ClientError> {
        let message =
            Message::new(ModuleName::EDGED, operation, resource).in_group(Group::META).with(content);
        self.bus
            .send(&ModuleName::META_MANAGER, message)
            .await
            .map_err(|error| ClientError::Unanswered(error.into()))
    }
}

fn content(resource: &str, body: &(impl Serialize + ?Sized)) -> Result<Content, ClientError> {
    Content::json(body).map_err(|source| ClientError::Malformed { resource: resource.to_owned(), source })
}

fn decode<T: DeserializeOwned>(resource: &str, content: &Content) -> Result<T, ClientError> {
    content.decode().map_err(|source| ClientError::Malformed { resource: resource.to_owned(), source })
}

/// What is answered where the copy has no object of a resource, as the cloud says it.
pub(super) fn not_found(resource: &str) -> Value {
    let path = ObjectPath::parse(resource);
    let (kind, name) = path.map_or(("object", resource), |path| (path.kind, path.name));
    let message = format!("{kind}s \"{name}\" not found");
    let status =
        json!({"metadata": {}, "status": "Failure", "message": message, "reason": "NotFound", "code": 404});
    json!({"ErrStatus": status})
}

/// An answer that is the object itself, or `{"ErrStatus": …}`, or `{}` for an error that is no API status.
fn plain<T: DeserializeOwned>(resource: &str, content: &Content) -> Result<T, ClientError> {
    let answer: Value = decode(resource, content)?;
    match status_in(&answer) {
        Some(status) => Err(ClientError::Api { resource: resource.to_owned(), status }),
        None if is_empty(&answer) => Err(unexplained(resource)),
        None => decode(resource, content),
    }
}

/// An answer of the form `{"Object": …, "Err": …}`.
fn unwrap<T: DeserializeOwned>(resource: &str, content: &Content) -> Result<T, ClientError> {
    let wrapped: Wrapped = decode(resource, content)?;
    if let Some(status) = status_in(&wrapped.err) {
        return Err(ClientError::Api { resource: resource.to_owned(), status });
    }
    // Beside an error that is no API status stands an object without a name.
    if is_empty(&wrapped.err) && wrapped.object.pointer("/metadata/name").is_none() {
        return Err(unexplained(resource));
    }
    let object = serde_json::from_value(wrapped.object);
    object.map_err(|error| ClientError::Failed { resource: resource.to_owned(), why: error.to_string() })
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty)
}

fn unexplained(resource: &str) -> ClientError {
    let why = "the cloud failed and did not say why; see the log of cloudcore".to_owned();
    ClientError::Failed { resource: resource.to_owned(), why }
}

/// The status in `{"ErrStatus": …}`. An empty object says nothing, which Go takes for success.
fn status_in(value: &Value) -> Option<Box<ApiStatus>> {
    let status = value.get("ErrStatus")?.clone();
    Some(Box::new(serde_json::from_value(status).unwrap_or_default()))
}

fn refused(resource: &str, content: &Content) -> Result<(), ClientError> {
    match status_in(&decode(resource, content)?) {
        Some(status) if status.0.reason.as_deref() == Some("NotFound") => Ok(()),
        Some(status) => Err(ClientError::Api { resource: resource.to_owned(), status }),
        None => Err(ClientError::Failed {
            resource: resource.to_owned(),
            why: String::from_utf8_lossy(&content.data()).into_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kubeedge_core::bus::Inbox;
    use kubeedge_store::MemoryStore;

    use super::*;

    fn client() -> (Client, Inbox) {
        let (bus, mut inboxes) = Bus::new([(ModuleName::META_MANAGER, Group::META, 8)]);
        let copy = MetaHandle::over(Arc::new(MemoryStore::new()));
        let client = Client::new(copy, bus, Duration::from_secs(60));
        (client, inboxes.remove(&ModuleName::META_MANAGER).unwrap())
    }

    async fn answered<T>(call: impl Future<Output = T>, inbox: &mut Inbox, answer: Value) -> (T, Message) {
        let serve = async {
            let envelope = inbox.next().await.unwrap();
            let asked = envelope.message.clone();
            envelope.answer(Content::json(&answer).unwrap());
            asked
        };
        tokio::join!(call, serve)
    }

    #[tokio::test]
    async fn a_local_row_and_a_remote_object_read_alike() {
        let (client, mut inbox) = client();
        let object = json!({"metadata": {"name": "cm"}, "data": {"k": "v"}});
        let (map, asked) = answered(client.config_map("default", "cm"), &mut inbox, object.clone()).await;
        assert_eq!(map.unwrap().data.unwrap()["k"], "v");
        assert_eq!(asked.route.resource, "default/configmap/cm");
        let key = ObjectKey::known("configmap", "default", "cm");
        client.meta.put(&key, object.to_string().into()).await.unwrap();
        assert_eq!(client.config_map("default", "cm").await.unwrap().data.unwrap()["k"], "v");
        assert!(inbox.try_next().is_none(), "nobody is asked for what is here");
    }

    #[tokio::test]
    async fn what_does_not_exist_is_told_as_such() {
        let (client, mut inbox) = client();
        let status =
            json!({"ErrStatus": {"metadata": {}, "reason": "NotFound", "code": 404, "message": "gone"}});
        for answer in [status.clone(), not_found("default/secret/s")] {
            let (secret, _) = answered(client.secret("default", "s"), &mut inbox, answer).await;
            assert!(secret.unwrap_err().is_not_found());
        }
        let (lease, _) =
            answered(client.lease("n"), &mut inbox, json!({"Object": null, "Err": status})).await;
        assert!(lease.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_status_patch_travels_as_text_and_returns_the_object() {
        let (client, mut inbox) = client();
        let patch = json!({"metadata": {"uid": "u"}, "status": {"phase": "Running"}});
        let answer = json!({"Object": {"metadata": {"name": "web"}}, "Err": null});
        let (pod, asked) =
            answered(client.patch_pod_status("default", "web", &patch), &mut inbox, answer).await;
        assert_eq!(pod.unwrap().metadata.name.as_deref(), Some("web"));
        assert_eq!(asked.content.as_text().unwrap(), patch.to_string());
        assert_eq!((asked.route.operation, asked.route.group), (Operation::PATCH, Group::META));
    }

    #[tokio::test]
    async fn an_error_answer_carries_its_reason() {
        let (client, mut inbox) = client();
        let node = Node::default();
        let call = client.register_node(&node);
        let serve = async { inbox.next().await.unwrap().fail("not connected") };
        let (answer, ()) = tokio::join!(call, serve);
        assert!(answer.unwrap_err().to_string().contains("not connected"));
    }
}
