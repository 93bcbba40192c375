//! Walls inside a crate: its top-level modules form no circle, and an inherent impl stands in the file of its
//! type.
//!
//! What stands in the lists below was there before the rule. The lists may only shrink: an entry that is no
//! longer needed fails the test as well. Tests and what only they compile is left out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, ImplItem, Item, Type, TypeParamBound, UseTree};

/// Circles of top-level modules, by the root file of their crate.
const CIRCLES: &[(&str, &[&str])] = &[("bins/edgemark/src/main.rs", &["edge", "session"])];

/// Inherent impls outside their type's file: `file: Type`.
const SCATTERED: &[&str] = &[
    "bins/edgemark/src/modes/flood.rs: Run",
    "bins/edgemark/src/modes/storm.rs: Run",
    "kubeedge-core/edge/src/edged/server/logs.rs: Local",
    "kubeedge-core/edge/src/edged/start.rs: Worker",
    "kubeedge-core/runtime/src/cri/exec.rs: CriRuntime",
    "kubeedge-core/runtime/src/memory/container.rs: Inner",
    "kubeedge-core/runtime/src/memory/exec.rs: MemoryRuntime",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// One module of a crate, without what only tests compile.
struct Module {
    /// Its file, from the root of the project.
    file: PathBuf,
    /// Its path in the crate; empty for the root.
    path: Vec<String>,
    items: Vec<Item>,
}

/// Reads a crate from its root file. `read` is asked for the text of a file, `None` if there is no such file.
fn modules(crate_root: &Path, read: &impl Fn(&Path) -> Option<String>) -> Vec<Module> {
    let mut found = Vec::new();
    let text = read(crate_root).unwrap();
    let folder = crate_root.parent().unwrap();
    load(crate_root, folder, Vec::new(), parse(crate_root, &text), read, &mut found);
    found
}

fn parse(file: &Path, text: &str) -> Vec<Item> {
    syn::parse_file(text).map_err(|error| format!("{}: {error}", file.display())).unwrap().items
}

/// Takes a module and those below it; the files of the latter are in `folder`.
fn load(
    file: &Path,
    folder: &Path,
    path: Vec<String>,
    items: Vec<Item>,
    read: &impl Fn(&Path) -> Option<String>,
    found: &mut Vec<Module>,
) {
    let mut own = Vec::new();
    for item in items.into_iter().filter_map(without_tests) {
        let Item::Mod(module) = item else {
            own.push(item);
            continue;
        };
        let name = module.ident.to_string();
        let below: Vec<_> = path.iter().cloned().chain([name.clone()]).collect();
        if let Some((_, items)) = module.content {
            load(file, &folder.join(&name), below, items, read, found);
        } else {
            let file = folder.join(format!("{name}.rs"));
            let text =
                read(&file).ok_or_else(|| format!("mod {name} has no file {}", file.display())).unwrap();
            load(&file, &folder.join(&name), below, parse(&file, &text), read, found);
        }
    }
    found.push(Module { file: file.to_owned(), path, items: own });
}

/// The item without what only tests compile; `None` if that is all of it.
fn without_tests(mut item: Item) -> Option<Item> {
    let attributes = match &mut item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => {
            item.items.retain(|item| match item {
                ImplItem::Fn(item) => !for_tests(&item.attrs),
                ImplItem::Const(item) => !for_tests(&item.attrs),
                _ => true,
            });
            &item.attrs
        }
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => return Some(item),
    };
    (!for_tests(attributes)).then_some(item)
}

fn for_tests(attributes: &[Attribute]) -> bool {
    let condition = |attribute: &Attribute| match attribute.path().is_ident("cfg") {
        true => attribute.meta.require_list().map(|list| list.tokens.to_string()).unwrap_or_default(),
        false => String::new(),
    };
    attributes.iter().map(condition).any(|text| text == "test" || text.starts_with("all (test ,"))
}

/// The first names after the root of the crate that the tokens of a module mention, as `hub` in
/// `crate::hub::Sessions`.
fn mentioned(tokens: TokenStream, depth: usize, out: &mut BTreeSet<String>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut rest = tokens.as_slice();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            TokenTree::Group(group) => mentioned(group.stream(), depth, out),
            TokenTree::Ident(word) => {
                let base = match word.to_string().as_str() {
                    "crate" => Some(0),
                    "super" => depth.checked_sub(1),
                    "self" => Some(depth),
                    _ => None,
                };
                if let Some(base) = base {
                    rest = follow(tail, base, out);
                }
            }
            _ => {}
        }
    }
}

