//! Objects by their kinds: what [admission](crate::admission) makes of a create, a change or a deletion,
//! stored.

use std::sync::Arc;

use kubeedge_common::stamp;
use kubeedge_core::clock::Clock;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    admission::{self, Deletion, Fresh, Mode, Part, Validation},
    definitions::Definitions,
    key::Collection,
    kinds::{self, DEFINITIONS, Kind, NAMESPACES, PODS},
    object::Object,
    patch,
    status::Refusal,
    storage::{self, ListQuery, Listed, Storage, StorageError, Watcher, Write},
};

/// The objects of a storage and their kinds.
#[derive(Debug)]
pub(crate) struct Registry {
    storage: Arc<dyn Storage>,
    clock: Clock,
    definitions: Definitions,
}

impl Registry {
    /// The clock is what grace and stamps are counted with.
    pub(crate) fn new(storage: Arc<dyn Storage>, clock: Clock) -> Self {
        Self { storage, clock, definitions: Definitions::default() }
    }

    /// The present moment.
    pub(crate) fn moment(&self) -> OffsetDateTime {
        stamp::moment(&self.clock)
    }

    /// The present moment as Kubernetes writes it.
    pub(crate) fn now(&self) -> String {
        stamp::stamp(&self.clock)
    }

    /// All kinds served now.
    pub(crate) async fn kinds(&self) -> Result<Vec<Kind>, Refusal> {
        let listed = self.storage.list(&ListQuery::all(DEFINITIONS.collection(""))).await?;
        let custom = listed.objects.iter().flat_map(|definition| kinds::of_definition(definition));
        Ok(kinds::stored().chain(custom).chain(kinds::answered()).collect())
    }

    /// The kind with this group, version and plural.
    pub(crate) async fn kind(&self, group: &str, version: &str, plural: &str) -> Result<Kind, Refusal> {
        if let Some(kind) = kinds::built_in(group, version, plural) {
            return Ok(kind);
        }
        let name = format!("{plural}.{group}");
        let definition = self.storage.get(&DEFINITIONS.key("", &name)).await?;
        let found = self.definitions.find(name, definition, version);
        found.ok_or_else(Refusal::no_such_path)
    }

