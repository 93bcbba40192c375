//! A container's log in CRI's line format.

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kubeedge_core::{clock::Clock, runtime::Output};
use tokio::{
    fs::{File, OpenOptions},
    io::AsyncWriteExt,
    sync::{broadcast, mpsc},
};

use crate::log_format::{Lines, LogStream};

/// Opens the log of a container that has one.
pub(super) async fn open(path: &Path, wanted: bool) -> io::Result<Option<File>> {
    if !wanted {
        return Ok(None);
    }
    if let Some(parent) = path.parent() {
        tokio::fs::create_dir_all(parent).await?;
    }
    OpenOptions::new().create(true).append(true).open(path).await.map(Some)
}

/// Writes what a program says.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<File>,
    clock: Clock,
    stdout: Lines,
    stderr: Lines,
}

impl Log {
    pub(super) fn new(file: Option<File>, clock: Clock) -> Self {
        Self { file, clock, stdout: Lines::new(LogStream::Stdout), stderr: Lines::new(LogStream::Stderr) }
    }

    /// Writes until the program has ended, and passes everything on to those who are attached.
    pub(super) async fn write(
        mut self,
        mut output: mpsc::Receiver<Output>,
        attached: broadcast::Sender<Output>,
    ) {
        let mut records = Vec::new();
        while let Some(said) = output.recv().await {
            let now = self.now();
            match &said {
                Output::Stdout(bytes) => self.stdout.write(now, bytes, &mut records),
                Output::Stderr(bytes) => self.stderr.write(now, bytes, &mut records),
            }
            self.append(&mut records).await;
            // Nobody may be attached.
            let _ = attached.send(said);
        }
        let now = self.now();
        self.stdout.end(now, &mut records);
        self.stderr.end(now, &mut records);
        self.append(&mut records).await;
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(u64::try_from(self.clock.now().0).unwrap_or_default())
    }

    /// Appends whole records, and forgets them.
    async fn append(&mut self, records: &mut Vec<u8>) {
        if let Some(file) = self.file.as_mut().filter(|_| !records.is_empty()) {
            let written = async {
                file.write_all(records).await?;
                file.flush().await
            };
            if let Err(error) = written.await {
                tracing::warn!(%error, "a container's log cannot be written and ends here");
                self.file = None;
            }
        }
        records.clear();
    }
}
