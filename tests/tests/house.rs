//! The rules of the house that a compiler does not keep: what stands at the top, how long a file may be,
//! lints for every crate, no globals, no shells.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of a test")]

#[path = "house/wrappers.rs"]
mod wrappers;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const FOLDERS: [&str; 7] =
    ["bins", "examples", "kubeedge-core", "kubeedge-device", "kubeedge-store", "kubeedge-transport", "tests"];
const FILES: [&str; 12] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "INVARIANTS.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "clippy.toml",
    "deny.toml",
    "rustfmt.toml",
];
/// A file of code this long wants to be two.
const LONGEST: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// What `.gitignore` leaves out at the top, such as `target`.
fn ignored() -> Vec<String> {
    let text = fs::read_to_string(root().join(".gitignore")).unwrap();
    text.lines().map(|line| line.trim().trim_matches('/').to_owned()).collect()
}

/// All files of code below a folder.
fn code(folder: &Path, out: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        if path.is_dir() && name(&path) != "target" {
            code(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

fn all_code() -> Vec<PathBuf> {
    let mut out = Vec::new();
    for folder in FOLDERS {
        code(&root().join(folder), &mut out);
    }
    assert!(out.len() > 50, "only {} files of code found", out.len());
    out
}

#[test]
fn nothing_else_stands_at_the_top() {
    let ignored = ignored();
    for path in entries(&root()) {
        let name = name(&path);
        let is_ignored = |line: &String| match line.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => *line == name,
        };
        if name.starts_with('.') || ignored.iter().any(is_ignored) {
            continue;
        }
        let allowed: &[&str] = if path.is_dir() { &FOLDERS } else { &FILES };
        assert!(allowed.contains(&name.as_str()), "{name} has no place at the top of the project");
    }
}

#[test]
fn no_file_of_code_is_too_long() {
    for path in all_code() {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LONGEST, "{} has {lines} lines; {LONGEST} is the end", path.display());
    }
}

/// The width of a line, for comments as well, which the formatter leaves alone.
const WIDTH: usize = 110;

/// Lines of comments that are too long, without those of code and of tables in them.
fn long_comments(text: &str) -> Vec<usize> {
    let mut in_code = false;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix("//") else {
            in_code = false;
            continue;
        };
        let said = comment.trim_start_matches(['/', '!']).trim();
        if said.starts_with("```") {
            in_code = !in_code;
        } else if !in_code && !said.starts_with('|') && line.chars().count() > WIDTH {
            found.push(number + 1);
        }
    }
    found
}

#[test]
fn comments_keep_to_the_width_of_a_line() {
    let long = "/// ".to_owned() + &"word ".repeat(30);
    assert_eq!(long_comments(&format!("fn a() {{}}\n{long}\n/// ```\n{long}\n/// ```\n/// | {long}\n")), [2]);
    let wrong: Vec<_> = all_code()
        .into_iter()
        .flat_map(|path| {
            let lines = long_comments(&fs::read_to_string(&path).unwrap());
            lines.into_iter().map(move |line| format!("{}:{line}", path.display()))
        })
        .collect();
    assert!(wrong.is_empty(), "comments of more than {WIDTH} columns: {wrong:#?}");
}

#[test]
fn modules_are_named_by_their_files() {
    let wrong: Vec<_> = all_code().into_iter().filter(|path| name(path) == "mod.rs").collect();
    assert!(wrong.is_empty(), "mod.rs files: {wrong:?}");
}

#[test]
fn every_crate_keeps_the_lints_of_the_house() {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for lint in [
        "unsafe_code = \"forbid\"",
        "unwrap_used = \"deny\"",
        "expect_used = \"deny\"",
        "panic = \"deny\"",
        "indexing_slicing = \"deny\"",
        "todo = \"deny\"",
        "missing_docs = \"deny\"",
    ] {
        assert!(workspace.contains(lint), "the workspace has no longer {lint}");
    }
    let (_, members) = workspace.split_once("members = [").unwrap();
    for member in members.split(']').next().unwrap().split(',').map(|name| name.trim().trim_matches('"')) {
        if member.is_empty() {
            continue;
        }
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{member} goes without the lints");
    }
}

/// The lines of products that do what `does` says, without comments, tests and conformance kits.
fn lines_where(does: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for path in all_code() {
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let test = |part: &String| ["tests", "tests.rs", "conformance", "benches"].contains(&part.as_str());
        let own = &parts[root().iter().count()..];
        if !own.contains(&"src".to_owned()) || own.iter().any(test) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("\n#[cfg(test)]").next().unwrap();
        let lines = code.lines().map(str::trim).filter(|line| !line.starts_with("//") && does(line));
        found.extend(lines.map(|line| format!("{}: {line}", path.display())));
    }
    found
}

#[test]
fn there_are_no_globals() {
    let found = lines_where(|line| {
        let item = line.trim_start_matches("pub").trim_start_matches("(crate)").trim_start_matches("(super)");
        // A binary's allocator, which the language wants so.
        let allocator = line.contains(": mimalloc::MiMalloc =");
        (item.trim_start().starts_with("static ") && !allocator) || line.contains("thread_local!")
    });
    assert!(found.is_empty(), "globals: {found:#?}");
}