/// Follows a path whose beginning stands `depth` modules below the root; what comes after it.
fn follow<'a>(rest: &'a [TokenTree], depth: usize, out: &mut BTreeSet<String>) -> &'a [TokenTree] {
    let is_colon = |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ':');
    let [a, b, next, tail @ ..] = rest else { return rest };
    if !is_colon(a) || !is_colon(b) {
        return rest;
    }
    match next {
        TokenTree::Ident(word) if word == "super" => follow(tail, depth.saturating_sub(1), out),
        TokenTree::Ident(word) => {
            if depth == 0 {
                out.insert(word.to_string());
            }
            tail
        }
        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
            let tokens: Vec<_> = group.stream().into_iter().collect();
            let is_comma =
                |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',');
            for branch in tokens.split(is_comma) {
                match branch.first() {
                    Some(TokenTree::Ident(word)) if word == "super" => {
                        follow(&branch[1..], depth.saturating_sub(1), out);
                    }
                    Some(TokenTree::Ident(word)) if depth == 0 => drop(out.insert(word.to_string())),
                    _ => {}
                }
            }
            tail
        }
        _ => tail,
    }
}

/// What the root re-exports, and of which of its modules.
fn exports(root: &Module) -> BTreeMap<String, String> {
    fn names(tree: &UseTree, module: Option<&str>, out: &mut BTreeMap<String, String>) {
        match (tree, module) {
            (UseTree::Path(path), None) if path.ident == "self" || path.ident == "crate" => {
                names(&path.tree, None, out)
            }
            (UseTree::Path(path), module) => {
                let first = path.ident.to_string();
                names(&path.tree, Some(module.unwrap_or(&first)), out);
            }
            (UseTree::Group(group), module) => group.items.iter().for_each(|tree| names(tree, module, out)),
            (UseTree::Name(name), Some(module)) => {
                drop(out.insert(name.ident.to_string(), module.to_owned()))
            }
            (UseTree::Rename(name), Some(module)) => {
                drop(out.insert(name.rename.to_string(), module.to_owned()))
            }
            _ => {}
        }
    }
    let mut out = BTreeMap::new();
    for item in &root.items {
        if let Item::Use(item) = item {
            names(&item.tree, None, &mut out);
        }
    }
    out
}

/// Which top-level module uses which, and the files where it does.
type Uses = BTreeMap<String, BTreeMap<String, BTreeSet<PathBuf>>>;

fn uses(modules: &[Module]) -> Uses {
    let top: BTreeSet<_> =
        modules.iter().filter(|module| module.path.len() == 1).map(|module| &module.path[0]).collect();
    let exports = modules.iter().find(|module| module.path.is_empty()).map(exports).unwrap_or_default();
    let mut found = Uses::new();
    for module in modules {
        let Some(user) = module.path.first() else { continue };
        let mut names = BTreeSet::new();
        for item in &module.items {
            mentioned(item.to_token_stream(), module.path.len(), &mut names);
        }
        for name in names {
            let used = if top.contains(&name) { Some(&name) } else { exports.get(&name) };
            if let Some(used) = used.filter(|used| *used != user && top.contains(used)) {
                let files = found.entry(user.clone()).or_default().entry(used.clone()).or_default();
                files.insert(module.file.clone());
            }
        }
    }
    found
}

/// The circles: modules each of which can be reached from each other one.
fn circles(uses: &Uses) -> BTreeSet<BTreeSet<String>> {
    let reached_from = |start: &String| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![start]);
        while let Some(module) = next.pop() {
            let used = uses.get(module).into_iter().flat_map(BTreeMap::keys);
            next.extend(used.filter(|used| reached.insert((*used).clone())));
        }
        reached
    };
    let reached: BTreeMap<_, _> = uses.keys().map(|module| (module, reached_from(module))).collect();
    let circle_of = |module: &String| {
        let back = |other: &&String| reached.get(*other).is_some_and(|reached| reached.contains(module));
        reached[module].iter().filter(back).cloned().collect::<BTreeSet<_>>()
    };
    uses.keys().map(circle_of).filter(|circle| circle.len() > 1).collect()
}

