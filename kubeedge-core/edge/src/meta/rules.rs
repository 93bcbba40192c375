//! What MetaManager does with a command: a table, as Go's MetaManager has it. Nothing is done here.

use super::{
    command::{Command, Origin, Subject},
    kinds::{Read, Role},
};

/// The module that acts on an object once it is stored or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiver {
    Nobody,
    Edged,
    Twin,
}

/// When the cloud is told that an object is stored or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledge {
    Never,
    BeforeDelivery,
    /// Before delivery, under the route that DeviceTwin gets it by, as Go does.
    BeforeDeliveryAsTwin,
    AfterDelivery,
}

/// What follows a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub to: Receiver,
    pub acknowledge: Acknowledge,
}

/// What is done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Remember whether there is a link.
    NoteLink { connected: bool },
    /// Send it to the cloud as it is, with nobody waiting.
    SendToCloud,
    /// Hand it to the cloud with the way back for its answer.
    ForwardToCloud,
    /// Ask the cloud, keep the object it answers with, and answer.
    AskCloud,
    /// As [`Action::AskCloud`], where the copy has none.
    AskCopyThenCloud,
    /// Answer from the copy.
    AskCopy,
    /// Answer with a token that is kept, or with one of the cloud.
    AskToken,
    /// Send a patch to the cloud and take the object that comes back.
    PatchThroughCloud,
    /// Store what the cloud sent. `confirms`: the version counts as told to the cloud.
    Store { confirms: bool, then: Delivery },
    /// Store what was made here, pass it on and answer its maker.
    StoreLocal { to_twin: bool },
    /// Remove an object.
    Remove { then: Delivery },
    /// Remove a pod with what belongs to it.
    RemovePod { then: Delivery },
    /// Tell the cloud what is here.
    Compare,
    /// Have Edged do a volume operation.
    OperateVolume,
    /// Keep the object of an answer that came late.
    KeepLateAnswer,
    /// Say that it cannot reach the cloud.
    RefuseWithoutLink,
    /// Drop it silently.
    Drop,
    /// Say in the log that nobody does this.
    Ignore,
}

/// Decides.
pub(super) fn decide(command: &Command, connected: bool) -> Action {
    match command {
        Command::LinkChanged { connected } => Action::NoteLink { connected: *connected },
        Command::Insert(subject) | Command::Update(subject) | Command::Patch(subject)
            if subject.kind.role == Role::Event =>
        {
            // Without a link, events are dropped as Go drops them: they are hints, and their flood would fill
            // the queue.
            if connected { Action::SendToCloud } else { Action::Drop }
        }
        Command::Insert(subject) => inserted(subject),
        Command::Update(subject) => updated(subject),
        Command::Patch(_) => Action::PatchThroughCloud,
        Command::Delete(subject) => deleted(subject, connected),
        Command::Query(subject) => asked(subject.kind.read, connected),
        Command::Compare => Action::Compare,
        Command::VolumeOperation => Action::OperateVolume,
        Command::Response(origin) if origin.is_cloud() => Action::KeepLateAnswer,
        Command::Response(_) => Action::SendToCloud,
        Command::Unsupported => Action::Ignore,
    }
}

fn inserted(subject: &Subject) -> Action {
    match subject.origin {
        Origin::Edged => Action::AskCloud,
        _ => Action::Store { confirms: true, then: delivery(subject) },
    }
}

fn updated(Subject { origin, kind }: &Subject) -> Action {
    let deliver = |to, acknowledge| Action::Store { confirms: true, then: Delivery { to, acknowledge } };
    match (origin, kind.role) {
        (Origin::Edged, Role::Lease) => Action::AskCloud,
        (Origin::Edged, _) => Action::StoreLocal { to_twin: false },
        (Origin::MetaServer, _) => Action::StoreLocal { to_twin: true },
        (Origin::DeviceController, _) => deliver(Receiver::Twin, Acknowledge::BeforeDelivery),
        (origin, Role::Node) if origin.is_cloud() => deliver(Receiver::Nobody, Acknowledge::AfterDelivery),
        (Origin::Other, _) => {
            let then = Delivery { to: Receiver::Nobody, acknowledge: Acknowledge::Never };
            Action::Store { confirms: false, then }
        }
        _ => Action::Store { confirms: true, then: delivery(&Subject { origin: *origin, kind }) },
    }
}

fn deleted(subject: &Subject, connected: bool) -> Action {
    match (subject.origin, subject.kind.role) {
        // Edged has ended a pod. The rows stay until the cloud agrees and sends the deletion.
        (Origin::Edged, Role::Pod) if connected => Action::ForwardToCloud,
        (Origin::Edged, Role::Pod) => Action::RefuseWithoutLink,
        (_, Role::Pod) => Action::RemovePod { then: delivery(subject) },
        _ => Action::Remove { then: delivery(subject) },
    }
}

/// Who acts on what was stored or removed.
fn delivery(Subject { origin, kind }: &Subject) -> Delivery {
    let (to, acknowledge) = match (origin, kind.role) {
        // Go gives these the twin's route first and acknowledges them with it.
        (Origin::DeviceController, _) => (Receiver::Twin, Acknowledge::BeforeDeliveryAsTwin),
        (Origin::PolicyController, _) => (Receiver::Nobody, Acknowledge::AfterDelivery),
        // What changed while the link was down is sent by the cloud's reconciliation in EdgeController's
        // name. Go hands such devices to Edged, which has no use for them, so that mappers keep the old
        // description.
        (_, Role::Device) => (Receiver::Twin, Acknowledge::AfterDelivery),
        _ => (Receiver::Edged, Acknowledge::AfterDelivery),
    };
    Delivery { to, acknowledge }
}

