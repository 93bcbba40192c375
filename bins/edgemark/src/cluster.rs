//! The cluster behind the cloud: what makes it send something to its edges.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use http::Request;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use crate::options::Plan;

/// How many ConfigMaps all pods refer to; each change of one becomes a message to each node.
pub(crate) const MAPS: usize = 96;
/// Requests at the same time while objects are made and removed.
const AT_ONCE: usize = 32;
const PODS: &str = "/api/v1/namespaces/default/pods";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// ConfigMaps, and on each node a pod that refers to them.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    plan: Arc<Plan>,
    /// The bytes of a ConfigMap as an edge gets it, without what fills it up.
    bare: usize,
}

impl Cluster {
    /// By this kubeconfig.
    pub(crate) async fn new(kubeconfig: &Path, plan: Arc<Plan>) -> anyhow::Result<Self> {
        let told = || format!("--kubeconfig {}", kubeconfig.display());
        let file = Kubeconfig::read_from(kubeconfig).with_context(told)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.with_context(told)?).with_context(told)?;
        Ok(Self { client, plan, bare: 0 })
    }

    /// Makes the objects, in the place of those an earlier run may have left.
    pub(crate) async fn furnish(&mut self) -> anyhow::Result<()> {
        self.clear().await;
        for map in 0..MAPS {
            let meta = json!({"name": self.map(map), "labels": self.labels()});
            let body = json!({"metadata": meta, "data": data(0, 0)});
            let mut made = self.call("POST", CONFIG_MAPS, &body).await.context("making a ConfigMap")?;
            if let Some(meta) = made.get_mut("metadata").and_then(Value::as_object_mut) {
                meta.remove("managedFields");
            }
            self.bare = made.to_string().len();
        }
        let pods = (0..self.plan.nodes).map(|number| self.make_pod(number));
        stream::iter(pods).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    async fn make_pod(&self, number: u32) -> anyhow::Result<()> {
        let source = |map| json!({"configMapRef": {"name": self.map(map)}});
        let from: Vec<_> = (0..MAPS).map(source).collect();
        let node = self.plan.node(number);
        let body = json!({
            "metadata": {"name": format!("flood-{node}"), "labels": self.labels()},
            "spec": {
                "nodeName": node.as_str(), "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "flood", "image": "edgemark", "envFrom": from}],
            },
        });
        self.call("POST", PODS, &body).await.context("making a pod").map(drop)
    }

    /// Changes a ConfigMap.
    pub(crate) async fn change(&self, map: usize, round: u64) -> anyhow::Result<()> {
        let body = json!({"data": data(round, self.plan.message_size.saturating_sub(self.bare))});
        let path = format!("{CONFIG_MAPS}/{}", self.map(map));
        self.call("PATCH", &path, &body).await.context("changing a ConfigMap").map(drop)
    }

    /// Removes the objects; what is not there is fine.
    pub(crate) async fn clear(&self) {
        let pods = (0..self.plan.nodes).map(|number| format!("{PODS}/flood-{}", self.plan.node(number)));
        let maps = (0..MAPS).map(|map| format!("{CONFIG_MAPS}/{}", self.map(map)));
        let removed = pods
            .chain(maps)
            .map(|path| async move { self.call("DELETE", &path, &json!({"gracePeriodSeconds": 0})).await });
        stream::iter(removed).buffer_unordered(AT_ONCE).for_each(|_| async {}).await;
    }

    fn map(&self, number: usize) -> String {
        format!("{}flood-{number}", self.plan.prefix)
    }

    /// The number of a ConfigMap of this name.
    pub(crate) fn number(map: &str) -> Option<usize> {
        map.rsplit_once("flood-")?.1.parse().ok()
    }

    fn labels(&self) -> Value {
        json!({"edgemark": ""})
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let form = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, form);
        Ok(self.client.request(request.body(body.to_string().into_bytes())?).await?)
    }
}

/// The data of a ConfigMap in this round, filled up with so many bytes.
fn data(round: u64, filler: usize) -> Value {
    json!({"round": format!("{round:06}"), "filler": "x".repeat(filler)})
}
