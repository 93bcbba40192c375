//! The environment of a container: literals, references to ConfigMaps, Secrets and fields, and `$(VAR)`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret},
    apimachinery::pkg::api::resource::Quantity,
};
use kubeedge_common::quantity;

/// Why a container's environment or volumes cannot be made yet. Kubernetes shows it as
/// `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    /// A ConfigMap or Secret does not exist.
    #[error("{kind} \"{name}\" not found")]
    Missing { kind: &'static str, name: String },
    /// It exists without the key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    MissingKey { kind: &'static str, namespace: String, name: String, key: String },
    /// A field reference that pods do not have.
    #[error("unsupported field path {0:?}: see \"Available fields\" of the Kubernetes downward API")]
    Field(String),
    /// It could not be asked for.
    #[error("cannot read {kind} \"{name}\": {why}")]
    Unavailable { kind: &'static str, name: String, why: String },
}

/// The objects that a pod's containers refer to, read before anything is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct References {
    /// ConfigMaps by name; `None` for one that does not exist.
    pub config_maps: BTreeMap<String, Option<ConfigMap>>,
    /// Secrets by name; `None` for one that does not exist.
    pub secrets: BTreeMap<String, Option<Secret>>,
}

/// What the downward API can tell of a pod that runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodFacts {
    /// The node it runs on.
    pub node_name: String,
    /// The node's address.
    pub host_ip: String,
    /// Its addresses, the primary one first.
    pub pod_ips: Vec<String>,
    /// What the node can give: limits default to it.
    pub allocatable: BTreeMap<String, Quantity>,
}

const CONFIG_MAP: &str = "configmap";
const SECRET: &str = "secret";

impl References {
    /// The value of a ConfigMap's key as bytes; `Ok(None)` when it is optional and absent.
    pub(crate) fn config_map_key(
        &self,
        namespace: &str,
        name: &str,
        key: &str,
        optional: bool,
    ) -> Result<Option<Vec<u8>>, ConfigError> {
        let Some(map) = self.config_map(name, optional)? else { return Ok(None) };
        let text = map.data.as_ref().and_then(|data| data.get(key)).map(|text| text.clone().into_bytes());
        let found = text.or_else(|| map.binary_data.as_ref()?.get(key).map(|bytes| bytes.0.clone()));
        found.map_or_else(|| missing_key(CONFIG_MAP, namespace, name, key, optional), |value| Ok(Some(value)))
    }

    /// The value of a Secret's key; `Ok(None)` when it is optional and absent.
    pub(crate) fn secret_key(
        &self,
        namespace: &str,
        name: &str,
        key: &str,
        optional: bool,
    ) -> Result<Option<Vec<u8>>, ConfigError> {
        let Some(secret) = self.secret(name, optional)? else { return Ok(None) };
        let found = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
        found.map_or_else(|| missing_key(SECRET, namespace, name, key, optional), |value| Ok(Some(value)))
    }

    /// A ConfigMap; `Ok(None)` when it is optional and absent.
    pub(crate) fn config_map(&self, name: &str, optional: bool) -> Result<Option<&ConfigMap>, ConfigError> {
        found(CONFIG_MAP, name, self.config_maps.get(name).and_then(Option::as_ref), optional)
    }

    /// A Secret; `Ok(None)` when it is optional and absent.
    pub(crate) fn secret(&self, name: &str, optional: bool) -> Result<Option<&Secret>, ConfigError> {
        found(SECRET, name, self.secrets.get(name).and_then(Option::as_ref), optional)
    }
}

fn found<'a, T>(
    kind: &'static str,
    name: &str,
    object: Option<&'a T>,
    optional: bool,
) -> Result<Option<&'a T>, ConfigError> {
    match object {
        None if !optional => Err(ConfigError::Missing { kind, name: name.to_owned() }),
        object => Ok(object),
    }
}

fn missing_key<T>(
    kind: &'static str,
    namespace: &str,
    name: &str,
    key: &str,
    optional: bool,
) -> Result<Option<T>, ConfigError> {
    if optional {
        return Ok(None);
    }
    let (namespace, name, key) = (namespace.to_owned(), name.to_owned(), key.to_owned());
    Err(ConfigError::MissingKey { kind, namespace, name, key })
}

