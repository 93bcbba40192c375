//! What edges ask for: one handler per resource type and operation.

use std::sync::Arc;

use base64::Engine as _;
use http::Method;
use kube::core::Status;
use kubeedge_common::log::{Seldom, shown};
use kubeedge_core::{
    message::{Message, resource},
    name::NodeName,
};

use super::{
    Caches,
    access::Access,
    answer::{self, Answered},
    locations::Referent,
    nodes::{self, own_node},
    pods,
};
use crate::{
    cluster::{ApiClient, Clients, Media, api_path, failure, namespaced},
    informer::{Informer, ObjectKey},
    instance::Instance,
};

pub(super) const CORE: &str = "/api/v1";
const LEASES: &str = "/apis/coordination.k8s.io/v1";
const CSRS: &str = "/apis/certificates.k8s.io/v1";
const STORAGE: &str = "/apis/storage.k8s.io/v1";

/// What is sent as the object when there is none.
pub(super) const NO_NODE: &str = r#"{"metadata":{"creationTimestamp":null},"spec":{},"status":{"daemonEndpoints":{"kubeletEndpoint":{"Port":0}},"nodeInfo":{"machineID":"","systemUUID":"","bootID":"","kernelVersion":"","osImage":"","containerRuntimeVersion":"","kubeletVersion":"","kubeProxyVersion":"","operatingSystem":"","architecture":""}}}"#;
pub(super) const NO_POD: &str =
    r#"{"metadata":{"creationTimestamp":null},"spec":{"containers":null},"status":{}}"#;
const NO_LEASE: &str = r#"{"metadata":{"creationTimestamp":null},"spec":{}}"#;
const NO_CSR: &str =
    r#"{"metadata":{"creationTimestamp":null},"spec":{"request":null,"signerName":""},"status":{}}"#;

/// The handlers of requests from edges.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) clients: Arc<Clients>,
    pub(super) caches: Caches,
    pub(super) access: Access,
    pub(super) instance: Instance,
    /// Lines about what nodes ask in vain.
    pub(super) complaints: Seldom,
}

/// One request, taken apart.
pub(super) struct Ask<'a> {
    pub(super) node: NodeName,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) message: &'a Message,
    /// The client that acts as the node.
    pub(super) client: ApiClient,
}

impl Ask<'_> {
    /// The content as it goes to the API server.
    pub(super) fn body(&self) -> Vec<u8> {
        self.message.content.data().into_owned()
    }
}

impl Upstream {
    /// Does what is asked; the answers, if the request is one that is answered.
    pub(super) async fn handle(&self, message: &Message) -> Vec<Message> {
        let text = message.route.resource.as_str();
        let operation = message.route.operation.as_str();
        let mut parts = text.split('/').skip(1);
        let node = NodeName::from(parts.next().unwrap_or_default());
        let (Some(namespace), Some(kind)) = (parts.next(), parts.next()) else {
            tracing::debug!(resource = %shown(text), operation = %shown(operation), "not a request for an object");
            return Vec::new();
        };
        let name = parts.next().unwrap_or_default();
        if parts.next().is_some() {
            tracing::debug!(resource = %shown(text), operation = %shown(operation), "not a request for an object");
            return Vec::new();
        }
        let client = self.clients.of(&node);
        let ask = Ask { node, namespace, name, message, client };
        match (kind, operation) {
            ("podstatus", "update") => pods::put_statuses(self.clients.clock(), &ask).await,
            _ => self.one(kind, operation, &ask).await.into_iter().collect(),
        }
    }

