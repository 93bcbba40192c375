//! How a message for a node is to travel.

use std::sync::Arc;

use kubeedge_core::{
    message::{Content, Message, Route, resource},
    name::{Group, NodeName, Operation},
};

use super::{
    id::Id,
    pool::{Key, Offer, for_the_wire},
    rules::{self, Head, Mode, Priority},
};
use crate::records::Record;

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
    /// Decides. `earlier` is asked for the record of an object of this key that its session has to do with
    /// already.
    pub(super) fn of(
        node: &NodeName,
        message: Message,
        earlier: impl FnOnce(&Key) -> Option<Arc<Record>>,
    ) -> Self {
        let resource = message.route.resource.as_str();
        if rules::mode(resource, &message) == Mode::Plain {
            return Self::Plain(Box::new(message));
        }
        let object = Object::read(&message.content);
        let place = match Place::of(node, resource, &message, object.as_ref(), earlier) {
            Ok(place) => place,
            Err(why) => return Self::Nothing(why),
        };
        let id = Id::from(message.header.id.as_str());
        Self::Acked(place.offer(id, Arc::new(for_the_wire(message))))
    }
}

/// A message for many nodes: read once, and held once by all their sessions.
#[derive(Debug)]
pub(super) struct Fan {
    /// As it goes to each edge, but for its identity.
    message: Arc<Message>,
    object: Option<Object>,
    /// Its full resource for the node it went to last.
    resource: String,
}

impl Fan {
    /// Of a message whose resource names no node.
    pub(super) fn new(mut message: Message) -> Self {
        message.header.sync = false;
        let object = Object::read(&message.content);
        Self { message: Arc::new(message), object, resource: String::new() }
    }

    /// Decides for one of the nodes, as [`Delivery::of`].
    pub(super) fn to(
        &mut self,
        node: &NodeName,
        earlier: impl FnOnce(&Key) -> Option<Arc<Record>>,
    ) -> Delivery {
        resource::write_for_node(&mut self.resource, node, &self.message.route.resource);
        let (resource, id) = (self.resource.as_str(), Id::random());
        if rules::mode(resource, &self.message) == Mode::Plain {
            let mut message = Message::clone(&self.message);
            message.header.id = id.text(&mut [0; Id::LONGEST]).into();
            message.route.resource = resource.into();
            return Delivery::Plain(Box::new(message));
        }
        match Place::of(node, resource, &self.message, self.object.as_ref(), earlier) {
            Ok(place) => Delivery::Acked(place.offer(id, self.message.clone())),
            Err(why) => Delivery::Nothing(why),
        }
    }
}

/// What a session must know of an object beside the message.
#[derive(Debug)]
struct Object {
    head: Head,
    /// Its UID as a key, if it has one.
    uid: Option<Key>,
}

impl Object {
    fn read(content: &Content) -> Option<Self> {
        let head = content.decode::<Head>().ok()?;
        let uid = Some(head.metadata.uid.as_str()).filter(|uid| !uid.is_empty()).map(Key::from);
        Some(Self { head, uid })
    }

    /// Its record for a node; the resource is the full one.
    fn record(&self, node: &NodeName, resource: &str) -> Record {
        let mut parts = resource.splitn(5, '/').skip(2);
        let (namespace, name) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
        Record {
            api_version: self.head.api_version.clone(),
            kind: self.head.kind.clone(),
            object: name.to_owned(),
            ..Record::new(node, namespace, &self.head.metadata.uid)
        }
    }
}

/// Where a message belongs that wants a confirmation.
struct Place {
    key: Key,
    priority: Priority,
    gone: bool,
    record: Arc<Record>,
}

impl Place {
    fn of(
        node: &NodeName,
        resource: &str,
        message: &Message,
        object: Option<&Object>,
        earlier: impl FnOnce(&Key) -> Option<Arc<Record>>,
    ) -> Result<Self, &'static str> {
        let Route { group, operation, .. } = &message.route;
        if *group != Group::RESOURCE {
            return Err("it wants a confirmation but is not in group resource");
        }
        let object = object.ok_or("its content is no Kubernetes object")?;
        let gone = *operation == Operation::DELETE || object.head.metadata.deletion_timestamp.is_some();
        let key = object.uid.clone().unwrap_or_else(|| resource.into());
        let record = earlier(&key).unwrap_or_else(|| Arc::new(object.record(node, resource)));
        Ok(Self { key, priority: rules::priority(resource, group), gone, record })
    }

    fn offer(self, id: Id, message: Arc<Message>) -> Offer {
        let Self { key, priority, gone, record } = self;
        Offer { key, id, message, priority, gone, record }
    }
}

#[cfg(test)]
mod tests {
    use kubeedge_core::name::ModuleName;

    use super::*;

    fn update(resource: &str, uid: &str) -> Message {
        let object = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"uid":"{uid}"}}}}"#);
        Message::new(ModuleName::EDGE_CONTROLLER, Operation::UPDATE, resource)
            .in_group(Group::RESOURCE)
            .at_version("7")
            .with(Content::from_json_bytes(object).unwrap())
    }

    fn acked(delivery: Delivery) -> Offer {
        match delivery {
            Delivery::Acked(offer) => offer,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_message_for_many_nodes_is_held_once_and_goes_to_each_under_an_identity_and_a_record_of_its_own() {
        let mut fan = Fan::new(update("default/configmap/c", "u-1"));
        let [a, b] = ["a", "node-b"].map(|node| acked(fan.to(&node.into(), |_| None)));
        assert!(Arc::ptr_eq(&a.message, &b.message) && a.id != b.id);
        assert_eq!(a.message.route.resource, "default/configmap/c");
        assert_eq!((&a.key, &a.key), (&b.key, &"u-1".into()));
        assert_eq!((&*a.record.name, &*b.record.name), ("a.u-1", "node-b.u-1"));
        assert_eq!((b.record.kind.as_str(), b.record.object.as_str()), ("ConfigMap", "c"));
    }

    #[test]
    fn a_message_for_many_nodes_comes_to_each_as_one_for_it_alone_would() {
        for name in ["c", "membership"] {
            let mut fan = Fan::new(update(&format!("default/configmap/{name}"), "u-1"));
            for node in ["a", "podlist"] {
                let message = update(&format!("node/{node}/default/configmap/{name}"), "u-1");
                match (fan.to(&node.into(), |_| None), Delivery::of(&node.into(), message, |_| None)) {
                    (Delivery::Acked(one), Delivery::Acked(other)) => {
                        assert_eq!(
                            (one.key, one.priority, one.gone),
                            (other.key, other.priority, other.gone)
                        );
                        assert_eq!(one.record, other.record);
                        assert_eq!(one.message.route, other.message.route);
                    }
                    (Delivery::Plain(one), Delivery::Plain(other)) => assert_eq!(one.route, other.route),
                    (one, other) => panic!("{one:?} {other:?}"),
                }
            }
        }
    }
}
