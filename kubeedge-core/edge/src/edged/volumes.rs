//! Volumes of a pod as folders of the node: emptyDir, hostPath, ConfigMap, Secret, downward API and
//! projected.
//!
//! Files of ConfigMaps, Secrets and the like are written as the kubelet writes them: into a fresh folder that
//! a symlink `..data` is then switched to, so that a reader sees the old files or the new ones, never a
//! mixture. Unlike the kubelet, Secrets are not put on a tmpfs: mounting one needs privileges that edgecore
//! may lack. Their folder is closed to everybody but edgecore's user.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, Pod, Volume, VolumeProjection,
};

use super::env::{ConfigError, PodFacts, References, pod_field, resource_field};

/// A volume could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum VolumeError {
    /// Something it refers to is missing.
    #[error("volume \"{volume}\": {source}")]
    Reference { volume: String, source: ConfigError },
    /// The host path is not what the pod says it is.
    #[error("volume \"{volume}\": hostPath type check failed: {path} is not {expected}")]
    HostPath { volume: String, path: String, expected: &'static str },
    /// A path in the volume leads out of it.
    #[error("volume \"{volume}\": path {path:?} must be relative and must not contain \"..\"")]
    Path { volume: String, path: String },
    /// A kind of volume this node cannot make.
    #[error(
        "volume \"{0}\": this kind of volume is not supported on this node; use emptyDir, hostPath, configMap, secret, downwardAPI or projected"
    )]
    Unsupported(String),
    /// The file system said no.
    #[error("volume \"{volume}\": {path}: {source}")]
    Io { volume: String, path: String, source: io::Error },
}

/// Tokens for projected service account tokens, by (audience, seconds of life); fetched before.
pub(crate) type Tokens = BTreeMap<(String, i64), String>;

/// The files of a volume: relative path to content and mode.
type Payload = BTreeMap<PathBuf, (Vec<u8>, u32)>;

const DEFAULT_MODE: i32 = 0o644;

/// What volumes are made from.
#[derive(Debug)]
pub(crate) struct Materials<'a> {
    pub pod: &'a Pod,
    pub refs: &'a References,
    pub tokens: &'a Tokens,
    pub facts: &'a PodFacts,
}

/// Makes all volumes of a pod below `folder` (or brings their files up to date) and says where each one is.
/// Blocking.
pub(crate) fn materialise(
    folder: &Path,
    materials: &Materials<'_>,
) -> Result<BTreeMap<String, PathBuf>, VolumeError> {
    let volumes = materials.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.map(|volume| Ok((volume.name.clone(), one(folder, volume, materials)?))).collect()
}

fn one(folder: &Path, volume: &Volume, materials: &Materials<'_>) -> Result<PathBuf, VolumeError> {
    let name = &volume.name;
    let at = |kind: &str| folder.join(format!("kubernetes.io~{kind}")).join(name);
    if let Some(host) = &volume.host_path {
        return host_path(name, host);
    }
    if volume.empty_dir.is_some() {
        let path = at("empty-dir");
        make_folder(&path, 0o777).map_err(|source| io_error(name, &path, source))?;
        return Ok(path);
    }
    let payload = Files { volume: name, materials };
    let (path, files) = if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional.unwrap_or(false);
        (at("configmap"), payload.config_map(&source.name, source.items.as_deref(), mode, optional)?)
    } else if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let secret = source.secret_name.as_deref().unwrap_or_default();
        let optional = source.optional.unwrap_or(false);
        (at("secret"), payload.secret(secret, source.items.as_deref(), mode, optional)?)
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        (at("downward-api"), payload.downward(source.items.as_deref().unwrap_or_default(), mode)?)
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let mut files = Payload::new();
        for part in source.sources.iter().flatten() {
            files.extend(payload.projection(part, mode)?);
        }
        (at("projected"), files)
    } else {
        return Err(VolumeError::Unsupported(name.clone()));
    };
    switch(&path, &files).map_err(|source| io_error(name, &path, source))?;
    Ok(path)
}

fn io_error(volume: &str, path: &Path, source: io::Error) -> VolumeError {
    VolumeError::Io { volume: volume.to_owned(), path: path.display().to_string(), source }
}

