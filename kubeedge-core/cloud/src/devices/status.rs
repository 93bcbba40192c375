//! Reports of twins and states, into DeviceStatus objects.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use kube::core::Status;
use kubeedge_common::log::{Seldom, shown};
use kubeedge_core::{
    bus::Envelope,
    message::{Content, ContentError, Message},
    name::{Group, ModuleName, NodeName, Operation},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::{Id, JoinError, JoinSet};

use super::{
    API_VERSION, PREFIX,
    view::{DeviceState, DeviceView, ReportedTwin, StateReport, Twin, TwinReport},
};
use crate::{
    cluster::{self, ApiClient, Clients, namespaced},
    informer::{Informer, Object, ObjectKey},
};

/// Devices whose status is being written at a time.
const WRITING: usize = 64;
/// Reports that wait; no more are taken meanwhile.
const WAITING: usize = 4096;

/// What was reported of one device and not written yet.
#[derive(Default)]
struct Pending {
    twins: Vec<BTreeMap<String, Option<ReportedTwin>>>,
    state: Option<DeviceState>,
    confirm: Vec<Envelope>,
}

/// One report.
enum Report {
    Twins(TwinReport),
    State(StateReport),
}

impl Report {
    /// `None` if the message is none.
    fn of(message: &Message) -> Option<Result<Self, ContentError>> {
        let (text, content) = (message.route.resource.as_str(), &message.content);
        if text.contains("twin/edge_updated") {
            return Some(content.decode().map(Self::Twins));
        }
        text.contains("state/update").then(|| content.decode().map(Self::State))
    }
}

/// Whether reports were written, and the reports.
type Written = (Result<(), Box<Status>>, Vec<Envelope>);

/// What writes the reports of a device, and how many they are.
type Busy = (Id, usize);

/// Writes reports: in order for each device, many devices at a time.
pub(super) struct Reports {
    clients: Arc<Clients>,
    devices: Arc<Informer>,
    pending: HashMap<ObjectKey, Pending>,
    /// Whose turn it is next, of the pending that are not busy.
    line: VecDeque<ObjectKey>,
    /// Reports that are pending or being written.
    waiting: usize,
    busy: HashMap<ObjectKey, Busy>,
    writing: JoinSet<Written>,
    complaints: Seldom,
}

impl Reports {
    pub(super) fn new(clients: Arc<Clients>, devices: Arc<Informer>) -> Self {
        let (pending, line, busy) = (HashMap::new(), VecDeque::new(), HashMap::new());
        let (writing, complaints) = (JoinSet::new(), Seldom::default());
        Self { clients, devices, pending, line, waiting: 0, busy, writing, complaints }
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting < WAITING
    }

    /// Takes a message of an edge. Reports of devices that are not the node's are dropped unconfirmed.
    pub(super) fn take(&mut self, envelope: Envelope) {
        let text = envelope.message.route.resource.as_str().to_owned();
        if text.contains("membership/detail") {
            // Asked for on every connection; answered by the announcement, as Go answers it by nothing.
            return;
        }
        let Some((node, key)) = device_of(&text) else {
            tracing::debug!(resource = %shown(&text), "not a report of a device");
            return;
        };
        let device = self.devices.get(&key);
        let owned = device.as_ref().and_then(|device| DeviceView::of(device).ok());
        if owned.is_none_or(|view| view.node.as_ref() != Some(&node)) {
            return self.complain(&node, &key, "a report of a device that is not the node's");
        }
        match Report::of(&envelope.message) {
            None => tracing::debug!(resource = %shown(&text), "not a report of a device"),
            Some(Err(error)) => self.complain(&node, &key, &format!("an unreadable report: {error}")),
            Some(Ok(report)) => self.put(key, report, envelope),
        }
    }

    fn put(&mut self, key: ObjectKey, report: Report, envelope: Envelope) {
        let is_busy = self.busy.contains_key(&key);
        let pending = self.pending.entry(key.clone()).or_default();
        if pending.confirm.is_empty() && !is_busy {
            self.line.push_back(key);
        }
        match report {
            Report::Twins(report) => pending.twins.push(report.twin),
            Report::State(report) => pending.state = Some(report.device),
        }
        pending.confirm.push(envelope);
        self.waiting += 1;
        self.write();
    }

    /// A line about a report that is not taken, no more than one a second for each node.
    fn complain(&self, node: &NodeName, device: &ObjectKey, why: &str) {
        if let Some(unsaid) = self.complaints.line(node.as_str()) {
            tracing::warn!(%node, device = %shown(&device.name), why = %shown(why), unsaid, "a report is not taken");
        }
    }

    /// Writes for those whose turn it is, as many at a time as may be.
    fn write(&mut self) {
        while self.writing.len() < WRITING {
            let Some(key) = self.line.pop_front() else { return };
            let Some(mut pending) = self.pending.remove(&key) else { continue };
            let confirm = std::mem::take(&mut pending.confirm);
            let Some(device) = self.devices.get(&key) else {
                // It went after they were taken: nobody is to hear of them, or to wait for their
                // confirmation.
                self.waiting -= confirm.len();
                continue;
            };
            let (clients, reports) = (self.clients.clone(), confirm.len());
            let writing =
                self.writing.spawn(async move { (write(&clients, &device, pending).await, confirm) });
            self.busy.insert(key, (writing.id(), reports));
        }
    }

    /// The confirmations of reports that were written. Pending while there are none. Cancel-safe.
    pub(super) async fn confirmed(&mut self) -> Vec<Message> {
        let Some(done) = self.writing.join_next_with_id().await else { return std::future::pending().await };
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let ended = self.busy.extract_if(|_, (writing, _)| *writing == id).next();
        let Some((key, (_, reports))) = ended else { return Vec::new() };
        self.waiting -= reports;
        // Whoever came later has its turn later.
        if self.pending.contains_key(&key) {
            self.line.push_back(key.clone());
        }
        self.write();
        match done {
            Ok((_, (Ok(()), confirm))) => confirm.into_iter().filter_map(confirmation).collect(),
            // Not confirmed: the edge repeats it.
            Ok((_, (Err(status), _))) => {
                tracing::warn!(device = %key.name, error = %status, "a DeviceStatus was not written");
                Vec::new()
            }
            Err(error) => {
                tracing::error!(device = %key.name, error = %error, "writing a DeviceStatus failed");
                Vec::new()
            }
        }
    }
}

/// The confirmation of a report: by the way back if there is one, else by the hub.
fn confirmation(report: Envelope) -> Option<Message> {
    let node = report.message.route.resource.as_str().split('/').nth(1).unwrap_or_default().to_owned();
    let answer =
        Message::new(ModuleName::DEVICE_CONTROLLER, Operation::RESPONSE, format!("node/{node}/twin"))
            .in_group(Group::TWIN)
            .answering(report.message.header.id.clone())
            .with(Content::ok());
    if report.wants_answer() {
        report.reply_with(answer);
        return None;
    }
    Some(answer)
}

/// Node and device in `node/<node>/device/<namespace>/<name>/…`.
fn device_of(resource: &str) -> Option<(NodeName, ObjectKey)> {
    let mut parts = resource.split('/').skip(1);
    let node = parts.next()?;
    (parts.next()? == "device").then_some(())?;
    let (namespace, name) = (parts.next()?, parts.next()?);
    Some((node.into(), ObjectKey::new(namespace, name)))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Existing {
    status: ExistingStatus,
}
#[derive(Default, Deserialize)]
#[serde(default)]
struct ExistingStatus {
    twins: Vec<Twin>,
}

fn path(device: &Object, rest: &[&str]) -> String {
    namespaced(PREFIX, &device.key.namespace, "devicestatuses", rest)
}

async fn write(clients: &Clients, device: &Object, pending: Pending) -> Result<(), Box<Status>> {
    let client = clients.ours();
    let mut patch = serde_json::Map::new();
    let existing = existing(client, device).await?;
    if !pending.twins.is_empty() {
        let view = DeviceView::of(device).map_err(|why| cluster::failure(400, "Invalid", why))?;
        let twins = merged(existing.status.twins, &pending.twins, &view);
        patch.insert("twins".to_owned(), json!(twins));
    }
    if let Some(state) = pending.state {
        patch.insert("state".to_owned(), state.state.into());
        patch.insert("lastOnlineTime".to_owned(), state.last_online_time.into());
    }
    client.merge(&path(device, &[&device.key.name]), &json!({"status": patch})).await.map(drop)
}

/// The DeviceStatus as it stands, made where it is missing.
async fn existing(client: &ApiClient, device: &Object) -> Result<Existing, Box<Status>> {
    match client.get(&path(device, &[&device.key.name])).await {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| cluster::failure(502, "InternalError", error.to_string())),
        Err(status) if status.is_not_found() => create(client, device).await.map(|()| Existing::default()),
        Err(status) => Err(status),
    }
}

/// Makes an empty DeviceStatus, owned by the Device, if there is none.
pub(super) async fn ensure(client: &ApiClient, device: &Object) -> Result<(), Box<Status>> {
    create(client, device).await
}

async fn create(client: &ApiClient, device: &Object) -> Result<(), Box<Status>> {
    let body = json!({
        "apiVersion": API_VERSION, "kind": "DeviceStatus",
        "metadata": {
            "name": device.key.name, "namespace": device.key.namespace,
            "ownerReferences": [{"apiVersion": API_VERSION, "kind": "Device", "name": device.key.name,
                "uid": device.uid, "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {}, "status": {},
    });
    match client.post(&path(device, &[]), body.to_string()).await {
        Err(status) if !status.is_already_exists() => Err(status),
        _ => Ok(()),
    }
}

/// All known twins with what was reported; those of properties the device no longer has are left out.
fn merged(
    known: Vec<Twin>,
    reports: &[BTreeMap<String, Option<ReportedTwin>>],
    view: &DeviceView,
) -> Vec<Value> {
    let mut twins = known;
    twins.retain(|twin| view.properties.contains(&twin.property_name));
    for (name, report) in reports.iter().flatten() {
        let Some(report) = report else { continue };
        if !view.properties.contains(name) {
            continue;
        }
        if let Some(twin) = twins.iter_mut().find(|twin| twin.property_name == *name) {
            twin.update(report);
        } else {
            let mut twin = Twin { property_name: name.clone(), ..Twin::default() };
            twin.update(report);
            twins.push(twin);
        }
    }
    twins.iter().map(|twin| json!(twin)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_report_of_a_twin_counts() {
        let view =
            DeviceView { node: None, model: String::new(), properties: ["temperature".to_owned()].into() };
        let report: TwinReport = serde_json::from_value(json!({"event_id": "e", "timestamp": 1, "twin": {
            "temperature": {"actual": {"value": "27", "metadata": {"timestamp": 1795213899883_i64}},
                "optional": true, "metadata": {"type": "int"}, "actual_version": {"cloud": 0, "edge": 1}},
            "unknown": {"actual": {"value": "1"}},
            "deleted": null,
        }}))
        .unwrap();
        let old = Twin { property_name: "gone".into(), ..Twin::default() };
        let twins = merged(vec![old], &[report.twin], &view);
        assert_eq!(
            twins,
            [json!({"propertyName": "temperature",
                "reported": {"value": "27", "metadata": {"timestamp": "1795213899883", "type": "int"}},
                "observedDesired": {"value": ""}})]
        );
    }

    #[test]
    fn a_report_names_node_and_device() {
        let (node, key) = device_of("node/n/device/default/thermo-1/twin/edge_updated").unwrap();
        assert_eq!((node.as_str(), key), ("n", ObjectKey::new("default", "thermo-1")));
        assert!(device_of("node/n/membership/detail").is_none());
    }
}
