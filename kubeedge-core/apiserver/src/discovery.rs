//! What the server tells of itself: versions, groups, resources, OpenAPI.

use std::collections::BTreeMap;

use http::{HeaderValue, StatusCode, header};
use kubeedge_core::cluster::Body;
use serde_json::{Value, json};

use super::{
    answer::{Answer, full, json_answer},
    kinds::Kind,
    object::Object,
    openapi::{self, GIT_VERSION},
    registry::Registry,
    status::Refusal,
};

/// `accept`: the form the client wants, where there is a choice.
pub(super) async fn answer(registry: &Registry, path: &[&str], accept: &str) -> Answer {
    let value = match path {
        ["healthz" | "livez" | "readyz", ..] => return Ok(http::Response::new(full("ok"))),
        ["version"] => version(),
        ["api"] => {
            json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]})
        }
        ["apis"] => {
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups(registry).await?.iter().map(|(name, versions)| group(name, versions)).collect::<Vec<_>>()})
        }
        ["apis", name] => {
            let groups = groups(registry).await?;
            let versions = groups.get(*name).ok_or_else(Refusal::no_such_path)?;
            let mut group = group(name, versions);
            group.set(&["kind"], "APIGroup");
            group.set(&["apiVersion"], "v1");
            group
        }
        ["api", "v1"] => resources(registry, "", "v1").await?,
        ["apis", group, version] => resources(registry, group, version).await?,
        ["openapi", "v3"] => openapi_paths(registry).await?,
        ["openapi", "v3", "api", "v1"] => openapi::document(&of_version(registry, "", "v1").await?),
        ["openapi", "v3", "apis", group, version] => {
            openapi::document(&of_version(registry, group, version).await?)
        }
        ["openapi", "v2"] if accept.contains("protobuf") => return Ok(openapi_v2()),
        ["openapi", "v2"] => {
            json!({"swagger": "2.0", "info": {"title": "KubeEdge", "version": GIT_VERSION}, "paths": {}})
        }
        [""] | [] => json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/openapi/v3", "/version"]}),
        _ => return Err(Refusal::no_such_path()),
    };
    Ok(json_answer(StatusCode::OK, &value))
}

/// The older OpenAPI as client-go reads it: a document without definitions. Whoever finds a kind missing from
/// v3 asks here, and goes on to say so when the answer can be read.
fn openapi_v2() -> http::Response<Body> {
    // Field 1 of `openapi.v2.Document`: swagger = "2.0".
    let mut response = http::Response::new(full(b"\x0a\x032.0".as_slice()));
    let kind = HeaderValue::from_static("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "32", "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": format!("linux/{}", std::env::consts::ARCH),
    })
}

async fn groups(registry: &Registry) -> Result<BTreeMap<String, Vec<String>>, Refusal> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for kind in registry.kinds().await?.iter().filter(|kind| !kind.group().is_empty()) {
        let versions = groups.entry(kind.group().to_owned()).or_default();
        if !versions.iter().any(|version| version == kind.version()) {
            versions.push(kind.version().to_owned());
        }
    }
    Ok(groups)
}

fn group(name: &str, versions: &[String]) -> Value {
    let entry = |version: &String| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let list: Vec<_> = versions.iter().map(entry).collect();
    json!({"name": name, "versions": list, "preferredVersion": list.first()})
}

async fn of_version(registry: &Registry, group: &str, version: &str) -> Result<Vec<Kind>, Refusal> {
    let mut kinds = registry.kinds().await?;
    kinds.retain(|kind| kind.group() == group && kind.version() == version);
    Ok(kinds)
}

async fn resources(registry: &Registry, group: &str, version: &str) -> Result<Value, Refusal> {
    let kinds = of_version(registry, group, version).await?;
    let first = kinds.first().ok_or_else(Refusal::no_such_path)?;
    let entries: Vec<_> = kinds.iter().flat_map(Kind::discovery).collect();
    Ok(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(), "resources": entries}),
    )
}

async fn openapi_paths(registry: &Registry) -> Result<Value, Refusal> {
    let mut paths = serde_json::Map::new();
    let mut add = |path: String| {
        let url = format!("/openapi/v3/{path}");
        paths.insert(path, json!({"serverRelativeURL": url}));
    };
    add("api/v1".to_owned());
    for (name, versions) in groups(registry).await? {
        versions.iter().for_each(|version| add(format!("apis/{name}/{version}")));
    }
    Ok(json!({"paths": paths}))
}
