//! What SyncController may do to a session: find out whether its edge is one of ours, and correct its
//! records.

use std::sync::Arc;

use kubeedge_core::name::{NodeName, ResourceVersion};
use tokio::time::Instant;

use super::Sessions;
use crate::records::{Confirmed, Record};

/// A record that does not say what the edge has.
#[derive(Debug)]
pub(crate) struct Correction {
    pub(crate) record: Record,
    /// The object's unique id.
    pub(crate) uid: String,
    /// What the edge has; 0 for nothing.
    pub(crate) version: u64,
    /// The record's own version when that was found out; `None`: there is no record.
    pub(crate) at: Option<ResourceVersion>,
}

/// The number of a node's session, if its edge is one of ours.
pub(crate) fn session_of_ours(sessions: &Sessions, node: &NodeName) -> Option<u64> {
    sessions.get(node).filter(|handle| handle.ours).map(|handle| handle.generation)
}

/// Whether this session of the node has, or had, nothing to do with an object.
pub(crate) fn leaves_alone(sessions: &Sessions, node: &NodeName, session: u64, uid: &str) -> bool {
    let handle = sessions.get(node).filter(|handle| handle.generation == session);
    handle.is_some_and(|handle| handle.pool.unless_known(uid, || ()).is_some())
}

/// Has records made again that say nothing of what the node has confirmed in its session.
pub(crate) fn restate(sessions: &Sessions, node: &NodeName, says_nothing: impl Fn(&Record) -> bool) {
    let Some(handle) = sessions.get(node) else { return };
    let now = Instant::now();
    for (record, version) in handle.pool.confirmed(says_nothing) {
        handle.records.confirm(&record, Confirmed::At(version.to_string().into()), now);
    }
}

/// Corrects a record, to be saved at once; false when that cannot be said yet, as earlier confirmations are
/// still being saved. Nothing happens when the session has ended, or when the object was or is sent in it:
/// what the edge confirms of that is newer than what it has said, and becomes the record's version.
pub(crate) fn correct(sessions: &Sessions, node: &NodeName, session: u64, correction: Correction) -> bool {
    let Some(handle) = sessions.get(node).filter(|handle| handle.generation == session) else { return true };
    let Correction { record, uid, version, at } = correction;
    let record = Arc::new(record);
    // While the pool is locked, so that no confirmation comes in before the correction and is undone by it.
    let taken = handle
        .pool
        .unless_known(&uid, || handle.records.correct_soon(&record, version.to_string().into(), at));
    taken.unwrap_or(true)
}
