//! What becomes of a message: when it goes, how it is known that the cloud has it, and whether it outlives
//! this process.

use kubeedge_core::{
    message::{Message, resource::ObjectPath},
    name::{ModuleName, Operation, Resource},
    transport::Lane,
};

/// Whose room a message takes. Events and uploads share a lane, but neither crowds the other out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Control,
    Twins,
    Events,
    Uploads,
}

/// How it is known that the cloud has a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Its asker waits for the answer and learns when none can come any more. Never sent twice.
    Asker,
    /// By its answer. Until then it is sent again on every new link, unless a newer one of its object takes
    /// its place.
    Answer,
    /// By a sign of life that the cloud gives after it was written: an answer to something written later, or
    /// a pong.
    Life,
    /// By having been written: if it is lost the cloud asks for it again.
    Writing,
}

/// What is stored of a message until the cloud has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// Nothing.
    None,
    /// Each message, in order.
    Each,
    /// The newest of its resource.
    Newest,
}

/// See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) lane: Lane,
    pub(super) room: Room,
    pub(super) proof: Proof,
    pub(super) row: Row,
}

impl Kind {
    /// The rules, for a message whose sender waits for the answer or does not.
    pub(super) fn of(message: &Message, asks: bool) -> Self {
        let (lane, room) = place(message);
        let row = row(message, asks);
        let proof = match row {
            Row::Newest if message.route.operation == Operation::PATCH => Proof::Answer,
            Row::Each => Proof::Life,
            _ if asks => Proof::Asker,
            _ if is_acknowledgement(message) => Proof::Writing,
            _ => Proof::Life,
        };
        Self { lane, room, proof, row }
    }
}

/// Events are hints that come in floods: they go with the uploads.
fn place(message: &Message) -> (Lane, Room) {
    let route = &message.route;
    match () {
        () if message.is_answer() => (Lane::Control, Room::Control),
        () if route.operation == Operation::UPLOAD => (Lane::Bulk, Room::Uploads),
        () if route.source == ModuleName::TWIN => (Lane::Twins, Room::Twins),
        () if kind_of(&route.resource) == "event" => (Lane::Bulk, Room::Events),
        () => (Lane::Control, Room::Control),
    }
}

fn kind_of(resource: &Resource) -> &str {
    ObjectPath::parse(resource.as_str()).map_or("", |path| path.kind)
}

fn row(message: &Message, asks: bool) -> Row {
    let route = &message.route;
    let is_status = match kind_of(&route.resource) {
        "podpatch" | "nodepatch" => route.operation == Operation::PATCH,
        // Go's cloud does not answer each of these.
        "node" | "nodestatus" | "podstatus" => route.operation == Operation::UPDATE && !asks,
        _ => false,
    };
    let reports_task = matches!(route.operation.as_str(), "UpdateNodeActionStatus" | "upgrade" | "prepull");
    match () {
        () if is_status => Row::Newest,
        // The caller whom an upload with a parent answers has gone when this process has.
        () if message.is_answer() => Row::None,
        // No cloud answers an upload: whoever waits is told when it can be lost no more.
        () if route.operation == Operation::UPLOAD => Row::Each,
        () if reports_task && !asks => Row::Each,
        () => Row::None,
    }
}

/// Confirmations and complaints about what the cloud sent: it sends that again until it has one.
fn is_acknowledgement(message: &Message) -> bool {
    message.is_answer() && (message.route.operation == Operation::ERROR || message.content.is_ok_text())
}

#[cfg(test)]
mod tests {
    use kubeedge_core::message::Content;

    use super::*;

    #[test]
    fn how_delivery_is_known_and_what_is_stored_follows_from_the_kind_of_message() {
        use Lane::{Bulk, Control, Twins};
        let message = |source: &str, operation: &str, resource: &str| {
            Message::new(source.into(), operation.into(), resource)
        };
        for (source, operation, resource, asks, lane, proof, row) in [
            ("edged", "patch", "default/podpatch/web", true, Control, Proof::Answer, Row::Newest),
            ("edged", "patch", "null/nodepatch/n", false, Control, Proof::Answer, Row::Newest),
            ("edged", "update", "null/nodestatus/n", false, Control, Proof::Life, Row::Newest),
            ("edged", "query", "default/configmap/c", true, Control, Proof::Asker, Row::None),
            ("edged", "insert", "default/event/e", false, Bulk, Proof::Life, Row::None),
            ("eventbus", "upload", "default/topic", false, Bulk, Proof::Life, Row::Each),
            ("acme", "upload", "default/readings", true, Bulk, Proof::Life, Row::Each),
            ("websocket", "UpdateNodeActionStatus", "a/b/c/d/node/n", false, Control, Proof::Life, Row::Each),
            ("twin", "update", "device/d/e/twin/edge_updated", true, Twins, Proof::Asker, Row::None),
            ("twin", "get", "membership/detail", false, Twins, Proof::Life, Row::None),
        ] {
            let kind = Kind::of(&message(source, operation, resource), asks);
            assert_eq!(
                (kind.lane, kind.proof, kind.row),
                (lane, proof, row),
                "{source} {operation} {resource}"
            );
        }
    }

    #[test]
    fn acknowledgements_are_done_when_written_and_other_answers_are_not() {
        let pushed = Message::new(ModuleName::EDGE_CONTROLLER, Operation::INSERT, "default/pod/web");
        let volume = Message::new(ModuleName::CLOUD_HUB, Operation::of("createvolume"), "default/volume/v");
        let callback = Message::new(ModuleName::SERVICE_BUS, Operation::UPLOAD, "").answering("r".into());
        for (answer, proof) in [
            (pushed.answer(Content::ok()), Proof::Writing),
            (pushed.error_answer("disk full"), Proof::Writing),
            (volume.answer(Content::text("e30=")), Proof::Life),
            (callback, Proof::Life),
        ] {
            let kind = Kind::of(&answer, false);
            assert_eq!((kind.proof, kind.row, kind.lane), (proof, Row::None, Lane::Control), "{answer:?}");
        }
    }
}
