//! A containerd of a test's own: with its own folders, socket, network and images, gone without trace when
//! dropped.
//!
//! Self-contained, so that any test crate can include it by path. Needs root, `containerd`, `ctr`, `runc`,
//! the CNI plugins in `/usr/lib/cni`, and a static busybox.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{self, Write},
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// An image with every program of busybox in `/bin`; its own program is `sh`, its user root.
pub(crate) const BUSYBOX: &str = "docker.io/library/busybox:test";
/// The same, but its user is 1000 and its program says `from the image`.
pub(crate) const USER_1000: &str = "docker.io/library/user:test";
const PAUSE: &str = "registry.k8s.io/pause:test";
const PLUGINS: &str = "/usr/lib/cni";
const NAMESPACE: &str = "k8s.io";
const PATIENCE: Duration = Duration::from_secs(30);

static STARTED: AtomicU32 = AtomicU32::new(0);

/// A running containerd.
#[derive(Debug)]
pub(crate) struct Containerd {
    folder: tempfile::TempDir,
    bridge: String,
    daemon: Option<Child>,
}

impl Containerd {
    /// Starts one; `None`, with a loud word on stderr, where this machine cannot.
    pub(crate) fn start() -> Option<Self> {
        if let Err(missing) = able() {
            eprintln!("SKIPPED: no containerd for this test, because {missing}");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("ke-cri-").tempdir().unwrap();
        let number = process::id().wrapping_mul(64).wrapping_add(STARTED.fetch_add(1, Ordering::Relaxed));
        let mut this = Self { bridge: format!("ke{:x}", number & 0xff_ffff), folder, daemon: None };
        this.configure(number);
        this.run();
        this.import_images();
        Some(this)
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// A folder that lives as long as it does.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills the daemon, as a crash does. What runs in containers runs on.
    pub(crate) fn crash(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Starts the daemon, again after a crash, and waits until it serves.
    pub(crate) fn run(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("containerd.log")).unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(self.path("config.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        while !self.serves() {
            let gone = self.daemon.as_mut().unwrap().try_wait().unwrap();
            let log = || fs::read_to_string(self.path("containerd.log")).unwrap_or_default();
            assert!(gone.is_none() && Instant::now() < deadline, "containerd does not start:\n{}", log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn serves(&self) -> bool {
        UnixStream::connect(self.socket()).is_ok() && self.ctr(&["version"]).is_ok()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("containerd.sock")
    }

    fn ctr(&self, arguments: &[&str]) -> io::Result<String> {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket()).args(["--namespace", NAMESPACE]).args(arguments);
        output(&mut command)
    }

    fn configure(&self, number: u32) {
        let at = |name: &str| self.path(name).display().to_string();
        fs::create_dir(self.path("cni")).unwrap();
        let subnet = Ipv4Addr::from(0x0a40_0000 | (number & 0x3fff) << 8);
        let network = format!(
            r#"{{"cniVersion": "0.4.0", "name": "{bridge}", "plugins": [
                {{"type": "bridge", "bridge": "{bridge}", "isGateway": true, "ipMasq": false, "ipam": {{"type": "host-local",
                  "ranges": [[{{"subnet": "{subnet}/24"}}]], "routes": [{{"dst": "0.0.0.0/0"}}], "dataDir": "{ipam}"}}}},
                {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}"#,
            bridge = self.bridge,
            ipam = at("ipam"),
        );
        fs::write(self.path("cni/10-test.conflist"), network).unwrap();
        // Root may lack CAP_SYS_RESOURCE, as in many containers: without restrict_oom_score_adj runc then
        // dies.
        let config = format!(
            r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  sandbox_image = "{PAUSE}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{cni}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"
"#,
            root = at("root"),
            state = at("state"),
            socket = self.socket().display(),
            cni = at("cni"),
            opt = at("opt"),
        );
        fs::write(self.path("config.toml"), config).unwrap();
    }

    fn import_images(&self) {
        let layer = self.path("layer.tar");
        fs::write(&layer, root_file_system()).unwrap();
        let pause = r#""Entrypoint": ["/bin/sleep", "2147483647"]"#;
        let user = r#""User": "1000", "Entrypoint": ["/bin/echo"], "Cmd": ["from the image"]"#;
        for (name, config) in [(PAUSE, pause), (BUSYBOX, r#""Cmd": ["sh"]"#), (USER_1000, user)] {
            let archive = self.path("image.tar");
            fs::write(&archive, image(name, config, &layer)).unwrap();
            self.ctr(&["images", "import", archive.to_str().unwrap()]).unwrap();
        }
    }

    /// The processes of the shims of this containerd, and all below them.
    fn processes(&self) -> Vec<u32> {
        let socket = self.socket().display().to_string();
        let mut found: Vec<u32> = Vec::new();
        let all: Vec<(u32, u32, String)> = processes();
        found.extend(
            all.iter()
                .filter(|(.., line)| line.contains("shim") && line.contains(&socket))
                .map(|(id, ..)| id),
        );
        let mut next = 0;
        while let Some(parent) = found.get(next).copied() {
            found.extend(all.iter().filter(|(_, of, _)| *of == parent).map(|(id, ..)| id));
            next += 1;
        }
        found
    }

    fn clean(&mut self) {
        if self.daemon.is_none() {
            self.run();
        }
        // In order while the daemon runs; by force what that leaves.
        let containers = self.ctr(&["containers", "list", "--quiet"]).unwrap_or_default();
        for container in containers.lines() {
            let _ = self.ctr(&["tasks", "delete", "--force", container]);
        }
        self.crash();
        for process in self.processes() {
            let _ = output(Command::new("kill").args(["-9", &process.to_string()]));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let ours: Vec<_> =
            ours.filter(|path| path.starts_with(self.folder.path().to_str().unwrap())).collect();
        for path in ours.into_iter().rev() {
            let _ = output(Command::new("umount").args(["--lazy", path]));
        }
        let _ = output(Command::new("ip").args(["link", "delete", &self.bridge]));
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(self.path("containerd.log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().filter(|line| line.contains("level=error")).collect();
            eprintln!("containerd's errors:\n{}", lines.join("\n"));
        }
        self.clean();
    }
}

/// What this machine lacks, if anything.
fn able() -> Result<(), String> {
    let id = output(Command::new("id").arg("-u")).unwrap_or_default();
    if id.trim() != "0" {
        return Err("it takes root".to_owned());
    }
    for program in ["containerd", "ctr", "runc", "busybox", "ip", "sha256sum"] {
        let folders = env::var_os("PATH").unwrap_or_default();
        if !env::split_paths(&folders).any(|folder| folder.join(program).exists()) {
            return Err(format!("{program} is not installed"));
        }
    }
    if !Path::new(PLUGINS).join("bridge").exists() {
        return Err(format!("{PLUGINS} has no CNI plugins"));
    }
    Ok(())
}

/// Runs a program and returns what it says; an error with its last words when it fails.
fn output(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))))
}

/// All processes: id, parent and command line.
fn processes() -> Vec<(u32, u32, String)> {
    let folders = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let process = |folder: fs::DirEntry| {
        let id = folder.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(folder.path().join("stat")).ok()?;
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        let line = fs::read(folder.path().join("cmdline")).ok()?;
        Some((id, parent, String::from_utf8_lossy(&line).replace('\0', " ")))
    };
    folders.filter_map(process).collect()
}

/// The archive of an image's only layer.
fn root_file_system() -> Vec<u8> {
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find_map(|path| fs::read(path).ok()).unwrap();
    let mut tar = Tar::default();
    for folder in ["bin/", "dev/", "etc/", "proc/", "sys/", "run/"] {
        tar.add(folder, b'5', 0o755, "", &[]);
    }
    tar.add("tmp/", b'5', 0o1777, "", &[]);
    tar.add("etc/passwd", b'0', 0o644, "", b"root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n");
    tar.add("etc/group", b'0', 0o644, "", b"root:x:0:\nuser:x:1000:\n");
    tar.add("bin/busybox", b'0', 0o755, "", &busybox);
    let programs = output(Command::new("busybox").arg("--list")).unwrap();
    for program in programs.lines().filter(|name| *name != "busybox") {
        tar.add(&format!("bin/{program}"), b'2', 0o777, "busybox", &[]);
    }
    tar.finish()
}

/// An image as `docker save` writes it.
fn image(name: &str, config: &str, layer: &Path) -> Vec<u8> {
    let digest = output(Command::new("sha256sum").arg(layer)).unwrap();
    let digest = digest.split_whitespace().next().unwrap();
    let architecture = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = format!(
        r#"{{"architecture": "{architecture}", "os": "linux", "config": {{"Env": ["PATH=/bin", "FROM=image"], {config}}},
            "rootfs": {{"type": "layers", "diff_ids": ["sha256:{digest}"]}}}}"#
    );
    let manifest =
        format!(r#"[{{"Config": "config.json", "RepoTags": ["{name}"], "Layers": ["layer.tar"]}}]"#);
    let mut tar = Tar::default();
    tar.add("config.json", b'0', 0o644, "", config.as_bytes());
    tar.add("manifest.json", b'0', 0o644, "", manifest.as_bytes());
    tar.add("layer.tar", b'0', 0o644, "", &fs::read(layer).unwrap());
    tar.finish()
}

/// A ustar archive.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(&mut self, name: &str, kind: u8, mode: u32, target: &str, data: &[u8]) {
        let mut header = [0u8; 512];
        let mut put = |at: usize, text: &str| (&mut header[at..]).write_all(text.as_bytes()).unwrap();
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", data.len()));
        put(136, "00000000000");
        put(148, "        ");
        put(157, target);
        put(257, "ustar\x0000");
        header[156] = kind;
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        let mut text = String::new();
        write!(text, "{sum:06o}\0 ").unwrap();
        header[148..156].copy_from_slice(text.as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
