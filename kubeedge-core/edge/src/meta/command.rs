//! What a message asks of MetaManager, read once when it comes off the bus.

use kubeedge_common::digest;
use kubeedge_core::{
    message::{Message, resource::ObjectPath},
    name::{ModuleName, Operation},
};

use super::kinds::{self, KindInfo};

/// Who a message is from, as far as the rules care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The edge's kubelet.
    Edged,
    /// MetaServer, which signs as MetaManager.
    MetaServer,
    DeviceController,
    PolicyController,
    EdgeController,
    DynamicController,
    SyncController,
    /// Anybody else.
    Other,
}

const ORIGINS: [(ModuleName, Origin); 7] = [
    (ModuleName::EDGED, Origin::Edged),
    (ModuleName::META_MANAGER, Origin::MetaServer),
    (ModuleName::DEVICE_CONTROLLER, Origin::DeviceController),
    (ModuleName::POLICY_CONTROLLER, Origin::PolicyController),
    (ModuleName::EDGE_CONTROLLER, Origin::EdgeController),
    (ModuleName::DYNAMIC_CONTROLLER, Origin::DynamicController),
    (ModuleName::SYNC_CONTROLLER, Origin::SyncController),
];

impl Origin {
    pub(super) fn of(source: &ModuleName) -> Self {
        ORIGINS.iter().find(|(name, _)| name == source).map_or(Self::Other, |(_, origin)| *origin)
    }

    /// Whether it is one of the controllers that look after objects of the cluster for edges.
    pub(super) fn is_cloud(self) -> bool {
        matches!(self, Self::EdgeController | Self::DynamicController | Self::SyncController)
    }
}

/// What a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub origin: Origin,
    pub kind: &'static KindInfo,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// The link to the cloud came up or went down.
    LinkChanged { connected: bool },
    /// An object is new.
    Insert(Subject),
    /// An object has another form.
    Update(Subject),
    /// A patch of an object, by the edge.
    Patch(Subject),
    /// An object is gone.
    Delete(Subject),
    /// An object is asked for.
    Query(Subject),
    /// A cloud of ours compares what is here with its records.
    Compare,
    /// A volume operation of the cloud, which Edged does.
    VolumeOperation,
    /// An answer that no one waits for.
    Response(Origin),
    /// Nothing that MetaManager does.
    Unsupported,
}

/// Volume operations of Go's CSI controller.
const VOLUME_OPERATIONS: [Operation; 4] = [
    Operation::of("createvolume"),
    Operation::of("deletevolume"),
    Operation::of("controllerpublishvolume"),
    Operation::of("controllerunpublishvolume"),
];

/// Operations about an object.
type OfSubject = fn(Subject) -> Command;
const OBJECT_OPERATIONS: [(Operation, OfSubject); 5] = [
    (Operation::INSERT, Command::Insert),
    (Operation::UPDATE, Command::Update),
    (Operation::PATCH, Command::Patch),
    (Operation::DELETE, Command::Delete),
    (Operation::QUERY, Command::Query),
];

impl Command {
    pub(super) fn parse(message: &Message) -> Self {
        let (operation, resource) = (&message.route.operation, message.route.resource.as_str());
        let origin = Origin::of(&message.route.source);
        if let Some((_, command)) = OBJECT_OPERATIONS.iter().find(|(name, _)| name == operation) {
            let kind = kinds::of(ObjectPath::parse(resource).map_or("", |path| path.kind));
            return command(Subject { origin, kind });
        }
        if *operation == Operation::RESPONSE {
            Self::Response(origin)
        } else if *operation == Operation::CONNECT {
            let text = message.content.as_text();
            text.map_or(Self::Unsupported, |text| Self::LinkChanged { connected: text == "cloud_connected" })
        } else if *operation == Operation::GET && origin.is_cloud() && resource == digest::RESOURCE {
            Self::Compare
        } else if VOLUME_OPERATIONS.contains(operation) {
            Self::VolumeOperation
        } else {
            Self::Unsupported
        }
    }
}

#[cfg(test)]
mod tests {
    use kubeedge_core::message::Content;

    use super::*;

    fn parsed(source: &str, operation: &str, resource: &str, text: &str) -> Command {
        let message = Message::new(source.into(), operation.into(), resource);
        Command::parse(&if text.is_empty() { message } else { message.with(Content::text(text)) })
    }

    #[test]
    fn messages_become_commands() {
        let subject = |origin, kind| Subject { origin, kind: kinds::of(kind) };
        for (source, operation, resource, text, command) in [
            (
                "edgehub",
                "connect",
                "node/connection",
                "cloud_connected",
                Command::LinkChanged { connected: true },
            ),
            (
                "edgehub",
                "connect",
                "node/connection",
                "cloud_disconnected",
                Command::LinkChanged { connected: false },
            ),
            ("edgehub", "connect", "node/connection", "", Command::Unsupported),
            (
                "edgecontroller",
                "insert",
                "default/pod/web",
                "",
                Command::Insert(subject(Origin::EdgeController, "pod")),
            ),
            (
                "edged",
                "patch",
                "default/podpatch/web",
                "{}",
                Command::Patch(subject(Origin::Edged, "podpatch")),
            ),
            (
                "metamanager",
                "update",
                "a/device/updated",
                "",
                Command::Update(subject(Origin::MetaServer, "device")),
            ),
            ("acme", "delete", "a/gadget/g", "", Command::Delete(subject(Origin::Other, "gadget"))),
            ("edged", "query", "k8s/ca.crt", "", Command::Query(subject(Origin::Edged, "ca.crt"))),
            ("synccontroller", "get", "digest", "", Command::Compare),
            ("edged", "get", "digest", "", Command::Unsupported),
            ("cloudhub", "createvolume", "default/volume/v", "", Command::VolumeOperation),
            ("edgecontroller", "response", "x", "", Command::Response(Origin::EdgeController)),
            (
                "dynamiccontroller",
                "applicationResponse",
                "ignore/Application/ignore",
                "",
                Command::Unsupported,
            ),
        ] {
            assert_eq!(parsed(source, operation, resource, text), command, "{source} {operation} {resource}");
        }
    }
}
