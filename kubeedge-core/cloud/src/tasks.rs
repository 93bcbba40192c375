//! Reports of node tasks: from the edge's request over HTTPS to whoever looks after tasks.
//!
//! Who reports is not checked here: the HTTPS service (`certs/service.rs`) mounts these and knows the caller.

use bytes::Bytes;
use kubeedge_core::{
    bus::Bus,
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
};
use serde::Deserialize;
use serde_json::{Value, json};

/// The largest report, in bytes.
pub(crate) const MAX_REPORT: usize = 3 << 20;

/// What a node says of a task.
#[derive(Debug)]
pub(crate) struct Report {
    /// The kind of the task, as in the path: `upgrade`, `prepull`, …
    kind: String,
    task: String,
    /// The node that it is of, by its own word.
    pub(crate) node: String,
    content: Content,
}

impl Report {
    /// The body of `POST /task/<kind>/name/<task>/node/<node>/status`; an error is its text for the edge, as
    /// in Go.
    pub(crate) fn of_task(kind: &str, task: &str, node: &str, body: Bytes) -> Result<Self, String> {
        let content = Content::from_json_bytes(body)
            .map_err(|error| format!("failed to unmarshal task info: {error}"))?;
        Ok(Self { kind: kind.to_owned(), task: task.to_owned(), node: node.to_owned(), content })
    }

    /// The body of `POST /nodeupgrade`, by which old edges report: it names task and node itself.
    pub(crate) fn of_old_upgrade(body: &[u8]) -> Result<Self, String> {
        let old: OldUpgrade =
            serde_json::from_slice(body).map_err(|error| format!("failed to marshal task info: {error}"))?;
        let content =
            Content::json(&old.as_task()).map_err(|error| format!("failed to get req body: {error}"))?;
        Ok(Self { kind: "upgrade".to_owned(), task: old.upgrade, node: old.node_name, content })
    }

    /// Hands it to the group of node tasks. That nobody looks after them is no error to the reporter, as in
    /// Go.
    pub(crate) async fn publish(self, bus: &Bus) {
        let message = self.into_message();
        let resource = message.route.resource.clone();
        for error in bus.publish(&Group::TASK_MANAGER, message).await {
            tracing::warn!(%resource, error = %error, "a task report was not delivered");
        }
    }

    fn into_message(self) -> Message {
        let Self { kind, task, node, content } = self;
        Message::new(ModuleName::CLOUD_HUB, Operation::from(kind), format!("task/{task}/node/{node}"))
            .in_group(Group::TASK_MANAGER)
            .with(content)
    }
}

/// What an old edge says of its upgrade.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct OldUpgrade {
    #[serde(rename = "UpgradeID")]
    upgrade: String,
    node_name: String,
    status: String,
    reason: String,
}

impl OldUpgrade {
    /// As the report of a task; event and action are those Go makes of it.
    fn as_task(&self) -> Value {
        let (event, action) = match self.status.as_str() {
            "upgrade_failed_rollback_success" => ("Rollback", "Failure"),
            "upgrade_failed_rollback_failed" => ("Rollback", "Success"),
            _ => ("Upgrade", "Success"),
        };
        json!({"NodeName": self.node_name, "Event": event, "Action": action, "Reason": self.reason})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_edges_upgrade_is_told_as_go_tells_it() {
        let read = |status: &str| {
            let body = json!({"UpgradeID": "u1", "NodeName": "edge-1", "Status": status, "Reason": "r"});
            let report = Report::of_old_upgrade(body.to_string().as_bytes()).unwrap();
            let Report { kind, task, node, .. } = &report;
            assert_eq!((kind.as_str(), task.as_str(), node.as_str()), ("upgrade", "u1", "edge-1"));
            let task: Value = report.content.decode().unwrap();
            format!("{} {} {}", task["Event"], task["Action"], task["Reason"])
        };
        assert_eq!(read("upgrade_success"), r#""Upgrade" "Success" "r""#);
        assert_eq!(read("upgrade_failed_rollback_success"), r#""Rollback" "Failure" "r""#);
        assert_eq!(read("upgrade_failed_rollback_failed"), r#""Rollback" "Success" "r""#);
    }

    #[test]
    fn a_report_names_task_and_node_in_its_resource() {
        let report = Report::of_task("prepull", "t", "edge-1", Bytes::from_static(b"{\"a\":1}")).unwrap();
        let message = report.into_message();
        assert_eq!(
            (&message.route.operation, &message.route.group),
            (&"prepull".into(), &Group::TASK_MANAGER)
        );
        assert_eq!(message.route.resource, "task/t/node/edge-1");
        assert_eq!(message.content.as_json(), b"{\"a\":1}");
        assert!(Report::of_task("prepull", "t", "edge-1", Bytes::from_static(b"no JSON")).is_err());
    }
}
