//! The pods of this node with their newest status, for whoever shows them.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::RwLock;

/// The pods Edged runs, each with the status it has now. Cheap to clone; all clones are the same book.
#[derive(Clone, Debug, Default)]
pub struct PodBook(Arc<RwLock<HashMap<String, Arc<Pod>>>>);

impl PodBook {
    /// Enters a pod with the status it carries; takes the place of an earlier one of the same uid. A pod
    /// without uid is not entered.
    pub fn enter(&self, pod: Pod) {
        if let Some(uid) = pod.metadata.uid.clone() {
            self.0.write().insert(uid, Arc::new(pod));
        }
    }

    /// Enters a pod as the cluster has it; the status known here is kept, being newer.
    pub(crate) fn wish(&self, pod: &Pod) {
        let mut pod = pod.clone();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if let Some(known) = self.0.read().get(uid) {
            pod.status.clone_from(&known.status);
        }
        self.enter(pod);
    }

    /// Notes the status of a pod that is entered.
    pub(crate) fn note(&self, uid: &str, status: &PodStatus) {
        if let Some(known) = self.0.write().get_mut(uid) {
            Arc::make_mut(known).status = Some(status.clone());
        }
    }

    /// Strikes out a pod that is gone.
    pub fn strike(&self, uid: &str) {
        self.0.write().remove(uid);
    }

    /// A pod by name, and by uid if one is given. Where an ending pod has a successor of its name, the
    /// successor.
    pub fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<Pod>> {
        let book = self.0.read();
        let named = book.values().filter(|pod| {
            let meta = &pod.metadata;
            meta.name.as_deref() == Some(name)
                && meta.namespace.as_deref() == Some(namespace)
                && (uid.is_none() || meta.uid.as_deref() == uid)
        });
        named.min_by_key(|pod| pod.metadata.deletion_timestamp.is_some()).cloned()
    }

    /// All pods, by namespace and name.
    pub fn all(&self) -> Vec<Arc<Pod>> {
        let mut pods: Vec<_> = self.0.read().values().cloned().collect();
        pods.sort_by(|a, b| {
            (&a.metadata.namespace, &a.metadata.name).cmp(&(&b.metadata.namespace, &b.metadata.name))
        });
        pods
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, ending: bool) -> Pod {
        let mut meta = json!({"name": "web", "namespace": "default", "uid": uid});
        if ending {
            meta["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        serde_json::from_value(json!({"metadata": meta})).unwrap()
    }

    #[test]
    fn a_pod_is_found_by_name_with_its_newest_status_and_before_one_that_ends() {
        let book = PodBook::default();
        book.wish(&pod("old", true));
        book.wish(&pod("new", false));
        book.note("new", &PodStatus { phase: Some("Running".into()), ..PodStatus::default() });
        book.wish(&pod("new", false));
        let found = book.find("default", "web", None).unwrap();
        assert_eq!(found.metadata.uid.as_deref(), Some("new"));
        assert_eq!(found.status.as_ref().unwrap().phase.as_deref(), Some("Running"));
        assert!(book.find("default", "web", Some("old")).is_some());
        assert!(book.find("other", "web", None).is_none());
        book.strike("new");
        assert_eq!(book.all().len(), 1);
    }
}
