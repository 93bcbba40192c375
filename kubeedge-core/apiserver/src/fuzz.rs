//! Doors for fuzzers: what reads bytes of clients. No stable interface.

/// The object in a protobuf body of a Kubernetes client, if it is read.
pub fn object(body: &[u8]) -> Option<serde_json::Value> {
    crate::protobuf::decode(body).ok()
}
