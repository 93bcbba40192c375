//! What is known of a built-in kind: one value each, in the file of its API group.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use schemars::{JsonSchema, SchemaGenerator};

use super::{access::NodeRequest, columns::Column};
use crate::{status::Problem, user::User};

/// Whether objects of a kind are in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Namespaced,
    Cluster,
}

/// What a request to a subresource does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The log of a container, from its node.
    Log,
    /// A connection to a container on its node: exec, attach.
    Stream,
    /// Gives a pod to a node.
    Bind,
    /// Deletes a pod for somebody who drains a node.
    Evict,
    /// Signs a token of a service account.
    Token,
}

/// A subresource beside `status` and `scale`, as discovery tells it: kind and group are those of what is sent
/// there. kubectl drains by evictions only if it finds them.
#[derive(Debug)]
pub(crate) struct Subresource {
    pub name: &'static str,
    pub verbs: &'static [&'static str],
    pub kind: &'static str,
    /// The group of what is sent, in version v1; empty for the group of the kind.
    pub group: &'static str,
    pub action: Action,
}

/// A field that objects can be selected by, as a dotted path, and what it counts as where it is absent.
#[derive(Debug)]
pub(crate) struct Selectable {
    pub path: &'static str,
    pub absent: &'static str,
}

/// Fields that count as empty text where they are absent.
pub(super) const fn field(path: &'static str) -> Selectable {
    Selectable { path, absent: "" }
}

/// Kubernetes' own type of a kind: what fields there are, and of which types.
#[derive(Debug)]
pub(crate) struct Types {
    /// An object read and written by the type: what the type does not know is missing then. An error names
    /// the field whose type is wrong.
    pub through: fn(&Value) -> Result<Value, String>,
    /// A reference to the type's schema, which is added to the generator's definitions.
    pub schema: fn(&mut SchemaGenerator) -> Value,
}

impl Types {
    pub(super) const fn of<T: DeserializeOwned + Serialize + JsonSchema>() -> Option<Self> {
        Some(Self { through: through::<T>, schema: |generator| generator.subschema_for::<T>().into() })
    }
}

fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, String> {
    // Where the fault is costs more to find out than whether there is one.
    let typed = T::deserialize(object).or_else(|_| {
        serde_path_to_error::deserialize(object)
            .map_err(|error| format!("{}: {}", error.path(), error.inner()))
    })?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

/// How objects of a kind begin and end.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    /// Whether an object brings its status when it is created. For most kinds it is the controllers' to
    /// write.
    pub brings_status: bool,
    /// Whether objects may be created in a namespace that is ending.
    pub in_ending_namespaces: bool,
    /// How many seconds an object has to end: as its deletion asks, where it asks for something.
    pub grace: fn(&Value, Option<i64>) -> i64,
    /// Whether an object that is being deleted is kept by something beside its finalizers.
    pub is_kept: fn(&Value) -> bool,
    /// What a deletion writes into an object beside the time.
    pub mark: fn(&mut Value),
    /// Whether the answer to a deletion is the object, not a `Status`.
    pub answers_object: bool,
}

impl Lifecycle {
    /// Objects that end at once, as most do.
    pub(super) const PLAIN: Self = Self {
        brings_status: false,
        in_ending_namespaces: false,
        grace: |_, _| 0,
        is_kept: |_| false,
        mark: |_| {},
        answers_object: false,
    };
}

/// A built-in kind. Its required parts are arguments of [`BuiltIn::namespaced`] and [`BuiltIn::cluster`];
/// what most kinds have not is named where one has it.
#[derive(Debug)]
pub(crate) struct BuiltIn {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub scope: Scope,
    /// The columns of its table.
    pub columns: &'static [Column],
    /// What a node may do with its objects.
    pub node_may: fn(&NodeRequest<'_>) -> bool,
    pub short_names: &'static [&'static str],
    /// Whether `kubectl get all` shows it.
    pub in_all: bool,
    pub status: bool,
    pub scale: bool,
    pub subresources: &'static [Subresource],
    /// The group its objects are stored under: its own but where two groups are one store.
    pub stored_under: &'static str,
    /// Its type; without one, unknown fields are kept and OpenAPI describes none.
    pub types: Option<Types>,
    /// The fields that objects can be selected by, beside `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [Selectable],
    /// Fills in what was left out.
    pub defaults: fn(&mut Value),
    /// Adds what Kubernetes would refuse.
    pub check: fn(&Value, &mut Vec<Problem>),
    /// What Kubernetes would refuse of a change from one object to another: the first such thing.
    pub check_update: fn(&Value, &Value) -> Option<Problem>,
    /// Whether a name may be other than a DNS subdomain.
    pub any_name: bool,
    /// Whether it is kept who owns which field. What is written often, and by one writer each, would only pay
    /// for it.
    pub managed: bool,
    pub lifecycle: Lifecycle,
    /// For kinds that are answered and never stored: the status of the answer.
    pub answer: Option<fn(&User) -> Value>,
}

/// Group, version, kind and plural.
type Names = (&'static str, &'static str, &'static str, &'static str);

impl BuiltIn {
    pub(super) const fn namespaced(
        names: Names,
        columns: &'static [Column],
        node_may: fn(&NodeRequest<'_>) -> bool,
    ) -> Self {
        Self::new(names, Scope::Namespaced, columns, node_may)
    }

    pub(super) const fn cluster(
        names: Names,
        columns: &'static [Column],
        node_may: fn(&NodeRequest<'_>) -> bool,
    ) -> Self {
        Self::new(names, Scope::Cluster, columns, node_may)
    }

    const fn new(
        (group, version, kind, plural): Names,
        scope: Scope,
        columns: &'static [Column],
        node_may: fn(&NodeRequest<'_>) -> bool,
    ) -> Self {
        Self {
            group,
            version,
            kind,
            plural,
            scope,
            columns,
            node_may,
            short_names: &[],
            in_all: false,
            status: false,
            scale: false,
            subresources: &[],
            stored_under: group,
            types: None,
            selectable: &[],
            defaults: |_| {},
            check: |_, _| {},
            check_update: |_, _| None,
            any_name: false,
            managed: true,
            lifecycle: Lifecycle::PLAIN,
            answer: None,
        }
    }
}
