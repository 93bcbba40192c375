//! Cases: images.

use super::{
    RuntimeHarness,
    bench::{must, refused},
};
use crate::{failure::chain, runtime::RuntimeKind};

/// The image the harness brings is here.
pub async fn the_image_is_found_and_listed(harness: impl RuntimeHarness) {
    let (runtime, image) = (harness.runtime(), harness.image());
    let found = must(runtime.images().find(&image).await, "looking for an image");
    let found = found.expect("the harness' image is here");
    assert!(!found.id.is_empty(), "{found:?}");
    let all = must(runtime.images().list().await, "listing images");
    assert!(all.iter().any(|listed| listed.id == found.id), "{found:?} is not among {all:?}");
}

/// The user reads which image and why.
pub async fn an_absent_image_is_not_found_and_cannot_be_pulled(harness: impl RuntimeHarness) {
    let (runtime, image) = (harness.runtime(), harness.absent_image());
    assert_eq!(must(runtime.images().find(&image).await, "looking for an image"), None);
    let error = refused(runtime.images().pull(&image, None).await, RuntimeKind::ImageUnavailable);
    assert!(chain(&error).contains(&image.0), "{}", chain(&error));
}

/// Removing is idempotent.
pub async fn removing_an_absent_image_succeeds(harness: impl RuntimeHarness) {
    let (runtime, image) = (harness.runtime(), harness.absent_image());
    must(runtime.images().remove(&image).await, "removing an image that is not here");
}
