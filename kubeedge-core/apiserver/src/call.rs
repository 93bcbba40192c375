//! A request, taken apart.

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use kubeedge_common::http::{BodyError, Query, read_body};
use kubeedge_core::cluster::Body;
use serde_json::{Value, json};

use crate::{
    admission::{Deletion, Validation},
    object::Object,
    protobuf,
    status::Refusal,
    user::User,
};

/// The largest body; Kubernetes' own limit.
pub(crate) const MAX_BODY: usize = 3 << 20;

/// A request, taken apart.
#[derive(Debug)]
pub(crate) struct Call {
    pub method: Method,
    pub query: Query,
    pub headers: HeaderMap,
    pub user: User,
    pub body: Bytes,
}

impl Call {
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.query.first(name).is_some_and(|value| matches!(value, "true" | "1"))
    }

    pub(crate) fn param(&self, name: &str) -> &str {
        self.query.first(name).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(crate) fn wants_table(&self) -> bool {
        self.header(header::ACCEPT).contains("as=Table")
    }

    pub(crate) fn wants_metadata(&self) -> bool {
        self.header(header::ACCEPT).contains("as=PartialObjectMetadata")
    }

    pub(crate) fn include(&self) -> &str {
        self.param("includeObject")
    }

    pub(crate) fn dry_run(&self) -> bool {
        let of_deletion = || self.object().ok()?.get("dryRun")?.as_array().cloned();
        self.param("dryRun") == "All"
            || self.method == Method::DELETE
                && of_deletion().is_some_and(|list| list.iter().any(|stage| stage == "All"))
    }

    pub(crate) fn validation(&self) -> Validation {
        match self.param("fieldValidation") {
            "Strict" => Validation::Strict,
            "Ignore" => Validation::Ignore,
            _ => Validation::Warn,
        }
    }

    pub(crate) fn manager(&self) -> String {
        let named = self.param("fieldManager");
        let agent = self.header(header::USER_AGENT).split('/').next().unwrap_or_default();
        if named.is_empty() { agent.to_owned() } else { named.to_owned() }
    }

    /// The body as one object: JSON, or YAML or protobuf where Kubernetes takes it.
    pub(crate) fn object(&self) -> Result<Value, Refusal> {
        let kind = self.header(header::CONTENT_TYPE);
        if kind.starts_with("application/vnd.kubernetes.protobuf") {
            return protobuf::decode(&self.body);
        }
        if kind.contains("yaml") && !self.body.trim_ascii_start().starts_with(b"{") {
            let text =
                std::str::from_utf8(&self.body).map_err(|_| Refusal::bad_request("the body is not UTF-8"))?;
            return serde_saphyr::from_str(text)
                .map_err(|error| Refusal::bad_request(format!("error parsing YAML: {error}")));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Refusal::bad_request(format!("error parsing the body: {error}")))
    }
}

pub(crate) fn deletion(call: &Call) -> Result<Deletion, Refusal> {
    let options = if call.body.is_empty() { json!({}) } else { call.object()? };
    Ok(deletion_by(call, &options))
}

/// The deletion that options in the body and the query ask for.
pub(crate) fn deletion_by(call: &Call, options: &Value) -> Deletion {
    let own = |path: &[&str]| options.at(path).and_then(Value::as_str).map(str::to_owned);
    let grace = options.get("gracePeriodSeconds").and_then(Value::as_i64);
    let policy = own(&["propagationPolicy"]).or_else(|| {
        let orphan = options.get("orphanDependents").and_then(Value::as_bool)?;
        orphan.then(|| "Orphan".to_owned())
    });
    let param = |name: &str| Some(call.param(name).to_owned()).filter(|value| !value.is_empty());
    Deletion {
        grace: grace.or_else(|| call.param("gracePeriodSeconds").parse().ok()),
        uid: own(&["preconditions", "uid"]),
        version: own(&["preconditions", "resourceVersion"]),
        policy: policy.or_else(|| param("propagationPolicy")),
    }
}

/// The whole body, as long as it is within the limit.
pub(crate) async fn read(body: Body) -> Result<Bytes, Refusal> {
    read_body(body, MAX_BODY).await.map_err(|error| match error {
        BodyError::TooLarge { limit } => Refusal::too_large(limit),
        error @ BodyError::Broken(_) => Refusal::bad_request(error.to_string()),
    })
}

pub(crate) fn continued(token: &str) -> Result<Option<(String, String)>, Refusal> {
    if token.is_empty() {
        return Ok(None);
    }
    let place = token.split_once('/').map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
    place.map(Some).ok_or_else(|| Refusal::bad_request("continue key is not valid"))
}

pub(crate) fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}