fn host_path(volume: &str, source: &HostPathVolumeSource) -> Result<PathBuf, VolumeError> {
    let path = PathBuf::from(&source.path);
    let found = fs::metadata(&path);
    let wrong =
        |expected| VolumeError::HostPath { volume: volume.to_owned(), path: source.path.clone(), expected };
    let must = |holds: fn(&fs::Metadata) -> bool, expected| {
        if found.as_ref().is_ok_and(holds) { Ok(()) } else { Err(wrong(expected)) }
    };
    match source.type_.as_deref().unwrap_or_default() {
        "Directory" => must(fs::Metadata::is_dir, "a directory")?,
        "File" => must(fs::Metadata::is_file, "a file")?,
        "Socket" => must(|m| std::os::unix::fs::FileTypeExt::is_socket(&m.file_type()), "a socket")?,
        "CharDevice" => must(|m| std::os::unix::fs::FileTypeExt::is_char_device(&m.file_type()), "a device")?,
        "BlockDevice" => {
            must(|m| std::os::unix::fs::FileTypeExt::is_block_device(&m.file_type()), "a device")?
        }
        "DirectoryOrCreate" if found.is_err() => {
            make_folder(&path, 0o755).map_err(|source| io_error(volume, &path, source))?;
        }
        "FileOrCreate" if found.is_err() => {
            let file = fs::OpenOptions::new().create(true).append(true).mode(0o644).open(&path);
            file.map_err(|source| io_error(volume, &path, source))?;
        }
        _ => {}
    }
    Ok(path)
}

struct Files<'a> {
    volume: &'a str,
    materials: &'a Materials<'a>,
}

impl Files<'_> {
    fn fault(&self, source: ConfigError) -> VolumeError {
        VolumeError::Reference { volume: self.volume.to_owned(), source }
    }

    fn path(&self, path: &str) -> Result<PathBuf, VolumeError> {
        let wrong = || VolumeError::Path { volume: self.volume.to_owned(), path: path.to_owned() };
        let relative = Path::new(path);
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        (plain && !path.is_empty()).then(|| relative.to_owned()).ok_or_else(wrong)
    }

    fn config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: i32,
        optional: bool,
    ) -> Result<Payload, VolumeError> {
        let found = self.materials.refs.config_map(name, optional).map_err(|e| self.fault(e))?;
        let Some(map) = found else { return Ok(Payload::new()) };
        let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
        let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
        self.keyed("configmap", name, text.chain(binary).collect(), items, mode, optional)
    }

    fn secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: i32,
        optional: bool,
    ) -> Result<Payload, VolumeError> {
        let found = self.materials.refs.secret(name, optional).map_err(|e| self.fault(e))?;
        let Some(secret) = found else { return Ok(Payload::new()) };
        let data = secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
        self.keyed("secret", name, data.collect(), items, mode, optional)
    }

    fn keyed(
        &self,
        kind: &'static str,
        name: &str,
        mut data: BTreeMap<String, Vec<u8>>,
        items: Option<&[KeyToPath]>,
        mode: i32,
        optional: bool,
    ) -> Result<Payload, VolumeError> {
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            let all = data.into_iter().map(|(key, value)| Ok((self.path(&key)?, (value, mode_bits(mode)))));
            return all.collect();
        };
        let mut out = Payload::new();
        for item in items {
            let path = self.path(&item.path)?;
            match data.remove(&item.key) {
                Some(value) => drop(out.insert(path, (value, mode_bits(item.mode.unwrap_or(mode))))),
                None if optional => {}
                None => {
                    let namespace = self.materials.pod.metadata.namespace.clone().unwrap_or_default();
                    let (name, key) = (name.to_owned(), item.key.clone());
                    return Err(self.fault(ConfigError::MissingKey { kind, namespace, name, key }));
                }
            }
        }
        Ok(out)
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile], mode: i32) -> Result<Payload, VolumeError> {
        let Materials { pod, facts, .. } = self.materials;
        let mut out = Payload::new();
        for item in items {
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => pod_field(pod, &field.field_path, facts),
                (None, Some(resource)) => resource_field(pod, &Container::default(), resource, facts),
                (None, None) => Ok(String::new()),
            };
            let value = value.map_err(|e| self.fault(e))?.into_bytes();
            out.insert(self.path(&item.path)?, (value, mode_bits(item.mode.unwrap_or(mode))));
        }
        Ok(out)
    }

    fn projection(&self, part: &VolumeProjection, mode: i32) -> Result<Payload, VolumeError> {
        if let Some(source) = &part.config_map {
            return self.config_map(
                &source.name,
                source.items.as_deref(),
                mode,
                source.optional.unwrap_or(false),
            );
        }
        if let Some(source) = &part.secret {
            return self.secret(
                &source.name,
                source.items.as_deref(),
                mode,
                source.optional.unwrap_or(false),
            );
        }
        if let Some(source) = &part.downward_api {
            return self.downward(source.items.as_deref().unwrap_or_default(), mode);
        }
        if let Some(source) = &part.service_account_token {
            let key =
                (source.audience.clone().unwrap_or_default(), source.expiration_seconds.unwrap_or(3600));
            let token = self.materials.tokens.get(&key).cloned().unwrap_or_default();
            return Ok([(self.path(&source.path)?, (token.into_bytes(), 0o600))].into());
        }
        Err(VolumeError::Unsupported(self.volume.to_owned()))
    }
}

