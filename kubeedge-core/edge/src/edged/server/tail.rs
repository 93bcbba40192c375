//! Reads a log file from where it is asked to, to its end or as it grows, through rotations.

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, stream};
use kubeedge_common::blocking::Blocking;
use kubeedge_core::runtime::{ContainerId, ContainerRuntime};
use tokio::{fs::File, io::AsyncReadExt, io::AsyncSeekExt, time::Instant};

use super::cri_log::Printer;

/// How much is read at a time.
const BLOCK: usize = 32 << 10;
/// The longest entry of a log; a longer one is left out. Runtimes cut lines at 16 KiB.
const MAX_ENTRY: usize = 1 << 20;
/// How soon a log that is followed is looked at again.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the runtime is asked whether the container still runs.
const ASK: Duration = Duration::from_secs(1);

/// Who knows whether more will come.
#[derive(Debug)]
pub(super) struct Follow {
    pub(super) runtime: Arc<dyn ContainerRuntime>,
    pub(super) container: ContainerId,
}

impl Follow {
    /// Whether the container runs; a runtime that does not answer is believed to run it still.
    async fn runs(&self) -> bool {
        match self.runtime.list_all().await {
            Ok((_, containers)) => {
                containers.iter().any(|found| found.id == self.container && found.state.is_running())
            }
            Err(_) => true,
        }
    }
}

/// A log being read.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    inode: u64,
    read: u64,
    /// The beginning of an entry whose end was not read yet.
    rest: Vec<u8>,
    /// Whether the rest is of an entry that is too long.
    skipping: bool,
    printer: Printer,
    follow: Option<Follow>,
    asked: Option<Instant>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    /// A new file has taken the place of this one, which is read to its end first.
    Rotated,
    /// The container has ended: what is left is read, then no more.
    Ending,
    Done,
}

impl Log {
    /// Opens a log at its beginning, or before its last entries.
    pub(super) async fn open(
        path: &Path,
        tail: Option<u64>,
        printer: Printer,
        follow: Option<Follow>,
    ) -> io::Result<Self> {
        let name = path.to_owned();
        let opening = Blocking::Threads.run(move || {
            let mut file = fs::File::open(name)?;
            let start = tail.map_or(Ok(0), |entries| last_entries(&mut file, entries))?;
            file.seek(SeekFrom::Start(start))?;
            let inode = file.metadata()?.ino();
            Ok::<_, io::Error>((file, inode, start))
        });
        let (file, inode, read) = opening.await.map_err(io::Error::other)??;
        Ok(Self {
            path: path.to_owned(),
            file: File::from_std(file),
            inode,
            read,
            rest: Vec::new(),
            skipping: false,
            printer,
            follow,
            asked: None,
            state: State::Reading,
        })
    }

    /// The log as text, piece by piece.
    pub(super) fn text(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        stream::unfold(self, |mut log| async move {
            match log.next().await {
                Ok(Some(text)) => Some((Ok(text), log)),
                Ok(None) => None,
                Err(error) => {
                    log.state = State::Done;
                    Some((Err(error), log))
                }
            }
        })
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut out = Vec::new();
        while self.state != State::Done && out.is_empty() {
            let mut block = vec![0; BLOCK];
            let size = self.file.read(&mut block).await?;
            if size > 0 {
                self.read += size as u64;
                self.take(block.get(..size).unwrap_or_default(), &mut out);
            } else {
                self.at_end(&mut out).await?;
            }
            if self.printer.is_full() {
                self.state = State::Done;
            }
        }
        Ok(if out.is_empty() { None } else { Some(out.into()) })
    }

    fn take(&mut self, block: &[u8], out: &mut Vec<u8>) {
        for piece in block.split_inclusive(|byte| *byte == b'\n') {
            let (piece, complete) = piece.strip_suffix(b"\n").map_or((piece, false), |piece| (piece, true));
            if self.rest.len() + piece.len() > MAX_ENTRY {
                tracing::warn!(log = %self.path.display(), "an entry of more than {MAX_ENTRY} bytes is left out");
                self.skipping = true;
                self.rest.clear();
            }
            if !self.skipping {
                self.rest.extend_from_slice(piece);
            }
            if complete {
                self.flush(out);
            }
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        if !std::mem::take(&mut self.skipping) && !self.rest.is_empty() {
            self.printer.print(&self.rest, out);
        }
        self.rest.clear();
    }

    /// Nothing more to read for now: waits, turns to the next file, or ends.
    async fn at_end(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let Some(follow) = &self.follow else {
            self.flush(out);
            self.state = State::Done;
            return Ok(());
        };
        if self.state == State::Rotated {
            return self.turn(out).await;
        }
        let newest = tokio::fs::metadata(&self.path).await.map(|newest| newest.ino());
        if newest.is_ok_and(|inode| inode != self.inode) {
            self.state = State::Rotated;
            return Ok(());
        }
        if self.file.metadata().await?.len() < self.read {
            self.read = self.file.seek(SeekFrom::Start(0)).await?;
            self.rest.clear();
            return Ok(());
        }
        if self.state == State::Ending {
            self.flush(out);
            self.state = State::Done;
            return Ok(());
        }
        if self.asked.is_none_or(|asked| asked.elapsed() >= ASK) {
            let runs = follow.runs().await;
            self.asked = Some(Instant::now());
            if !runs {
                self.state = State::Ending;
                return Ok(());
            }
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    async fn turn(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.flush(out);
        self.state = State::Reading;
        match File::open(&self.path).await {
            Ok(file) => {
                self.inode = file.metadata().await?.ino();
                (self.file, self.read) = (file, 0);
            }
            // It was moved again in this moment; the next look finds its successor.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Where the last entries of a file begin.
fn last_entries(file: &mut (impl Read + Seek), entries: u64) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    if entries == 0 {
        return Ok(end);
    }
    let (mut found, mut block) = (0, vec![0; BLOCK]);
    while end > 0 {
        let size = end.min(BLOCK as u64);
        end -= size;
        file.seek(SeekFrom::Start(end))?;
        let part = block.get_mut(..usize::try_from(size).unwrap_or(BLOCK)).unwrap_or_default();
        file.read_exact(part)?;
        for (at, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            if found == entries {
                return Ok(end + at as u64 + 1);
            }
            found += 1;
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn the_last_entries_are_found_across_blocks() {
        let text: String = (0..9000).map(|n| format!("line {n:05}\n")).collect();
        let mut file = Cursor::new(text.clone().into_bytes());
        for (entries, start) in
            [(0, text.len()), (1, text.len() - 11), (8000, 1000 * 11), (9000, 0), (9999, 0)]
        {
            assert_eq!(last_entries(&mut file, entries).unwrap(), start as u64, "{entries}");
        }
        assert_eq!(last_entries(&mut Cursor::new(Vec::new()), 3).unwrap(), 0);
    }
}
