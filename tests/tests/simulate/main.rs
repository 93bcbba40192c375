//! Cloudcore, edgecores, an API and a user in turmoil: everything that can go wrong does, as a seed says, and
//! what was promised must hold all the same.
//!
//! Without arguments it is a test like any other: seeds that once found something, new ones, and faults built
//! in on purpose, which the checks must find. `tests/simulate` runs more of them and repeats a single one.
//!
//! Every simulation is a process of its own, whose entropy comes from the seed (`entropy.c`), so that the
//! same seed does the same thing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod api;
mod checks;
mod children;
mod containers;
mod dice;
mod disk;
mod network;
mod plan;
mod seeds;
mod trace;
mod user;
mod world;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use self::{children::Report, plan::Planted};

/// How many new seeds a run without arguments tries.
const SEEDS: u64 = 200;

fn say(text: &str) {
    // Whoever does not listen misses it.
    let _ = writeln!(io::stdout(), "{text}");
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    if let Some(seed) = value("--child") {
        return children::be(seed, &arguments);
    }
    let ok = match (value("--seed"), value("--seeds")) {
        (Some(seed), _) => one(seed, &arguments),
        (None, Some(count)) => many(value("--from").unwrap_or(1), count),
        (None, None) => tests(&arguments),
    };
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one seed and says what happened.
fn one(seed: u64, arguments: &[String]) -> bool {
    let report = children::run(seed, None, true);
    let all = arguments.iter().any(|argument| argument == "--trace");
    let lines: Vec<&str> = report.trace.lines().collect();
    let shown = if all { lines.len() } else { lines.len().min(60) };
    lines[lines.len() - shown..].iter().for_each(|line| say(line));
    say(&format!("seed {seed}: {report}"));
    report.is_good()
}

/// Runs many seeds and names those that found something.
fn many(from: u64, count: u64) -> bool {
    let begun = Instant::now();
    let mut bad = 0;
    children::run_all(from..from + count, |seed, report: &Report| {
        if !report.is_good() {
            bad += 1;
            say(&format!("seed {seed}: {report}\n  again: tests/simulate --seed {seed}"));
        }
        true
    });
    let seconds = begun.elapsed().as_secs();
    say(&format!("seeds {from} to {}: {bad} found something, in {seconds} s", from + count - 1));
    bad == 0
}

type Test = (&'static str, fn());

const TESTS: [Test; 10] = [
    ("the_same_seed_does_the_same_thing", the_same_seed_does_the_same_thing),
    ("links_are_pinged_as_real_ones_are", links_are_pinged_as_real_ones_are),
    (
        "an_object_lost_after_its_confirmation_is_found_out",
        an_object_lost_after_its_confirmation_is_found_out,
    ),
    ("objects_in_another_order_are_found_out", objects_in_another_order_are_found_out),
    ("a_disk_that_lies_is_found_out", a_disk_that_lies_is_found_out),
    ("what_is_kept_for_ever_is_found_out", what_is_kept_for_ever_is_found_out),
    ("a_pod_run_twice_is_found_out", a_pod_run_twice_is_found_out),
    ("seeds_that_found_something_find_nothing_more", seeds_that_found_something_find_nothing_more),
    ("whatever_goes_wrong_the_four_promises_hold", whatever_goes_wrong_the_four_promises_hold),
    (
        "whatever_disks_and_records_are_lost_the_four_promises_hold",
        whatever_disks_and_records_are_lost_the_four_promises_hold,
    ),
];

/// As the tests of other crates run and tell it.
fn tests(arguments: &[String]) -> bool {
    let names: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    if arguments.iter().any(|argument| argument == "--list") {
        TESTS.iter().for_each(|(name, _)| say(&format!("{name}: test")));
        return true;
    }
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        let good = std::panic::catch_unwind(test).is_ok();
        say(&format!("test {name} ... {}", if good { "ok" } else { "FAILED" }));
        if good { passed += 1 } else { failed += 1 }
    }
    let out = TESTS.len() - passed - failed;
    let result = if failed == 0 { "ok" } else { "FAILED" };
    say(&format!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {out} filtered out\n"
    ));
    failed == 0
}

fn the_same_seed_does_the_same_thing() {
    if !children::has_entropy() {
        return say("!! no C compiler: that a seed repeats itself is NOT TESTED");
    }
    for seed in [1, 4, 7] {
        let [first, second] = [(); 2].map(|()| children::run(seed, None, true));
        let differs = first.trace.lines().zip(second.trace.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}: the first line that differs");
        assert_eq!((first.digest, first.count), (second.digest, second.count), "seed {seed}");
        assert!(first.count > 100, "seed {seed}: {first}");
    }
}

/// A simulated link that hid its pings would take EdgeHub on a way that no real link takes.
fn links_are_pinged_as_real_ones_are() {
    let report = children::run(1, None, true);
    assert!(report.trace.lines().any(|line| line.ends_with(network::PINGED)), "no link was pinged: {report}");
}

/// Whether the checks find a fault that is built in, by the promise it breaks, in one of some seeds.
fn is_found_out(planted: Planted, promises: &[&str]) {
    let found = AtomicBool::new(false);
    let mut last = String::new();
    for seed in 1..=12 {
        let report = children::run(seed, Some(planted), false);
        last = report.to_string();
        let hit = report.broken.iter().any(|what| promises.iter().any(|promise| what.starts_with(promise)));
        if hit {
            found.store(true, Ordering::Relaxed);
            break;
        }
    }
    assert!(found.load(Ordering::Relaxed), "{planted:?} is not found out: {last}");
}

fn an_object_lost_after_its_confirmation_is_found_out() {
    is_found_out(Planted::LostFrame, &[checks::CONVERGENCE, checks::DELIVERY]);
}

fn objects_in_another_order_are_found_out() {
    // An older pod after a newer one may be run once more before its order is looked at.
    is_found_out(Planted::Swapped, &[checks::ORDER, checks::TWICE]);
}

fn a_disk_that_lies_is_found_out() {
    is_found_out(Planted::LyingDisk, &[checks::CONVERGENCE, checks::DELIVERY]);
}

fn what_is_kept_for_ever_is_found_out() {
    is_found_out(Planted::Hoard, &[checks::MEMORY]);
}

fn a_pod_run_twice_is_found_out() {
    is_found_out(Planted::ForgetfulRuntime, &[checks::TWICE]);
}

fn seeds_that_found_something_find_nothing_more() {
    for (seed, what) in seeds::FOUND {
        let report = children::run(*seed, None, false);
        assert!(report.is_good(), "seed {seed} ({what}): {report}\n  again: tests/simulate --seed {seed}");
    }
}

/// How many seeds of a kind are tried.
fn count() -> u64 {
    std::env::var("KUBEEDGE_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(SEEDS)
}

fn whatever_goes_wrong_the_four_promises_hold() {
    assert!(many(1, count()), "some seeds found something");
}

fn whatever_disks_and_records_are_lost_the_four_promises_hold() {
    assert!(many(plan::LOSSES, count() / 2), "some seeds found something");
}
