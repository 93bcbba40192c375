//! A container's log file in CRI's format, begun anew when it is large.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use time::OffsetDateTime;

use crate::log_format::{MAX_LINE, Tag, record};

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
    pub(super) fn copy(&self, stream: &str, mut from: impl Read) {
        let (mut buffer, mut filled) = (vec![0_u8; MAX_LINE], 0);
        loop {
            let Some(room) = buffer.get_mut(filled..) else { return };
            let read = match from.read(room) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            filled += read;
            let whole = buffer.get(..filled).unwrap_or_default();
            let left = self.lines(stream, whole);
            buffer.copy_within(filled - left..filled, 0);
            filled = left;
        }
        if filled > 0 {
            self.line(stream, Tag::Partial, buffer.get(..filled).unwrap_or_default());
        }
    }

    /// Writes the whole lines and says how many bytes are left over at the end.
    fn lines(&self, stream: &str, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            self.line(stream, Tag::Full, line);
            rest = after.get(1..).unwrap_or_default();
        }
        if rest.len() == MAX_LINE {
            self.line(stream, Tag::Partial, rest);
            return 0;
        }
        rest.len()
    }

    fn line(&self, stream: &str, tag: Tag, text: &[u8]) {
        let line = record(OffsetDateTime::now_utc(), stream, tag, text);
        let mut file = self.file.lock();
        if file.1 >= MAX_FILE
            && std::fs::rename(&self.path, self.path.with_extension("log.1")).is_ok()
            && let Ok(new) = open(&self.path)
        {
            *file = new;
        }
        if file.0.write_all(&line).is_ok() {
            file.1 += line.len() as u64;
        }
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

    fn logged(input: &[u8]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web/0.log");
        Log::open(&path).unwrap().copy("stdout", input);
        let text = std::fs::read_to_string(&path).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn lines_carry_stream_and_tag() {
        assert_eq!(logged(b"one\n\ntwo"), ["stdout F one", "stdout F ", "stdout P two"]);
        assert!(logged(b"").is_empty());
    }

    #[test]
    fn a_line_too_long_is_written_in_parts() {
        let mut input = vec![b'x'; MAX_LINE + 5];
        input.push(b'\n');
        let lines = logged(&input);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("stdout P xxx") && lines[0].len() == "stdout P ".len() + MAX_LINE);
        assert_eq!(lines[1], "stdout F xxxxx");
    }

    #[test]
    fn a_log_begins_anew_when_it_is_large_and_keeps_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let log = Log::open(&path).unwrap();
        log.copy("stdout", io::repeat(b'\n').take(0));
        log.file.lock().1 = MAX_FILE;
        log.copy("stdout", &b"new\n"[..]);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("stdout F new\n"));
        assert!(folder.path().join("0.log.1").exists());
    }
}
