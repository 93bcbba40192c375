//! How a message for a node is to travel.

use std::sync::Arc;

use kubeedge_core::{
    message::{Content, Message, resource},
    name::{Group, NodeName, Operation},
};

use super::{
    pool::{Key, Offer, for_the_wire},
    records::Record,
    rules::{self, Head, Lane, Mode},
};

/// How a message for a node is to travel.
#[derive(Debug)]
pub(super) enum Delivery {
    /// Once.
    Plain(Box<Message>),
    /// Until the edge has confirmed it.
    Acked(Offer),
    /// Not at all, and why.
    Nothing(&'static str),
}

impl Delivery {
    /// Decides. `earlier` is asked for the record of an object of this key that its session has to do with already.
    pub(super) fn of(
        node: &NodeName,
        message: Message,
        latest: &mut Latest,
        earlier: impl FnOnce(&Key) -> Option<Arc<Record>>,
    ) -> Self {
        if rules::mode(&message) == Mode::Plain {
            return Self::Plain(Box::new(message));
        }
        if message.route.group != Group::RESOURCE {
            return Self::Nothing("it wants a confirmation but is not in group resource");
        }
        let Some(object) = latest.of(&message) else {
            return Self::Nothing("its content is no Kubernetes object");
        };
        let gone =
            message.route.operation == Operation::DELETE || object.head.metadata.deletion_timestamp.is_some();
        let key = object.uid.clone().unwrap_or_else(|| message.route.resource.as_str().into());
        let record = earlier(&key).unwrap_or_else(|| Arc::new(record(node, &object.head, &message)));
        let id = message.header.id.as_str().into();
        let (message, lane) = object.for_the_wire(message);
        Self::Acked(Offer { key, id, message, lane, gone, record })
    }
}

fn record(node: &NodeName, head: &Head, message: &Message) -> Record {
    let mut parts = message.route.resource.as_str().splitn(5, '/').skip(2);
    let (namespace, name) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
    Record {
        api_version: head.api_version.clone(),
        kind: head.kind.clone(),
        object: name.to_owned(),
        ..Record::new(node, namespace, &head.metadata.uid)
    }
}

/// An object that goes to nodes, and what its messages to them have in common.
#[derive(Debug)]
struct Object {
    content: Content,
    head: Head,
    /// Its UID as a key, if it has one.
    uid: Option<Key>,
    /// The message of which only identity and node are another for each node, and its lane.
    message: Option<(Arc<Message>, Lane)>,
}

impl Object {
    fn read(content: &Content) -> Option<Self> {
        let head = content.decode::<Head>().ok()?;
        let uid = Some(head.metadata.uid.as_str()).filter(|uid| !uid.is_empty()).map(Key::from);
        Some(Self { content: content.clone(), head, uid, message: None })
    }

    /// The message as it goes to the edge, but for its identity.
    fn for_the_wire(&mut self, message: Message) -> (Arc<Message>, Lane) {
        if let Some((shared, lane)) = &self.message
            && differs_by_node(shared, &message)
        {
            return (shared.clone(), *lane);
        }
        let lane = rules::lane(&message);
        let (message, _) = self.message.insert((Arc::new(for_the_wire(message)), lane));
        (message.clone(), lane)
    }
}

/// How far apart messages may be made that are taken for one, in milliseconds.
const TOGETHER: u64 = 1000;

/// Whether messages with the same content, of which one is as it goes to an edge, differ by node and identity alone.
fn differs_by_node(shared: &Message, message: &Message) -> bool {
    let ((one, of), (other, to)) = ((&shared.header, &shared.route), (&message.header, &message.route));
    one.timestamp.0.abs_diff(other.timestamp.0) < TOGETHER
        && (&one.resource_version, &one.parent, &one.kind)
            == (&other.resource_version, &other.parent, &other.kind)
        && (&of.operation, &of.source, &of.group, &of.destination)
            == (&to.operation, &to.source, &to.group, &to.destination)
        && of.resource == resource::trimmed_text(&to.resource)
}

/// The object that went to a node last. One that goes to many nodes is read once, and its message is held once.
#[derive(Debug, Default)]
pub(super) struct Latest(Option<Object>);

impl Latest {
    fn of(&mut self, message: &Message) -> Option<&mut Object> {
        let same = |last: &&mut Object| std::ptr::eq(last.content.as_json(), message.content.as_json());
        if self.0.as_mut().filter(same).is_none() {
            self.0 = Some(Object::read(&message.content)?);
        }
        self.0.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use kubeedge_core::name::ModuleName;

    use super::*;
    use crate::hub::id::Id;

    fn update(node: &str, content: &Content) -> Message {
        let resource = format!("node/{node}/default/configmap/c");
        Message::new(ModuleName::EDGE_CONTROLLER, Operation::UPDATE, resource)
            .in_group(Group::RESOURCE)
            .at_version("7")
            .with(content.clone())
    }

    fn acked(node: &str, message: Message, latest: &mut Latest) -> Offer {
        match Delivery::of(&node.into(), message, latest, |_| None) {
            Delivery::Acked(offer) => offer,
            other => panic!("{other:?}"),
        }
    }

    fn object(uid: &str) -> Content {
        let object = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"uid":"{uid}"}}}}"#);
        Content::from_json_bytes(object).unwrap()
    }

    #[test]
    fn an_object_for_many_nodes_is_read_once_and_recorded_for_each_of_them() {
        let (mut latest, first, second) = (Latest::default(), object("u-1"), object("u-2"));
        let mut to = |node: &str, content| acked(node, update(node, content), &mut latest);
        let (a, b) = (to("a", &first), to("b", &first));
        assert_eq!(a.key, b.key);
        assert_eq!((&*a.record.name, &*b.record.name), ("a.u-1", "b.u-1"));
        assert_eq!((b.record.kind.as_str(), b.record.object.as_str()), ("ConfigMap", "c"));
        assert_eq!(to("a", &second).key, "u-2".into());
        assert_eq!(to("a", &first).key, "u-1".into());
    }

    #[test]
    fn one_message_for_many_nodes_is_held_once_and_goes_to_each_under_an_identity_of_its_own() {
        let (mut latest, content) = (Latest::default(), object("u-1"));
        let messages = ["a", "node-b"].map(|node| (node, update(node, &content)));
        let ids = messages.clone().map(|(_, message)| Id::from(message.header.id.as_str()));
        let [one, other] = messages.map(|(node, message)| acked(node, message, &mut latest));
        assert!(Arc::ptr_eq(&one.message, &other.message));
        assert_eq!(one.message.route.resource, "default/configmap/c");
        assert_eq!([one.id, other.id], ids);
    }

    #[test]
    fn messages_that_differ_by_more_than_the_node_stay_what_they_are() {
        let (mut latest, content) = (Latest::default(), object("u-1"));
        let plain = update("a", &content);
        let mut another = vec![
            plain.clone().answering("q".into()),
            plain.clone().at_version("8"),
            Message::new(ModuleName::SYNC_CONTROLLER, Operation::UPDATE, plain.route.resource.clone())
                .in_group(Group::RESOURCE)
                .at_version("7")
                .with(content.clone()),
        ];
        another.extend([plain.clone(), plain.clone(), plain.clone()]);
        another[3].route.resource = "node/a/default/configmap/d".into();
        another[4].route.operation = Operation::DELETE;
        another[5].header.timestamp.0 += 5000;
        for message in another {
            acked("a", plain.clone(), &mut latest);
            let offer = acked("a", message.clone(), &mut latest);
            assert_eq!(*offer.message, for_the_wire(message));
        }
    }
}
