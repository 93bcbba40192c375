//! Wrappers of seams forward every method: one that leaves a method to its default hides what the wrapped one
//! can.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::{all_code, code, root};

const LINT: &str = "#[deny(clippy::missing_trait_methods)]";

/// `impl SEAM for TYPE`, as it stands in a file.
#[derive(Clone, Debug)]
struct Impl {
    /// The names of types and bounds between `impl` and the seam.
    generics: String,
    seam: String,
    /// The whole type.
    of: String,
    denies: bool,
    file: PathBuf,
}

/// The traits that implementers of seams write: public ones of the contracts and of the mapper SDK.
fn seams() -> BTreeSet<String> {
    let mut files = Vec::new();
    code(&root().join("kubeedge-core/src"), &mut files);
    code(&root().join("kubeedge-device/src"), &mut files);
    let files = files.iter().filter(|file| file.iter().all(|part| part != "conformance"));
    let texts = files.map(|file| fs::read_to_string(file).unwrap());
    let traits = texts.flat_map(|text| {
        text.lines().filter_map(|line| line.strip_prefix("pub trait ").map(first_name)).collect::<Vec<_>>()
    });
    traits.collect()
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn first_name(text: &str) -> String {
    text.trim_start().chars().take_while(|c| is_of_name(*c)).collect()
}

fn names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !is_of_name(c)).filter(|name| !name.is_empty()).collect()
}

/// What stands between the first `open` and its `close`, and what comes after.
fn within(text: &str, open: char, close: char) -> Option<(&str, &str)> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close && (close != '>' || !text[..at].ends_with('-')) {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some((&text[..at], &text[at + close.len_utf8()..]));
            }
        }
    }
    None
}

/// The impls of these seams in a file.
fn impls(file: &Path, text: &str, seams: &BTreeSet<String>) -> Vec<Impl> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(rest) = line.trim().strip_prefix("impl") else { continue };
        if !rest.starts_with(['<', ' ']) {
            continue;
        }
        let head = lines[at..].join(" ");
        let head = head.trim().strip_prefix("impl").unwrap().split('{').next().unwrap();
        let (generics, rest) = match head.starts_with('<') {
            true => within(head, '<', '>').unwrap_or(("", head)),
            false => ("", head),
        };
        let Some((seam, of)) = rest.split_once(" for ") else { continue };
        let (of, bounds) = of.split_once(" where ").unwrap_or((of, ""));
        let seam = seam.split('<').next().unwrap().rsplit("::").next().unwrap().trim();
        if seams.contains(seam) {
            let above = lines[..at].iter().rev().take_while(|line| line.trim().starts_with("#["));
            found.push(Impl {
                generics: format!("{generics}, {bounds}"),
                seam: seam.to_owned(),
                of: of.trim().to_owned(),
                denies: above.into_iter().any(|line| line.trim() == LINT),
                file: file.to_owned(),
            });
        }
    }
    found
}

/// The structs, enums and aliases of a file by their names, each with what stands in its brackets.
fn types(text: &str) -> BTreeMap<String, String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().starts_with("//")).collect();
    let mut found = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let keyword = words.iter().take(2).position(|word| ["struct", "enum", "type"].contains(word));
        let Some(name) = keyword.and_then(|at| words.get(at + 1)) else { continue };
        let rest = lines[at..].join("\n");
        let end = rest.find(['{', '(', ';']).unwrap_or(rest.len());
        let body = match rest[end..].chars().next() {
            Some('{') => within(&rest[end..], '{', '}'),
            Some('(') => within(&rest[end..], '(', ')'),
            _ => None,
        };
        found.insert(first_name(name), body.map_or("", |(body, _)| body).to_owned());
    }
    found
}

/// The names in a type's fields, and in the fields of those of its file that it holds.
fn held(name: &str, types: &BTreeMap<String, String>) -> BTreeSet<String> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![name.to_owned()]);
    while let Some(name) = open.pop() {
        for field in names(types.get(&name).map_or("", String::as_str)) {
            if seen.insert(field.to_owned()) {
                open.push(field.to_owned());
            }
        }
    }
    seen.remove(name);
    seen
}

