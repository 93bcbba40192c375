use std::{env, os::unix::fs::PermissionsExt as _, process::Command};

use super::*;

#[test]
fn a_replaced_file_has_the_new_content_and_mode() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.json");
    for replace in [replace, replace_unsynced] {
        fs::write(&path, "old").unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}

#[test]
fn a_write_that_fails_leaves_the_old_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.json");
    fs::write(&path, "old").unwrap();
    // A folder where the new content would be written.
    fs::create_dir(interim(&path)).unwrap();
    replace(&path, b"new", 0o600).unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), b"old");
}

/// Names the file to the child in which this test runs a second time.
const FILE: &str = "KUBEEDGE_TEST_FULL_DISK";

/// A process whose limit of the size of files is 0 is refused every write, as on a full disk.
#[test]
fn a_full_disk_leaves_the_old_content_and_tells() {
    if let Some(path) = env::var_os(FILE) {
        for replace in [replace, replace_unsynced] {
            replace(Path::new(&path), b"new", 0o600).unwrap_err();
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.json");
    fs::write(&path, "old").unwrap();
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "file::tests::a_full_disk_leaves_the_old_content_and_tells"])
        .env(FILE, &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
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

#[test]
fn files_that_belong_together_are_committed_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| folder.path().join(name));
    let prepared = paths.iter().map(|path| Replacement::prepare(path, b"new", 0o600).unwrap()).collect();
    Replacement::commit_all(prepared).unwrap();
    assert!(paths.iter().all(|path| fs::read(path).unwrap() == b"new"));
}

/// A certificate in place whose key is not: the key is still there to be found.
#[test]
fn what_cannot_follow_the_first_stays_beside() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
    let prepare = |path: &PathBuf| Replacement::prepare(path, b"new", 0o600).unwrap();
    // A file does not take the place of a folder.
    fs::create_dir(&b).unwrap();
    let (path, _) = Replacement::commit_all([&a, &b, &c].map(prepare).into()).unwrap_err();
    assert_eq!(path, b);
    for whole in [a, interim(&b), interim(&c)] {
        assert_eq!(fs::read(whole).unwrap(), b"new");
    }
}

#[test]
fn nothing_changes_when_the_first_cannot_be_committed() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
    fs::create_dir(&a).unwrap();
    let prepared = [&a, &b].map(|path| Replacement::prepare(path, b"new", 0o600).unwrap());
    Replacement::commit_all(prepared.into()).unwrap_err();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_is_made_with_all_above_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b");
    for _ in 0..2 {
        make_folder(&path, 0o700).unwrap();
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    fs::write(folder.path().join("file"), "").unwrap();
    make_folder(&folder.path().join("file"), 0o700).unwrap_err();
}
