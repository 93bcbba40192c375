//! The promises, each with a check of its own. What is checked while it happens (order, double runs) is noted
//! by disk and containers; the rest is looked at when it is quiet.

use std::collections::{BTreeMap, BTreeSet};

use kubeedge_edge::meta::ObjectKey;
use serde_json::Value;

use crate::{
    api,
    disk::META,
    user::{CONFIG_MAPS, DEVICES, PODS, SYNCS},
    world::{Machine, World},
};

/// Delivered at least once, in order per resource.
pub(crate) const ORDER: &str = "in order";
pub(crate) const DELIVERY: &str = "delivered at least once";
/// Both sides agree when it has been quiet for a while.
pub(crate) const CONVERGENCE: &str = "convergence after quiet";
/// What is kept is bounded by what there is.
pub(crate) const MEMORY: &str = "bounded memory";
/// Nothing is run twice.
pub(crate) const TWICE: &str = "no double run";

/// Objects of the cluster by name.
fn list(world: &World, path: &str) -> BTreeMap<String, Value> {
    let Some(cluster) = world.cluster.lock().clone() else { return BTreeMap::new() };
    let look = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let (code, list) =
        look.block_on(api::call(&cluster, "GET", path, &Value::Null)).expect("an answer of the API");
    assert_eq!(code, 200, "{path}: {list}");
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.into_iter().map(|item| (text(&item["metadata"]["name"]), item)).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn uid(object: &Value) -> String {
    text(&object["metadata"]["uid"])
}

fn version(object: &Value) -> String {
    text(&object["metadata"]["resourceVersion"])
}

/// What is not yet as both sides must see it in the end.
pub(crate) fn open_ends(world: &World) -> Vec<String> {
    let mut open = Vec::new();
    let (pods, maps) = (list(world, PODS), list(world, CONFIG_MAPS));
    let syncs = list(world, SYNCS);
    nodes(world, &mut open);
    for (name, pod) in &pods {
        pod_runs(name, pod, &mut open);
    }
    let mut wanted = BTreeSet::new();
    for machine in &world.machines {
        let mine: Vec<_> =
            pods.iter().filter(|(_, pod)| text(&pod["spec"]["nodeName"]) == machine.name).collect();
        containers(machine, &mine, &mut open);
        let rows = rows(machine, "pod");
        for (name, pod) in &mine {
            has(machine, &rows, &format!("default/pod/{name}"), pod, &mut open);
            confirmed(machine, &syncs, &format!("pod {name}"), pod, &mut open);
            wanted.insert(format!("{}.{}", machine.name, uid(pod)));
        }
        for row in
            rows.keys().filter(|row| !mine.iter().any(|(name, _)| **row == format!("default/pod/{name}")))
        {
            open.push(format!("{}: keeps {row}, which is not in the cluster", machine.name));
        }
        let used: BTreeSet<_> = mine.iter().map(|(_, pod)| map_of(pod)).collect();
        let rows = self::rows(machine, "configmap");
        for name in used {
            let Some(map) = maps.get(&name) else { continue };
            has(machine, &rows, &format!("default/configmap/{name}"), map, &mut open);
            // What an edge asked for itself has no record when cloudcore dies before it is made; the next
            // change makes one.
            if syncs.contains_key(&format!("{}.{}", machine.name, uid(map))) {
                confirmed(machine, &syncs, &format!("ConfigMap {name}"), map, &mut open);
            }
        }
    }
    devices(world, &mut open);
    let of_pods = syncs.iter().filter(|(_, sync)| text(&sync["spec"]["objectKind"]) == "Pod");
    for (name, _) in of_pods.filter(|(name, _)| !wanted.contains(*name)) {
        open.push(format!("record {name} is left of a pod that is gone"));
    }
    open
}

fn nodes(world: &World, open: &mut Vec<String>) {
    for (name, node) in list(world, "/api/v1/nodes") {
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = |condition: &&Value| condition["type"] == "Ready" && condition["status"] == "True";
        if !conditions.iter().any(|condition| ready(&condition)) {
            open.push(format!("node {name} is not ready"));
        }
    }
}

fn map_of(pod: &Value) -> String {
    text(&pod["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"])
}

fn pod_runs(name: &str, pod: &Value, open: &mut Vec<String>) {
    let main = &pod["status"]["containerStatuses"][0];
    let runs = pod["status"]["phase"] == "Running" && main["ready"] == true && main["restartCount"] == 0;
    if !runs || !pod["metadata"]["deletionTimestamp"].is_null() {
        let (meta, status) = (&pod["metadata"]["deletionTimestamp"], &pod["status"]);
        open.push(format!("pod {name} (deleted at {meta}) is not running: {status}"));
    }
}

fn containers(machine: &Machine, pods: &[(&String, &Value)], open: &mut Vec<String>) {
    let running = machine.containers.running();
    let wanted: BTreeMap<_, _> = pods.iter().map(|(name, pod)| (uid(pod), *name)).collect();
    for (uid, name) in &wanted {
        let count = running.get(uid).copied().unwrap_or(0);
        if count != 1 {
            open.push(format!("{}: {count} containers of pod {name} run", machine.name));
        }
    }
    for (uid, count) in running.iter().filter(|(uid, _)| !wanted.contains_key(*uid)) {
        open.push(format!("{}: a sandbox and {count} containers of pod {uid} are left", machine.name));
    }
}

fn rows(machine: &Machine, kind: &str) -> BTreeMap<String, Value> {
    let rows = machine.disk.rows(META).into_iter();
    let rows = rows.filter_map(|(row, value)| Some((ObjectKey::of_row(&row)?, value)));
    let resource = |key: &ObjectKey| key.resource().as_str().to_owned();
    rows.filter(|(key, _)| key.kind == kind)
        .map(|(key, value)| (resource(&key), serde_json::from_slice(&value).unwrap_or_default()))
        .collect()
}

fn has(machine: &Machine, rows: &BTreeMap<String, Value>, row: &str, object: &Value, open: &mut Vec<String>) {
    let known = rows.get(row).map(version);
    if known.as_deref() != Some(&version(object)) {
        let wanted = version(object);
        open.push(format!("{}: has {row} at {known:?}, the cluster at {wanted}", machine.name));
    }
}

fn confirmed(
    machine: &Machine,
    syncs: &BTreeMap<String, Value>,
    what: &str,
    object: &Value,
    open: &mut Vec<String>,
) {
    let record = syncs.get(&format!("{}.{}", machine.name, uid(object)));
    let known = record.map(|record| text(&record["status"]["objectResourceVersion"]));
    if known.as_deref() != Some(&version(object)) {
        open.push(format!(
            "{what} is confirmed as {known:?} by {}, and is at {}",
            machine.name,
            version(object)
        ));
    }
}

fn devices(world: &World, open: &mut Vec<String>) {
    let (devices, statuses) =
        (list(world, &format!("{DEVICES}/devices")), list(world, &format!("{DEVICES}/devicestatuses")));
    for (name, device) in &devices {
        let wanted = &device["spec"]["properties"][0]["desired"]["value"];
        let twin = statuses.get(name).map(|status| status["status"]["twins"][0].clone()).unwrap_or_default();
        if &twin["reported"]["value"] != wanted || &twin["observedDesired"]["value"] != wanted {
            open.push(format!("device {name} is wanted at {wanted}, and its status says {twin}"));
        }
    }
    for machine in &world.machines {
        let row_of = |name: &str| format!("default/device/{name}");
        let mine: BTreeSet<_> = devices
            .iter()
            .filter(|(_, device)| text(&device["spec"]["nodeName"]) == machine.name)
            .map(|(name, _)| row_of(name))
            .collect();
        let has: BTreeSet<_> = rows(machine, "device").into_keys().collect();
        if has != mine {
            open.push(format!("{}: has devices {has:?}, and should have {mine:?}", machine.name));
        }
    }
}

/// Both sides must agree by now, and go on to do so.
pub(crate) fn convergence(world: &World, open: &[String], after: u64) {
    let what = format!("{after} ms after quiet the sides do not agree:\n  {}", open.join("\n  "));
    world.trace.broken(CONVERGENCE, what);
}

/// Whatever was in the end accepted by the API is with its node, by what the node has, not by what it
/// confirmed.
pub(crate) fn delivery(world: &World) {
    let open = open_ends(world);
    if !open.is_empty() {
        world.trace.broken(DELIVERY, open.join("\n  "));
    }
}

/// When it is quiet, tasks, connections, sessions, records and rows are those of what there is.
pub(crate) fn memory(world: &World) {
    let (nodes, pods) = (world.machines.len(), list(world, PODS).len());
    let devices = list(world, &format!("{DEVICES}/devices")).len();
    for (host, gauge) in world.gauges.lock().iter() {
        let tasks = match host.as_str() {
            "api" => 30 + 4 * nodes,
            "cloud" => 60 + 10 * nodes,
            _ => 25 + 4 * pods + 4 * devices,
        };
        if gauge.tasks > tasks || gauge.most_tasks > 1000 {
            world.trace.broken(MEMORY, format!("{host} has {gauge:?}, allowed are {tasks} tasks"));
        }
    }
    if world.net.links() != nodes {
        world.trace.broken(MEMORY, format!("cloudcore holds {} links for {nodes} nodes", world.net.links()));
    }
    for machine in &world.machines {
        if machine.net.links() != 1 {
            world.trace.broken(MEMORY, format!("{} holds {} links", machine.name, machine.net.links()));
        }
        let (has, most) = (machine.disk.size(), 40 + 4 * pods + 6 * devices);
        if has > most {
            world.trace.broken(MEMORY, format!("{} keeps {has} rows, allowed are {most}", machine.name));
        }
    }
    let sessions = world.sessions.lock().as_ref().map_or(0, kubeedge_cloud::hub::Sessions::count);
    if sessions != nodes {
        world.trace.broken(MEMORY, format!("cloudcore has {sessions} sessions for {nodes} nodes"));
    }
    let records = list(world, SYNCS).len();
    let most = pods + nodes * (crate::plan::MAPS + 2) + 2 * devices;
    if records > most {
        world.trace.broken(MEMORY, format!("there are {records} records, allowed are {most}"));
    }
}
