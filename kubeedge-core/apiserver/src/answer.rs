//! Answers to requests.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use kubeedge_core::cluster::Body;
use serde_json::{Value, json};

use crate::status::Refusal;

pub(crate) type Answer = Result<Response<Body>, Refusal>;

/// A body of known text.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A JSON answer.
pub(crate) fn json_answer(code: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What was not carried out, as a `Status` object.
pub(crate) fn refused(refusal: &Refusal) -> Response<Body> {
    json_answer(refusal.code, &refusal.to_json())
}

/// The answer to a binding and an eviction.
pub(crate) fn success() -> Response<Body> {
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    json_answer(StatusCode::CREATED, &status)
}
