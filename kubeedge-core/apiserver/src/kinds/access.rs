//! What a node may do with objects of a kind: the words that descriptors say it in.

/// A request of a node about an object, or about all of a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeRequest<'a> {
    pub node: &'a str,
    pub verb: &'a str,
    /// Of the object; empty where the request is about all.
    pub name: &'a str,
    pub sub: &'a str,
}

impl NodeRequest<'_> {
    /// Whether it only reads.
    pub(super) fn reads(&self) -> bool {
        matches!(self.verb, "get" | "list" | "watch")
    }

    /// Whether it makes something new.
    pub(super) fn creates(&self) -> bool {
        self.verb == "create"
    }

    /// Whether it is about the object that has the node's name.
    pub(super) fn is_own(&self) -> bool {
        self.name == self.node
    }
}

pub(super) fn nothing(_: &NodeRequest<'_>) -> bool {
    false
}

pub(super) fn everything(_: &NodeRequest<'_>) -> bool {
    true
}

pub(super) fn read(request: &NodeRequest<'_>) -> bool {
    request.reads()
}

pub(super) fn read_and_create(request: &NodeRequest<'_>) -> bool {
    request.reads() || request.creates()
}
