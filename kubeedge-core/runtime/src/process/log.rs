//! A container's log file in CRI's format, begun anew when it is large.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use parking_lot::Mutex;

use crate::log_format::{Lines, LogStream, MAX_LINE};

/// How large a file grows before a new one begins; one old file is kept.
const MAX_FILE: u64 = 10 << 20;

/// The file both outputs of a container go to.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: Mutex<(File, u64)>,
}

impl Log {
    /// Opens the file, going on where an earlier one ended.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(Self { path: path.to_owned(), file: Mutex::new(open(path)?) })
    }

    /// Copies one output until it ends. A full disk loses lines, not the container.
    pub(super) fn copy(&self, stream: LogStream, mut from: impl Read) {
        let (mut lines, mut buffer, mut records) = (Lines::new(stream), vec![0_u8; MAX_LINE], Vec::new());
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            lines.write(SystemTime::now(), buffer.get(..read).unwrap_or_default(), &mut records);
            self.append(&mut records);
        }
        lines.end(SystemTime::now(), &mut records);
        self.append(&mut records);
    }

    /// Appends whole records, and forgets them.
    fn append(&self, records: &mut Vec<u8>) {
        if !records.is_empty() {
            let mut file = self.file.lock();
            if file.1 >= MAX_FILE
                && std::fs::rename(&self.path, self.path.with_extension("log.1")).is_ok()
                && let Ok(new) = open(&self.path)
            {
                *file = new;
            }
            if file.0.write_all(records).is_ok() {
                file.1 += records.len() as u64;
            }
        }
        records.clear();
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_begins_anew_when_it_is_large_and_keeps_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web/0.log");
        let log = Log::open(&path).unwrap();
        log.copy(LogStream::Stdout, &b"old\n"[..]);
        log.file.lock().1 = MAX_FILE;
        log.copy(LogStream::Stdout, &b"new\n"[..]);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("stdout F new\n"));
        let old = std::fs::read_to_string(folder.path().join("web/0.log.1")).unwrap();
        assert!(old.ends_with("stdout F old\n"), "{old}");
    }
}
