use std::{env, process::Command};

use super::*;

/// Names the record to the child in which this test runs a second time.
const FILE: &str = "KUBEEDGE_TEST_FULL_DISK";

fn exit(code: i32) -> Exit {
    let time = Millis(1);
    Exit { started_at: time, finished_at: time, code, reason: "Completed".into(), message: String::new() }
}

/// A process whose limit of the size of files is 0 is refused every write, as on a full disk.
#[test]
fn a_full_disk_keeps_the_good_record_and_tells() {
    if let Some(path) = env::var_os(FILE) {
        write(Path::new(&path), &exit(1)).unwrap_err();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exit.json");
    write(&path, &exit(0)).unwrap();
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "process::records::tests::a_full_disk_keeps_the_good_record_and_tells"])
        .env(FILE, &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(read::<Exit>(&path).unwrap(), Some(exit(0)));
}
