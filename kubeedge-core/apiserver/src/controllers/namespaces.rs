//! Namespaces: what every one has, and its end.

use serde_json::{Value, json};

use super::{
    super::{
        kinds::{CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS},
        object::Object,
        status::Refusal,
    },
    Context,
};

pub(super) async fn reconcile(ctx: &Context, name: &str) -> Result<(), Refusal> {
    let kind = NAMESPACES;
    let Some(namespace) = ctx.get(&kind, &(String::new(), name.to_owned())) else { return Ok(()) };
    if namespace.is_deleting() {
        return end(ctx, name).await;
    }
    let wanted = [
        (SERVICE_ACCOUNTS, json!({"metadata": {"name": "default"}})),
        (CONFIG_MAPS, json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": ctx.root_ca_pem}})),
    ];
    for (kind, object) in wanted {
        let at = (name.to_owned(), object.name().to_owned());
        if ctx.get(&kind, &at).is_none() {
            ctx.create(&kind, name, object).await?;
        }
    }
    Ok(())
}

/// Deletes what is in a namespace; when nothing is left, the namespace itself.
async fn end(ctx: &Context, name: &str) -> Result<(), Refusal> {
    let inside = ctx.storage.find(|key| key.namespace == name);
    if inside.is_empty() {
        return ctx.registry.remove(&NAMESPACES, "", name).await;
    }
    for (key, object) in inside.iter().filter(|(_, object)| !is_ending(object)) {
        if let Some(kind) = ctx.kind_of(key, object).await? {
            ctx.delete(&kind, object, None).await?;
        }
    }
    Ok(())
}

fn is_ending(object: &Value) -> bool {
    object.is_deleting()
}