fn mode_bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o777
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(parent)?;
    }
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Writes the files into a fresh folder, switches `..data` to it, and links each top-level name through
/// `..data`. Does nothing when the files are as wanted already.
///
/// Nothing waits for the disk, as with the kubelet: the files are compared with what they must be before each
/// start of a pod, so that what a power cut takes is written again.
fn switch(folder: &Path, files: &Payload) -> io::Result<()> {
    make_folder(folder, 0o755)?;
    let data = folder.join("..data");
    let old = fs::read_link(&data).ok();
    if !old.is_some_and(|old| same(&folder.join(old), files)) {
        let fresh = (0u32..).map(|n| format!("{FRESH}{n}")).find(|name| !folder.join(name).exists());
        let fresh = PathBuf::from(fresh.unwrap_or_default());
        let next = folder.join("..data_next");
        let switched = fill(&folder.join(&fresh), files).and_then(|()| {
            remove_if_there(&next)?;
            symlink(&fresh, &next)?;
            fs::rename(&next, &data)
        });
        if let Err(error) = switched {
            // A disk that is full does not fill up further with each try.
            let _ = fs::remove_dir_all(folder.join(&fresh));
            return Err(error);
        }
    }
    link_names(folder, files)?;
    remove_old(folder, &fs::read_link(&data)?)
}

/// How the names of the folders behind `..data` begin.
const FRESH: &str = "..data_";

