//! The one error shape of all seams: a kind, what was being done, to what, and why.
//!
//! Callers act on the [`Kind`] and its [`Advice`], never on text.
//!
//! ```
//! use kubeedge_core::failure::{Advice, Failure};
//! use kubeedge_core::store::{StoreError, StoreKind};
//!
//! let error: StoreError = Failure::new(StoreKind::Full, "committing a batch").on("default/pod/web");
//! assert_eq!(error.to_string(), "store is full while committing a batch (default/pod/web)");
//! assert_eq!(error.advice(), Advice::GiveUp);
//! ```

use std::{error, fmt};

/// Any error at all, for places where the kind no longer matters.
pub type BoxError = Box<dyn error::Error + Send + Sync + 'static>;

/// What a caller may sensibly do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Advice {
    /// Trying again changes nothing: tell the user.
    GiveUp,
    /// The same call may succeed a little later.
    Retry,
    /// The connection or handle is gone: make a new one, then try again.
    Reconnect,
}

/// The closed vocabulary of what can go wrong at one seam.
pub trait Kind: Copy + fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// What a caller may do about it.
    fn advice(self) -> Advice;
}

/// An error of a seam: kind, activity, subject and source.
pub struct Failure<K> {
    kind: K,
    doing: &'static str,
    subject: String,
    source: Option<BoxError>,
}

impl<K: Kind> Failure<K> {
    /// A failure of `kind` that happened while `doing` (a verb in -ing form: "committing a batch").
    pub fn new(kind: K, doing: &'static str) -> Self {
        Self { kind, doing, subject: String::new(), source: None }
    }

    /// Names what it happened to: a key, an address, a device.
    #[must_use]
    pub fn on(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Keeps the underlying error as the source.
    #[must_use]
    pub fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind callers match on.
    pub fn kind(&self) -> K {
        self.kind
    }

    /// What a caller may do next, as the kind says.
    pub fn advice(&self) -> Advice {
        self.kind.advice()
    }

    /// What it happened to; empty when nothing was named.
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

impl<K: Kind> fmt::Display for Failure<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} while {}", self.kind, self.doing)?;
        if !self.subject.is_empty() {
            write!(f, " ({})", self.subject)?;
        }
        Ok(())
    }
}

impl<K: Kind> fmt::Debug for Failure<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        if let Some(source) = &self.source {
            write!(f, ": {source:?}")?;
        }
        Ok(())
    }
}

impl<K: Kind> error::Error for Failure<K> {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Prints an error with all its sources on one line: `a: b: c`. For logs and status messages.
pub fn chain(error: &(dyn error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = source.source();
    }
    text
}

/// Declares a seam's vocabulary of failures: `Name { Variant => "text", Advice; … }`.
#[macro_export]
macro_rules! kinds {
    ($(#[$meta:meta])* $name:ident { $($variant:ident => $text:literal, $advice:ident;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $(#[doc = $text] $variant),*
        }
        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(match self { $(Self::$variant => $text),* })
            }
        }
        impl $crate::failure::Kind for $name {
            fn advice(self) -> $crate::failure::Advice {
                match self { $(Self::$variant => $crate::failure::Advice::$advice),* }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreKind;

    #[test]
    fn a_failure_names_kind_activity_subject_and_source() {
        let io = std::io::Error::other("disk on fire");
        let failure = Failure::new(StoreKind::Io, "committing a batch").on("a/b").because(io);
        assert_eq!(failure.to_string(), "storage failed while committing a batch (a/b)");
        assert_eq!(chain(&failure), "storage failed while committing a batch (a/b): disk on fire");
        assert_eq!(failure.kind(), StoreKind::Io);
    }
}
