//! From a container's specification to what its shim runs: words, environment, links.

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
};

use kubeedge_core::runtime::{ContainerSpec, Mount, RuntimeError, RuntimeKind, RuntimeResult, SandboxSpec};

use super::{IMAGE, Run, fail};

/// What a shim runs for this container, in this folder.
pub(super) fn run(folder: &Path, sandbox: &SandboxSpec, spec: &ContainerSpec) -> RuntimeResult<Run> {
    let invalid = |why: String| -> RuntimeError {
        fail(RuntimeKind::Invalid, "making a container", spec.name.clone()).because(why)
    };
    let mounts = Mounts::new(&spec.mounts);
    let mut words = spec.command.iter().chain(&spec.args).map(|word| mounts.rewrite(word));
    let program = words.next().ok_or_else(|| {
        invalid(format!("image \"{IMAGE}\" has no program of its own: give the container a command"))
    })?;
    let root = folder.join("root");
    let work = if spec.working_dir.is_empty() {
        root.clone()
    } else {
        PathBuf::from(mounts.rewrite(&spec.working_dir))
    };
    let identity = |id: Option<i64>, what: &str| match id.map(u32::try_from) {
        None => Ok(None),
        Some(Ok(id)) => Ok(Some(id)),
        Some(Err(_)) => Err(invalid(format!("{what} must be between 0 and {}", u32::MAX))),
    };
    let (user, group) = (
        identity(spec.security.run_as_user, "runAsUser")?,
        identity(spec.security.run_as_group, "runAsGroup")?,
    );
    let own = rustix::process::geteuid();
    if let Some(user) = user.filter(|user| !own.is_root() && *user != own.as_raw()) {
        return Err(invalid(format!("runAsUser {user}: only root can run a container as another user")));
    }
    Ok(Run {
        program,
        args: words.collect(),
        env: environment(&root, sandbox, spec, &mounts),
        folder: work,
        log: sandbox.log_directory.join(&spec.log_path),
        memory_bytes: spec.resources.memory_bytes,
        oom_score_adj: spec.resources.oom_score_adj,
        user: user.filter(|_| own.is_root()),
        group: group.filter(|_| own.is_root()),
        links: spec
            .mounts
            .iter()
            .filter_map(|mount| Some((inside(mount)?, mount.host_path.clone())))
            .collect(),
    })
}

/// Where a mount is shown, relative to the container's folder; `None` for a path with `..`.
fn inside(mount: &Mount) -> Option<PathBuf> {
    let parts = mount.container_path.components().filter(|part| *part != Component::RootDir);
    let plain: PathBuf = parts.clone().collect();
    parts.into_iter().all(|part| matches!(part, Component::Normal(_))).then_some(plain)
}

fn environment(
    root: &Path,
    sandbox: &SandboxSpec,
    spec: &ContainerSpec,
    mounts: &Mounts<'_>,
) -> HashMap<String, String> {
    let path = std::env::var("PATH")
        .unwrap_or_else(|_| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    let given = [
        ("PATH".to_owned(), path),
        ("HOME".to_owned(), root.display().to_string()),
        ("HOSTNAME".to_owned(), sandbox.hostname.clone()),
    ];
    let own = spec.env.iter().map(|(name, value)| (name.clone(), mounts.rewrite(value)));
    given.into_iter().chain(own).collect()
}

/// The mounts of a container, the most specific path first.
struct Mounts<'a>(Vec<(&'a str, String)>);

impl<'a> Mounts<'a> {
    fn new(mounts: &'a [Mount]) -> Self {
        let paths = mounts.iter().filter_map(|mount| {
            let path = mount.container_path.to_str()?.trim_end_matches('/');
            // A mount at "/" would change every path of the host.
            (path.starts_with('/') && path.len() > 1).then(|| (path, mount.host_path.display().to_string()))
        });
        let mut paths: Vec<_> = paths.collect();
        paths.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        Self(paths)
    }

    /// The text with every path of a mount replaced by its place on the host.
    fn rewrite(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((at, mount)) = self.first(rest, out.chars().next_back()) {
            let (path, host) = mount;
            out.push_str(rest.get(..at).unwrap_or_default());
            out.push_str(host);
            rest = rest.get(at + path.len()..).unwrap_or_default();
        }
        out.push_str(rest);
        out
    }

    /// The first place in `text` that names a mount.
    fn first(&self, text: &str, before: Option<char>) -> Option<(usize, &(&'a str, String))> {
        let slashes = text.match_indices('/').map(|(at, _)| at);
        slashes.into_iter().find_map(|at| {
            let ahead = text.get(..at).and_then(|head| head.chars().next_back()).or(before);
            let tail = text.get(at..)?;
            let found = self
                .0
                .iter()
                .find(|(path, _)| tail.strip_prefix(path).is_some_and(|after| !after.starts_with(in_a_name)));
            found.filter(|_| !ahead.is_some_and(|c| in_a_name(c) || c == '/')).map(|mount| (at, mount))
        })
    }
}

/// Whether a character goes on with a file's name.
fn in_a_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '~')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts() -> Vec<Mount> {
        let mount = |inside: &str, outside: &str| Mount::new(outside, inside);
        vec![mount("/etc/app", "/data/v/config"), mount("/etc/app/deep/", "/data/v/deep"), mount("/", "/no")]
    }

    #[test]
    fn paths_of_mounts_are_found_as_whole_paths_only() {
        let all = mounts();
        let mounts = Mounts::new(&all);
        for (text, expected) in [
            ("/etc/app", "/data/v/config"),
            ("cat /etc/app/greeting; echo '/etc/app'", "cat /data/v/config/greeting; echo '/data/v/config'"),
            ("FILE=/etc/app/deep/x", "FILE=/data/v/deep/x"),
            (
                "/etc/apples /mnt/etc/app ./etc/app /etc/app.d",
                "/etc/apples /mnt/etc/app ./etc/app /etc/app.d",
            ),
            ("a:/etc/app:/bin", "a:/data/v/config:/bin"),
            ("", ""),
            ("ä/etc/app /etc/app", "ä/etc/app /data/v/config"),
        ] {
            assert_eq!(mounts.rewrite(text), expected);
        }
    }

    #[test]
    fn a_container_without_a_command_is_told_what_to_do() {
        let spec = ContainerSpec::new("web", IMAGE);
        let error = run(Path::new("/c"), &SandboxSpec::default(), &spec).unwrap_err();
        assert!(kubeedge_core::failure::chain(&error).contains("give the container a command"), "{error:?}");
    }

    #[test]
    fn a_mount_that_climbs_out_gets_no_link() {
        let mount = Mount::new("/c", "/a/../../b");
        assert_eq!(inside(&mount), None);
        assert_eq!(inside(&mounts()[0]), Some(PathBuf::from("etc/app")));
    }
}
