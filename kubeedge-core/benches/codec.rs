//! Messages per second through the codec and the bus: `cargo bench -p kubeedge-core`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use bytes::Bytes;
use divan::{Bencher, counter::ItemsCount};
use kubeedge_core::{
    bus::Bus,
    message::{Message, json, resource},
    name::{Group, ModuleName},
};

const DEPTH: usize = 64;

const MIXES: [&str; 3] = ["keepalive", "longest", "mixture"];

fn main() {
    divan::main();
}

/// Recorded frames: the shortest (a keepalive), the longest (a pod with its status), or all.
fn frames(mix: &str) -> Vec<Bytes> {
    let text = Bytes::from_static(include_bytes!("../tests/data/frames.jsonl"));
    let mut all: Vec<Bytes> =
        text.split_inclusive(|byte| *byte == b'\n').map(|frame| text.slice_ref(frame)).collect();
    all.sort_by_key(Bytes::len);
    match mix {
        "keepalive" => all.drain(..1).collect(),
        "longest" => all.split_off(all.len() - 1),
        _ => all,
    }
}

fn messages(frames: &[Bytes]) -> Vec<Message> {
    frames.iter().map(|frame| json::decode(frame).unwrap()).collect()
}

#[divan::bench(args = MIXES)]
fn decode(bencher: Bencher<'_, '_>, mix: &str) {
    let frames = frames(mix);
    bencher
        .counter(ItemsCount::new(frames.len()))
        .bench(|| frames.iter().for_each(|frame| drop(black_box(json::decode(frame)))));
}

#[divan::bench(args = MIXES)]
fn encode(bencher: Bencher<'_, '_>, mix: &str) {
    let messages = messages(&frames(mix));
    bencher
        .counter(ItemsCount::new(messages.len()))
        .bench(|| messages.iter().for_each(|message| drop(black_box(json::encode(message)))));
}

#[divan::bench]
fn to_a_module_by_way_of_its_mailbox(bencher: Bencher<'_, '_>) {
    let (bus, mut inboxes) = Bus::new([(ModuleName::TWIN, Group::TWIN, DEPTH)]);
    let mut inbox = inboxes.remove(&ModuleName::TWIN).unwrap();
    let messages = messages(&frames("mixture"));
    bencher.counter(ItemsCount::new(messages.len())).bench_local(|| {
        for message in &messages {
            black_box(resource::target_node(&message.route.resource));
            bus.try_send(&ModuleName::TWIN, message.clone()).unwrap();
            black_box(inbox.try_next().unwrap());
        }
    });
}
