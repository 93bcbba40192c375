//! The image service.

use std::time::Duration;

use async_trait::async_trait;
use kubeedge_core::runtime::{Image, ImageRef, Images, RegistryAuth, RuntimeKind, RuntimeResult};

use super::{
    client::{Client, IMAGE_STATUS, LIST_IMAGES, PULL_IMAGE, REMOVE_IMAGE},
    convert::{self, User, image_spec},
    gone_is_fine, messages as cri,
};

/// Images of a runtime behind the interface.
#[derive(Debug)]
pub(crate) struct CriImages {
    client: Client,
    pull_timeout: Duration,
}

impl CriImages {
    pub(crate) fn new(client: Client, pull_timeout: Duration) -> Self {
        Self { client, pull_timeout }
    }

    async fn status(&self, image: &ImageRef) -> RuntimeResult<Option<cri::Image>> {
        let request = cri::ImageStatusRequest { image: Some(image_spec(image)) };
        Ok(self.client.call(IMAGE_STATUS, &image.0, request).await?.image)
    }

    /// Whom an image wants its program to be run by.
    pub(crate) async fn user(&self, image: &ImageRef) -> RuntimeResult<User> {
        let found = self.status(image).await?;
        let found = found.ok_or_else(|| IMAGE_STATUS.failed(RuntimeKind::ImageUnavailable, &image.0))?;
        Ok(match (found.uid, found.username) {
            (Some(uid), _) => User::Id(uid.value),
            (None, name) if !name.is_empty() => User::Name(name),
            _ => User::Id(0),
        })
    }
}

#[async_trait]
impl Images for CriImages {
    async fn find(&self, image: &ImageRef) -> RuntimeResult<Option<Image>> {
        Ok(self.status(image).await?.map(convert::image))
    }

    async fn pull(&self, image: &ImageRef, auth: Option<&RegistryAuth>) -> RuntimeResult<String> {
        let auth = auth
            .map(|auth| cri::AuthConfig { username: auth.username.clone(), password: auth.password.clone() });
        let request = cri::PullImageRequest { image: Some(image_spec(image)), auth };
        let pulled = self.client.call_longer(PULL_IMAGE, &image.0, request, self.pull_timeout).await;
        let answer = pulled.map_err(|error| match error.kind() {
            RuntimeKind::Down | RuntimeKind::Timeout | RuntimeKind::Unsupported => error,
            _ => PULL_IMAGE.failed(RuntimeKind::ImageUnavailable, &image.0).because(error),
        })?;
        Ok(answer.image_ref)
    }

    async fn list(&self) -> RuntimeResult<Vec<Image>> {
        let answer = self.client.call(LIST_IMAGES, "", cri::ListImagesRequest {}).await?;
        Ok(answer.images.into_iter().map(convert::image).collect())
    }

    async fn remove(&self, image: &ImageRef) -> RuntimeResult<()> {
        let request = cri::RemoveImageRequest { image: Some(image_spec(image)) };
        gone_is_fine(self.client.call(REMOVE_IMAGE, &image.0, request).await)
    }
}
