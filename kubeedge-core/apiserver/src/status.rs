//! Failures as Kubernetes tells them: `Status` objects.

use std::fmt;

use http::StatusCode;
use serde_json::{Value, json};

use crate::object::Object;

/// A field that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where it stands: `spec.containers[0].image`.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

impl Problem {
    pub(crate) fn new(path: impl Into<String>, why: impl Into<String>) -> Self {
        Self { path: path.into(), why: why.into() }
    }

    /// A field that is missing.
    pub(crate) fn required(path: &str) -> Self {
        Self::new(path, "Required value")
    }
}

/// Why a request was not carried out: Kubernetes' reasons, which clients act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Invalid,
    MethodNotAllowed,
    NotImplemented,
    UnsupportedMediaType,
    RequestEntityTooLarge,
    Expired,
    InternalError,
    ServiceUnavailable,
}

impl Reason {
    /// The code that goes with it.
    fn code(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists | Self::Conflict => StatusCode::CONFLICT,
            Self::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RequestEntityTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Expired => StatusCode::GONE,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl fmt::Display for Reason {
    /// As Kubernetes writes it, which is as it is named here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A request that was not carried out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    pub code: StatusCode,
    pub reason: Reason,
    pub message: String,
    pub details: Value,
}

/// What a refusal is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject<'a> {
    pub group: &'a str,
    pub plural: &'a str,
    pub name: &'a str,
}

impl Subject<'_> {
    fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    fn details(&self) -> Value {
        let mut details = json!({"name": self.name, "kind": self.plural});
        if !self.group.is_empty() {
            details.set(&["group"], self.group);
        }
        details
    }
}

impl Refusal {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { code: reason.code(), reason, message: message.into(), details: Value::Null }
    }

    /// The same in other words.
    pub(crate) fn saying(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    pub(crate) fn forbidden(user: &str, verb: &str, subject: &Subject<'_>) -> Self {
        let message = format!(
            "{} {:?} is forbidden: User {user:?} cannot {verb} resource {:?} in API group {:?}",
            subject.resource(),
            subject.name,
            subject.plural,
            subject.group
        );
        Self { details: subject.details(), ..Self::new(Reason::Forbidden, message) }
    }

    pub(crate) fn not_found(subject: &Subject<'_>) -> Self {
        let message = format!("{} {:?} not found", subject.resource(), subject.name);
        Self { details: subject.details(), ..Self::new(Reason::NotFound, message) }
    }

    pub(crate) fn no_such_path() -> Self {
        Self::new(Reason::NotFound, "the server could not find the requested resource")
    }

    pub(crate) fn exists(subject: &Subject<'_>) -> Self {
        let message = format!("{} {:?} already exists", subject.resource(), subject.name);
        Self { details: subject.details(), ..Self::new(Reason::AlreadyExists, message) }
    }

    pub(crate) fn conflict(subject: &Subject<'_>, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {:?}: {why}", subject.resource(), subject.name);
        Self { details: subject.details(), ..Self::new(Reason::Conflict, message) }
    }

    /// The object changed since it was read.
    pub(crate) fn stale(subject: &Subject<'_>) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(subject, why)
    }

    /// Fields that are not as they must be.
    pub(crate) fn invalid(kind: &str, subject: &Subject<'_>, problems: &[Problem]) -> Self {
        let list: Vec<_> =
            problems.iter().map(|problem| format!("{}: {}", problem.path, problem.why)).collect();
        let text = match list.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let kind_group =
            if subject.group.is_empty() { kind.to_owned() } else { format!("{kind}.{}", subject.group) };
        let causes: Vec<_> = problems
            .iter()
            .map(|problem| json!({"reason": "FieldValueInvalid", "message": problem.why, "field": problem.path}))
            .collect();
        let mut details = subject.details();
        details.set(&["kind"], kind);
        details.set(&["causes"], causes);
        let message = format!("{kind_group} {:?} is invalid: {text}", subject.name);
        Self { details, ..Self::new(Reason::Invalid, message) }
    }

    /// What cannot be made of an object, though the request can be read.
    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(Reason::Invalid, message)
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(Reason::MethodNotAllowed, message)
    }

    /// A part of the API that is not there, though Kubernetes has it.
    pub(crate) fn not_served(what: &str) -> Self {
        let message = format!("{what} is not served by this API server");
        Self::new(Reason::NotImplemented, message)
    }

    pub(crate) fn media_type(message: impl Into<String>) -> Self {
        Self::new(Reason::UnsupportedMediaType, message)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(Reason::RequestEntityTooLarge, message)
    }

    pub(crate) fn expired() -> Self {
        let message = "The resourceVersion for the provided watch is too old.";
        Self::new(Reason::Expired, message)
    }

    /// Somebody else was faster than a write.
    pub(crate) fn changed_meanwhile(what: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {what:?}: the object was changed meanwhile");
        Self::new(Reason::Conflict, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Reason::InternalError, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Reason::ServiceUnavailable, message)
    }

    /// The `Status` object.
    pub(crate) fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason.to_string(), "code": self.code.as_u16(),
        });
        if !self.details.is_null() {
            status.set(&["details"], self.details.clone());
        }
        status
    }
}
