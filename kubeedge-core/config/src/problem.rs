//! What can be wrong with a configuration file, and how it is told.

use std::{fmt, io};

/// A place in a file; both count from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// One thing that is wrong: where, with which key, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands; `None` for a key that the file leaves out.
    pub place: Option<Place>,
    /// The key, as in `modules.cloudHub.websocket.port`; empty for the whole file.
    pub path: String,
    /// What is wrong and what to do about it.
    pub what: String,
}

impl Problem {
    pub(super) fn new(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: None, path: path.into(), what: what.into() }
    }

    pub(super) fn at(mut self, place: Option<Place>) -> Self {
        self.place = place;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place {
            write!(f, "{place}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)
    }
}

/// Something of a file that the user should know, though the file can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub Problem);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "cannot read the configuration file {name}: {source}; --defaultconfig and --minconfig print one to start from"
    )]
    File {
        /// The file.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The file is larger than [`MAX_FILE`](super::MAX_FILE).
    #[error("the configuration file {name} is larger than {} bytes", super::MAX_FILE)]
    TooLarge {
        /// The file.
        name: String,
    },
    /// The file is no YAML.
    #[error("{name}: {place}: not valid YAML: {what}", place = Known(*place))]
    Yaml {
        /// The file.
        name: String,
        /// Where reading stopped.
        place: Option<Place>,
        /// What is wrong.
        what: String,
    },
    /// Keys have values that cannot be used; all of them are listed.
    #[error("{name}: {}", List(problems))]
    Invalid {
        /// The file.
        name: String,
        /// What is wrong; never empty.
        problems: Vec<Problem>,
    },
}

/// A configuration that keeps all rules and yet cannot be served, for want of an ability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}")]
pub struct PlanError {
    /// The key.
    pub path: &'static str,
    /// What is wrong and what to do.
    pub what: String,
}

impl PlanError {
    /// `what` is wrong with the key at `path`.
    pub fn new(path: &'static str, what: impl Into<String>) -> Self {
        Self { path, what: what.into() }
    }
}

struct Known(Option<Place>);

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(place) => place.fmt(f),
            None => f.write_str("somewhere"),
        }
    }
}

/// One problem on the same line, several on lines of their own.
struct List<'a>(&'a [Problem]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0 {
            return only.fmt(f);
        }
        write!(f, "{} problems", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}