/// What is wrong with the circles of a crate, given those that are allowed.
fn wrong_circles(modules: &[Module], allowed: &[BTreeSet<String>]) -> Vec<String> {
    let uses = uses(modules);
    let found = circles(&uses);
    let mut wrong = Vec::new();
    for circle in found.iter().filter(|circle| !allowed.iter().any(|allowed| circle.is_subset(allowed))) {
        wrong.push(format!("a new circle of {circle:?}:"));
        for (user, used) in uses.iter().filter(|(user, _)| circle.contains(*user)) {
            let inside = used.iter().filter(|(used, _)| circle.contains(*used));
            wrong.extend(inside.map(|(used, files)| format!("    {user} uses {used} in {files:?}")));
        }
    }
    let gone = allowed.iter().filter(|allowed| !found.contains(*allowed));
    wrong.extend(
        gone.map(|allowed| format!("the circle {allowed:?} is smaller or gone: found are {found:?}")),
    );
    wrong
}

/// The types and traits that an item defines.
fn defined(item: &Item) -> Option<String> {
    match item {
        Item::Struct(item) => Some(item.ident.to_string()),
        Item::Enum(item) => Some(item.ident.to_string()),
        Item::Union(item) => Some(item.ident.to_string()),
        Item::Trait(item) => Some(item.ident.to_string()),
        Item::Type(item) => Some(item.ident.to_string()),
        _ => None,
    }
}

/// The type of an inherent impl; for `dyn Trait` the trait.
fn implemented(item: &Item) -> Option<String> {
    let Item::Impl(item) = item else { return None };
    if item.trait_.is_some() {
        return None;
    }
    match &*item.self_ty {
        Type::Path(path) => Some(path.path.segments.last().unwrap().ident.to_string()),
        Type::TraitObject(object) => object.bounds.iter().find_map(|bound| match bound {
            TypeParamBound::Trait(bound) => Some(bound.path.segments.last().unwrap().ident.to_string()),
            _ => None,
        }),
        _ => None,
    }
}

