//! Images of a runtime.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{ImageRef, RuntimeResult};

/// An image there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Image {
    /// Its id.
    pub id: String,
    /// The names it goes by.
    pub names: Vec<String>,
    /// Its size in bytes.
    pub size: u64,
}

/// The user of a registry.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Images of a runtime.
#[async_trait]
pub trait Images: Send + Sync {
    /// The image, if it is here.
    async fn find(&self, image: &ImageRef) -> RuntimeResult<Option<Image>>;
    /// Fetches an image and returns its id.
    /// [`RuntimeKind::ImageUnavailable`](super::RuntimeKind::ImageUnavailable) with the reason
    /// when it cannot be had.
    async fn pull(&self, image: &ImageRef, auth: Option<&RegistryAuth>) -> RuntimeResult<String>;
    /// All images.
    async fn list(&self) -> RuntimeResult<Vec<Image>>;
    /// Removes an image. Idempotent.
    async fn remove(&self, image: &ImageRef) -> RuntimeResult<()>;
}

impl Image {
    /// An image of this id, without names.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }
}

setters! { Image {
    names: words Vec<String>,
    size: is u64,
} }

impl RegistryAuth {
    /// A user and password.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: password.into() }
    }
}
