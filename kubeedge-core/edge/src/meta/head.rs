//! What is read of an object: what decides between two forms of it. The rest is skipped, not parsed.

use kubeedge_core::name::ResourceVersion;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The head of an object. Empty where the bytes are no object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The API group it states; `None` where it states none.
    pub group: Option<String>,
    /// The unique id; empty where it has none.
    pub uid: String,
    /// The resourceVersion; empty where it has none.
    pub version: ResourceVersion,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parts<'a> {
    #[serde(borrow, default)]
    api_version: Option<&'a RawValue>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: ResourceVersion,
}

impl Head {
    /// Reads it.
    pub(super) fn of(object: &[u8]) -> Self {
        let Parts { api_version, metadata } = serde_json::from_slice(object).unwrap_or_default();
        let group = api_version.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok()).map(group_of);
        Self { group, uid: metadata.uid, version: metadata.resource_version }
    }

    /// Whether both are the same object and this is an earlier form of it.
    pub(super) fn is_older_than(&self, other: &Self) -> bool {
        let versions = (self.version.number(), other.version.number());
        self.uid == other.uid && matches!(versions, (Some(ours), Some(theirs)) if ours < theirs)
    }
}

/// `apps` of `apps/v1`, nothing of `v1`.
fn group_of(api_version: String) -> String {
    api_version.rsplit_once('/').map(|(group, _)| group.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_of_any_object() {
        let head = |text: &str| Head::of(text.as_bytes());
        let full = head(
            r#"{"apiVersion":"apps/v1","spec":[{}],"metadata":{"name":"d","uid":"u","resourceVersion":"7"}}"#,
        );
        assert_eq!(
            (full.group.as_deref(), full.uid.as_str(), full.version.number()),
            (Some("apps"), "u", Some(7))
        );
        assert_eq!(head(r#"{"apiVersion":"v1"}"#).group.as_deref(), Some(""));
        assert_eq!(head(r#"{"apiVersion":1,"metadata":{"uid":"u"}}"#).uid, "u");
        assert_eq!(head("nonsense"), Head::default());
    }
}