fn fill(into: &Path, files: &Payload) -> io::Result<()> {
    fs::create_dir(into)?;
    for (path, (content, mode)) in files {
        let path = into.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the folders of earlier contents, also those that a crash left behind.
fn remove_old(folder: &Path, current: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let old = name.to_string_lossy().starts_with(FRESH) && name != current;
        if old && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn same(folder: &Path, files: &Payload) -> bool {
    let as_wanted = files.iter().all(|(path, (content, mode))| {
        let path = folder.join(path);
        let mode_now = fs::metadata(&path).map(|meta| meta.permissions().mode() & 0o777);
        mode_now.is_ok_and(|now| now == *mode) && fs::read(&path).is_ok_and(|now| now == *content)
    });
    as_wanted && count_files(folder).is_ok_and(|count| count == files.len())
}

fn count_files(folder: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Ok(count)
}

fn link_names(folder: &Path, files: &Payload) -> io::Result<()> {
    let tops: std::collections::BTreeSet<_> =
        files.keys().filter_map(|path| path.components().next()).collect();
    for top in &tops {
        let link = folder.join(top);
        if link.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(top), &link)?;
        }
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let kept = tops.iter().any(|top| top.as_os_str() == name);
        if !kept && !name.to_string_lossy().starts_with("..") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(volumes: Value) -> Pod {
        let meta = json!({"name": "web", "namespace": "default", "labels": {"a": "1"}});
        serde_json::from_value(json!({"metadata": meta, "spec": {"containers": [], "volumes": volumes}}))
            .unwrap()
    }

    fn refs(text: &str) -> References {
        let cm = serde_json::from_value(json!({"data": {"app.conf": text, "other": "x"}})).unwrap();
        let secret = serde_json::from_value(json!({"data": {"password": "cHc="}})).unwrap();
        References {
            config_maps: [("cm".to_owned(), Some(cm))].into(),
            secrets: [("s".to_owned(), Some(secret))].into(),
        }
    }

    fn make(folder: &Path, pod: &Pod, refs: &References) -> Result<BTreeMap<String, PathBuf>, VolumeError> {
        let (tokens, facts) =
            (Tokens::from([((String::new(), 3600), "jwt".to_owned())]), PodFacts::default());
        materialise(folder, &Materials { pod, refs, tokens: &tokens, facts: &facts })
    }

    #[test]
    fn config_maps_secrets_fields_and_tokens_become_files_with_their_modes() {
        let dir = tempfile::tempdir().unwrap();
        let pod = pod(json!([
            {"name": "c", "configMap": {"name": "cm", "items": [{"key": "app.conf", "path": "etc/app.conf"}]}},
            {"name": "s", "secret": {"secretName": "s", "defaultMode": 256}},
            {"name": "p", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token"}},
                {"configMap": {"name": "cm"}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
            {"name": "e", "emptyDir": {}}
        ]));
        let at = make(dir.path(), &pod, &refs("v1")).unwrap();
        assert_eq!(fs::read_to_string(at["c"].join("etc/app.conf")).unwrap(), "v1");
        assert!(!at["c"].join("other").exists());
        assert_eq!(fs::read_to_string(at["s"].join("password")).unwrap(), "pw");
        assert_eq!(fs::metadata(at["s"].join("password")).unwrap().permissions().mode() & 0o777, 0o400);
        assert_eq!(fs::read_to_string(at["p"].join("token")).unwrap(), "jwt");
        assert_eq!(fs::read_to_string(at["p"].join("labels")).unwrap(), "a=\"1\"");
        assert!(at["e"].is_dir());
    }

    #[test]
    fn an_update_switches_all_files_at_once_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let pod = pod(json!([{"name": "c", "configMap": {"name": "cm"}}]));
        let at = make(dir.path(), &pod, &refs("v1")).unwrap()["c"].clone();
        let before = fs::read_link(at.join("..data")).unwrap();
        make(dir.path(), &pod, &refs("v1")).unwrap();
        assert_eq!(fs::read_link(at.join("..data")).unwrap(), before, "nothing changed, nothing written");
        let mut changed = refs("v2");
        changed.config_maps.get_mut("cm").unwrap().as_mut().unwrap().data.as_mut().unwrap().remove("other");
        make(dir.path(), &pod, &changed).unwrap();
        assert_eq!(fs::read_to_string(at.join("app.conf")).unwrap(), "v2");
        assert!(at.join("other").symlink_metadata().is_err());
        assert!(!at.join(before).exists());
    }

    #[test]
    fn files_that_cannot_be_written_leave_the_old_ones() {
        let dir = tempfile::tempdir().unwrap();
        let volume = |items: Value| pod(json!([{"name": "c", "configMap": {"name": "cm", "items": items}}]));
        let good = volume(json!([{"key": "app.conf", "path": "a"}]));
        let at = make(dir.path(), &good, &refs("v1")).unwrap()["c"].clone();
        // A crash between the switch and the removal left this.
        fs::create_dir(at.join("..data_7")).unwrap();
        // A file is no folder.
        let bad = volume(json!([{"key": "app.conf", "path": "a"}, {"key": "other", "path": "a/b"}]));
        for _ in 0..3 {
            make(dir.path(), &bad, &refs("v2")).unwrap_err();
        }
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "v1");
        make(dir.path(), &good, &refs("v3")).unwrap();
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "v3");
        let mut names: Vec<_> = fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["..data", "..data_1", "a"]);
    }

    #[test]
    fn what_is_missing_or_leads_out_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let cases = [
            (json!([{"name": "v", "configMap": {"name": "nope"}}]), "configmap \"nope\" not found"),
            (
                json!([{"name": "v", "configMap": {"name": "cm", "items": [{"key": "app.conf", "path": "../x"}]}}]),
                "..",
            ),
            (
                json!([{"name": "v", "secret": {"secretName": "s", "items": [{"key": "k", "path": "k"}]}}]),
                "key k",
            ),
            (json!([{"name": "v", "hostPath": {"path": "/nope", "type": "Directory"}}]), "not a directory"),
            (json!([{"name": "v", "nfs": {"server": "s", "path": "/"}}]), "not supported"),
        ];
        for (volumes, expected) in cases {
            let error = make(dir.path(), &pod(volumes), &refs("v")).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("\"v\""), "{error}");
        }
        let optional = pod(json!([{"name": "v", "secret": {"secretName": "nope", "optional": true}}]));
        assert!(make(dir.path(), &optional, &refs("v")).unwrap()["v"].is_dir());
    }
}
