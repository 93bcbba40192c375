//! Namespaces: what every one has, and its end.

use serde_json::{Value, json};

use super::{
    super::{
        kinds::{self, built_in_kind},
        registry::text,
        status::Refusal,
        storage::Write,
    },
    Desk,
};
use crate::edit::At as _;

pub(super) async fn reconcile(desk: &Desk, name: &str) -> Result<(), Refusal> {
    let kind = built_in_kind("", "namespaces");
    let Some(namespace) = desk.get(&kind, &(String::new(), name.to_owned())) else { return Ok(()) };
    if namespace.at("/metadata/deletionTimestamp").is_some() {
        return end(desk, name).await;
    }
    let settings = &desk.server.settings;
    let wanted = [
        (built_in_kind("", "serviceaccounts"), json!({"metadata": {"name": "default"}})),
        (
            built_in_kind("", "configmaps"),
            json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": settings.root_ca_pem}}),
        ),
    ];
    for (kind, object) in wanted {
        let at = (name.to_owned(), text(&object, "/metadata/name").to_owned());
        if desk.get(&kind, &at).is_none() {
            desk.create(&kind, name, object).await?;
        }
    }
    Ok(())
}

/// Deletes what is in a namespace; when nothing is left, the namespace itself.
async fn end(desk: &Desk, name: &str) -> Result<(), Refusal> {
    let inside = desk.server.storage.find(|key, _| key.namespace == name);
    if inside.is_empty() {
        let key = built_in_kind("", "namespaces").key("", name);
        desk.server.storage.write::<Refusal>(&key, |_| Ok(Write::Delete)).await?;
        return Ok(());
    }
    for (key, object) in inside.iter().filter(|(_, object)| !is_ending(object)) {
        let api = text(object, "/apiVersion");
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        if let Some(kind) = kinds::find(&desk.server.storage, group, version, &key.plural) {
            desk.delete(&kind, object, None).await?;
        }
    }
    Ok(())
}

fn is_ending(object: &Value) -> bool {
    object.at("/metadata/deletionTimestamp").is_some()
}
