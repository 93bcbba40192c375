//! Every fuzz target over its seeds, over so many mutations of them, and over what fuzzers once found.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of a test")]

use kubeedge_tests::{
    fuzz::{TARGETS, edited, seeds},
    repository,
};
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};

/// How many mutations of recordings each target gets; `KUBEEDGE_FUZZ_CASES` has it otherwise.
const CASES: u32 = 512;

/// What fuzzers found, mended since: the target and its bytes.
const FOUND: [(&str, &[u8]); 2] = [
    // A compact message whose content is no UTF-8 could not be written as JSON.
    ("message", b"\xc1\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\x03\x22\xff\x22"),
    // The parent of a compact message was an empty text, which JSON does not tell from none.
    ("message", b"\xc1\x01\x01\x01\x01\x01\x01\0\x02\x01\0\0\0\0\0\0\x01\x01\0\0\0"),
];

/// A target over its seeds and as many mutations of them.
fn holds(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds = seeds(name);
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|seed| (target.run)(seed));
    for (_, bytes) in FOUND.iter().filter(|(of, _)| *of == name) {
        (target.run)(bytes);
    }
    let cases =
        std::env::var("KUBEEDGE_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    // The same cases in every run: chance is for fuzzers.
    let config =
        Config { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..Config::default() };
    let edits = proptest::collection::vec(any::<(u8, u32, u32)>(), 1..6);
    let tried = TestRunner::new(config).run(&(0..seeds.len(), edits), |(seed, edits)| {
        (target.run)(&edited(&seeds[seed], &edits));
        Ok(())
    });
    if let Err(failure) = tried {
        panic!("{name}: {failure}");
    }
}

#[test]
fn no_bytes_break_the_frames_of_a_websocket() {
    holds("websocket");
}

#[test]
fn no_bytes_break_a_message_or_the_rules_of_its_way() {
    holds("message");
}

#[test]
fn no_text_breaks_the_path_of_a_resource() {
    holds("resource");
}

#[test]
fn no_bytes_break_certificates_requests_keys_and_tokens() {
    holds("pki");
}

#[test]
fn no_request_breaks_the_service_edges_join_through() {
    holds("join");
}

#[test]
fn no_body_breaks_the_embedded_api() {
    holds("api");
}

#[test]
fn no_bytes_break_protobuf_bodies() {
    holds("protobuf");
}

#[test]
fn no_bytes_break_the_input_of_a_command() {
    holds("exec");
}

#[test]
fn no_bytes_break_the_frames_of_the_tunnel() {
    holds("tunnel");
}

#[test]
fn every_target_can_be_fuzzed() {
    let folder = repository().join("tests/fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for target in TARGETS {
        let file = std::fs::read_to_string(folder.join(format!("fuzz_targets/{}.rs", target.name))).unwrap();
        assert!(file.contains(&format!("fuzz::{}(bytes)", target.name)));
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)));
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}
