//! KubeEdge's own Kubernetes kinds: Rust types, and (feature `crds`) the CustomResourceDefinitions made from
//! them.
//!
//! The types follow the CRDs of KubeEdge 1.23 field by field; a test compares every name, type, requirement,
//! default and allowed value. Each kind implements k8s-openapi's `Resource` and `Metadata`, so
//! `kube::Api<Device>` works where a client is at hand; this module holds none.
//!
//! Reading is lenient where writing is strict: an object of an older peer that lacks a field can be read, and
//! an API server that has the definitions refuses an object with a wrong type, a missing field or a value
//! that is not allowed, and drops fields that no definition knows. Fields whose value is one of a list are
//! therefore text here.
//!
//! The types are for code that acts on an object. What only passes through stays bytes.
//!
//! Of the device kinds v1beta1 alone is here: KubeEdge stores no other version and since 1.16 acts on no
//! other.

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope, Resource};
pub mod apps;
#[cfg(feature = "crds")]
mod definitions;
pub mod devices;
pub mod operations;
pub mod policy;
pub mod reliablesyncs;
pub mod rules;
#[cfg(feature = "crds")]
mod structural;

#[cfg(feature = "crds")]
pub use definitions::definitions;

/// A kind that a CustomResourceDefinition defines, in one version. Group, version, kind and plural are those
/// of [`Resource`].
pub trait CustomKind: Resource<Scope: Scope> {
    /// The name of one object, in lower case.
    const SINGULAR: &'static str;
    /// Shorter names that kubectl takes.
    const SHORT_NAMES: &'static [&'static str] = &[];
    /// Whether `status` is written by a path of its own, and an ordinary write leaves it alone.
    const STATUS: bool = false;
    /// Whether objects are stored in this version; exactly one version of a kind is.
    const STORED: bool = true;
    /// Fields at the top that an object must have.
    const REQUIRED: &'static [&'static str] = &[];
}

/// Where objects of a kind stand.
pub trait Scope {
    /// As a CustomResourceDefinition says it.
    const NAME: &'static str;
}

impl Scope for NamespaceResourceScope {
    const NAME: &'static str = "Namespaced";
}

impl Scope for ClusterResourceScope {
    const NAME: &'static str = "Cluster";
}

/// Whether a field says nothing, so that it is left out.
fn absent<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Makes the struct of a kind, with what Kubernetes wants to know of it.
macro_rules! kind {
    (
        $(#[$doc:meta])*
        $name:ident of $group:literal $version:literal, $plural:literal, $scope:ident,
        { $( $(#[$field_doc:meta])* $field:ident: $type:ty, )* },
        { $($constants:item)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[cfg_attr(feature = "crds", derive(::schemars::JsonSchema))]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name {
            /// Group and version, as `group/version`.
            pub api_version: String,
            /// The kind's name.
            pub kind: String,
            /// Name, namespace, labels and what else every object has.
            #[cfg_attr(feature = "crds", schemars(with = "::std::collections::BTreeMap<String, ::serde_json::Value>"))]
            pub metadata: ::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            $( $(#[$field_doc])* pub $field: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    api_version: <Self as ::k8s_openapi::Resource>::API_VERSION.to_owned(),
                    kind: <Self as ::k8s_openapi::Resource>::KIND.to_owned(),
                    metadata: ::core::default::Default::default(),
                    $( $field: ::core::default::Default::default(), )*
                }
            }
        }

        impl ::k8s_openapi::Resource for $name {
            const API_VERSION: &'static str = concat!($group, "/", $version);
            const GROUP: &'static str = $group;
            const KIND: &'static str = stringify!($name);
            const VERSION: &'static str = $version;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = ::k8s_openapi::$scope;
        }

        impl ::k8s_openapi::Metadata for $name {
            type Ty = ::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

            fn metadata(&self) -> &Self::Ty {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut Self::Ty {
                &mut self.metadata
            }
        }

        impl $crate::api::CustomKind for $name {
            $($constants)*
        }
    };
}
use kind;
