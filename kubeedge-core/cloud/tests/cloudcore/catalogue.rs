//! The catalogue of messages, row by row: what an edge says and exactly what it is answered, what happens in
//! the cluster and exactly what the edge is told, which of it wants an acknowledgement, and what modules that
//! are not there leave alone.

mod down;
mod up;

use kubeedge_core::message::Message;
use serde_json::{Value, json};

use crate::edge::body;

/// A message without what differs from run to run: ids and times.
fn shape(message: &Message) -> Value {
    let route = &message.route;
    let said = format!("{} {} {} {}", route.source, route.group, route.operation, route.resource);
    let mut content = body(message);
    settle(&mut content);
    json!([said, message.header.resource_version.is_some(), content])
}

/// Puts `*` in the place of ids, versions and times.
fn settle(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(settle),
        Value::Object(fields) => {
            for (name, value) in fields {
                let differs = matches!(
                    name.as_str(),
                    "uid"
                        | "resourceVersion"
                        | "creationTimestamp"
                        | "event_id"
                        | "timestamp"
                        | "kubeedge.io/cloudcore-instance"
                        | "deletionTimestamp"
                );
                if differs && !value.is_null() {
                    *value = "*".into();
                } else {
                    settle(value);
                }
            }
        }
        _ => {}
    }
}
