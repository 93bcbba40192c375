//! What Go KubeEdge 1.23 wrote on the wire, through our codecs and back.
//!
//! `data/frames.jsonl` holds recorded messages of both directions, one a line with its newline, exactly as
//! they were: one for each combination of direction, source, operation and shape of content (what repeats,
//! such as the node's status every ten seconds, is there once). `data/tunnel.txt` holds every distinct frame
//! of the stream tunnel as direction and hex digits.
//!
//! `KUBEEDGE_FRAMES=FILE` has a recording of your own checked as well.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of a test")]

use std::collections::BTreeSet;

use bytes::Bytes;
use kubeedge_core::{
    message::{Message, json},
    tunnel::{Connector, FrameKind, TunnelFrame},
};
use serde_json::Value;

fn frames() -> Vec<Bytes> {
    let mut text = include_bytes!("data/frames.jsonl").to_vec();
    if let Ok(path) = std::env::var("KUBEEDGE_FRAMES") {
        text.extend(std::fs::read(&path).unwrap_or_else(|error| panic!("KUBEEDGE_FRAMES {path}: {error}")));
    }
    let text = Bytes::from(text);
    text.split_inclusive(|byte| *byte == b'\n').map(|frame| text.slice_ref(frame)).collect()
}

fn shown(frame: &[u8]) -> String {
    String::from_utf8_lossy(frame).chars().take(400).collect()
}

#[test]
fn every_message_go_wrote_is_written_again_byte_for_byte() {
    let frames = frames();
    assert!(frames.len() >= 100, "only {} frames", frames.len());
    for frame in frames {
        let message = json::decode(&frame).unwrap_or_else(|error| panic!("{error} in {}", shown(&frame)));
        let again = json::encode(&message);
        assert_eq!(
            serde_json::from_slice::<Value>(&again).unwrap(),
            serde_json::from_slice::<Value>(&frame).unwrap(),
            "another meaning"
        );
        assert!(again == frame, "other bytes\n ours  {}\n theirs {}", shown(&again), shown(&frame));
        assert_eq!(json::decode(&again).unwrap(), message);
    }
}

#[test]
fn the_fields_of_a_message_are_those_go_wrote() {
    for frame in frames() {
        let theirs: Value = serde_json::from_slice(&frame).unwrap();
        let Message { header, route, content, .. } = json::decode(&frame).unwrap();
        let text = |part: &str, name: &str| theirs[part][name].as_str().unwrap_or_default().to_owned();
        assert_eq!(header.id.as_str(), text("header", "msg_id"));
        assert_eq!(header.parent.as_ref().map_or("", |id| id.as_str()), text("header", "parent_msg_id"));
        assert_eq!(Some(header.timestamp.0), theirs["header"]["timestamp"].as_i64());
        assert_eq!(header.sync, theirs["header"]["sync"] == true);
        assert_eq!(
            header.resource_version.as_ref().map_or("", |version| version.as_str()),
            text("header", "resourceversion")
        );
        assert_eq!(route.source.as_str(), text("route", "source"));
        assert_eq!(route.group.as_str(), text("route", "group"));
        assert_eq!(route.operation.as_str(), text("route", "operation"));
        assert_eq!(route.resource.as_str(), text("route", "resource"));
        assert_eq!(content.decode::<Value>().unwrap_or_default(), theirs["content"]);
    }
}

#[test]
fn the_recording_holds_what_both_sides_say() {
    let said: BTreeSet<(String, String)> = frames()
        .iter()
        .map(|frame| json::decode(frame).unwrap().route)
        .map(|route| (route.source.as_str().to_owned(), route.operation.as_str().to_owned()))
        .collect();
    for (source, operation) in [
        ("edgecontroller", "update"),
        ("edgecontroller", "delete"),
        ("edgecontroller", "response"),
        ("devicecontroller", "insert"),
        ("dynamiccontroller", "response"),
        ("edged", "insert"),
        ("edged", "query"),
        ("websocket", "keepalive"),
        ("edged", "patch"),
        ("twin", "update"),
        ("metaserver", "null"),
    ] {
        assert!(said.contains(&(source.into(), operation.into())), "{source} {operation} not in {said:#?}");
    }
}

fn tunnel() -> Vec<(bool, Bytes)> {
    let lines = include_str!("data/tunnel.txt").lines().map(|line| {
        let (direction, digits) = line.split_once(' ').unwrap();
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (direction == "down", (0..digits.len()).step_by(2).map(byte).collect())
    });
    lines.collect()
}

#[test]
fn every_frame_of_the_tunnel_is_written_again_byte_for_byte() {
    let frames = tunnel();
    let mut kinds = BTreeSet::new();
    for (down, bytes) in &frames {
        let frame = TunnelFrame::decode(bytes).unwrap();
        assert_eq!(frame.encode(), bytes);
        kinds.insert(frame.kind);
        if frame.kind.opens_a_stream() {
            assert!(down, "only the cloud opens streams");
            let connector: Connector = serde_json::from_slice(&frame.data).unwrap();
            assert_eq!(connector.id, frame.id);
            assert_eq!(TunnelFrame::open(frame.kind, &connector).encode(), bytes, "{}", shown(&frame.data));
        }
    }
    for kind in [FrameKind::LOGS, FrameKind::EXEC, FrameKind::DATA, FrameKind::REMOVE] {
        assert!(kinds.contains(&kind), "{kind:?} not in {kinds:?}");
    }
}
