//! Replacing a file so that a reader, and whoever comes after a crash, sees the old content or the new one, whole.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Replaces the file: the content goes to a file beside it, reaches the disk, and takes its name. When this returns
/// `Ok`, the new content survives a power cut. On an error the old content stands as it was.
///
/// `mode` holds for the new file, whatever the old one had; the process' umask applies.
///
/// # Errors
/// What the file system says, a full disk among it. The folder must exist.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    Replacement::prepare(path, content, mode)?.commit()
}

/// A new content that is on disk already and has not taken its place yet. For files that belong together: prepare all,
/// then commit all, so that a full disk changes none of them. Dropped without a commit it is removed.
#[derive(Debug)]
#[must_use = "the file is replaced by `commit`"]
pub struct Replacement {
    path: PathBuf,
    committed: bool,
}

impl Replacement {
    /// Writes the content beside the file, and to the disk.
    ///
    /// # Errors
    /// As [`replace`].
    pub fn prepare(path: &Path, content: &[u8], mode: u32) -> io::Result<Self> {
        let beside = beside(path);
        // One left behind by a crash would keep its mode.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        let replacement = Self { path: path.to_owned(), committed: false };
        file.write_all(content)?;
        file.sync_all()?;
        Ok(replacement)
    }

    /// Gives the new content the file's name, durably.
    ///
    /// # Errors
    /// As [`replace`]. After a failure to sync the folder the new content stands, but may not survive a power cut.
    pub fn commit(mut self) -> io::Result<()> {
        fs::rename(beside(&self.path), &self.path)?;
        self.committed = true;
        sync_folder(&self.path)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_file(beside(&self.path));
        }
    }
}

/// The name of the new content until it takes its place.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(".new");
    name.into()
}

/// Makes the names in the folder of this file durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_replaced_file_has_the_new_content_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        fs::write(&path, "old").unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        fs::write(&path, "old").unwrap();
        // A folder where the new content would be written.
        fs::create_dir(beside(&path)).unwrap();
        replace(&path, b"new", 0o600).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn a_replacement_that_is_not_committed_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        fs::write(&path, "old").unwrap();
        drop(Replacement::prepare(&path, b"new", 0o600).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
