//! One process per simulation: entropy from the seed, nothing left over from the one before.

use std::{
    fmt, fs,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use serde_json::{Value, json};

use crate::{
    plan::{Plan, Planted},
    say, world,
};

/// What a line with the outcome begins with.
const OUTCOME: &str = "outcome ";
/// The most memory a simulation may have used, in KiB.
const MOST_MEMORY: u64 = 600 << 10;

/// What a simulation told.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) broken: Vec<String>,
    pub(crate) digest: u64,
    pub(crate) count: u64,
    pub(crate) trace: String,
    took: u64,
    agreed: u64,
    memory: u64,
}

impl Report {
    pub(crate) fn is_good(&self) -> bool {
        self.broken.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_good() {
            write!(f, "good, ")?;
        }
        for what in &self.broken {
            writeln!(f, "BROKEN {what}")?;
        }
        let (seconds, agreed) = (self.took / 1000, self.agreed / 1000);
        write!(
            f,
            "{} events in {seconds} simulated seconds, agreed {agreed} s after quiet, {} MiB, trace {:016x}",
            self.count,
            self.memory >> 10,
            self.digest
        )
    }
}

const PLANTED: [Planted; 5] =
    [Planted::LostFrame, Planted::Swapped, Planted::LyingDisk, Planted::Hoard, Planted::ForgetfulRuntime];

/// The child: carries out the seed's plan and tells what came of it.
pub(crate) fn be(seed: u64, arguments: &[String]) -> ExitCode {
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let mut plan = Plan::of(seed);
    if let Some(planted) = PLANTED.iter().find(|planted| has(&format!("--{planted:?}"))) {
        plan = plan.with(*planted);
    }
    if has("--calm") {
        plan.troubles.clear();
    }
    if has("--log") {
        let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info,turmoil=warn".to_owned());
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).without_time().init();
    }
    let outcome = world::run(plan);
    if has("--trace") {
        outcome.trace.lines().iter().for_each(|line| say(line));
    }
    let told = json!({
        "broken": outcome.broken, "digest": outcome.trace.digest(), "count": outcome.trace.count(),
        "took": outcome.took, "agreed": outcome.agreed_after, "memory": memory(),
    });
    say(&format!("{OUTCOME}{told}"));
    ExitCode::SUCCESS
}

/// The most memory this process has used, in KiB.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// The library that answers for the system's entropy, made when it is not there yet; `None` without a C
/// compiler.
fn entropy() -> Option<&'static PathBuf> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let source = include_str!("entropy.c");
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let (code, library) = (folder.join("entropy.c"), folder.join("entropy.so"));
        fs::create_dir_all(&folder).ok()?;
        if library.exists() && fs::read_to_string(&code).is_ok_and(|known| known == source) {
            return Some(library);
        }
        // Others may do the same at the same time: the last rename wins, and all are alike.
        let own = folder.join(format!("entropy-{}", std::process::id()));
        let own_code = own.with_extension("c");
        fs::write(&own_code, source).ok()?;
        let compiled =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&own).arg(&own_code).status();
        if !compiled.is_ok_and(|status| status.success()) {
            say("!! no C compiler: simulations run, but a seed does not repeat itself exactly");
            return None;
        }
        fs::rename(&own, &library).ok()?;
        fs::rename(&own_code, &code).ok()?;
        Some(library)
    });
    made.as_ref()
}

/// Whether a seed repeats itself exactly.
pub(crate) fn has_entropy() -> bool {
    entropy().is_some()
}

/// Runs one seed in a process of its own.
pub(crate) fn run(seed: u64, planted: Option<Planted>, traced: bool) -> Report {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--child", &seed.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
    command.args(planted.map(|planted| format!("--{planted:?}")));
    command.args(traced.then_some("--trace"));
    if std::env::var_os("KUBEEDGE_SIMULATE_LOG").is_some() {
        command.arg("--log");
    } else {
        command.stderr(Stdio::piped());
    }
    if let Some(library) = entropy() {
        command.env("LD_PRELOAD", library).env("KUBEEDGE_ENTROPY", seed.to_string());
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let Some((trace, outcome)) = said.rsplit_once(OUTCOME) else {
        let broken = vec![format!("runs on: the simulation ended with {}: {errors}", output.status)];
        return Report { broken, trace: said, ..Report::default() };
    };
    let outcome: Value = serde_json::from_str(outcome.trim()).unwrap_or_default();
    let number = |key: &str| outcome[key].as_u64().unwrap_or(0);
    let mut report = Report {
        broken: serde_json::from_value(outcome["broken"].clone()).unwrap_or_default(),
        digest: number("digest"),
        count: number("count"),
        trace: trace.to_owned(),
        took: number("took"),
        agreed: number("agreed"),
        memory: number("memory"),
    };
    if let Some(at) = errors.find("panicked at") {
        let what: String = errors[at..].chars().take(400).collect();
        report.broken.push(format!("runs on: {what}"));
    }
    if report.memory > MOST_MEMORY {
        report.broken.push(format!("{}: the process used {} KiB", crate::checks::MEMORY, report.memory));
    }
    report
}

/// Runs seeds beside each other, as many as there are processors; `done` is told of each as it ends and says
/// whether to go on.
pub(crate) fn run_all(seeds: std::ops::Range<u64>, mut done: impl FnMut(u64, &Report) -> bool) {
    let (next, end) = (AtomicU64::new(seeds.start), Mutex::new(seeds.end));
    let (told, reports) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            let (next, end, told) = (&next, &end, told.clone());
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= *end.lock().unwrap() || told.send((seed, run(seed, None, false))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(told);
        for (seed, report) in reports {
            if !done(seed, &report) {
                *end.lock().unwrap() = 0;
            }
        }
    });
}
