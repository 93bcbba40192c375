//! How a message for a node is to travel.

use std::sync::Arc;

use kubeedge_core::{
    message::{Content, Message},
    name::{Group, NodeName, Operation},
};

use super::{
    pool::{Key, Offer},
    records::Record,
    rules::{self, Head, Mode},
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
        heads: &mut Heads,
        earlier: impl FnOnce(&Key) -> Option<Arc<Record>>,
    ) -> Self {
        if rules::mode(&message) == Mode::Plain {
            return Self::Plain(Box::new(message));
        }
        if message.route.group != Group::RESOURCE {
            return Self::Nothing("it wants a confirmation but is not in group resource");
        }
        let Some(known) = heads.of(&message.content) else {
            return Self::Nothing("its content is no Kubernetes object");
        };
        let (head, uid) = &*known;
        let gone = message.route.operation == Operation::DELETE || head.metadata.deletion_timestamp.is_some();
        let key = uid.clone().unwrap_or_else(|| message.route.resource.as_str().into());
        let record = earlier(&key).unwrap_or_else(|| Arc::new(record(node, head, &message)));
        Self::Acked(Offer::new(key, message, gone, record))
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

/// The head of an object, and its UID as a key if it has one.
type KnownHead = Arc<(Head, Option<Key>)>;

/// Reads the heads of objects. An object that goes to many nodes is read once.
#[derive(Debug, Default)]
pub(super) struct Heads(Option<(Content, KnownHead)>);

impl Heads {
    fn of(&mut self, content: &Content) -> Option<KnownHead> {
        if let Some((last, known)) = &self.0
            && std::ptr::eq(last.as_json(), content.as_json())
        {
            return Some(known.clone());
        }
        let head = content.decode::<Head>().ok()?;
        let uid = Some(head.metadata.uid.as_str()).filter(|uid| !uid.is_empty()).map(Key::from);
        let known = Arc::new((head, uid));
        self.0 = Some((content.clone(), known.clone()));
        Some(known)
    }
}

#[cfg(test)]
mod tests {
    use kubeedge_core::name::ModuleName;

    use super::*;

    fn acked(node: &str, content: &Content, heads: &mut Heads) -> Offer {
        let resource = format!("node/{node}/default/configmap/c");
        let message = Message::new(ModuleName::EDGE_CONTROLLER, Operation::UPDATE, resource)
            .in_group(Group::RESOURCE)
            .with(content.clone());
        match Delivery::of(&node.into(), message, heads, |_| None) {
            Delivery::Acked(offer) => offer,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_object_for_many_nodes_is_read_once_and_recorded_for_each_of_them() {
        let object = |uid: &str| {
            let object = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"uid":"{uid}"}}}}"#);
            Content::from_json_bytes(object).unwrap()
        };
        let (mut heads, first, second) = (Heads::default(), object("u-1"), object("u-2"));
        let (a, b) = (acked("a", &first, &mut heads), acked("b", &first, &mut heads));
        assert_eq!(a.key, b.key);
        assert_eq!((&*a.record.name, &*b.record.name), ("a.u-1", "b.u-1"));
        assert_eq!((b.record.kind.as_str(), b.record.object.as_str()), ("ConfigMap", "c"));
        assert_eq!(acked("a", &second, &mut heads).key, "u-2".into());
        assert_eq!(acked("a", &first, &mut heads).key, "u-1".into());
    }
}