fn asked(read: Read, connected: bool) -> Action {
    match read {
        Read::Token => Action::AskToken,
        // A lease that is not renewed means nothing: without a link there is none.
        Read::Cloud => Action::AskCloud,
        Read::CloudFirst if connected => Action::AskCloud,
        Read::CopyFirst if connected => Action::AskCopyThenCloud,
        Read::Copy | Read::CopyFirst | Read::CloudFirst => Action::AskCopy,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::kinds, *};

    fn subject(origin: Origin, kind: &str) -> Subject {
        Subject { origin, kind: kinds::of(kind) }
    }

    /// `confirms`, receiver and acknowledgement of what is stored.
    fn stored(action: Action) -> (bool, Receiver, Acknowledge) {
        match action {
            Action::Store { confirms, then } => (confirms, then.to, then.acknowledge),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn objects_of_the_cloud_are_delivered_as_go_does() {
        use Acknowledge::{AfterDelivery, BeforeDelivery, BeforeDeliveryAsTwin, Never};
        use Origin::{DeviceController, EdgeController, Other, PolicyController, SyncController};
        for (origin, kind, on_insert, on_update) in [
            (EdgeController, "pod", (Receiver::Edged, AfterDelivery), (Receiver::Edged, AfterDelivery)),
            (EdgeController, "node", (Receiver::Edged, AfterDelivery), (Receiver::Nobody, AfterDelivery)),
            (SyncController, "device", (Receiver::Twin, AfterDelivery), (Receiver::Twin, AfterDelivery)),
            (EdgeController, "gadget", (Receiver::Edged, AfterDelivery), (Receiver::Edged, AfterDelivery)),
            (
                DeviceController,
                "device",
                (Receiver::Twin, BeforeDeliveryAsTwin),
                (Receiver::Twin, BeforeDelivery),
            ),
            (
                PolicyController,
                "serviceaccountaccess",
                (Receiver::Nobody, AfterDelivery),
                (Receiver::Nobody, AfterDelivery),
            ),
            (Other, "pod", (Receiver::Edged, AfterDelivery), (Receiver::Nobody, Never)),
        ] {
            let subject = subject(origin, kind);
            for connected in [false, true] {
                let inserted = stored(decide(&Command::Insert(subject), connected));
                assert_eq!(inserted, (true, on_insert.0, on_insert.1), "insert {origin:?} {kind}");
                let updated = stored(decide(&Command::Update(subject), connected));
                assert_eq!(
                    updated,
                    (on_update.1 != Never, on_update.0, on_update.1),
                    "update {origin:?} {kind}"
                );
            }
        }
    }

    #[test]
    fn deletions_remove_what_the_cloud_says_and_ask_it_for_the_edge() {
        let delete = |origin, kind, connected| decide(&Command::Delete(subject(origin, kind)), connected);
        assert_eq!(delete(Origin::Edged, "pod", true), Action::ForwardToCloud);
        assert_eq!(delete(Origin::Edged, "pod", false), Action::RefuseWithoutLink);
        let then = Delivery { to: Receiver::Edged, acknowledge: Acknowledge::AfterDelivery };
        assert_eq!(delete(Origin::EdgeController, "pod", false), Action::RemovePod { then });
        assert_eq!(delete(Origin::EdgeController, "secret", true), Action::Remove { then });
        let then = Delivery { to: Receiver::Twin, acknowledge: Acknowledge::BeforeDeliveryAsTwin };
        assert_eq!(delete(Origin::DeviceController, "device", true), Action::Remove { then });
    }

    #[test]
    fn questions_are_answered_by_copy_or_cloud() {
        let ask = |kind, connected| decide(&Command::Query(subject(Origin::Edged, kind)), connected);
        for (kind, without, with) in [
            ("pod", Action::AskCopy, Action::AskCopy),
            ("node", Action::AskCopy, Action::AskCopy),
            ("configmap", Action::AskCopy, Action::AskCopyThenCloud),
            ("secret", Action::AskCopy, Action::AskCopyThenCloud),
            ("persistentvolumeclaim", Action::AskCopy, Action::AskCloud),
            ("ca.crt", Action::AskCopy, Action::AskCloud),
            ("lease", Action::AskCloud, Action::AskCloud),
            ("serviceaccounttoken", Action::AskToken, Action::AskToken),
            ("gadget", Action::AskCopy, Action::AskCopy),
        ] {
            assert_eq!((ask(kind, false), ask(kind, true)), (without, with), "{kind}");
        }
    }

    #[test]
    fn what_the_edge_makes_goes_to_the_cloud_or_the_twin() {
        let of = |command: fn(Subject) -> Command, origin, kind, connected| {
            decide(&command(subject(origin, kind)), connected)
        };
        assert_eq!(of(Command::Insert, Origin::Edged, "node", false), Action::AskCloud);
        assert_eq!(of(Command::Insert, Origin::Edged, "event", true), Action::SendToCloud);
        assert_eq!(of(Command::Patch, Origin::Edged, "event", false), Action::Drop);
        assert_eq!(of(Command::Update, Origin::Edged, "lease", true), Action::AskCloud);
        assert_eq!(of(Command::Update, Origin::Edged, "pod", true), Action::StoreLocal { to_twin: false });
        assert_eq!(
            of(Command::Update, Origin::MetaServer, "device", true),
            Action::StoreLocal { to_twin: true }
        );
        assert_eq!(of(Command::Patch, Origin::Edged, "podpatch", false), Action::PatchThroughCloud);
        assert_eq!(decide(&Command::Response(Origin::Edged), true), Action::SendToCloud);
        assert_eq!(decide(&Command::Response(Origin::EdgeController), true), Action::KeepLateAnswer);
    }
}
