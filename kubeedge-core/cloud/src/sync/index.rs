//! The records by node, read once when they change and not with every pass.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use kube::core::ApiResource;
use kubeedge_core::name::{NodeName, ResourceVersion};

use super::{missing::Missing, plural};
use crate::{
    informer::{Change, Informer, Informers, ObjectKey},
    records::{self, RecordBody},
};

/// What one edge was sent of one object.
#[derive(Debug)]
pub(super) struct Confirmed {
    /// The object's unique id.
    pub(super) uid: String,
    /// Its kind in lower case, as in resources.
    pub(super) kind: String,
    /// Where it is looked up.
    pub(super) informer: Arc<Informer>,
    /// Its namespace (empty for cluster-scoped objects) and name.
    pub(super) key: ObjectKey,
    /// The version the edge has confirmed; 0 for none yet, or when none was ever written.
    pub(super) version: Option<u64>,
    /// The version of the record itself.
    pub(super) own: ResourceVersion,
}

/// Kinds beyond this many are not watched; a record may name any.
const MAX_KINDS: usize = 256;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Index {
    nodes: HashMap<NodeName, BTreeMap<ObjectKey, Confirmed>>,
    kinds: HashMap<(String, String), Option<ApiResource>>,
    pub(super) missing: Missing,
}

impl Index {
    /// Takes in what became of a record. Returns the node and the unique id of an object that, unlike before,
    /// the node is said to have.
    pub(super) fn note(&mut self, change: &Change, informers: &Informers) -> Option<(NodeName, String)> {
        let record = change.new.as_ref().or(change.old.as_ref())?;
        let (node, uid) = records::split_name(&record.key.name)?;
        let confirmed = change.new.as_ref().and_then(|record| {
            let body: RecordBody = record.view().ok()?;
            let (spec, version) = (body.spec, body.status.object_resource_version);
            if spec.object_kind.is_empty() || spec.object_name.is_empty() {
                return None;
            }
            let informer = self.informer_of(&spec.object_api_version, &spec.object_kind, informers)?;
            Some(Confirmed {
                uid: uid.to_owned(),
                kind: spec.object_kind.to_lowercase(),
                informer,
                key: ObjectKey::new(record.key.namespace.clone(), spec.object_name),
                // A record without version was never confirmed; Go leaves such an object unsent for good.
                version: if version.is_empty() { Some(0) } else { version.number() },
                own: record.version.clone(),
            })
        });
        let of_node = self.nodes.entry(node.clone()).or_default();
        if let Some(confirmed) = confirmed {
            let says = |confirmed: &Confirmed| confirmed.version.is_some_and(|version| version > 0);
            let now = says(&confirmed);
            let before = of_node.insert(record.key.clone(), confirmed);
            self.missing.found(&node, &record.key);
            return (now && !before.as_ref().is_some_and(says)).then(|| (node, uid.to_owned()));
        }
        let was = of_node.remove(&record.key);
        if of_node.is_empty() {
            self.nodes.remove(&node);
        }
        if let Some(was) = was {
            self.missing.gone(node, record.key.clone(), was);
        }
        None
    }

    /// The records of a node.
    pub(super) fn of(&self, node: &NodeName) -> impl Iterator<Item = &Confirmed> {
        self.nodes.get(node).into_iter().flat_map(BTreeMap::values)
    }

    /// The record of one object.
    pub(super) fn one(&self, node: &NodeName, namespace: &str, uid: &str) -> Option<&Confirmed> {
        self.record(node, namespace, &format!("{node}.{uid}"))
    }

    /// A record by its own name.
    pub(super) fn record(&self, node: &NodeName, namespace: &str, name: &str) -> Option<&Confirmed> {
        self.nodes.get(node)?.get(&ObjectKey::new(namespace, name))
    }

    /// The nodes that have records.
    pub(super) fn nodes(&self) -> HashSet<NodeName> {
        self.nodes.keys().cloned().collect()
    }

    /// The informer of a kind.
    pub(super) fn informer_of(
        &mut self,
        api_version: &str,
        kind: &str,
        informers: &Informers,
    ) -> Option<Arc<Informer>> {
        let key = (api_version.to_owned(), kind.to_owned());
        if !self.kinds.contains_key(&key) {
            if self.kinds.len() >= MAX_KINDS {
                tracing::warn!(api_version, kind, "too many kinds in sync records");
                return None;
            }
            let resource = plural::gvk(api_version, kind)
                .map(|gvk| ApiResource::from_gvk_with_plural(&gvk, &plural::of(kind)));
            self.kinds.insert(key.clone(), resource);
        }
        self.kinds.get(&key).and_then(Option::as_ref).map(|resource| informers.of(resource))
    }
}
