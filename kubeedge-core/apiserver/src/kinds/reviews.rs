//! Kinds that are answered and never stored. People with a certificate or token of this server may do
//! everything.

use serde_json::{Value, json};

use super::{access, built_in::BuiltIn, columns::NAME_AND_AGE};
use crate::user::User;

const AUTHORIZATION: &str = "authorization.k8s.io";

pub(super) const SELF_SUBJECT_ACCESS_REVIEW: BuiltIn = BuiltIn {
    answer: Some(allowed),
    ..BuiltIn::cluster(
        (AUTHORIZATION, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews"),
        NAME_AND_AGE,
        access::nothing,
    )
};

pub(super) const SUBJECT_ACCESS_REVIEW: BuiltIn = BuiltIn {
    answer: Some(allowed),
    ..BuiltIn::cluster(
        (AUTHORIZATION, "v1", "SubjectAccessReview", "subjectaccessreviews"),
        NAME_AND_AGE,
        access::nothing,
    )
};

pub(super) const SELF_SUBJECT_RULES_REVIEW: BuiltIn = BuiltIn {
    answer: Some(rules),
    ..BuiltIn::cluster(
        (AUTHORIZATION, "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews"),
        NAME_AND_AGE,
        access::nothing,
    )
};

pub(super) const SELF_SUBJECT_REVIEW: BuiltIn = BuiltIn {
    answer: Some(|user| json!({"userInfo": {"username": user.name, "groups": user.groups}})),
    ..BuiltIn::cluster(
        ("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews"),
        NAME_AND_AGE,
        access::nothing,
    )
};

fn allowed(user: &User) -> Value {
    json!({"allowed": user.node().is_none()})
}

fn rules(_: &User) -> Value {
    let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
    json!({"resourceRules": all, "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}], "incomplete": false})
}