/// Whether a parameter of the type keeps the same seam.
fn is_generic_wrapper(found: &Impl) -> bool {
    let of_the_type = names(&found.of);
    found.generics.split(',').any(|bound| {
        let Some((name, bounds)) = bound.split_once(':') else { return false };
        names(bounds).contains(found.seam.as_str())
            && names(name).iter().any(|name| of_the_type.contains(name))
    })
}

/// Whether a name in the file of `found` can mean the type of `other`: one of its own, of a product, or of
/// the same folder.
fn knows(found: &Impl, other: &Impl, own: &BTreeMap<String, String>) -> bool {
    if own.contains_key(&first_name(&other.of)) {
        return found.file == other.file;
    }
    let is_of_product = other.file.iter().any(|part| part == "src") && !other.file.ends_with("tests.rs");
    is_of_product || found.file.parent() == other.file.parent()
}

/// Whether the type of this impl holds another that keeps the same seam: by its trait, by a bound, or by a
/// name.
fn wraps(found: &Impl, types: &BTreeMap<String, String>, all: &[Impl]) -> bool {
    let held = held(&first_name(&found.of), types);
    // An `Arc<T>` keeps a seam for some `T` only.
    let is_held = |other: &Impl| held.contains(&first_name(&other.of)) && !is_generic_wrapper(other);
    is_generic_wrapper(found)
        || held.contains(&found.seam)
        || all.iter().any(|other| other.seam == found.seam && knows(found, other, types) && is_held(other))
}

/// The wrappers among the impls of these files.
fn wrappers(files: &[(PathBuf, String)], seams: &BTreeSet<String>) -> Vec<Impl> {
    let all: Vec<Impl> = files.iter().flat_map(|(file, text)| impls(file, text, seams)).collect();
    let types: BTreeMap<&Path, BTreeMap<String, String>> =
        files.iter().map(|(file, text)| (file.as_path(), types(text))).collect();
    all.iter().filter(|found| wraps(found, &types[found.file.as_path()], &all)).cloned().collect()
}

#[test]
fn every_wrapper_of_a_seam_forwards_every_method() {
    let files = all_code().into_iter().filter(|file| !file.ends_with("house/wrappers.rs")).map(|file| {
        let text = fs::read_to_string(&file).unwrap();
        (file.strip_prefix(root()).unwrap().to_owned(), text)
    });
    let wrappers = wrappers(&files.collect::<Vec<_>>(), &seams());
    assert!(wrappers.len() > 12, "only {} wrappers found", wrappers.len());
    let wrong = wrappers.iter().filter(|wrapper| !wrapper.denies);
    let wrong: Vec<_> = wrong
        .map(|Impl { seam, of, file, .. }| format!("{}: impl {seam} for {of}", file.display()))
        .collect();
    assert!(wrong.is_empty(), "these wrap a seam and do not carry {LINT}: {wrong:#?}");
}

#[test]
fn wrappers_are_told_from_other_implementers() {
    let text = "
struct Plain { sent: Vec<Frame> }
impl FrameSink for Plain {}
/// Holds no dyn FrameSink.
struct Other(u32);
impl FrameSink for Other {}
struct Boxed { inner: Box<dyn FrameSink> }
impl FrameSink for Boxed {}
struct Named(Plain);
#[async_trait]
impl FrameSink for Named {}
struct Deep { shared: Arc<Shared> }
struct Shared { inner: Boxed }
impl FrameSink for Deep {}
impl<S: FrameSink + ?Sized> FrameSink for Arc<S> {}
struct Bound<S> { inner: S }
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S> FrameSink for Bound<S>
where
    S: FrameSink,
{
}
impl<K: FrameSink> Listener for Door<K> {}
";
    let seams = ["FrameSink", "Listener"].map(str::to_owned).into();
    let found = wrappers(&[(PathBuf::from("text.rs"), text.to_owned())], &seams);
    let found: Vec<_> = found.iter().map(|wrapper| (wrapper.of.as_str(), wrapper.denies)).collect();
    let expected =
        [("Boxed", false), ("Named", false), ("Deep", false), ("Arc<S>", false), ("Bound<S>", true)];
    assert_eq!(found, expected);
}
