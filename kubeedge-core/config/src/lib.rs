//! The configuration files of Go's KubeEdge 1.23: `edgecore.yaml` (v1alpha2) and `cloudcore.yaml` (v1alpha1).
//!
//! Every key of theirs is read, with Go's defaults for what a file leaves out. Keys are matched without
//! regard to case, as Go does; a key that is `null` counts as left out; a number is no text and a text no
//! number. What is wrong is told all at once, each with line, column and the path of the key. A key that does
//! not exist is a warning, as Go ignores it, and so is an `apiVersion` that is not ours; a foreign `kind` is
//! an error.
//!
//! ```
//! use kubeedge_config::{self as config, ConfigFile, Host, cloud::CloudCoreConfig};
//!
//! let host = Host { name: "node-1".to_owned(), address: [192, 0, 2, 2].into() };
//! let yaml = "kind: CloudCore\nmodules:\n  cloudHub: {nodeLimt: 7}\n";
//! let loaded = config::read::<CloudCoreConfig>("cloudcore.yaml", yaml, &host)?;
//! assert_eq!(loaded.config.modules.cloud_hub.node_limit, 500);
//! assert_eq!(
//!     loaded.warnings[0].to_string(),
//!     "line 3, column 14: modules.cloudHub.nodeLimt: no such key, it is ignored; did you mean nodeLimit?"
//! );
//! # Ok::<(), config::ConfigError>(())
//! ```

mod changed;
mod check;
pub mod cloud;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod edge;
mod gates;
mod host;
mod problem;
mod reader;
mod section;
mod tree;
mod value;

use std::{collections::HashSet, fs::File, io::Read, path::Path};

use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    changed::{away_from_default, not_acted_on},
    check::Checks,
    gates::{FeatureGates, Gate},
    host::Host,
    problem::{ConfigError, Place, PlanError, Problem, Warning},
    value::GoDuration,
};
use self::{
    reader::{Notes, Reader},
    tree::Node,
};

/// The largest configuration file that is read, in bytes.
pub const MAX_FILE: u64 = 1 << 20;

/// After this many problems no more are looked for.
const MAX_PROBLEMS: usize = 50;

/// A kind of configuration file. The defaults of Go are what `Default` and [`ConfigFile::complete`] give
/// together.
pub trait ConfigFile: Serialize + DeserializeOwned + Default {
    /// The value of `kind`.
    const KIND: &'static str;
    /// The value of `apiVersion`.
    const API_VERSION: &'static str;

    /// Puts in what Go's defaults take from the host, where the file leaves it out, and what follows from
    /// other keys.
    fn complete(&mut self, host: &Host);

    /// Finds values that cannot work.
    fn check(&self, checks: &mut Checks);

    /// The keys that `--minconfig` shows, as paths; a path stands for all below it.
    const MINIMAL: &'static [&'static str];

    /// Go's defaults on this host.
    fn defaults(host: &Host) -> Self {
        let mut config = Self::default();
        config.complete(host);
        config
    }
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded<C> {
    /// The configuration.
    pub config: C,
    /// What the user should know of the file.
    pub warnings: Vec<Warning>,
}

/// Reads a file of at most [`MAX_FILE`] bytes.
pub fn load<C: ConfigFile>(path: &Path, host: &Host) -> Result<Loaded<C>, ConfigError> {
    let name = path.display().to_string();
    let opened = File::open(path).map_err(|source| ConfigError::File { name: name.clone(), source })?;
    load_from(&name, opened, host)
}

/// Reads what `input` has, at most [`MAX_FILE`] bytes; `name` stands in errors.
pub fn load_from<C: ConfigFile>(name: &str, input: impl Read, host: &Host) -> Result<Loaded<C>, ConfigError> {
    let mut text = String::new();
    let read = input.take(MAX_FILE + 1).read_to_string(&mut text);
    read.map_err(|source| ConfigError::File { name: name.to_owned(), source })?;
    if text.len() as u64 > MAX_FILE {
        return Err(ConfigError::TooLarge { name: name.to_owned() });
    }
    self::read(name, &text, host)
}