/// The environment of a container in order; later values of a name replace earlier ones.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    refs: &References,
    facts: &PodFacts,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut env = Environment::default();
    for (name, value) in from_sources(container, refs)? {
        env.set(name, value);
    }
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(literal), _) if !literal.is_empty() => Some(expand(literal, &env.values)),
            (_, Some(source)) => referenced(pod, container, source, refs, facts)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            env.set(var.name.clone(), value);
        }
    }
    Ok(env.in_order())
}

#[derive(Default)]
struct Environment {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Environment {
    fn set(&mut self, name: String, value: String) {
        if self.values.insert(name.clone(), value).is_none() {
            self.order.push(name);
        }
    }

    fn in_order(mut self) -> Vec<(String, String)> {
        let order = std::mem::take(&mut self.order);
        order.into_iter().filter_map(|name| self.values.remove_entry(&name)).collect()
    }
}

fn from_sources(container: &Container, refs: &References) -> Result<Vec<(String, String)>, ConfigError> {
    let mut out = Vec::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.clone().unwrap_or_default();
        if let Some(from) = &source.config_map_ref {
            let map = refs.config_map(&from.name, from.optional.unwrap_or(false))?;
            let data = map.and_then(|map| map.data.as_ref()).into_iter().flatten();
            out.extend(data.map(|(key, value)| (format!("{prefix}{key}"), value.clone())));
        }
        if let Some(from) = &source.secret_ref {
            let secret = refs.secret(&from.name, from.optional.unwrap_or(false))?;
            let data = secret.and_then(|secret| secret.data.as_ref()).into_iter().flatten();
            out.extend(data.map(|(key, value)| (format!("{prefix}{key}"), lossy(&value.0))));
        }
    }
    Ok(out)
}

fn referenced(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    refs: &References,
    facts: &PodFacts,
) -> Result<Option<String>, ConfigError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(from) = &source.config_map_key_ref {
        let value = refs.config_map_key(namespace, &from.name, &from.key, from.optional.unwrap_or(false))?;
        return Ok(value.as_deref().map(lossy));
    }
    if let Some(from) = &source.secret_key_ref {
        let value = refs.secret_key(namespace, &from.name, &from.key, from.optional.unwrap_or(false))?;
        return Ok(value.as_deref().map(lossy));
    }
    if let Some(field) = &source.field_ref {
        return pod_field(pod, &field.field_path, facts).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return resource_field(pod, container, resource, facts).map(Some);
    }
    Ok(Some(String::new()))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A field of the pod as the downward API gives it.
pub(crate) fn pod_field(pod: &Pod, path: &str, facts: &PodFacts) -> Result<String, ConfigError> {
    let meta = &pod.metadata;
    let value = match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => Some(lines(meta.labels.as_ref())),
        "metadata.annotations" => Some(lines(meta.annotations.as_ref())),
        "spec.nodeName" => Some(facts.node_name.clone()),
        "spec.serviceAccountName" => pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()),
        "status.hostIP" | "status.hostIPs" => Some(facts.host_ip.clone()),
        "status.podIP" => Some(facts.pod_ips.first().cloned().unwrap_or_default()),
        "status.podIPs" => Some(facts.pod_ips.join(",")),
        _ => return subscripted(pod, path).ok_or_else(|| ConfigError::Field(path.to_owned())),
    };
    Ok(value.unwrap_or_default())
}

/// `metadata.labels['key']` and `metadata.annotations['key']`; an absent key is empty.
fn subscripted(pod: &Pod, path: &str) -> Option<String> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    let map = match map {
        "metadata.labels" => pod.metadata.labels.as_ref(),
        "metadata.annotations" => pod.metadata.annotations.as_ref(),
        _ => return None,
    };
    Some(map.and_then(|map| map.get(key)).cloned().unwrap_or_default())
}

