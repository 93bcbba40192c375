//! What comes into a pool, and what comes out of it.

use std::sync::Arc;

use kubeedge_core::{
    message::{Message, resource},
    name::Operation,
};

use super::Key;
use crate::{
    hub::{id::Id, rules::Priority},
    records::Record,
};

/// A message for the acknowledged part, with what decides its fate.
#[derive(Debug)]
pub(in crate::hub) struct Offer {
    pub(in crate::hub) key: Key,
    /// The identity under which it goes to the edge.
    pub(in crate::hub) id: Id,
    /// As it goes to the edge; shared by all edges it goes to.
    pub(in crate::hub) message: Arc<Message>,
    pub(in crate::hub) priority: Priority,
    /// Deletion, or an object that is being deleted.
    pub(in crate::hub) gone: bool,
    pub(in crate::hub) record: Arc<Record>,
}

impl Offer {
    /// The object is gone; an object that only is being deleted is not.
    pub(in crate::hub) fn is_deletion(&self) -> bool {
        self.message.route.operation == Operation::DELETE
    }
}

/// What became of an offered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hub) enum Put {
    Taken,
    /// The edge has this version or a newer one, or is about to get it.
    Stale,
    /// No room; see the module's documentation.
    Full,
}

/// A message to write now, and its record.
#[derive(Clone, Debug)]
pub(in crate::hub) struct Flight {
    pub(in crate::hub) key: Key,
    /// The identity of the message.
    pub(in crate::hub) id: Id,
    pub(in crate::hub) message: Arc<Message>,
    pub(in crate::hub) record: Arc<Record>,
    /// The record has to be made first.
    pub(in crate::hub) needs_record: bool,
    /// The record must say first that the edge may no longer have the object, which is in the cluster all the
    /// same.
    pub(in crate::hub) withdraws: bool,
    pub(super) priority: Priority,
}

impl Flight {
    /// Whether something has to be written about it before it goes.
    pub(in crate::hub) fn waits_for_record(&self) -> bool {
        // An answer is waited for; its record may follow.
        self.withdraws || (self.needs_record && self.message.route.operation != Operation::RESPONSE)
    }
}

/// What a session does next.
#[derive(Debug)]
pub(in crate::hub) enum Next {
    /// Write this once.
    Plain(Box<Message>),
    /// Write this until it is confirmed.
    Object(Flight),
}

/// The message as it is written: without the node in its resource, and without what means something in one
/// process only.
pub(in crate::hub) fn for_the_wire(mut message: Message) -> Message {
    message.route.resource = resource::trimmed(&message.route.resource);
    message.header.sync = false;
    message
}
