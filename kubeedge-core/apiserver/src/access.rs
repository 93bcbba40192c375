//! Who may do what. People with a certificate or token of this server may do everything; a node only what is its own.

use super::{
    User,
    kinds::Kind,
    status::{Refusal, Subject},
};

/// Refuses what a user may not do.
pub(super) fn check(user: &User, verb: &str, kind: &Kind, name: &str, sub: &str) -> Result<(), Refusal> {
    let Some(node) = user.node() else { return Ok(()) };
    let reads = matches!(verb, "get" | "list" | "watch");
    let own = name == node;
    let allowed = match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "nodes") => verb == "create" || own || reads,
        ("coordination.k8s.io", "leases") => own || verb == "create",
        ("", "pods") => reads || matches!(sub, "status" | "eviction") || verb == "delete" || verb == "create",
        (
            "",
            "configmaps"
            | "secrets"
            | "services"
            | "endpoints"
            | "persistentvolumes"
            | "persistentvolumeclaims",
        ) => reads,
        ("", "serviceaccounts") => sub == "token" || reads,
        ("" | "events.k8s.io", "events") => true,
        ("certificates.k8s.io", _) => reads || verb == "create",
        ("storage.k8s.io", "volumeattachments") => reads,
        ("discovery.k8s.io", _) => reads,
        _ => false,
    };
    if allowed {
        return Ok(());
    }
    Err(Refusal::forbidden(&user.name, verb, &Subject { group: &kind.group, plural: &kind.plural, name }))
}