    async fn one(&self, kind: &str, operation: &str, ask: &Ask<'_>) -> Option<Message> {
        let question = ask.message;
        let answer = match (kind, operation) {
            ("node", "insert") => {
                let made = nodes::register(&self.clients, &self.instance, ask).await;
                answer::unversioned(answer::object_response(question, made, NO_NODE))
            }
            ("node", "update") => return self.when_done(ask, nodes::update(ask).await),
            ("node", "query") => answer::bare(question, self.own(ask).await),
            ("nodepatch", "patch") => {
                answer::object_response(question, nodes::patch_status(ask).await, NO_NODE)
            }
            ("nodestatus", "insert") => nodes::register_old(&self.clients, &self.instance, ask).await,
            ("nodestatus", "update") => {
                let done = self.when_done(ask, nodes::put_status(&self.clients, ask).await);
                nodes::renamed(ask, done?)
            }
            ("podpatch", "patch") => {
                let patched = pods::patch_status(&self.caches.pods, ask).await;
                answer::object_response(question, patched, NO_POD)
            }
            ("pod", "insert") => {
                let path = namespaced(CORE, ask.namespace, "pods", &[]);
                let made = ask.client.post(&path, ask.body()).await;
                answer::object_response(question, made, NO_POD)
            }
            ("pod", "delete") => answer::confirmation(question, pods::delete(&self.caches.pods, ask).await),
            ("configmap", "query") => answer::bare(question, self.referred(Referent::ConfigMap, ask).await),
            ("secret", "query") => answer::bare(question, self.referred(Referent::Secret, ask).await),
            ("serviceaccounttoken", "query") => answer::bare(question, self.token(ask).await),
            ("lease", _) => answer::unversioned(self.lease(operation, ask).await?),
            ("event", _) => {
                self.event(operation, ask).await;
                return None;
            }
            _ => return self.other(kind, operation, ask).await,
        };
        Some(answer)
    }

    async fn other(&self, kind: &str, operation: &str, ask: &Ask<'_>) -> Option<Message> {
        let path = match (kind, operation) {
            ("certificatesigningrequest", "insert") => {
                let path = api_path(CSRS, &["certificatesigningrequests"]);
                let made = ask.client.post(&path, ask.body()).await;
                return Some(answer::unversioned(answer::object_response(ask.message, made, NO_CSR)));
            }
            ("certificatesigningrequest", "query") => {
                let path = api_path(CSRS, &["certificatesigningrequests", ask.name]);
                return Some(answer::bare(ask.message, self.clients.ours().get(&path).await));
            }
            ("persistentvolume", "query") => api_path(CORE, &["persistentvolumes", ask.name]),
            ("persistentvolumeclaim", "query") => {
                namespaced(CORE, ask.namespace, "persistentvolumeclaims", &[ask.name])
            }
            ("volumeattachment", "query") => api_path(STORAGE, &["volumeattachments", ask.name]),
            _ => {
                tracing::debug!(node = %ask.node, kind = %shown(kind), operation = %shown(operation), "nobody handles this request");
                return None;
            }
        };
        Some(answer::bare(ask.message, ask.client.get(&path).await))
    }

    async fn own(&self, ask: &Ask<'_>) -> Answered {
        own_node(ask)?;
        self.cached(&self.caches.nodes, "nodes", ask).await
    }

    async fn referred(&self, referent: Referent, ask: &Ask<'_>) -> Answered {
        self.access.may_read(referent, ask)?;
        match referent {
            Referent::ConfigMap => self.cached(&self.caches.config_maps, "configmaps", ask).await,
            Referent::Secret => self.cached(&self.caches.secrets, "secrets", ask).await,
        }
    }

    async fn token(&self, ask: &Ask<'_>) -> Answered {
        self.access.may_have_token(ask)?;
        let path = namespaced(CORE, ask.namespace, "serviceaccounts", &[ask.name, "token"]);
        ask.client.post(&path, ask.body()).await
    }

    /// From the informer, or live where it has not seen the object yet.
    async fn cached(&self, informer: &Informer, plural: &str, ask: &Ask<'_>) -> Answered {
        if ask.name.is_empty() {
            return Err(failure(400, "BadRequest", format!("a query for {plural} must name one")));
        }
        let namespace = if ask.namespace == resource::NO_NAMESPACE { "" } else { ask.namespace };
        if plural == "nodes" {
            let key = ObjectKey::new("", ask.name);
            if let Some(found) = informer.get(&key) {
                return Ok(found.content.clone().into_data());
            }
            return self.clients.ours().get(&api_path(CORE, &["nodes", ask.name])).await;
        }
        if let Some(found) = informer.get(&ObjectKey::new(namespace, ask.name)) {
            return Ok(found.content.clone().into_data());
        }
        self.clients.ours().get(&namespaced(CORE, namespace, plural, &[ask.name])).await
    }

