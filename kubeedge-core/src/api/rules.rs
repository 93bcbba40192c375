//! `rules.kubeedge.io/v1`: messages routed between cloud and edge.

use std::collections::BTreeMap;

#[cfg(feature = "crds")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{absent, kind};

kind! {
    /// Takes messages from one endpoint to another.
    Rule of "rules.kubeedge.io" "v1", "rules", NamespaceResourceScope,
    {
        /// From where to where.
        spec: RuleSpec,
        /// How many messages went.
        #[serde(skip_serializing_if = "absent")]
        status: RuleStatus,
    },
    {
        const SINGULAR: &'static str = "rule";
    }
}

kind! {
    /// Where messages come from or go to.
    RuleEndpoint of "rules.kubeedge.io" "v1", "ruleendpoints", NamespaceResourceScope,
    {
        /// What it is.
        spec: RuleEndpointSpec,
    },
    {
        const SINGULAR: &'static str = "ruleendpoint";
        const SHORT_NAMES: &'static [&'static str] = &["re"];
    }
}

/// From where to where messages go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RuleSpec {
    /// The name of the RuleEndpoint messages come from.
    pub source: String,
    /// What of the source: `path` of a rest endpoint; `topic` and `node_name` of an eventbus endpoint.
    pub source_resource: BTreeMap<String, String>,
    /// The name of the RuleEndpoint messages go to.
    pub target: String,
    /// What of the target: `resource` (a URL) of a rest endpoint, `topic` of an eventbus endpoint, `path` of
    /// a servicebus endpoint.
    pub target_resource: BTreeMap<String, String>,
}

/// How many messages a rule took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct RuleStatus {
    /// Those that arrived.
    #[serde(skip_serializing_if = "absent")]
    pub success_messages: i64,
    /// Those that did not.
    #[serde(skip_serializing_if = "absent")]
    pub fail_messages: i64,
    /// Why they did not.
    #[serde(skip_serializing_if = "absent")]
    pub errors: Vec<String>,
}

/// What an endpoint is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RuleEndpointSpec {
    /// `rest` (HTTP of the cloud), `eventbus` (MQTT of an edge) or `servicebus` (HTTP of an edge).
    #[cfg_attr(feature = "crds", schemars(extend("enum" = ["rest", "eventbus", "servicebus"])))]
    pub rule_endpoint_type: String,
    /// What the type needs: `service_port` of a servicebus endpoint.
    #[serde(default, skip_serializing_if = "absent")]
    pub properties: BTreeMap<String, String>,
}
