//! A container's log in CRI's line format.

use std::{io, path::Path};

use kubeedge_core::{clock::Clock, runtime::Output};
use time::OffsetDateTime;
use tokio::{
    fs::{File, OpenOptions},
    io::AsyncWriteExt,
    sync::{broadcast, mpsc},
};

use crate::log_format::{MAX_LINE, Tag, record};

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
    /// Lines that have not ended: stdout's and stderr's.
    open: [Vec<u8>; 2],
}

impl Log {
    pub(super) fn new(file: Option<File>, clock: Clock) -> Self {
        Self { file, clock, open: Default::default() }
    }

    /// Writes until the program has ended, and passes everything on to those who are attached.
    pub(super) async fn write(
        mut self,
        mut output: mpsc::Receiver<Output>,
        attached: broadcast::Sender<Output>,
    ) {
        while let Some(said) = output.recv().await {
            self.note(&said).await;
            // Nobody may be attached.
            let _ = attached.send(said);
        }
        for (which, stream) in ["stdout", "stderr"].into_iter().enumerate() {
            let left = self.open.get_mut(which).map(std::mem::take).unwrap_or_default();
            if !left.is_empty() {
                self.write_line(stream, Tag::Partial, &left).await;
            }
        }
    }

    async fn note(&mut self, said: &Output) {
        let (which, stream, bytes) = match said {
            Output::Stdout(bytes) => (0, "stdout", bytes),
            Output::Stderr(bytes) => (1, "stderr", bytes),
        };
        let mut line = self.open.get_mut(which).map(std::mem::take).unwrap_or_default();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            for piece in text.chunks(MAX_LINE) {
                let room = MAX_LINE - line.len();
                let (fits, over) = piece.split_at(room.min(piece.len()));
                line.extend_from_slice(fits);
                if !over.is_empty() {
                    self.write_line(stream, Tag::Partial, &line).await;
                    line = over.to_vec();
                }
            }
            if ends {
                self.write_line(stream, Tag::Full, &line).await;
                line.clear();
            }
        }
        if let Some(open) = self.open.get_mut(which) {
            *open = line;
        }
    }

    async fn write_line(&mut self, stream: &str, tag: Tag, text: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let now = i128::from(self.clock.now().0) * 1_000_000;
        let at = OffsetDateTime::from_unix_timestamp_nanos(now).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let record = record(at, stream, tag, text);
        let written = async {
            file.write_all(&record).await?;
            file.flush().await
        };
        if let Err(error) = written.await {
            tracing::warn!(%error, "a container's log cannot be written and ends here");
            self.file = None;
        }
    }
}