    async fn lease(&self, operation: &str, ask: &Ask<'_>) -> Option<Message> {
        if ask.namespace.is_empty() || ask.name.is_empty() {
            let nameless = failure(400, "BadRequest", "a lease has a namespace and a name");
            return Some(answer::object_response(ask.message, Err(nameless), NO_LEASE));
        }
        if ask.namespace == "kube-node-lease" && ask.name != ask.node.as_str() {
            let refused = Err(not_yours("lease", ask));
            return Some(answer::object_response(ask.message, refused, NO_LEASE));
        }
        let one = namespaced(LEASES, ask.namespace, "leases", &[ask.name]);
        let all = namespaced(LEASES, ask.namespace, "leases", &[]);
        let (answered, empty) = match operation {
            "insert" => (ask.client.post(&all, ask.body()).await, NO_LEASE),
            "update" => (ask.client.call(Method::PUT, &one, Media::Json, ask.body()).await, NO_LEASE),
            "query" => (ask.client.get(&one).await, "null"),
            _ => return None,
        };
        Some(answer::object_response(ask.message, answered, empty))
    }

    /// Events are not answered.
    async fn event(&self, operation: &str, ask: &Ask<'_>) {
        let one = namespaced(CORE, ask.namespace, "events", &[ask.name]);
        let done = match operation {
            "insert" => {
                let path = namespaced(CORE, ask.namespace, "events", &[]);
                ask.client.post(&path, ask.body()).await
            }
            "update" => ask.client.call(Method::PUT, &one, Media::Json, ask.body()).await,
            "patch" => match event_patch(ask.message) {
                Some(patch) => ask.client.call(Method::PATCH, &one, Media::StrategicPatch, patch).await,
                None => Err(failure(400, "BadRequest", "an event patch without patchData")),
            },
            _ => return,
        };
        if let Err(status) = done {
            self.complain(ask, &status, "an event was not recorded");
        }
    }

    /// The confirmation of a node's update. Failures are not answered, as in Go: the edge tries again with
    /// its next one.
    fn when_done(&self, ask: &Ask<'_>, done: Answered) -> Option<Message> {
        match done {
            Ok(node) => Some(answer::versioned_confirmation(ask.message, &node)),
            Err(status) => {
                self.complain(ask, &status, "a node was not updated");
                None
            }
        }
    }

    /// A line about what is not answered, no more than one a second for each node.
    fn complain(&self, ask: &Ask<'_>, status: &Status, what: &'static str) {
        if let Some(unsaid) = self.complaints.line(ask.node.as_str()) {
            let (name, why) = (shown(ask.name), status.to_string());
            tracing::warn!(node = %ask.node, %name, error = %shown(&why), unsaid, what);
        }
    }
}

/// The patch in `{"event":…,"patchData":"…"}`: as text, or in base64.
pub(crate) fn event_patch(message: &Message) -> Option<Vec<u8>> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        patch_data: String,
    }
    let body: Body = message.content.decode().ok()?;
    if body.patch_data.trim_start().starts_with('{') {
        return Some(body.patch_data.into_bytes());
    }
    base64::engine::general_purpose::STANDARD.decode(body.patch_data).ok()
}

/// A node asks for what is another's.
pub(super) fn not_yours(what: &str, ask: &Ask<'_>) -> Box<Status> {
    let Ask { node, name, .. } = ask;
    failure(403, "Forbidden", format!("{what} {name:?} is not of node {:?}", node.as_str()))
}

#[cfg(test)]
mod tests {
    use kubeedge_core::{
        message::Content,
        name::{ModuleName, Operation},
    };

    use super::*;

    #[test]
    fn a_patch_of_an_event_is_taken_as_text_and_as_base64() {
        for data in [r#"{"count":2}"#, "eyJjb3VudCI6Mn0="] {
            let message = Message::new(ModuleName::EDGED, Operation::PATCH, "default/event/e")
                .with(Content::json(&serde_json::json!({"event": {}, "patchData": data})).unwrap());
            assert_eq!(event_patch(&message).unwrap(), br#"{"count":2}"#);
        }
    }
}
