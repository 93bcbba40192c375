//! The steps that start something: references, volumes, sandbox, image, container.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Container as ContainerSpec, Pod, Secret},
};
use kubeedge_core::{
    failure::chain,
    runtime::{ImageRef, RegistryAuth, RuntimeKind},
};

use super::{
    env::{ConfigError, References, environment},
    spec::{Parts, container, log_folder, pod_folder, sandbox, termination_log},
    status::Waiting,
    view::{init_containers, main_containers},
    volumes::{Materials, Tokens, VolumeError, materialise},
    worker::Worker,
};
use crate::meta::ClientError;

/// How soon a missing ConfigMap, Secret or volume is looked for again.
const AGAIN: Duration = Duration::from_secs(3);

/// What a pod needs before its containers can be made.
#[derive(Debug, Default)]
struct Prepared {
    refs: References,
    volumes: BTreeMap<String, PathBuf>,
}

impl Worker {
    pub(super) async fn create_sandbox(&mut self, pod: &Pod, attempt: u32) -> Result<(), Duration> {
        self.prepare(pod).await?;
        self.pod_ips.clear();
        let spec = sandbox(&self.shared.settings, pod, attempt);
        let logs = log_folder(&self.shared.settings, pod);
        let folder = logs.clone();
        if let Err(error) = self.files(move || fs::create_dir_all(folder)).await {
            let message = format!("cannot make the log folder {}: {error}", logs.display());
            self.shared.recorder.warning(pod, "FailedCreatePodSandBox", message).await;
            return Err(AGAIN);
        }
        match self.shared.runtime.run_sandbox(spec).await {
            Ok(_) => Ok(()),
            // Made by a call that was cut off: the next look at the runtime finds it.
            Err(error) if error.kind() == RuntimeKind::Exists => Ok(()),
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {}", chain(&error));
                self.shared.recorder.warning(pod, "FailedCreatePodSandBox", message).await;
                Err(AGAIN)
            }
        }
    }

    pub(super) async fn start(&mut self, pod: &Pod, name: &str, attempt: u32) -> Result<(), Duration> {
        let Some(spec) = init_containers(pod).chain(main_containers(pod)).find(|spec| spec.name == name)
        else {
            return Ok(());
        };
        let prepared = self.prepare(pod).await?;
        self.have_image(pod, spec, &prepared.refs).await?;
        let view = self.view();
        let Some(within) = view.sandbox().filter(|sandbox| sandbox.ready).map(|sandbox| sandbox.id.clone())
        else {
            return Ok(());
        };
        let spec = match self.container_spec(pod, spec, attempt, &prepared).await {
            Ok(spec) => spec,
            Err(message) => return self.refuse(pod, name, "CreateContainerConfigError", message).await,
        };
        let runtime = self.shared.runtime.clone();
        // As the kubelet counts: the first start is no restart, so the first restart is at once.
        if view.latest(name).is_some() {
            self.pauses.tried(name, self.shared.clock.now());
        }
        let id = match runtime.create_container(&within, spec).await {
            Ok(id) => id,
            Err(error) if error.kind() == RuntimeKind::Exists => return Ok(()),
            Err(error) => return self.refuse(pod, name, "CreateContainerError", chain(&error)).await,
        };
        self.shared.recorder.normal(pod, "Created", format!("Created container: {name}")).await;
        match runtime.start_container(&id).await {
            Ok(()) => {
                self.waiting.remove(name);
                self.shared.recorder.normal(pod, "Started", format!("Started container {name}")).await;
                Ok(())
            }
            Err(error) => self.refuse(pod, name, "RunContainerError", chain(&error)).await,
        }
    }

    /// Notes why a container does not run, for its status and as an event.
    async fn refuse(&mut self, pod: &Pod, name: &str, reason: &str, message: String) -> Result<(), Duration> {
        self.shared.recorder.warning(pod, "Failed", format!("Error: {message}")).await;
        self.waiting.insert(name.to_owned(), Waiting { reason: reason.to_owned(), message });
        Err(AGAIN)
    }

    async fn container_spec(
        &self,
        pod: &Pod,
        spec: &ContainerSpec,
        attempt: u32,
        prepared: &Prepared,
    ) -> Result<kubeedge_core::runtime::ContainerSpec, String> {
        let env = environment(pod, spec, &prepared.refs, &self.facts()).map_err(|error| error.to_string())?;
        let folder = pod_folder(&self.shared.settings, &self.uid);
        let last_words = termination_log(&folder, &spec.name, attempt);
        let file = last_words.clone();
        let made = self.files(move || {
            if let Some(parent) = file.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::File::create(&file).map(drop)
        });
        made.await.map_err(|error| format!("{}: {error}", last_words.display()))?;
        let parts = Parts { pod, spec, attempt, env, volumes: &prepared.volumes, folder: &folder };
        container(&parts).map_err(|error| error.to_string())
    }

    /// Reads what the pod refers to and makes its volumes.
    async fn prepare(&mut self, pod: &Pod) -> Result<Prepared, Duration> {
        let prepared = match self.references(pod).await {
            Ok(refs) => {
                let volumes = self.make_volumes(pod, &refs).await.map_err(|error| error.to_string());
                volumes.map(|volumes| Prepared { refs, volumes })
            }
            Err(error) => Err(error.to_string()),
        };
        match prepared {
            Ok(prepared) => Ok(prepared),
            Err(message) => {
                self.shared.recorder.warning(pod, "FailedMount", message).await;
                Err(AGAIN)
            }
        }
    }

    /// Brings the files of ConfigMaps, Secrets and tokens up to date in a pod that runs.
    pub(super) async fn refresh_volumes(&mut self, pod: &Pod) -> Option<Duration> {
        let has_files = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).any(|volume| {
            volume.config_map.is_some()
                || volume.secret.is_some()
                || volume.projected.is_some()
                || volume.downward_api.is_some()
        });
        if !has_files {
            return None;
        }
        self.prepare(pod).await.err()
    }

    async fn make_volumes(
        &self,
        pod: &Pod,
        refs: &References,
    ) -> Result<BTreeMap<String, PathBuf>, VolumeError> {
        let tokens = self.tokens(pod).await?;
        let folder = pod_folder(&self.shared.settings, &self.uid).join("volumes");
        let (pod, refs, facts) = (pod.clone(), refs.clone(), self.facts());
        let work = move || {
            materialise(&folder, &Materials { pod: &pod, refs: &refs, tokens: &tokens, facts: &facts })
        };
        let made = self.shared.settings.files.run(work).await;
        made.unwrap_or_else(|error| Err(VolumeError::Unsupported(error.to_string())))
    }

    /// The ConfigMaps and Secrets the pod names anywhere.
    async fn references(&self, pod: &Pod) -> Result<References, ConfigError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let (config_maps, secrets) = names(pod);
        let mut refs = References::default();
        for name in config_maps {
            let found = found("configmap", &name, self.shared.client.config_map(namespace, &name).await)?;
            refs.config_maps.insert(name, found);
        }
        for name in secrets {
            let found = found("secret", &name, self.shared.client.secret(namespace, &name).await)?;
            refs.secrets.insert(name, found);
        }
        Ok(refs)
    }

    async fn tokens(&self, pod: &Pod) -> Result<Tokens, VolumeError> {
        let mut tokens = Tokens::new();
        let meta = &pod.metadata;
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
        let account = account.unwrap_or_else(|| "default".to_owned());
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        for volume in volumes {
            let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
            for source in sources.filter_map(|source| source.service_account_token.as_ref()) {
                let audience = source.audience.clone().unwrap_or_default();
                let seconds = source.expiration_seconds.unwrap_or(3600);
                let request = TokenRequest {
                    spec: TokenRequestSpec {
                        audiences: Some(audience.clone()).filter(|a| !a.is_empty()).into_iter().collect(),
                        bound_object_ref: Some(BoundObjectReference {
                            api_version: Some("v1".to_owned()),
                            kind: Some("Pod".to_owned()),
                            name: meta.name.clone(),
                            uid: meta.uid.clone(),
                        }),
                        expiration_seconds: Some(seconds),
                    },
                    ..TokenRequest::default()
                };
                let namespace = meta.namespace.as_deref().unwrap_or_default();
                let answer = self.shared.client.token(namespace, &account, &request).await;
                let answer = answer.map_err(|error| VolumeError::Reference {
                    volume: volume.name.clone(),
                    source: ConfigError::Unavailable {
                        kind: "service account token",
                        name: account.clone(),
                        why: error.to_string(),
                    },
                })?;
                tokens.insert(
                    (audience, seconds),
                    answer.status.map(|status| status.token).unwrap_or_default(),
                );
            }
        }
        Ok(tokens)
    }

    async fn have_image(
        &mut self,
        pod: &Pod,
        spec: &ContainerSpec,
        refs: &References,
    ) -> Result<(), Duration> {
        let name = spec.image.clone().unwrap_or_default();
        let image = ImageRef(name.clone());
        let policy = spec.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        let runtime = self.shared.runtime.clone();
        if policy != "Always" {
            match runtime.images().find(&image).await {
                Ok(Some(_)) => return Ok(()),
                Ok(None) if policy == "Never" => {
                    let message =
                        format!("Container image \"{name}\" is not present with pull policy of Never");
                    return self.no_image(pod, &spec.name, "ErrImageNeverPull", message).await;
                }
                Ok(None) => {}
                Err(error) => {
                    return self.no_image(pod, &spec.name, "ImageInspectError", chain(&error)).await;
                }
            }
        }
        let (key, now) = (format!("image {name}"), self.shared.clock.now());
        let failed = self.failed_pulls.get(&name).copied();
        if let Some((left, _)) = failed.and_then(|failed| self.pauses.left(&key, failed, now)) {
            self.note_pull_pause(pod, &spec.name, &name).await;
            return Err(left);
        }
        self.shared.recorder.normal(pod, "Pulling", format!("Pulling image \"{name}\"")).await;
        match runtime.images().pull(&image, auth(pod, refs, &name).as_ref()).await {
            Ok(_) => {
                self.failed_pulls.remove(&name);
                self.pauses.succeeded(&key);
                self.shared
                    .recorder
                    .normal(pod, "Pulled", format!("Successfully pulled image \"{name}\""))
                    .await;
                Ok(())
            }
            Err(error) => {
                self.pauses.tried(&key, now);
                self.failed_pulls.insert(name.clone(), self.shared.clock.now());
                let message = format!("Failed to pull image \"{name}\": {}", chain(&error));
                self.no_image(pod, &spec.name, "ErrImagePull", message).await
            }
        }
    }

    /// Tells once of a pause between pulls: as the container's state and as an event.
    async fn note_pull_pause(&mut self, pod: &Pod, container: &str, image: &str) {
        let message = format!("Back-off pulling image \"{image}\"");
        let old = self.waiting.get(container).cloned();
        if old.as_ref().is_some_and(|old| old.message.starts_with(&message)) {
            return;
        }
        self.shared.recorder.normal(pod, "BackOff", message.clone()).await;
        let message = old.map_or(message.clone(), |old| format!("{message}: {}", old.message));
        self.waiting.insert(container.to_owned(), Waiting { reason: "ImagePullBackOff".to_owned(), message });
    }

    async fn no_image(
        &mut self,
        pod: &Pod,
        container: &str,
        reason: &str,
        message: String,
    ) -> Result<(), Duration> {
        self.shared.recorder.warning(pod, "Failed", message.clone()).await;
        self.waiting.insert(container.to_owned(), Waiting { reason: reason.to_owned(), message });
        Err(AGAIN)
    }
}

