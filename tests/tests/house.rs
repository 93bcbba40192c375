//! The rules of the house that a compiler does not keep: what stands at the top, and how long a file may be.
#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

const FOLDERS: [&str; 7] =
    ["bins", "examples", "kubeedge-core", "kubeedge-device", "kubeedge-store", "kubeedge-transport", "tests"];
const FILES: [&str; 11] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
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

#[test]
fn modules_are_named_by_their_files() {
    let wrong: Vec<_> = all_code().into_iter().filter(|path| name(path) == "mod.rs").collect();
    assert!(wrong.is_empty(), "mod.rs files: {wrong:?}");
}