    /// An object, if it is there.
    pub(crate) async fn find(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Value>>, Refusal> {
        Ok(self.storage.get(&kind.key(namespace, name)).await?)
    }

    /// An object that must be there.
    pub(crate) async fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Arc<Value>, Refusal> {
        let found = self.find(kind, namespace, name).await?;
        found.ok_or_else(|| Refusal::not_found(&kind.subject(name)))
    }

    pub(crate) async fn list(&self, query: &ListQuery) -> Result<Listed, Refusal> {
        Ok(self.storage.list(query).await?)
    }

    pub(crate) async fn watch(
        &self,
        collection: &Collection,
        after: u64,
    ) -> Result<Box<dyn Watcher>, StorageError> {
        self.storage.watch(collection, after).await
    }

    /// Creates an object; returns it and warnings.
    pub(crate) async fn create(
        &self,
        kind: &Kind,
        namespace: &str,
        mut object: Value,
        validation: Validation,
        dry_run: bool,
    ) -> Result<(Arc<Value>, Vec<String>), Refusal> {
        let fresh = Fresh { uid: Uuid::new_v4().to_string(), now: self.now(), suffix: random_suffix };
        admission::prepare(kind, namespace, &mut object, fresh)?;
        let warnings = admission::admit(kind, &mut object, validation)?;
        if kind.is_namespaced() {
            self.check_namespace(kind, namespace).await?;
        }
        let name = object.name().to_owned();
        let key = kind.key(namespace, &name);
        if dry_run {
            return match self.storage.get(&key).await? {
                Some(_) => Err(Refusal::exists(&kind.subject(&name))),
                None => Ok((Arc::new(object), warnings)),
            };
        }
        let made = storage::write(&*self.storage, &key, |before| match before {
            Some(_) => Err(Refusal::exists(&kind.subject(&name))),
            None => Ok(Write::Put(object)),
        });
        let made = made.await?.ok_or_else(|| Refusal::not_found(&kind.subject(&name)))?;
        Ok((made, warnings))
    }

    /// Nothing is made in a namespace that is not there or is ending.
    async fn check_namespace(&self, kind: &Kind, namespace: &str) -> Result<(), Refusal> {
        let found = self.get(&NAMESPACES, "", namespace).await?;
        let may = kind.built_in().is_some_and(|kind| kind.lifecycle.in_ending_namespaces);
        if !found.is_deleting() || may {
            return Ok(());
        }
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        Err(Refusal::forbidden("", "create", &kind.subject("")).saying(why))
    }

    /// Changes an object by a function of what it is now; returns it and warnings.
    pub(crate) async fn change(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        mode: Mode,
        make: impl FnOnce(&Value) -> Result<Value, Refusal> + Send,
    ) -> Result<(Arc<Value>, Vec<String>), Refusal> {
        let mut warnings = Vec::new();
        let mut dry = None;
        let key = kind.key(namespace, name);
        let done = storage::write::<Refusal>(&*self.storage, &key, |before| {
            let before = before.ok_or_else(|| Refusal::not_found(&kind.subject(name)))?;
            let (new, told) = admission::changed(kind, before, make(before)?, mode)?;
            warnings = told;
            if mode.dry_run {
                dry = Some(Arc::new(new));
                return Ok(Write::Keep);
            }
            if admission::is_over(kind, &new) {
                return Ok(Write::Delete);
            }
            Ok(if admission::same(&new, before) { Write::Keep } else { Write::Put(new) })
        });
        let done = done.await?;
        let object = dry.or(done);
        Ok((object.ok_or_else(|| Refusal::not_found(&kind.subject(name)))?, warnings))
    }

    /// Deletes an object, or marks it to be deleted; returns it as it is then.
    pub(crate) async fn delete(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        how: &Deletion,
        dry_run: bool,
    ) -> Result<Arc<Value>, Refusal> {
        let (key, now) = (kind.key(namespace, name), self.moment());
        let done = storage::write::<Refusal>(&*self.storage, &key, |before| {
            let before = before.ok_or_else(|| Refusal::not_found(&kind.subject(name)))?;
            admission::check_deletion(kind, before, how)?;
            if dry_run {
                return Ok(Write::Keep);
            }
            Ok(match admission::marked(kind, before, how, now) {
                marked if admission::is_over(kind, &marked) => Write::Delete,
                marked if marked == *before => Write::Keep,
                marked => Write::Put(marked),
            })
        });
        done.await?.ok_or_else(|| Refusal::not_found(&kind.subject(name)))
    }

    /// Removes all objects of the kind of a definition that is gone. Finalizers do not hold them: nobody
    /// could reach the objects to take them away.
    pub(crate) async fn purge(&self, definition: &Value) -> Result<(), Refusal> {
        let collection = Collection {
            group: definition.text(&["spec", "group"]).to_owned(),
            plural: definition.text(&["spec", "names", "plural"]).to_owned(),
            namespace: String::new(),
        };
        for object in self.list(&ListQuery::all(collection.clone())).await?.objects {
            let key = collection.key(object.namespace(), object.name());
            self.storage.write(&key, Box::new(|_| Write::Delete)).await?;
        }
        Ok(())
    }

    /// Removes an object, whatever holds it.
    #[cfg(feature = "controllers")]
    pub(crate) async fn remove(&self, kind: &Kind, namespace: &str, name: &str) -> Result<(), Refusal> {
        self.storage.write(&kind.key(namespace, name), Box::new(|_| Write::Delete)).await?;
        Ok(())
    }

    /// Gives a pod to a node.
    pub(crate) async fn bind(&self, namespace: &str, name: &str, node: &str) -> Result<(), Refusal> {
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": self.now()});
        let on_node = |before: &Value| {
            let mut new = before.clone();
            new.set(&["spec", "nodeName"], node);
            Ok(new)
        };
        self.change(&PODS, namespace, name, Mode::ours(Part::Main), on_node).await?;
        let told = |before: &Value| {
            patch::strategic_merge(before.clone(), json!({"status": {"conditions": [scheduled]}}))
        };
        self.change(&PODS, namespace, name, Mode::ours(Part::Status), told).await.map(drop)
    }
}

fn random_suffix() -> String {
    use rand::RngExt;
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    (0..5)
        .filter_map(|_| LETTERS.get(random.random_range(0..LETTERS.len())).map(|b| char::from(*b)))
        .collect()
}
