//! One running cloudcore among others of its cluster, and how it writes itself into Node objects.

use std::{collections::BTreeMap, sync::Arc};

use kubeedge_core::name::MessageId;
use serde_json::{Map, Value};

/// Go's annotation: the address of the cloudcore a node is connected to.
pub(crate) const CLOUDCORE: &str = "cloudcore";
/// Ours beside it: the process.
pub(crate) const INSTANCE: &str = "kubeedge.io/cloudcore-instance";

/// A running cloudcore among others of its cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Instance(Arc<Named>);

#[derive(Debug)]
struct Named {
    address: String,
    id: String,
}

impl Instance {
    /// This process, on a machine with this address.
    pub fn new(address: &str) -> Self {
        let id = MessageId::random().as_str().to_owned();
        Self(Arc::new(Named { address: address.to_owned(), id }))
    }

    /// What it writes into the Node of a node that is connected to it.
    pub(crate) fn annotations(&self) -> Map<String, Value> {
        let pairs = [(CLOUDCORE, &self.0.address), (INSTANCE, &self.0.id)];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.as_str().into())).collect()
    }

    /// Whether a Node names another cloudcore. A Go cloudcore writes its address only.
    pub(crate) fn is_not(&self, annotations: &BTreeMap<String, String>) -> bool {
        let other = |name: &str, ours: &String| annotations.get(name).is_some_and(|found| found != ours);
        other(CLOUDCORE, &self.0.address) || other(INSTANCE, &self.0.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_anothers_by_address_or_by_process() {
        let ours = Instance::new("10.0.0.1");
        let mine = ours.annotations();
        let found = |pairs: &[(&str, &str)]| {
            let owned = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            ours.is_not(&owned.collect())
        };
        let id = mine[INSTANCE].as_str().unwrap();
        assert!(!found(&[]));
        assert!(!found(&[(CLOUDCORE, "10.0.0.1")]));
        assert!(!found(&[(CLOUDCORE, "10.0.0.1"), (INSTANCE, id)]));
        assert!(found(&[(CLOUDCORE, "10.0.0.1"), (INSTANCE, "another")]));
        assert!(found(&[(CLOUDCORE, "10.0.0.2"), (INSTANCE, id)]));
    }
}
