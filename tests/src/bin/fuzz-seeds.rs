//! Writes what fuzzers start from: `fuzz-seeds FOLDER` makes a folder in it for each target, with a file for
//! each seed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool of the tests: a failure ends it")]

use std::{fs, path::Path};

use kubeedge_tests::fuzz::{TARGETS, seeds};

fn main() {
    let into = std::env::args().nth(1).expect("the folder to write to");
    for target in TARGETS {
        let folder = Path::new(&into).join(target.name);
        fs::create_dir_all(&folder).unwrap();
        for (at, seed) in seeds(target.name).iter().enumerate() {
            fs::write(folder.join(format!("seed-{at:04}")), seed).unwrap();
        }
    }
}
