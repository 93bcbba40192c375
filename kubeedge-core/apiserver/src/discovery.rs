//! What the server tells of itself: versions, groups, resources, OpenAPI.

use std::collections::BTreeMap;

use http::{HeaderValue, StatusCode, header};
use kubeedge_core::cluster::Body;
use serde_json::{Value, json};

use super::{
    Server, definitions,
    http::{Answer, full, json_answer},
    kinds::{self, Kind},
    object::Object,
    openapi,
    status::Refusal,
};

/// The version kubectl and client-go are told; that of the Kubernetes API served.
pub(super) const GIT_VERSION: &str = "v1.32.10+kubeedge";

/// `accept`: the form the client wants, where there is a choice.
pub(super) fn answer(server: &Server, path: &[&str], accept: &str) -> Answer {
    let value = match path {
        ["healthz" | "livez" | "readyz", ..] => return Ok(http::Response::new(full("ok"))),
        ["version"] => version(),
        ["api"] => {
            json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]})
        }
        ["apis"] => {
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups(server).iter().map(|(name, versions)| group(name, versions)).collect::<Vec<_>>()})
        }
        ["apis", name] => {
            let groups = groups(server);
            let versions = groups.get(*name).ok_or_else(Refusal::no_such_path)?;
            let mut group = group(name, versions);
            group.set(&["kind"], "APIGroup");
            group.set(&["apiVersion"], "v1");
            group
        }
        ["api", "v1"] => resources(server, "", "v1")?,
        ["apis", group, version] => resources(server, group, version)?,
        ["openapi", "v3"] => openapi_paths(server),
        ["openapi", "v3", "api", "v1"] => openapi::document(&of_version(server, "", "v1")),
        ["openapi", "v3", "apis", group, version] => openapi::document(&of_version(server, group, version)),
        ["openapi", "v2"] if accept.contains("protobuf") => return Ok(openapi_v2()),
        ["openapi", "v2"] => {
            json!({"swagger": "2.0", "info": {"title": "KubeEdge", "version": GIT_VERSION}, "paths": {}})
        }
        [""] | [] => json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/openapi/v3", "/version"]}),
        _ => return Err(Refusal::no_such_path()),
    };
    Ok(json_answer(StatusCode::OK, &value))
}

/// The older OpenAPI as client-go reads it: a document without definitions. Whoever finds a kind missing from v3 asks
/// here, and goes on to say so when the answer can be read.
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

fn served(server: &Server) -> impl Iterator<Item = Kind> {
    definitions::all(&server.storage).into_iter().chain(kinds::answered())
}

fn groups(server: &Server) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for kind in served(server).filter(|kind| !kind.group().is_empty()) {
        let versions = groups.entry(kind.group().to_owned()).or_default();
        if !versions.iter().any(|version| version == kind.version()) {
            versions.push(kind.version().to_owned());
        }
    }
    groups
}

fn group(name: &str, versions: &[String]) -> Value {
    let entry = |version: &String| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let list: Vec<_> = versions.iter().map(entry).collect();
    json!({"name": name, "versions": list, "preferredVersion": list.first()})
}

fn of_version(server: &Server, group: &str, version: &str) -> Vec<Kind> {
    served(server).filter(|kind| kind.group() == group && kind.version() == version).collect()
}

fn resources(server: &Server, group: &str, version: &str) -> Result<Value, Refusal> {
    let kinds = of_version(server, group, version);
    let first = kinds.first().ok_or_else(Refusal::no_such_path)?;
    let entries: Vec<_> = kinds.iter().flat_map(Kind::discovery).collect();
    Ok(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(), "resources": entries}),
    )
}

fn openapi_paths(server: &Server) -> Value {
    let mut paths = serde_json::Map::new();
    let mut add = |path: String| {
        let url = format!("/openapi/v3/{path}");
        paths.insert(path, json!({"serverRelativeURL": url}));
    };
    add("api/v1".to_owned());
    for (name, versions) in groups(server) {
        versions.iter().for_each(|version| add(format!("apis/{name}/{version}")));
    }
    json!({"paths": paths})
}
