//! Programs: ours and the peers'.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// The folder of the workspace.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A binary of this workspace, as `cargo build --workspace --bins` left it beside the tests.
pub fn binary(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().and_then(Path::parent).unwrap().join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace --all-features --bins`",
        path.display()
    );
    path
}

/// A program of this machine, if it is there.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    folders.map(|folder| Path::new(folder).join(name)).find(|file| file.is_file())
}

/// Says loudly that a test was not made for want of a peer; true if any of these is missing.
pub fn skipped(peers: &[&str]) -> bool {
    let missing: Vec<_> = peers.iter().filter(|peer| tool(peer).is_none()).collect();
    if !missing.is_empty() {
        println!("SKIPPED: not tested for want of {missing:?}; tests/run installs them where it may");
    }
    !missing.is_empty()
}

/// Looks again and again until something is there; at the end of the time, fails with what was seen last.
pub fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + within;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if Instant::now() > end => panic!("{what}: not within {within:?}; seen last: {seen}"),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Runs a program to its end and hands out what it said.
pub fn run(command: &mut Command) -> Output {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{shown}: {error}"))
}

/// Runs a program to its end with this on its standard input, and hands out what it said.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Output {
    let shown = format!("{command:?}");
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    // A program that ends before it has read everything is no fault of the test.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Output as text; panics when it is none.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a line of shell; panics with its output if it fails.
pub fn sh(line: &str, folder: &Path, env: &[(&str, &Path)]) -> String {
    let output = run(Command::new("bash").args(["-ec", line]).current_dir(folder).envs(env.iter().copied()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}\n{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A program that prints a configuration takes what it has printed.
pub fn reads_what_it_prints(program: &str) {
    for flag in ["--defaultconfig", "--minconfig"] {
        let printed = run(Command::new(program).arg(flag));
        assert!(printed.status.success() && printed.stderr.is_empty(), "{flag}");
        let checked =
            run_with_input(Command::new(program).args(["--check", "--config", "-"]), &printed.stdout);
        assert_eq!(text(&checked.stdout), "the configuration can be used\n", "{flag}");
        assert!(checked.status.success() && checked.stderr.is_empty(), "{flag}");
    }
}

/// A program in the background, its output collected; killed when dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Background {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        let shown = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        let said = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().unwrap(), &said);
        collect(child.stderr.take().unwrap(), &said);
        Self { child, said }
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it has said this.
    pub fn until_said(&self, text: &str, within: Duration) -> String {
        until(&format!("output with {text:?}"), within, || {
            let said = self.said();
            if said.contains(text) { Ok(said) } else { Err(said) }
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The memory it holds just now, in bytes.
    pub fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<usize>().map_or(0, |kilobytes| kilobytes << 10)
    }

    /// Asks it to end, as a service manager does, and waits; the exit code, or `None` for a signal.
    pub fn stop(&mut self) -> Option<i32> {
        let _ = run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]));
        self.ended(Duration::from_secs(40))
    }

    /// Waits until it has ended by itself; the exit code, or `None` for a signal.
    pub fn ended(&mut self, within: Duration) -> Option<i32> {
        until("the end of a program", within, || {
            self.child.try_wait().unwrap().ok_or_else(|| self.said()).map(|status| status.code())
        })
    }

    /// Kills it, as a power cut does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
    }
}

fn collect(from: impl Read + Send + 'static, into: &Arc<Mutex<String>>) {
    let into = Arc::clone(into);
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let mut into = into.lock().unwrap();
            into.push_str(&String::from_utf8_lossy(&line));
            into.push('\n');
        }
    });
}

/// Kills every process whose command line names this folder, and the process groups they lead.
pub fn kill_below(folder: &Path) {
    let folder = folder.display().to_string();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let work = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        let named = String::from_utf8_lossy(&line).contains(&folder) || work.starts_with(&folder);
        if named && pid != std::process::id() {
            let _ = run(Command::new("kill").args(["-KILL", &pid.to_string()]));
        }
    }
}
