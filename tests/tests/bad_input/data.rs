//! The data folder: damaged, full, in use, no folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kubeedge_tests::{Site, run, skipped};

use crate::{config_map, refused, runs_a_pod};

/// Overwrites everything but SQLite's first page, as a dying flash does.
fn damage(file: &Path) -> Vec<u8> {
    let mut bytes = fs::read(file).unwrap();
    assert!(bytes.len() > 8192, "{} bytes cannot be damaged usefully", bytes.len());
    bytes[4096..].fill(0xa5);
    fs::write(file, &bytes).unwrap();
    bytes
}

#[test]
fn a_damaged_database_is_named_left_as_it_is_and_the_way_out_is_said() {
    if skipped(&["kubectl"]) {
        return;
    }
    let mut site = Site::start(&[]);
    site.apply(&config_map("kept", "before")).unwrap();
    assert_eq!(site.stop(), Some(0));
    for name in ["cluster.db", "edge/edgecore.db"] {
        let file = site.data().join(name);
        let sound = fs::read(&file).unwrap();
        let damaged = damage(&file);
        let error = refused(&site.data(), &["--port-base", "0"]);
        assert!(error.contains(&file.display().to_string()), "{error}");
        assert!(
            error.contains("corrupt") && error.contains("backup") && error.contains(".recover"),
            "{error}"
        );
        assert!(fs::read(&file).unwrap() == damaged, "{name} was written to");
        fs::write(&file, "this is no database\n".repeat(999)).unwrap();
        let error = refused(&site.data(), &["--port-base", "0"]);
        assert!(error.contains(&file.display().to_string()) && error.contains("backup"), "{error}");
        fs::write(&file, sound).unwrap();
    }
    site.start_again();
    assert_eq!(site.object("configmap", "kept")["data"]["value"], "before");
}

#[test]
fn a_folder_in_use_is_left_to_the_site_that_has_it() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&[]);
    let error = refused(&site.data(), &["--port-base", "0"]);
    assert!(error.contains("another process has it open; stop that one first"), "{error}");
    assert!(error.contains(&site.data().join("cluster.db").display().to_string()), "{error}");
    runs_a_pod(&site, "after");
}

#[test]
fn a_data_folder_that_cannot_be_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    for data in [file.clone(), file.join("below")] {
        let error = refused(&data, &["--port-base", "0"]);
        assert!(error.contains("--data-dir") && error.contains(&data.display().to_string()), "{error}");
    }
    let folder = folder.path().join("data");
    fs::create_dir_all(folder.join("cluster.db")).unwrap();
    let error = refused(&folder, &["--port-base", "0"]);
    assert!(error.contains("cluster.db"), "{error}");
}

/// A small disk of its own.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted =
            run(std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(at));
        if !mounted.status.success() {
            println!("SKIPPED: a full disk was NOT tested: this user may not mount a tmpfs");
        }
        mounted.status.success().then(|| Self(at.to_owned()))
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let (mut chunk, mut file) = (1 << 20, fs::File::create(self.0.join("filler")).unwrap());
        while chunk > 0 {
            if std::io::Write::write_all(&mut file, &vec![0; chunk]).is_err() {
                chunk /= 2;
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run(std::process::Command::new("umount").arg("-l").arg(&self.0));
    }
}

#[test]
fn a_full_disk_refuses_what_it_cannot_keep_keeps_what_it_took_and_works_again_with_room() {
    if skipped(&["kubectl", "mount"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(&folder.path().join("data")) else { return };
    let mut site = Site::start_in(folder, &[]);
    runs_a_pod(&site, "steady");
    disk.fill();
    let mut kept = Vec::new();
    let refusal = loop {
        let name = format!("map-{}", kept.len());
        // Too large for kubectl's own annotation of what was applied.
        let file = site.folder().join("map.yaml");
        fs::write(&file, format!("---\n{}", config_map(&name, &"x".repeat(200_000)))).unwrap();
        match site.try_kubectl(&["create", "-f", &file.display().to_string()]) {
            Ok(_) => kept.push(name),
            Err(refusal) => break refusal,
        }
        assert!(kept.len() < 100, "never full");
    };
    assert!(
        refusal.contains("nothing was changed") && refusal.contains("free space on the disk"),
        "{refusal}"
    );
    assert!(refusal.contains("cluster.db"), "{refusal}");
    // What needs no disk goes on.
    assert!(site.kubectl(&["get", "pods"]).contains("steady"));
    disk.make_room();
    site.until(&["get", "nodes"], |said| said.contains(" Ready "));
    runs_a_pod(&site, "later");
    let refused = format!("map-{}", kept.len());
    site.kill();
    site.start_again();
    for name in kept {
        let value = site.object("configmap", &name)["data"]["value"].as_str().unwrap().len();
        assert_eq!(value, 200_000, "{name}");
    }
    assert!(site.try_kubectl(&["get", "configmap", &refused]).unwrap_err().contains("NotFound"));
    for pod in ["steady", "later"] {
        site.until(&["get", "pod", pod], |said| said.contains("1/1"));
        let restarts = &site.object("pod", pod)["status"]["containerStatuses"][0]["restartCount"];
        assert_eq!(restarts, 0, "{pod} was run twice");
    }
}