/// Where the machine's own clock and entropy may be read, and why.
const OF_THE_MACHINE: [(&str, &str); 14] = [
    ("/bins/", "a binary is where the machine's clock is chosen"),
    ("/kubeedge-core/src/message.rs", "a message's stamp, on which nothing acts"),
    ("/kubeedge-core/src/clock.rs", "Clock::wall and Millis::now"),
    ("/kubeedge-core/src/name.rs", "ids of messages are identities, not choices"),
    ("/kubeedge-core/src/pki/", "serials and keys must not be foreseen"),
    ("/kubeedge-core/runtime/src/process", "processes of this machine go by its clock"),
    ("/kubeedge-core/runtime/src/cri/", "containers of this machine go by its clock"),
    ("/kubeedge-core/edge/src/edged/events.rs", "names of events are identities"),
    ("/kubeedge-core/apiserver/src/registry.rs", "uids and generated names are identities"),
    ("/kubeedge-core/apiserver/src/local.rs", "the secret that signs tokens must not be foreseen"),
    ("/kubeedge-core/cloud/src/devices/downstream.rs", "ids of events are identities"),
    ("/kubeedge-core/cloud/src/hub/id.rs", "ids of messages are identities"),
    ("/kubeedge-store/src/sqlite.rs", "waits for another process, in a thread"),
    ("/tests/", "not a product"),
];

#[test]
fn clocks_and_seeds_come_from_outside() {
    let of_the_machine = [
        "SystemTime::now(",
        "Utc::now(",
        "now_utc(",
        "Timestamp::now(",
        "Millis::now(",
        "Zoned::now(",
        "rand::rng(",
        "rand::random(",
        "new_v4(",
        "thread::sleep(",
    ];
    let found = lines_where(|line| of_the_machine.iter().any(|read| line.contains(read)));
    let wrong: Vec<_> =
        found.iter().filter(|line| !OF_THE_MACHINE.iter().any(|(place, _)| line.contains(place))).collect();
    assert!(wrong.is_empty(), "take a Clock, or a seed, from whoever makes this: {wrong:#?}");
}

/// Where blocking work is done is chosen from outside, so that a simulation stays the same in each run.
#[test]
fn blocking_work_has_one_switch() {
    let found = lines_where(|line| line.contains("spawn_blocking(") || line.contains("block_in_place("));
    let wrong: Vec<_> =
        found.iter().filter(|line| !line.contains("/kubeedge-core/common/src/blocking.rs")).collect();
    assert!(found.len() == 1 && wrong.is_empty(), "use kubeedge_common::blocking or owner: {found:#?}");
}

/// Where names of files are changed beside the one helper, and why.
const RENAMES: [(&str, &str); 3] = [
    ("/kubeedge-core/common/src/file.rs", "the helper"),
    ("/kubeedge-core/edge/src/edged/volumes.rs", "a link is switched"),
    ("/kubeedge-core/runtime/src/process/log.rs", "a log begins anew"),
];

/// What replaces a file goes through `kubeedge_common::file`. What is serialised into a writer with a buffer
/// loses the error of its last write: the buffer is flushed when it is dropped.
#[test]
fn files_are_replaced_by_the_one_helper() {
    let serialised = lines_where(|line| line.contains("to_writer(") || line.contains("to_writer_pretty("));
    assert!(serialised.is_empty(), "serialise into a Vec, then kubeedge_common::file: {serialised:#?}");
    let renamed = lines_where(|line| line.contains("fs::rename("));
    let wrong: Vec<_> =
        renamed.iter().filter(|line| !RENAMES.iter().any(|(place, _)| line.contains(place))).collect();
    assert!(wrong.is_empty(), "use kubeedge_common::file: {wrong:#?}");
}

#[test]
fn only_binaries_choose_a_crypto_provider() {
    let found = lines_where(|line| line.contains("install_default("));
    let wrong: Vec<_> = found.iter().filter(|line| !line.contains("/bins/")).collect();
    assert!(!found.is_empty() && wrong.is_empty(), "{found:#?}");
}

