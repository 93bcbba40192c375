//! Questions about access: who am I, may I.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::edit::put;

use super::{
    http::{Answer, Call, json_answer},
    kinds::Kind,
    status::Refusal,
};

const REVIEWS: [(&str, &str, &str); 4] = [
    ("authorization.k8s.io", "SelfSubjectAccessReview", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews"),
    ("authorization.k8s.io", "SelfSubjectRulesReview", "selfsubjectrulesreviews"),
    ("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews"),
];

/// The kinds that are answered and never stored.
pub(super) fn kinds() -> impl Iterator<Item = Kind> {
    REVIEWS.iter().map(|(group, kind, plural)| Kind {
        group: (*group).to_owned(),
        version: "v1".to_owned(),
        kind: (*kind).to_owned(),
        plural: (*plural).to_owned(),
        ..Kind::default()
    })
}

pub(super) fn kind(group: &str, version: &str, plural: &str) -> Option<Kind> {
    kinds().find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}

pub(super) fn is_review(kind: &Kind) -> bool {
    matches!(kind.group.as_str(), "authorization.k8s.io" | "authentication.k8s.io")
}

pub(super) fn discovery(kind: &Kind) -> Vec<Value> {
    vec![
        json!({"name": kind.plural, "singularName": kind.kind.to_lowercase(), "namespaced": false, "kind": kind.kind, "verbs": ["create"]}),
    ]
}

pub(super) fn answer(call: &Call, kind: &Kind) -> Answer {
    if call.method != Method::POST {
        return Err(Refusal::method_not_allowed());
    }
    let mut review: Value = call.object()?;
    let user = &call.user;
    let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
    put(
        &mut review,
        &["status"],
        match kind.plural.as_str() {
            "selfsubjectreviews" => json!({"userInfo": {"username": user.name, "groups": user.groups}}),
            "selfsubjectrulesreviews" => {
                json!({"resourceRules": all, "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}], "incomplete": false})
            }
            _ => json!({"allowed": user.node().is_none()}),
        },
    );
    Ok(json_answer(StatusCode::CREATED, &review))
}
