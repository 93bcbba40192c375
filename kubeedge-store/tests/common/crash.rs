//! What a crash leaves of a store in files.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Copies the files of a folder to another, as they are at this moment. SQLite's `-shm` is memory, and goes
/// with the process.
pub(crate) fn copy(from: &Path, to: &Path) -> PathBuf {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    to.to_owned()
}
