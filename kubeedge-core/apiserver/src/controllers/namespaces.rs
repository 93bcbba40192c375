//! Namespaces: what every one has, and its end.

use serde_json::{Value, json};

use super::{
    super::{
        definitions,
        kinds::{CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS},
        object::Object,
        status::Refusal,
        storage::Write,
    },
    Desk,
};

pub(super) async fn reconcile(desk: &Desk, name: &str) -> Result<(), Refusal> {
    let kind = NAMESPACES;
    let Some(namespace) = desk.get(&kind, &(String::new(), name.to_owned())) else { return Ok(()) };
    if namespace.is_deleting() {
        return end(desk, name).await;
    }
    let settings = &desk.server.settings;
    let wanted = [
        (SERVICE_ACCOUNTS, json!({"metadata": {"name": "default"}})),
        (
            CONFIG_MAPS,
            json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": settings.root_ca_pem}}),
        ),
    ];
    for (kind, object) in wanted {
        let at = (name.to_owned(), object.name().to_owned());
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
        let key = NAMESPACES.key("", name);
        desk.server.storage.write::<Refusal>(&key, |_| Ok(Write::Delete)).await?;
        return Ok(());
    }
    for (key, object) in inside.iter().filter(|(_, object)| !is_ending(object)) {
        let api = object.api_version();
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        if let Some(kind) = definitions::find(&desk.server.storage, group, version, &key.plural) {
            desk.delete(&kind, object, None).await?;
        }
    }
    Ok(())
}

fn is_ending(object: &Value) -> bool {
    object.is_deleting()
}