/// The two places where TLS does not verify by itself, and what verifies instead: the edge, which does not
/// know the CA yet, verifies what it was shown once the CA is known by its hash; the cloud answers a foreign
/// certificate with 401.
#[test]
fn tls_verification_is_never_skipped_but_where_it_is_made_up_for() {
    let words = [
        "dangerous()",
        "CertVerified::assertion",
        "SignatureValid::assertion",
        "danger_accept_",
        "accept_invalid_certs =",
        "accept_invalid_hostnames",
        "impl ServerCertVerifier for",
        "impl ClientCertVerifier for",
    ];
    let known = ["kubeedge-core/edge/src/hub/https.rs", "kubeedge-core/cloud/src/certs/https.rs"];
    let found = lines_where(|line| words.iter().any(|word| line.contains(word)));
    let (made_up_for, wrong): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|line| known.iter().any(|path| line.contains(path)));
    assert!(wrong.is_empty(), "verification is skipped: {wrong:#?}");
    let count = |word: &str| made_up_for.iter().filter(|line| line.contains(word)).count();
    // One verifier of servers, used once, and one of clients; signatures are verified by both.
    let counts = ["dangerous()", "ServerCertVerified::assertion", "ClientCertVerified::assertion"].map(count);
    assert_eq!((counts, count("SignatureValid::assertion")), ([1, 1, 1], 0), "{made_up_for:#?}");
    let signatures = lines_where(|line| line.contains("rustls::crypto::verify_tls"));
    let there = |line: &String| line.contains("kubeedge-core/common/src/tls.rs");
    assert!(signatures.len() == 2 && signatures.iter().all(there), "{signatures:#?}");
    for file in known {
        let text = fs::read_to_string(root().join(file)).unwrap();
        for delegated in [".tls12(message, certificate, signed)", ".tls13(message, certificate, signed)"] {
            assert_eq!(text.matches(delegated).count(), 1, "{file} verifies no signatures by {delegated}");
        }
    }
    let edge = fs::read_to_string(root().join(known[0])).unwrap();
    assert!(edge.contains("token_names_ca(token, &ca)") && edge.contains("witness.confirm(&ca)"));
}

/// The kit's own list, from which its macro makes the tests, and the cases that are written down.
#[test]
fn every_kit_lists_every_case() {
    let kits = root().join("kubeedge-core/src/conformance");
    // The kit of transports looks after itself.
    for kit in ["cluster", "mapper", "runtime", "store"] {
        let head = fs::read_to_string(kits.join(format!("{kit}.rs"))).unwrap();
        let mut texts = vec![head.clone()];
        if kits.join(kit).is_dir() {
            texts.extend(entries(&kits.join(kit)).iter().map(|path| fs::read_to_string(path).unwrap()));
        }
        let name = |rest: &str| rest.split('(').next().unwrap().to_owned();
        let cases = texts.iter().flat_map(|text| text.split("\npub async fn ").skip(1));
        let mut cases: Vec<_> =
            cases.filter(|rest| rest.split(')').next().unwrap().contains("harness: ")).map(name).collect();
        let (_, macros) = head.split_once("macro_rules!").unwrap();
        let (_, list) = macros.split_once("$make;").unwrap();
        let mut listed: Vec<_> =
            list.split(')').next().unwrap().split_whitespace().map(str::to_owned).collect();
        // Cases that need an executor of one thread are written out.
        let (macros, _) = macros.split_once("#[cfg(test)]").unwrap_or((macros, ""));
        let written = macros.split("async fn ").skip(1).filter(|rest| !rest.starts_with('$'));
        listed.extend(written.map(name));
        cases.sort();
        listed.sort();
        assert!(cases.len() > 20, "only {} cases of the kit {kit} are found", cases.len());
        assert_eq!(cases, listed, "the list of the kit {kit} and its cases differ");
    }
}

#[test]
fn no_shell_is_started() {
    let shells = ["\"sh\"", "\"bash\"", "\"/bin/sh\"", "\"/bin/bash\""];
    let found = lines_where(|line| {
        shells.iter().any(|shell| {
            line.contains(&format!("Command::new({shell}")) || line.contains(&format!("[{shell}, \"-c\""))
        })
    });
    assert!(found.is_empty(), "shells: {found:#?}");
}

/// Names of tests in `INVARIANTS.md`: in backticks, of lower case letters and at least three `_`.
fn tests_named(text: &str) -> Vec<&str> {
    let plain = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    text.split('`').skip(1).step_by(2).filter(plain).filter(|name| name.matches('_').count() >= 3).collect()
}

#[test]
fn every_invariant_names_a_test_that_is_there() {
    let [table, text] =
        ["INVARIANTS.md", "ARCHITECTURE.md"].map(|name| fs::read_to_string(root().join(name)).unwrap());
    let mut named = tests_named(&table);
    assert!(named.len() > 100, "only {} tests are named", named.len());
    named.extend(tests_named(&text));
    let code: Vec<String> = all_code().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let is_there = |name: &&&str| {
        let definition = format!("fn {name}(");
        code.iter().any(|text| text.contains(&definition))
    };
    let gone: Vec<_> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(gone.is_empty(), "tests are named that are no longer there: {gone:?}");
}

/// The top-level module of a crate that a line of [`lines_where`] stands in.
fn module_of(line: &str) -> String {
    let (krate, rest) = line.split_once("/src/").unwrap();
    format!("{krate}/{}", rest.split(['/', '.', ':']).next().unwrap())
}

/// A table of the store belongs to the module that names it; others ask that module.
#[test]
fn a_bucket_is_named_in_one_module() {
    let mut owners = BTreeMap::<String, BTreeSet<String>>::new();
    for line in lines_where(|line| line.contains("Bucket(\"")) {
        for name in line.split("Bucket(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            owners.entry(name.to_owned()).or_default().insert(module_of(&line));
        }
    }
    assert!(["object", "device", "outbox"].iter().all(|name| owners.contains_key(*name)), "{owners:#?}");
    owners.retain(|_, modules| modules.len() > 1);
    assert!(owners.is_empty(), "these buckets are named in several modules: {owners:#?}");
}
