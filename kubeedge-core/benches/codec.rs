//! Messages per second through the codec and the bus: `cargo bench -p kubeedge-core`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kubeedge_core::{
    bus::Bus,
    message::{Message, json, resource},
    name::{Group, ModuleName},
};

const DEPTH: usize = 64;

/// Recorded frames, the shortest (a keepalive) and the longest (a pod with its status) apart.
fn frames() -> Vec<(&'static str, Vec<Bytes>)> {
    let text = Bytes::from_static(include_bytes!("../tests/data/frames.jsonl"));
    let mut all: Vec<Bytes> =
        text.split_inclusive(|byte| *byte == b'\n').map(|frame| text.slice_ref(frame)).collect();
    all.sort_by_key(Bytes::len);
    let (short, long) = (all.first().unwrap().clone(), all.last().unwrap().clone());
    vec![("keepalive", vec![short]), ("longest", vec![long]), ("mixture", all)]
}

fn codec(c: &mut Criterion) {
    for (name, frames) in frames() {
        let messages: Vec<Message> = frames.iter().map(|frame| json::decode(frame).unwrap()).collect();
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(frames.len() as u64));
        group.bench_function("decode", |bench| {
            bench.iter(|| frames.iter().for_each(|frame| drop(black_box(json::decode(frame)))));
        });
        group.bench_function("encode", |bench| {
            bench.iter(|| messages.iter().for_each(|message| drop(black_box(json::encode(message)))));
        });
        group.finish();
    }
}

fn route(c: &mut Criterion) {
    let (bus, mut inboxes) = Bus::new([(ModuleName::TWIN, Group::TWIN, DEPTH)]);
    let mut inbox = inboxes.remove(&ModuleName::TWIN).unwrap();
    let (_, frames) = frames().pop().unwrap();
    let messages: Vec<Message> = frames.iter().map(|frame| json::decode(frame).unwrap()).collect();
    let mut group = c.benchmark_group("route");
    group.throughput(Throughput::Elements(messages.len() as u64));
    group.bench_function("to a module by way of its mailbox", |bench| {
        bench.iter(|| {
            for message in &messages {
                black_box(resource::target_node(&message.route.resource));
                bus.try_send(&ModuleName::TWIN, message.clone()).unwrap();
                black_box(inbox.try_next().unwrap());
            }
        });
    });
    group.finish();
}

criterion_group!(benches, codec, route);
criterion_main!(benches);