/// Reads a configuration from text; `name` stands in errors.
pub fn read<C: ConfigFile>(name: &str, text: &str, host: &Host) -> Result<Loaded<C>, ConfigError> {
    let root = tree::parse(name, text)?;
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    envelope::<C>(&root, &mut problems, &mut warnings);
    let Some(mut config) = decode::<C>(&root, &mut problems, &mut warnings) else {
        return Err(ConfigError::Invalid { name: name.to_owned(), problems });
    };
    config.complete(host);
    let mut checks = Checks::default();
    config.check(&mut checks);
    // A key that was not understood has its default now: nothing more is to be said of it.
    let known: HashSet<String> = problems.iter().map(|problem| problem.path.clone()).collect();
    let found = checks.into_problems().into_iter().filter(|problem| !known.contains(&problem.path));
    problems.extend(found.map(|problem| {
        let place = root.place_of(&problem.path);
        problem.at(place)
    }));
    if problems.is_empty() {
        Ok(Loaded { config, warnings })
    } else {
        Err(ConfigError::Invalid { name: name.to_owned(), problems })
    }
}

/// Reads the tree into the types, once more for each problem, so that all are found. A value with a problem
/// counts as left out. `None` when there is no sense in looking further.
fn decode<C: ConfigFile>(root: &Node, problems: &mut Vec<Problem>, warnings: &mut Vec<Warning>) -> Option<C> {
    let known = serde_json::to_value(C::default()).unwrap_or_default();
    let mut skip = HashSet::new();
    loop {
        let notes = Notes::new(&known, skip);
        match C::deserialize(Reader::root(root, &notes)) {
            Ok(config) => {
                warnings.extend(notes.into_warnings());
                return Some(config);
            }
            Err(error) => {
                skip = notes.into_skipped();
                let problem = error.into_problem();
                let new = !problem.path.is_empty() && skip.insert(problem.path.clone());
                problems.push(problem);
                if !new || problems.len() >= MAX_PROBLEMS {
                    return None;
                }
            }
        }
    }
}

/// `kind` and `apiVersion`: Go checks neither, but a file of the other component would silently give
/// defaults.
fn envelope<C: ConfigFile>(root: &Node, problems: &mut Vec<Problem>, warnings: &mut Vec<Warning>) {
    if let Some((place, kind)) = root.text("kind")
        && kind != C::KIND
    {
        let what = format!("is {kind:?}, must be {}: this is another program's file", C::KIND);
        problems.push(Problem::new("kind", what).at(Some(place)));
    }
    if let Some((place, version)) = root.text("apiVersion")
        && version != C::API_VERSION
    {
        let what = format!("is {version:?}, read as {}", C::API_VERSION);
        warnings.push(Warning(Problem::new("apiVersion", what).at(Some(place))));
    }
}

/// The YAML of `--defaultconfig`: every key with its default on this host.
pub fn default_yaml<C: ConfigFile>(host: &Host) -> String {
    let head = format!("# Every key of {} with its default.\n\n", C::KIND);
    head + &yaml(&serde_json::to_value(C::defaults(host)).unwrap_or_default())
}

/// The YAML of `--minconfig`: the keys most users look at; all others have their defaults.
pub fn minimal_yaml<C: ConfigFile>(host: &Host) -> String {
    let full = serde_json::to_value(C::defaults(host)).unwrap_or_default();
    let head = format!("# The keys of {} to look at first; what is left out has its default.\n\n", C::KIND);
    head + &yaml(&changed::only(&full, C::MINIMAL))
}

fn yaml(value: &serde_json::Value) -> String {
    // A value made of plain maps, lists and scalars has nothing a YAML writer could refuse.
    serde_saphyr::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