/// Inherent impls that do not stand in the file of their type, as `file: Type`. A type that a macro defines
/// has its impls in one file.
fn scattered(modules: &[Module]) -> BTreeSet<String> {
    let mut definitions: BTreeMap<String, BTreeSet<&Path>> = BTreeMap::new();
    let mut impls: BTreeMap<String, BTreeSet<&Path>> = BTreeMap::new();
    for module in modules {
        for item in &module.items {
            for (map, name) in [(&mut definitions, defined(item)), (&mut impls, implemented(item))] {
                if let Some(name) = name {
                    map.entry(name).or_default().insert(&module.file);
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    for (name, files) in &impls {
        let wrong = match definitions.get(name) {
            Some(homes) => files.difference(homes).collect::<Vec<_>>(),
            None if files.len() > 1 => files.iter().collect(),
            None => continue,
        };
        found.extend(wrong.iter().map(|file| format!("{}: {name}", file.display())));
    }
    found
}

/// The root files of all crates of the workspace.
fn crate_roots() -> Vec<PathBuf> {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, members) = workspace.split_once("members = [").unwrap();
    let mut found = Vec::new();
    for member in members.split(']').next().unwrap().split(',').map(|name| name.trim().trim_matches('"')) {
        // Not a product; its helpers of tests take one another's files in.
        if member == "tests" {
            continue;
        }
        let src = Path::new(member).join("src");
        let mut roots = vec![src.join("lib.rs"), src.join("main.rs")];
        if let Ok(binaries) = fs::read_dir(root().join(&src).join("bin")) {
            roots.extend(binaries.map(|entry| src.join("bin").join(entry.unwrap().file_name())));
        }
        found.extend(roots.into_iter().filter(|file| root().join(file).is_file()));
    }
    assert!(found.len() > 10, "only {} crates found", found.len());
    found
}

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(root().join(file)).ok()
}

#[test]
fn top_level_modules_of_a_crate_form_no_circle() {
    let mut wrong = Vec::new();
    let roots = crate_roots();
    for file in &roots {
        let of_this = CIRCLES.iter().filter(|(root, _)| Path::new(root) == file);
        let allowed: Vec<_> = of_this.map(|(_, circle)| names(circle)).collect();
        let found = wrong_circles(&modules(file, &read), &allowed);
        wrong.extend(found.into_iter().map(|text| format!("{}: {text}", file.display())));
    }
    let gone = CIRCLES.iter().filter(|(root, _)| !roots.iter().any(|file| file == Path::new(root)));
    wrong.extend(gone.map(|(root, _)| format!("{root} is no crate")));
    assert!(wrong.is_empty(), "what two modules need stands below both: {wrong:#?}");
}

#[test]
fn inherent_impls_stand_in_the_file_of_their_type() {
    let found: BTreeSet<_> = crate_roots().iter().flat_map(|file| scattered(&modules(file, &read))).collect();
    let allowed: BTreeSet<_> = SCATTERED.iter().map(|line| (*line).to_owned()).collect();
    let new: Vec<_> = found.difference(&allowed).collect();
    assert!(new.is_empty(), "what needs a second file is a free function over the fields it uses: {new:#?}");
    let gone: Vec<_> = allowed.difference(&found).collect();
    assert!(gone.is_empty(), "no longer needed in the list: {gone:#?}");
}

/// A crate that is made up: files and their texts.
fn made_up(files: &[(&str, &str)]) -> Vec<Module> {
    let read = |file: &Path| {
        let text = files.iter().find(|(name, _)| Path::new(name) == file);
        text.map(|(_, text)| (*text).to_owned())
    };
    modules(Path::new("src/lib.rs"), &read)
}

fn names(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let ways = [
        "use crate::b::B;",
        "use crate::{c::C, b::{self, B}};",
        "use super::b::B;",
        "fn f() { tokio::select! { x = crate::b::f() => {} } }",
        "pub mod inner { use super::super::b::B; }",
        "use super::{c, b::B};",
        "use crate::Exported;",
    ];
    for way in ways {
        let files = [
            ("src/lib.rs", "mod a; mod b; mod c; pub use self::b::{B, Other as Exported};"),
            ("src/a.rs", way),
            ("src/b.rs", "pub struct B(crate::c::C);"),
            ("src/c.rs", "mod below;"),
            ("src/c/below.rs", "use crate::a::A;"),
        ];
        let circle = names(&["a", "b", "c"]);
        assert_eq!(circles(&uses(&made_up(&files))), BTreeSet::from([circle.clone()]), "{way}");
        assert!(!wrong_circles(&made_up(&files), &[]).is_empty());
        assert!(wrong_circles(&made_up(&files), &[circle]).is_empty());
        let (smaller, larger) = (names(&["a", "b"]), names(&["a", "b", "c", "d"]));
        assert!(!wrong_circles(&made_up(&files), &[smaller]).is_empty());
        assert!(!wrong_circles(&made_up(&files), &[larger]).is_empty());
    }
}

#[test]
fn what_only_tests_use_closes_no_circle() {
    let files = [
        ("src/lib.rs", "mod a; mod b; pub use b::B;"),
        ("src/a.rs", "use crate::b::B; mod inner { use super::A; } // crate::c"),
        (
            "src/b.rs",
            "#[cfg(test)] mod tests; #[cfg(test)] use crate::a::A; #[cfg(test)] fn f() { crate::a::f() }",
        ),
        ("src/b/tests.rs", "use crate::a::A;"),
    ];
    assert!(wrong_circles(&made_up(&files), &[]).is_empty());
    assert_eq!(wrong_circles(&made_up(&files), &[names(&["a", "b"])]).len(), 1);
}

#[test]
fn an_impl_outside_its_types_file_is_found() {
    let files = [
        ("src/lib.rs", "mod a; mod b; ids! { Id }"),
        (
            "src/a.rs",
            "mod deep; pub struct A; impl A {} impl<T> B<T> {} impl From<B<u8>> for A {} impl super::Id {}",
        ),
        (
            "src/a/deep.rs",
            "impl super::A {} impl dyn crate::b::Seam + Send {} #[cfg(test)] impl crate::b::B<u8> {}",
        ),
        (
            "src/b.rs",
            "pub struct B<T>(T); pub trait Seam {} impl dyn Seam {} impl<T> B<T> where T: Fn() -> u8 {}",
        ),
    ];
    let found = scattered(&made_up(&files));
    assert_eq!(found, names(&["src/a/deep.rs: A", "src/a.rs: B", "src/a/deep.rs: Seam"]));
}
