//! Objects that an edge has and no record tells of: whether they belong on the node.

use std::{collections::HashSet, sync::Arc};

use kubeedge_common::{digest::Entry, log::shown};
use kubeedge_core::{
    message::{Message, resource::ObjectPath},
    name::NodeName,
};

use crate::{
    devices,
    hub::{
        Sessions,
        corrections::{self, Correction},
    },
    informer::{Informer, Informers, Object, ObjectKey},
    objects,
    records::Record,
    sync::{gone, index::Index},
};

/// A kind as it stands in resources, and its version and kind in the API.
pub(super) type Kind = (&'static str, &'static str, &'static str);

const POD: Kind = ("pod", "v1", "Pod");
pub(super) const DEVICE: Kind = ("device", "devices.kubeedge.io/v1beta1", "Device");

/// The kinds that are compared.
pub(super) const COMPARED: [Kind; 5] = [
    POD,
    ("configmap", "v1", "ConfigMap"),
    ("secret", "v1", "Secret"),
    DEVICE,
    ("devicemodel", "devices.kubeedge.io/v1beta1", "DeviceModel"),
];

/// An object the edge has and no record tells of.
pub(in crate::sync) struct Unrecorded {
    pub(super) uid: String,
    version: u64,
    pub(super) kind: Kind,
    informer: Arc<Informer>,
    key: ObjectKey,
}

/// What is to become of an unrecorded object.
pub(super) enum Verdict {
    /// Nothing more.
    Settled,
    /// It cannot be said yet.
    Open,
    /// The edge is to be told that it is gone.
    Gone,
}

impl Unrecorded {
    /// `None` for what no node can have.
    pub(super) fn of(
        index: &mut Index,
        informers: &Informers,
        node: &NodeName,
        entry: Entry,
    ) -> Option<Self> {
        let Entry { key: uid, version, path } = entry;
        let path = ObjectPath::parse(&path)?;
        let compared = COMPARED.into_iter().find(|kind| kind.0 == path.kind);
        let Some(kind) = compared.filter(|_| is_uid(&uid)) else {
            tracing::debug!(%node, uid = %shown(&uid), kind = %shown(path.kind), "an edge says that it has what cannot be");
            return None;
        };
        let key = ObjectKey::new(path.namespace, path.name);
        let informer = informer(index, informers, kind)?;
        Some(Self { uid, version, kind, informer, key })
    }

    /// It gets a record, or its edge is to be told that it is gone.
    pub(super) fn verdict(
        &self,
        sessions: &Sessions,
        node: &NodeName,
        session: u64,
        referred: &Referred,
    ) -> Verdict {
        let Self { uid, version, kind: (kind, api_version, api_kind), informer, key } = self;
        let all_known = match *kind {
            "configmap" | "secret" => referred.pods,
            "devicemodel" => referred.devices,
            _ => true,
        };
        if !informer.is_ready() || !all_known {
            return Verdict::Open;
        }
        let object = informer.get(key).filter(|object| object.uid == *uid);
        let belongs = |object: &Object| match *kind {
            kind if refers(kind) => references(kind, object, node).is_some(),
            kind => referred.has(kind, key),
        };
        if object.is_some_and(|object| belongs(&object)) {
            let mut record = Record::new(node, &key.namespace, uid);
            (record.api_version, record.kind) = ((*api_version).to_owned(), (*api_kind).to_owned());
            record.object = key.name.clone();
            let correction = Correction { record, uid: uid.clone(), version: *version, at: None };
            let corrected = corrections::correct(sessions, node, session, correction);
            return if corrected { Verdict::Settled } else { Verdict::Open };
        }
        if corrections::leaves_alone(sessions, node, session, uid) { Verdict::Gone } else { Verdict::Settled }
    }

    /// The message that it is gone.
    pub(super) fn end(&self, node: &NodeName) -> Message {
        gone(node, self.kind.0, &self.key, &self.uid)
    }
}

/// What a node's pods and devices refer to.
#[derive(Default)]
pub(in crate::sync) struct Referred {
    names: HashSet<(&'static str, ObjectKey)>,
    /// Whether all pods, and all devices, are known.
    pods: bool,
    devices: bool,
}

impl Referred {
    /// What the node's pods and devices refer to, those without record included.
    pub(in crate::sync) fn by(
        index: &mut Index,
        informers: &Informers,
        node: &NodeName,
        unrecorded: &[Unrecorded],
    ) -> Self {
        let [pods, devices] = [POD, DEVICE]
            .map(|kind| informer(index, informers, kind).is_some_and(|informer| informer.is_ready()));
        let recorded = index.of(node).map(|known| (known.kind.as_str(), &known.informer, &known.key));
        let unrecorded = unrecorded.iter().map(|object| (object.kind.0, &object.informer, &object.key));
        let mut names = HashSet::new();
        for (kind, informer, key) in recorded.chain(unrecorded).filter(|(kind, ..)| refers(kind)) {
            let Some(object) = informer.get(key) else { continue };
            let found = references(kind, &object, node).into_iter().flatten();
            names.extend(found.map(|(kind, name)| (kind, ObjectKey::new(key.namespace.clone(), name))));
        }
        Self { names, pods, devices }
    }

    pub(in crate::sync) fn has(&self, kind: &str, key: &ObjectKey) -> bool {
        let known = COMPARED.iter().find(|known| known.0 == kind);
        known.is_some_and(|known| self.names.contains(&(known.0, key.clone())))
    }
}

/// The informer of a compared kind.
pub(super) fn informer(
    index: &mut Index,
    informers: &Informers,
    (_, api_version, kind): Kind,
) -> Option<Arc<Informer>> {
    index.informer_of(api_version, kind, informers)
}

/// Whether objects of this kind are on a node by themselves, and refer to others.
pub(in crate::sync) fn refers(kind: &str) -> bool {
    matches!(kind, "pod" | "device")
}

/// What a pod or device refers to; `None` if it is not on the node.
pub(in crate::sync) fn references(
    kind: &str,
    object: &Object,
    node: &NodeName,
) -> Option<Vec<(&'static str, String)>> {
    if kind == "pod" {
        return objects::referred_by(object, node);
    }
    devices::model_on(object, node).map(|model| vec![("devicemodel", model)])
}

/// Unique ids have no dots: with one, a record would be another node's.
fn is_uid(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Names as Kubernetes has them.
pub(super) fn is_plain(path: &ObjectPath<'_>) -> bool {
    let is_name = |text: &str| {
        (1..=253).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':'))
    };
    is_name(path.namespace) && is_name(path.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_would_name_the_record_of_another_node_is_none() {
        assert!(is_uid("0b4a1c5e-6c1e-4f0e-9f59-6d0a7b5d2c11"));
        for uid in ["", "b.0b4a1c5e", "a/b", "..", &"a".repeat(65)] {
            assert!(!is_uid(uid), "{uid}");
        }
        let is_path = |text: &str| ObjectPath::parse(text).as_ref().is_some_and(is_plain);
        assert!(is_path("default/pod/web-1"));
        for path in ["default/pod", "/pod/web", "default/pod/we b", "a/pod/b/c"] {
            assert!(!is_path(path), "{path}");
        }
    }
}
