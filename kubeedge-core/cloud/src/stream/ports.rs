//! The tunnel ports of the cloudcores of a cluster, as Go keeps them.
//!
//! Each cloudcore has a port of its own, from 10351 on, by which the API server tells it from the others. The
//! ports stand in ConfigMap `tunnelport`, in an annotation:
//! `{"ipTunnelPort":{"10.0.0.1":10351},"port":{"10351":true}}`. Go's iptables manager reads it.

use std::{collections::BTreeMap, time::Duration};

use http::Method;
use kube::core::Status;
use kubeedge_core::backoff::Backoff;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::cluster::{ApiClient, Media, NAMESPACE, failure, namespaced};

const NAME: &str = "tunnelport";
const ANNOTATION: &str = "tunnelportrecord.kubeedge.io";
/// The first port that is given out.
const FIRST: u16 = 10351;
/// How often the record is read anew because another cloudcore has changed it meanwhile.
const ATTEMPTS: u32 = 20;

/// The ports given out: by address, and those that are taken, also by cloudcores that are gone.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    #[serde(rename = "ipTunnelPort")]
    by_address: BTreeMap<String, u16>,
    #[serde(rename = "port")]
    taken: BTreeMap<u16, bool>,
}

impl Record {
    /// The port of an address, and whether it is newly given out.
    fn port_of(&mut self, address: &str) -> Option<(u16, bool)> {
        if let Some(port) = self.by_address.get(address) {
            return Some((*port, false));
        }
        let port = (FIRST..=u16::MAX).find(|port| !self.taken.contains_key(port))?;
        self.by_address.insert(address.to_owned(), port);
        self.taken.insert(port, true);
        Some((port, true))
    }
}

/// The port of the cloudcore at this address; recorded if it had none.
pub(super) async fn negotiate(client: &ApiClient, address: &str) -> Result<u16, Box<Status>> {
    let mut pauses = Backoff::new(Duration::from_millis(20), Duration::from_secs(1), 0);
    let mut attempt = 0;
    loop {
        attempt += 1;
        match once(client, address).await {
            Err(status) if attempt < ATTEMPTS && (status.is_conflict() || status.is_already_exists()) => {
                tokio::time::sleep(pauses.next_pause()).await;
            }
            done => return done,
        }
    }
}

async fn once(client: &ApiClient, address: &str) -> Result<u16, Box<Status>> {
    let path = namespaced("/api/v1", NAMESPACE, "configmaps", &[NAME]);
    let there: Option<Map<String, Value>> = match client.get(&path).await {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))?),
        Err(status) if status.is_not_found() => None,
        Err(status) => return Err(status),
    };
    let text =
        there.as_ref().and_then(|map| map.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str());
    // Go dies of a ConfigMap without the annotation.
    let record = text.map(serde_json::from_str::<Record>).transpose();
    let mut record = record.map_err(|error| unreadable(&error))?.unwrap_or_default();
    let Some((port, new)) = record.port_of(address) else {
        return Err(failure(507, "InternalError", "no tunnel port is free"));
    };
    if !new {
        return Ok(port);
    }
    let text = serde_json::to_string(&record).map_err(|error| unreadable(&error))?;
    let Some(mut map) = there else {
        let metadata = json!({"name": NAME, "namespace": NAMESPACE, "annotations": {ANNOTATION: text}});
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        let all = namespaced("/api/v1", NAMESPACE, "configmaps", &[]);
        return client.post(&all, body.to_string()).await.map(|_| port);
    };
    let metadata = map.entry("metadata").or_insert_with(|| json!({}));
    let Some(metadata) = metadata.as_object_mut() else { return Err(unreadable(&"it has no metadata")) };
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(ANNOTATION.to_owned(), text.into());
    }
    // With the resourceVersion that was read: another cloudcore's change in between makes it a conflict.
    let body = Value::Object(map).to_string();
    client.call(Method::PUT, &path, Media::Json, body).await.map(|_| port)
}

fn unreadable(why: &dyn std::fmt::Display) -> Box<Status> {
    let text = format!(
        "ConfigMap {NAMESPACE}/{NAME} cannot be read: {why}; delete it and start all cloudcores anew"
    );
    failure(500, "InternalError", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_port_and_gets_one_that_was_never_given_out() {
        let text = r#"{"ipTunnelPort":{"10.0.0.1":10351},"port":{"10351":true,"10352":true}}"#;
        let mut record: Record = serde_json::from_str(text).unwrap();
        assert_eq!(record.port_of("10.0.0.1"), Some((10351, false)));
        assert_eq!(record.port_of("10.0.0.3"), Some((10353, true)));
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            r#"{"ipTunnelPort":{"10.0.0.1":10351,"10.0.0.3":10353},"port":{"10351":true,"10352":true,"10353":true}}"#
        );
    }
}
