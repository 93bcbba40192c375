//! The quickstart of README.md, run as it stands there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    path::Path,
    process::{Command, Output},
};

use kubeedge_tests::{Background, PATIENCE, binary, kill_below, repository, run, skipped, until};

/// The lines of all `sh` blocks of a section.
fn commands(text: &str, section: &str) -> Vec<String> {
    let (_, rest) = text.split_once(&format!("\n## {section}\n")).expect("the section");
    let section = rest.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

/// Runs a line with the environment that earlier ones exported.
fn shell(line: &str, exports: &str, folder: &Path) -> Result<String, String> {
    let script = format!("set -o pipefail\n{exports}\n{line}");
    let mut command = Command::new("bash");
    command.args(["-ec", &script]).current_dir(folder).env("KUBECACHEDIR", folder.join("cache"));
    let Output { status, stdout, stderr } = run(&mut command);
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    if status.success() { Ok(said) } else { Err(said) }
}

#[test]
fn the_quickstart_works_as_it_is_written() {
    if skipped(&["kubectl", "mosquitto_sub", "bash"]) {
        return;
    }
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let lines = commands(&readme, "Quickstart");
    let (start, others) = lines.split_first().unwrap();
    let args =
        start.strip_prefix("cargo run --release --bin edgesite -- ").expect("the command that starts it");
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::os::unix::fs::symlink(repository().join("examples"), folder.join("examples")).unwrap();
    let mut command = Command::new(binary("edgesite"));
    let mut site = Background::start(command.args(args.split(' ')).current_dir(folder));
    site.until_said("Ctrl-C stops it", PATIENCE);
    let (mut exports, mut said) = (String::new(), Vec::new());
    for line in others {
        if line.starts_with("export ") {
            exports.push_str(line);
            exports.push('\n');
            continue;
        }
        // A reader takes longer to type than the site to act.
        said.push(until(line, PATIENCE, || shell(line, &exports, folder)));
    }
    let all = said.join("\n");
    for wanted in
        ["edge-1", "deployment.apps/worker created", "condition met", "boiler", "Hello from", "scaled", "75"]
    {
        assert!(all.contains(wanted), "{wanted} is missing in\n{all}");
    }
    assert_eq!(site.stop(), Some(0));
    kill_below(folder);
}

#[test]
fn every_file_that_the_readme_links_to_is_there() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let missing: Vec<_> =
        links.filter(|link| !link.starts_with("http") && !repository().join(link).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The first `toml` block of a section.
fn manifest<'a>(text: &'a str, section: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n## {section}\n")).expect("the section");
    rest.split("```toml\n").nth(1).and_then(|block| block.split("```").next()).expect("a toml block")
}

#[test]
fn copied_examples_build_outside_the_tree() {
    let root = repository();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let lines = manifest(&readme, "Build your own").replace("../kubeedge", root.to_str().unwrap());
    std::fs::write(folder.path().join("Cargo.toml"), lines).unwrap();
    std::fs::copy(root.join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    for example in ["custom-edgecore", "custom-mapper"] {
        let to = folder.path().join("src/bin").join(example);
        std::fs::create_dir_all(&to).unwrap();
        for file in std::fs::read_dir(root.join("examples").join(example)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    let mut cargo = Command::new(env!("CARGO"));
    // Kept between runs: what it builds are mostly others' crates.
    let target = binary("edgesite").with_file_name("outside");
    cargo.args(["check", "--offline", "--quiet"]).env("CARGO_TARGET_DIR", target).current_dir(folder.path());
    let Output { status, stderr, .. } = run(&mut cargo);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
}
