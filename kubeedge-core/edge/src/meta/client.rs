//! What Edged and DeviceTwin ask of the cluster, through MetaManager: answered from the edge's own copy where the
//! rules say so, otherwise by the cloud.

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
    message::{Content, ContentError, Message, resource},
    name::{Group, ModuleName, Operation},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

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
    /// Asks over this bus; each request may take `within` (KubeEdge: 60 s).
    pub fn new(bus: Bus, within: Duration) -> Self {
        Self { bus, within }
    }

    /// All pods the edge knows of, of all namespaces; always answered locally. One that cannot be read is left out
    /// with an error in the log, so that it does not keep the others from running.
    pub async fn pods(&self) -> Result<Vec<Pod>, ClientError> {
        let resource = "default/pod";
        let answer = self.ask(Operation::QUERY, resource, Content::Empty).await?;
        let rows: Vec<String> = decode(resource, &answer.content)?;
        let readable = rows.into_iter().filter_map(|row| match serde_json::from_str(&row) {
            Ok(pod) => Some(pod),
            Err(error) => {
                tracing::error!(%error, "a stored pod cannot be read and is left out");
                None
            }
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
        let resource = resource::object("", "node", name);
        let answer = self.ask(Operation::QUERY, resource.as_str(), Content::Empty).await?;
        let rows: Vec<String> = decode(resource.as_str(), &answer.content)?;
        rows.first().map(|row| decode(resource.as_str(), &Content::text(row))).transpose()
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

    /// Tells the cluster that a pod is gone from the node. No error when the cluster has forgotten it already.
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
        let answer = self.ask(Operation::QUERY, resource.as_str(), Content::Empty).await?;
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
        let resource = resource::object(namespace, kind, name);
        let answer = self.ask(Operation::QUERY, resource.as_str(), Content::Empty).await?;
        // A local answer is a list of rows as text, a remote one is the object itself.
        if let Ok(rows) = answer.content.decode::<Vec<String>>() {
            return match rows.first() {
                Some(row) => decode(resource.as_str(), &Content::text(row)),
                None => Err(not_found(resource.as_str(), kind, name)),
            };
        }
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

fn not_found(resource: &str, kind: &str, name: &str) -> ClientError {
    let status = Status {
        message: Some(format!("{kind}s \"{name}\" not found")),
        reason: Some("NotFound".to_owned()),
        code: Some(404),
        ..Status::default()
    };
    ClientError::Api { resource: resource.to_owned(), status: Box::new(ApiStatus(status)) }
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
    use kubeedge_core::bus::Inbox;

    use super::*;

    fn client() -> (Client, Inbox) {
        let (bus, mut inboxes) = Bus::new([(ModuleName::META_MANAGER, Group::META, 8)]);
        (Client::new(bus, Duration::from_secs(60)), inboxes.remove(&ModuleName::META_MANAGER).unwrap())
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
        for answer in [object.clone(), json!([object.to_string()])] {
            let (map, asked) = answered(client.config_map("default", "cm"), &mut inbox, answer).await;
            assert_eq!(map.unwrap().data.unwrap()["k"], "v");
            assert_eq!(asked.route.resource, "default/configmap/cm");
        }
    }

    #[tokio::test]
    async fn what_does_not_exist_is_told_as_such() {
        let (client, mut inbox) = client();
        let status =
            json!({"ErrStatus": {"metadata": {}, "reason": "NotFound", "code": 404, "message": "gone"}});
        for answer in [status.clone(), json!([])] {
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
