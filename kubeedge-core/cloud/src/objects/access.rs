//! What a node may read: what its pods refer to.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PodSpec;
use kube::core::Status;
use kubeedge_common::log::{Seldom, shown};
use kubeedge_core::name::NodeName;
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    locations::{Locations, Referent, references},
    upstream::{Ask, not_yours},
};
use crate::{
    cluster::failure,
    informer::{Informer, Object, ObjectKey},
};

/// Decides by the pods of nodes.
#[derive(Debug)]
pub(super) struct Access {
    pods: Arc<Informer>,
    locations: Arc<Mutex<Locations>>,
    restrict: bool,
    complaints: Seldom,
}

#[derive(Deserialize)]
struct Placed {
    spec: PodSpec,
}

#[derive(Deserialize)]
struct TokenRequest {
    spec: TokenSpec,
}
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenSpec {
    bound_object_ref: Option<Bound>,
}
#[derive(Deserialize)]
struct Bound {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
}

impl Access {
    pub(super) fn new(pods: Arc<Informer>, locations: Arc<Mutex<Locations>>, restrict: bool) -> Self {
        Self { pods, locations, restrict, complaints: Seldom::default() }
    }

    /// Whether a pod of the node refers to the ConfigMap or Secret that is asked for.
    pub(super) fn may_read(&self, referent: Referent, ask: &Ask<'_>) -> Result<(), Box<Status>> {
        let key = ObjectKey::new(ask.namespace, ask.name);
        if !self.restrict || self.locations.lock().has(referent, &key, &ask.node) {
            return Ok(());
        }
        // The locations follow the pods a little later: look at the pods themselves before saying no.
        let wanted = (referent, ask.name.to_owned());
        let refers = |pod: &Arc<Object>| {
            pod.key.namespace == ask.namespace
                && spec_on(pod, &ask.node).is_some_and(|spec| references(&spec).contains(&wanted))
        };
        if self.pods.list().iter().any(refers) {
            return Ok(());
        }
        let what = match referent {
            Referent::ConfigMap => "configmap",
            Referent::Secret => "secret",
        };
        if let Some(unsaid) = self.complaints.line(ask.node.as_str()) {
            let (namespace, name) = (shown(ask.namespace), shown(ask.name));
            tracing::warn!(node = %ask.node, what, %namespace, %name, unsaid, "a node asks for what no pod of it refers to");
        }
        Err(not_yours(what, ask))
    }

    /// Whether the token is for a pod of the node which runs under the service account.
    pub(super) fn may_have_token(&self, ask: &Ask<'_>) -> Result<(), Box<Status>> {
        if !self.restrict {
            return Ok(());
        }
        let request: TokenRequest = ask
            .message
            .content
            .decode()
            .map_err(|error| failure(400, "BadRequest", format!("not a TokenRequest: {error}")))?;
        let bound = request.spec.bound_object_ref.filter(|bound| bound.kind == "Pod");
        let pod = bound.and_then(|bound| self.pods.get(&ObjectKey::new(ask.namespace, bound.name)));
        let account = pod.and_then(|pod| spec_on(&pod, &ask.node)).map(|spec| spec.service_account_name);
        match account {
            Some(account) if account.as_deref().unwrap_or("default") == ask.name => Ok(()),
            _ => Err(not_yours("serviceaccount", ask)),
        }
    }
}

/// The ConfigMaps and Secrets a pod refers to, each with its kind as in resources; `None` if it is not on the
/// node.
pub(crate) fn referred_by(pod: &Object, node: &NodeName) -> Option<Vec<(&'static str, String)>> {
    let kind = |referent| match referent {
        Referent::ConfigMap => "configmap",
        Referent::Secret => "secret",
    };
    let found = references(&spec_on(pod, node)?).into_iter();
    Some(found.map(|(referent, name)| (kind(referent), name)).collect())
}

/// The spec of a pod, if it is on the node.
fn spec_on(pod: &Object, node: &NodeName) -> Option<PodSpec> {
    let spec = pod.view::<Placed>().ok()?.spec;
    (spec.node_name.as_deref() == Some(node.as_str())).then_some(spec)
}