/// `key="value"` lines, as the kubelet writes label and annotation files.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// A container's request or limit, divided by the divisor and rounded up, as the downward API gives it.
pub(crate) fn resource_field(
    pod: &Pod,
    container: &Container,
    selector: &k8s_openapi::api::core::v1::ResourceFieldSelector,
    facts: &PodFacts,
) -> Result<String, ConfigError> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let spec = pod.spec.as_ref();
    let all = spec.map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let container = match (named, all) {
        (Some(name), Some(mut all)) => all.find(|c| c.name == name).unwrap_or(container),
        _ => container,
    };
    let unknown = || ConfigError::Field(selector.resource.clone());
    let (side, resource) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let resources = container.resources.as_ref();
    let declared = match side {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(unknown()),
    };
    let declared = declared.and_then(|map| map.get(resource));
    // A container without a limit may use what the node has; without a request it asks for nothing.
    let quantity = declared.or_else(|| (side == "limits").then(|| facts.allocatable.get(resource)).flatten());
    let divisor = selector.divisor.as_ref().map(|q| q.0.as_str()).filter(|q| !q.is_empty() && *q != "0");
    let milli = quantity.map_or(0, |q| quantity::milli(&q.0));
    let by = divisor.map_or(1000, quantity::milli).max(1);
    Ok(milli.div_ceil(by).to_string())
}

/// Replaces `$(NAME)` by its value; `$$` is a dollar sign; an unknown name stays as written.
pub(crate) fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (plain, tail) = rest.split_at(at);
        out.push_str(plain);
        let after = tail.get(1..).unwrap_or_default();
        let reference = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        rest = match (after.strip_prefix('$'), reference) {
            (Some(more), _) => {
                out.push('$');
                more
            }
            (None, Some((name, more))) => {
                match values.get(name) {
                    Some(value) => out.push_str(value),
                    None => out.extend(["$(", name, ")"]),
                }
                more
            }
            (None, None) => {
                out.push('$');
                after
            }
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u1", "labels": {"app": "web"}},
            "spec": {"nodeName": "edge-1", "containers": [{
                "name": "c", "image": "i",
                "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
                "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "none", "optional": true}}],
                "env": [
                    {"name": "GREETING", "value": "hi"},
                    {"name": "TWICE", "value": "$(GREETING) $(GREETING) $$(GREETING) $(NOPE) $"},
                    {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
                    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                    {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                    {"name": "GREETING", "value": "bye"}
                ]}]}
        }))
        .unwrap()
    }

    fn refs() -> References {
        let cm = serde_json::from_value(json!({"data": {"a": "1", "b": "2"}})).unwrap();
        let secret = serde_json::from_value(json!({"data": {"password": "cHc="}})).unwrap();
        References {
            config_maps: [("cm".to_owned(), Some(cm))].into(),
            secrets: [("s".to_owned(), Some(secret)), ("none".to_owned(), None)].into(),
        }
    }

    fn facts() -> PodFacts {
        PodFacts { node_name: "edge-1".into(), pod_ips: vec!["10.0.0.7".into()], ..PodFacts::default() }
    }

    fn env_of(pod: &Pod, refs: &References) -> Result<BTreeMap<String, String>, ConfigError> {
        let container = &pod.spec.as_ref().unwrap().containers[0];
        Ok(environment(pod, container, refs, &facts())?.into_iter().collect())
    }

    #[test]
    fn a_container_sees_literals_references_fields_and_expansions() {
        let env = env_of(&pod(), &refs()).unwrap();
        let expected = [
            ("P_a", "1"),
            ("P_b", "2"),
            ("TWICE", "hi hi $(GREETING) $(NOPE) $"),
            ("SECRET", "pw"),
            ("POD", "web"),
            ("APP", "web"),
            ("IP", "10.0.0.7"),
            ("CPU", "1"),
            ("MEM", "64"),
            ("GREETING", "bye"),
        ];
        for (name, value) in expected {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!(env.len(), expected.len());
    }

    #[test]
    fn a_missing_config_map_or_key_is_named() {
        let mut missing = refs();
        missing.config_maps.insert("cm".into(), None);
        assert_eq!(env_of(&pod(), &missing).unwrap_err().to_string(), "configmap \"cm\" not found");
        let mut keyless = refs();
        keyless.secrets.insert("s".into(), Some(Secret::default()));
        assert_eq!(
            env_of(&pod(), &keyless).unwrap_err().to_string(),
            "couldn't find key password in secret default/s"
        );
    }

    #[test]
    fn an_unknown_field_path_is_refused_with_its_name() {
        let error = pod_field(&pod(), "spec.secretWish", &facts()).unwrap_err();
        assert!(error.to_string().contains("spec.secretWish"));
    }
}
