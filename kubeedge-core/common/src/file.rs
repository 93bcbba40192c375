//! Replacing a file so that a reader, and whoever comes after a crash, sees the old content or the new one,
//! whole.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Replaces the file: the content goes to a file beside it ([`interim`]), reaches the disk, and takes its
/// name. When this returns `Ok`, the new content survives a power cut. On an error the old content stands as
/// it was.
///
/// `mode` holds for the new file, whatever the old one had; the process' umask applies.
///
/// # Errors
/// What the file system says, a full disk among it. The folder must exist.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    Replacement::prepare(path, content, mode)?.commit()
}

/// As [`replace`], without waiting for the disk. A reader sees the old content or the new one, whole. After a
/// power cut the file may be missing or cut short: only for what is checked when it is read and can be made
/// again.
///
/// # Errors
/// As [`replace`].
pub fn replace_unsynced(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let (mut replacement, file) = Replacement::write(path, content, mode)?;
    drop(file);
    replacement.take_the_name()
}

/// A new content that is on disk already and has not taken its place yet. For files that belong together:
/// prepare all, then commit all, so that a full disk changes none of them. Dropped without a commit it is
/// removed.
#[derive(Debug)]
#[must_use = "the file is replaced by `commit`"]
pub struct Replacement {
    path: PathBuf,
    remove: bool,
}

impl Replacement {
    /// Writes the content beside the file, and to the disk.
    ///
    /// # Errors
    /// As [`replace`].
    pub fn prepare(path: &Path, content: &[u8], mode: u32) -> io::Result<Self> {
        let (replacement, file) = Self::write(path, content, mode)?;
        file.sync_all()?;
        Ok(replacement)
    }

    fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<(Self, File)> {
        let beside = interim(path);
        // One left behind by a crash would keep its mode.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        let replacement = Self { path: path.to_owned(), remove: true };
        file.write_all(content)?;
        Ok((replacement, file))
    }

    fn take_the_name(&mut self) -> io::Result<()> {
        fs::rename(interim(&self.path), &self.path)?;
        self.remove = false;
        Ok(())
    }

    /// Gives the new content the file's name, durably.
    ///
    /// # Errors
    /// As [`replace`]. After a failure to sync the folder the new content stands, but may not survive a power
    /// cut.
    pub fn commit(mut self) -> io::Result<()> {
        self.take_the_name()?;
        sync_folder(&self.path)
    }

    /// Commits files that belong together, in this order. When the first cannot be committed, nothing is
    /// changed. When a later one cannot, the contents that have not taken their place stay under their
    /// [`interim`] names, as after a crash: a reader finds the new set in both names together.
    ///
    /// # Errors
    /// As [`Replacement::commit`], with the file that it is about.
    pub fn commit_all(mut replacements: Vec<Self>) -> Result<(), (PathBuf, io::Error)> {
        let mut changed = false;
        let outcome = replacements.iter_mut().try_for_each(|next| {
            let taken = next.take_the_name();
            changed |= taken.is_ok();
            taken.and_then(|()| sync_folder(&next.path)).map_err(|error| (next.path.clone(), error))
        });
        if changed {
            replacements.iter_mut().for_each(|other| other.remove = false);
        }
        outcome
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if self.remove {
            let _ = fs::remove_file(interim(&self.path));
        }
    }
}

/// The name of a file's new content until it takes its place.
pub fn interim(path: &Path) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(".new");
    name.into()
}

/// Makes a folder, and the ones above it that are missing, durably: each new name reaches the disk.
///
/// `mode` holds for every folder that is made; the process' umask applies.
///
/// # Errors
/// What the file system says. That the folder is there already is fine.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folder(parent, mode)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        // Somebody else made it at the same time.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.and_then(|()| sync_folder(path)),
    }
}

/// Makes the names in the folder of this file durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests;
