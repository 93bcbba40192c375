//! An edgesite of a test's own, and kubectl on it.

use std::{net::SocketAddr, ops::Deref, path::PathBuf, process::Command, time::Duration};

use tempfile::TempDir;

use crate::{
    PATIENCE,
    kubectl::Kubectl,
    process::{Background, binary, kill_below, repository},
};

/// A running edgesite with free ports and a folder of its own.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
    kubectl: Kubectl,
    args: Vec<String>,
    running: Option<Background>,
    table: String,
}

impl Site {
    /// Starts one with these further arguments and waits until it is ready.
    pub fn start(args: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), args)
    }

    /// Starts one in a folder that a test has prepared.
    pub fn start_in(folder: TempDir, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let kubectl = Kubectl::new(folder.path(), &folder.path().join("data/kubeconfig"));
        let mut site = Self { folder, kubectl, args, running: None, table: String::new() };
        site.start_again();
        site
    }

    /// Starts it again on the same folder.
    pub fn start_again(&mut self) {
        let mut command = Command::new(binary("edgesite"));
        command.args(["--port-base", "0", "--data-dir"]).arg(self.data()).args(&self.args);
        let running = Background::start(command.current_dir(repository()));
        self.table = running.until_said("Ctrl-C stops it", PATIENCE);
        self.running = Some(running);
    }

    /// How much of the processor it has used since it started, in ticks of a hundredth of a second.
    pub fn processor_time(&self) -> Duration {
        let id = self.running.as_ref().map(Background::id).unwrap_or_default();
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        // After the name, which may hold anything: utime and stime are the 12th and 13th.
        let after = stat.rsplit_once(") ").unwrap().1;
        let ticks: u64 = after.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Its folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it printed when it was ready.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// What it has said so far, logs included.
    pub fn said(&self) -> String {
        self.running.as_ref().map(Background::said).unwrap_or_default()
    }

    /// The address in a row of its table.
    pub fn address(&self, row: &str) -> SocketAddr {
        let line = self.table.lines().find(|line| line.trim_start().starts_with(row));
        let line = line.unwrap_or_else(|| panic!("no row {row:?} in\n{}", self.table));
        let address = line.rsplit(['/', ' ']).next().unwrap_or_default();
        address.parse().unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Stops it in order; its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.running.take().and_then(|mut running| running.stop())
    }

    /// Kills it, as a power cut does; processes of pods live on.
    pub fn kill(&mut self) {
        drop(self.running.take());
    }

    /// The quickstart, its device at this site's own PLC.
    pub fn quickstart(&self) -> PathBuf {
        let folder = self.folder.path().join("quickstart");
        std::fs::create_dir_all(&folder).unwrap();
        for entry in std::fs::read_dir(repository().join("examples/quickstart")).unwrap().flatten() {
            let mut text = std::fs::read_to_string(entry.path()).unwrap();
            if self.table.contains("simulated PLC") {
                let port = self.address("simulated PLC").port();
                text = text.replace("port: 10012", &format!("port: {port}"));
            }
            std::fs::write(folder.join(entry.file_name()), text).unwrap();
        }
        folder
    }
}

impl Deref for Site {
    type Target = Kubectl;

    fn deref(&self) -> &Kubectl {
        &self.kubectl
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.said();
            let tail: Vec<_> = said.lines().rev().take(60).collect();
            println!("---- the site's last words");
            tail.iter().rev().for_each(|line| println!("{line}"));
        }
        drop(self.running.take());
        kill_below(self.folder.path());
    }
}