fn found<T>(
    kind: &'static str,
    name: &str,
    answer: Result<T, ClientError>,
) -> Result<Option<T>, ConfigError> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(ConfigError::Unavailable { kind, name: name.to_owned(), why: error.to_string() }),
    }
}

/// The names of all ConfigMaps and Secrets in volumes, environments and pull secrets.
fn names(pod: &Pod) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    let Some(spec) = &pod.spec else { return (maps, secrets) };
    for volume in spec.volumes.iter().flatten() {
        maps.extend(volume.config_map.as_ref().map(|source| source.name.clone()));
        secrets.extend(volume.secret.as_ref().and_then(|source| source.secret_name.clone()));
        for part in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            maps.extend(part.config_map.as_ref().map(|source| source.name.clone()));
            secrets.extend(part.secret.as_ref().map(|source| source.name.clone()));
        }
    }
    for container in init_containers(pod).chain(main_containers(pod)) {
        for source in container.env_from.iter().flatten() {
            maps.extend(source.config_map_ref.as_ref().map(|source| source.name.clone()));
            secrets.extend(source.secret_ref.as_ref().map(|source| source.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
            maps.extend(source.config_map_key_ref.as_ref().map(|source| source.name.clone()));
            secrets.extend(source.secret_key_ref.as_ref().map(|source| source.name.clone()));
        }
    }
    secrets.extend(spec.image_pull_secrets.iter().flatten().map(|reference| reference.name.clone()));
    (maps, secrets)
}

/// The registry user for an image, from the pod's pull secrets.
fn auth(pod: &Pod, refs: &References, image: &str) -> Option<RegistryAuth> {
    let registry = image.split('/').next().filter(|host| host.contains(['.', ':'])).unwrap_or("docker.io");
    let spec = pod.spec.as_ref()?;
    let secrets = spec.image_pull_secrets.iter().flatten();
    secrets
        .filter_map(|reference| refs.secrets.get(&reference.name)?.as_ref())
        .find_map(|s| auth_in(s, registry))
}

fn auth_in(secret: &Secret, registry: &str) -> Option<RegistryAuth> {
    let data = secret.data.as_ref()?;
    let config: serde_json::Value = serde_json::from_slice(&data.get(".dockerconfigjson")?.0).ok()?;
    let auths = config.get("auths")?.as_object()?;
    let (_, entry) = auths.iter().find(|(host, _)| host.contains(registry))?;
    let text = |name: &str| entry.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    if let (Some(username), Some(password)) = (text("username"), text("password")) {
        return Some(RegistryAuth::new(username, password));
    }
    let pair = String::from_utf8(STANDARD.decode(text("auth")?).ok()?).ok()?;
    let (username, password) = pair.split_once(':')?;
    Some(RegistryAuth::new(username, password))
}
