//! What an edge sends, from its frame to where it goes: limits, decode, authorize, route.
//!
//! Each step is a function that takes what the step before it gave. Routes stand in `hub/upstream.rs`; what
//! is done on them, in the session.

use kubeedge_core::{
    message::{Message, resource},
    name::NodeName,
    routes,
    transport::{Frame, TransportError},
    wire::Codec,
};

use super::End;
use crate::hub::{rules, shares::InWork};

/// A message that does not speak for the node it came from.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::hub) struct OfAnother {
    /// The node that it names; empty where it must name one and does not.
    pub(in crate::hub) named: String,
}

/// Limits: what came of the link, counted against what the node may send. The link has bounded its size.
pub(super) fn limits(
    next: Option<Result<Frame, TransportError>>,
    work: &mut InWork<'_>,
) -> Result<Frame, End> {
    let frame = next.ok_or(End::Closed)??;
    work.has_read();
    Ok(frame)
}

/// Decode: the message in a frame. A frame that is none ends the session: nothing says what was lost with it.
pub(super) fn decode(codec: &dyn Codec, frame: Frame) -> Result<Message, End> {
    codec.decode(frame).map_err(End::Malformed)
}

/// Authorize: a node speaks for itself only. It need not name itself, but for reports of tasks.
pub(in crate::hub) fn authorize(node: &NodeName, message: Message) -> Result<Message, OfAnother> {
    let route = &message.route;
    let text = route.resource.as_str();
    match route.operation.as_str() {
        // Of the link itself, which has no other end.
        "keepalive" | "config" | "ping" | "pong" => return Ok(message),
        // What an operation of a vendor's group means is the vendor's affair.
        "prepull" | "upgrade" | "UpdateNodeActionStatus"
            if !rules::is_volume(text) && !routes::is_vendors(&route.group) =>
        {
            let named = resource::target_node(&route.resource).unwrap_or_default();
            if named != *node {
                return Err(OfAnother { named: named.as_str().to_owned() });
            }
        }
        _ => {}
    }
    match prefix_of_another(node, text) {
        Some(other) => Err(OfAnother { named: other.to_owned() }),
        None => Ok(message),
    }
}

/// The node in `node/<node>/<namespace>/<type>…`, the form within the cloud, if it is not this one. Objects
/// of a namespace that is called `node` have three elements at most.
fn prefix_of_another<'a>(node: &NodeName, text: &'a str) -> Option<&'a str> {
    let (named, rest) = text.strip_prefix("node/")?.split_once('/')?;
    (rest.contains('/') && named != node.as_str()).then_some(named)
}

#[cfg(test)]
mod tests {
    use kubeedge_core::{transport::TransportKind, wire::GoJson};

    use super::*;
    use crate::hub::shares::{NodeLimits, Shares};

    fn message(source: &str, operation: &str, text: &str) -> Message {
        Message::new(source.into(), operation.into(), text).in_group("user".into())
    }

    fn authorized(source: &str, operation: &str, text: &str) -> Result<(), String> {
        authorize(&"n".into(), message(source, operation, text)).map(drop).map_err(|other| other.named)
    }

    #[tokio::test(start_paused = true)]
    async fn each_frame_counts_against_the_rate_of_its_node() {
        let shares = Shares::default();
        let limits_of_node = NodeLimits { per_second: 1, burst: 2, ..NodeLimits::default() };
        let mut work = InWork::new(&shares, limits_of_node);
        let frame = || Some(Ok(Frame::text("x")));
        for _ in 0..2 {
            assert!(work.listens());
            assert_eq!(limits(frame(), &mut work).unwrap(), Frame::text("x"));
        }
        assert!(!work.listens());
        assert!(matches!(limits(None, &mut work), Err(End::Closed)));
        let broken = TransportError::new(TransportKind::Closed, "reading");
        assert!(matches!(limits(Some(Err(broken)), &mut work), Err(End::Link(_))));
    }

    #[test]
    fn a_frame_that_is_no_message_ends_the_session() {
        let sent = message("edged", "update", "default/pod/p");
        let frame = GoJson.encode(&sent).unwrap();
        assert_eq!(decode(&GoJson, frame).unwrap().route, sent.route);
        for bad in ["", "{", "[]"] {
            assert!(matches!(decode(&GoJson, Frame::text(bad)), Err(End::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn a_message_in_the_name_of_another_node_goes_nowhere() {
        for (source, operation, text, named) in [
            ("edged", "update", "node/other/default/podstatus", "other"),
            ("twin", "update", "node/other/device/default/d/twin/edge_updated", "other"),
            ("metaserver", "query", "node/other/default/pod/p", "other"),
            ("eventbus", "upload", "node/other/rest/topic", "other"),
            ("edged", "response", "node/other/default/pod/p", "other"),
            (
                "websocket",
                "UpdateNodeActionStatus",
                "operations.kubeedge.io/v1alpha2/x/j/node/other",
                "other",
            ),
            ("websocket", "upgrade", "task/t/node/other", "other"),
            ("websocket", "prepull", "task/t", ""),
        ] {
            assert_eq!(authorized(source, operation, text), Err(named.to_owned()), "{text}");
        }
        for (source, operation, text) in [
            ("websocket", "upgrade", "task/t/node/n"),
            ("edged", "update", "node/n/default/podstatus"),
            // An object in a namespace of that name is no other node.
            ("metamanager", "query", "node/configmap/c"),
            // Of the link itself.
            ("websocket", "keepalive", "node/other/a/b"),
        ] {
            assert_eq!(authorized(source, operation, text), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_vendors_operation_need_not_name_the_node() {
        let of_vendor = |text| message("acme", "upgrade", text).in_group("acme".into());
        assert!(authorize(&"n".into(), of_vendor("firmware/7")).is_ok());
        let other = authorize(&"n".into(), of_vendor("node/other/firmware/7")).unwrap_err();
        assert_eq!(other.named, "other");
    }
}
