//! What every [`ContainerRuntime`] must do.
//!
//! ```
//! use std::{path::PathBuf, sync::Arc};
//!
//! use kubeedge_core::{
//!     conformance::runtime::RuntimeHarness,
//!     runtime::{ContainerRuntime, ImageRef},
//! };
//!
//! /// A fresh runtime in a folder of its own; both end with it.
//! struct Mine {
//!     runtime: Arc<dyn ContainerRuntime>,
//!     folder: PathBuf,
//! }
//!
//! impl Mine {
//!     async fn new() -> Self {
//!         todo!("start the runtime")
//!     }
//! }
//!
//! impl RuntimeHarness for Mine {
//!     fn runtime(&self) -> Arc<dyn ContainerRuntime> {
//!         self.runtime.clone()
//!     }
//!     fn image(&self) -> ImageRef {
//!         "busybox:1.36".into()
//!     }
//!     fn folder(&self) -> PathBuf {
//!         self.folder.clone()
//!     }
//! }
//!
//! kubeedge_core::runtime_conformance!(async { Mine::new().await });
//! # fn main() {}
//! ```
//!
//! The harness brings a runtime, an image and a folder. Programs are described by what they do ([`Program`]);
//! a runtime whose image has a POSIX `sh` needs no more than the words that are made for it by default. What
//! the runtime does not offer it says in [`Abilities`]; the cases about it are counted and printed as
//! skipped.
//!
//! In `[dev-dependencies]`: `kubeedge-core` with the feature `conformance`, and `tokio` with `macros`,
//! `rt-multi-thread` and `time`.

// A kit's cases fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bench;
mod images;
mod life;
mod logs;
mod programs;
mod streams;

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
pub use bench::{Bench, LogLine};
pub use images::*;
pub use life::*;
pub use logs::*;
pub use programs::*;
pub use streams::*;

use crate::runtime::{ContainerRuntime, ImageRef, SandboxSpec};

/// A program, by what it does. One that waits prints `ready` and a line's end first, so that a case knows
/// when it may be asked to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Ends at once with this code.
    Exit(i32),
    /// Is killed by this signal, at once.
    Signal(i32),
    /// Waits until it is asked to end, then ends at once, whatever the code.
    Wait,
    /// Waits; asked to end, prints the text and a line's end, and ends with 0.
    Farewell(&'static str),
    /// Waits and does not care what it is asked.
    Stubborn,
    /// Prints on stdout, then on stderr, exactly so; ends with 0.
    Say(String, String),
    /// Prints the value of an environment variable and a line's end.
    Env(&'static str),
    /// Prints each argument of the container in brackets, on a line of its own.
    Args,
    /// Prints a file of the container, from its working folder on; fails when it cannot.
    Read(PathBuf),
    /// Writes a file of the container; fails when it cannot.
    Write(PathBuf, &'static str),
    /// Copies stdin to stdout until the input ends.
    Copy,
    /// Something that is not there.
    Missing,
}

/// What a runtime can do beyond what all can. As they come, all abilities are there but a network for each
/// pod: what a runtime lacks is said, and its cases are skipped aloud.
///
/// ```
/// use kubeedge_core::conformance::runtime::Abilities;
///
/// let mut abilities = Abilities::default();
/// abilities.attach = false;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Abilities {
    /// Folders and files of the host can be seen inside, where programs name them as the pod does.
    pub mounts: bool,
    /// Mounts refuse writing where that is asked for.
    pub readonly_mounts: bool,
    /// Pods can have a network of their own.
    pub pod_network: bool,
    /// It offers [`crate::runtime::Exec`].
    pub exec: bool,
    /// It offers [`crate::runtime::Attach`].
    pub attach: bool,
    /// It offers [`crate::runtime::PortForward`].
    pub port_forward: bool,
    /// It hints at changes.
    pub events: bool,
    /// It offers [`crate::runtime::Stats`].
    pub stats: bool,
}

impl Default for Abilities {
    fn default() -> Self {
        Self {
            mounts: true,
            readonly_mounts: true,
            pod_network: false,
            exec: true,
            attach: true,
            port_forward: true,
            events: true,
            stats: true,
        }
    }
}

/// The implementation under test, and what it needs.
#[async_trait]
pub trait RuntimeHarness: Send + Sync + 'static {
    /// The runtime; the same one at each call.
    fn runtime(&self) -> Arc<dyn ContainerRuntime>;

    /// An image that is here and can run the programs.
    fn image(&self) -> ImageRef;

    /// An image that is not here and cannot be had.
    fn absent_image(&self) -> ImageRef {
        ImageRef("registry.invalid/nothing:none".to_owned())
    }

    /// A folder of the host for logs and files, empty at first, that lives as long as the harness.
    fn folder(&self) -> PathBuf;

    /// What it can do beyond what all can.
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    /// The words that run a program in a container of [`Self::image`].
    fn program(&self, what: &Program) -> Vec<String> {
        sh(what)
    }

    /// The words that run a server in a container of [`Self::image`] that listens at a TCP port and sends
    /// back what it gets. `None` when the image has none.
    fn echo_server(&self, _port: u16) -> Option<Vec<String>> {
        None
    }

    /// Changes a sandbox's specification to one this runtime can run here. It shares the host's network as it
    /// comes.
    fn adapt(&self, _spec: &mut SandboxSpec) {}

    /// Forgets the runtime as a restart of its user would, and opens it again over the same state. `None`
    /// when containers do not outlive it.
    async fn restart(&self) -> Option<Arc<dyn ContainerRuntime>> {
        None
    }
}

/// The words that run a program where there is a POSIX `sh`.
pub fn sh(what: &Program) -> Vec<String> {
    let run = |script: &str, words: &[&str]| -> Vec<String> {
        ["sh", "-c", script, "sh"].iter().chain(words).map(|word| (*word).to_owned()).collect()
    };
    // `wait` is cut short by a trap, `sleep` is not.
    let wait = "echo ready; while :; do sleep 1 >/dev/null 2>&1 & wait $!; done";
    match what {
        Program::Exit(code) => run("exit \"$1\"", &[&code.to_string()]),
        // The first process of a pid namespace cannot kill itself: then its child does.
        Program::Signal(signal) => {
            run("kill -s \"$1\" $$; sh -c 'kill -s \"$1\" $$' sh \"$1\"; exit $?", &[&signal.to_string()])
        }
        Program::Wait => run(&format!("trap 'exit 143' TERM; {wait}"), &[]),
        Program::Farewell(text) => run(&format!("trap 'echo \"$1\"; exit 0' TERM; {wait}"), &[text]),
        Program::Stubborn => run(&format!("trap '' TERM; {wait}"), &[]),
        Program::Say(out, err) => run("printf %s \"$1\"; printf %s \"$2\" >&2", &[out, err]),
        Program::Env(name) => run(&format!("printf '%s\\n' \"${name}\""), &[]),
        Program::Args => run("for word; do printf '[%s]\\n' \"$word\"; done", &[]),
        Program::Read(path) => run("cat \"$1\"", &[&path.display().to_string()]),
        Program::Write(path, text) => run("printf %s \"$2\" > \"$1\"", &[&path.display().to_string(), text]),
        Program::Copy => run("cat", &[]),
        Program::Missing => vec!["/no/such/program".to_owned()],
    }
}

/// Makes a test of every case; the argument is a future that gives a fresh [`RuntimeHarness`].
#[macro_export]
macro_rules! runtime_conformance {
    ($make:expr) => {
        $crate::runtime_conformance!(@cases $make;
            a_runtime_says_what_it_is_and_that_it_is_ready
            a_sandbox_is_listed_from_run_to_remove
            a_sandbox_run_twice_exists
            the_next_attempt_of_a_sandbox_is_another_sandbox
            stopping_and_removing_what_is_gone_succeeds
            labels_and_annotations_come_back_unchanged
            a_sandbox_on_the_hosts_network_has_no_address
            sandboxes_with_a_network_of_their_own_have_addresses_of_their_own
            stopping_a_sandbox_kills_what_runs_in_it
            removing_a_sandbox_removes_its_containers
            a_container_without_image_is_not_made
            a_container_made_twice_exists
            the_next_attempt_of_a_container_is_another_container
            a_container_of_no_sandbox_is_not_made
            a_container_that_was_made_does_not_run_yet
            a_container_of_a_stopped_sandbox_does_not_start
            starting_what_is_not_there_is_not_found
            a_program_that_is_not_there_is_invalid_and_does_not_run
            exit_codes_tell_how_a_program_ended
            a_program_killed_by_a_signal_ends_with_128_and_its_number
            times_are_in_order_and_of_now
            a_program_asked_to_end_may_say_goodbye
            a_program_that_does_not_care_is_killed_after_the_grace
            stopping_twice_at_once_ends_both
            a_running_container_that_is_removed_is_gone
            many_containers_of_one_sandbox_are_kept_apart
            later_environment_wins
            arguments_arrive_as_they_are
            a_program_starts_in_its_working_folder
            a_mounted_folder_is_read_and_written
            a_mounted_file_is_read
            a_read_only_mount_refuses_writing
            both_streams_are_logged_line_by_line
            an_unfinished_line_is_tagged_partial
            a_long_line_is_cut_into_parts
            a_log_stays_when_its_container_is_removed
            each_attempt_has_a_log_of_its_own
            the_image_is_found_and_listed
            an_absent_image_is_not_found_and_cannot_be_pulled
            removing_an_absent_image_succeeds
            abilities_are_offered_as_declared
            a_command_speaks_on_two_streams_and_returns_its_code
            a_command_reads_its_input_to_the_end
            a_command_in_what_does_not_run_is_not_found
            a_command_run_to_its_end_returns_all_it_said
            the_output_of_a_command_is_cut_at_its_limit
            a_command_that_takes_too_long_times_out
            who_joins_a_container_hears_its_last_words
            a_forwarded_port_reaches_who_listens
            a_forwarded_port_where_nobody_listens_says_nothing
            an_end_is_hinted_at
            usage_of_what_runs_is_told
            containers_outlive_their_user
        );
        #[::tokio::test(flavor = "current_thread")]
        async fn a_runtime_does_not_block_the_executor() {
            $crate::conformance::runtime::a_runtime_does_not_block_the_executor($make.await).await;
        }
    };
    (@cases $make:expr; $($case:ident)*) => { $(
        #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::conformance::runtime::$case($make.await).await;
        }
    )* };
}

#[cfg(test)]
mod tests {
    /// The cases that a kit's files define, and those of its macro.
    #[test]
    fn every_case_is_in_the_macro() {
        let files = [
            include_str!("runtime/images.rs"),
            include_str!("runtime/life.rs"),
            include_str!("runtime/logs.rs"),
            include_str!("runtime/programs.rs"),
            include_str!("runtime/streams.rs"),
        ];
        let macros = include_str!("runtime.rs").split_once("macro_rules!").unwrap().1;
        let listed: Vec<_> = macros.split_whitespace().collect();
        let defined = files.iter().flat_map(|text| text.split("\npub async fn ").skip(1));
        let names: Vec<_> = defined.map(|rest| rest.split('(').next().unwrap()).collect();
        assert!(names.len() > 50, "{} cases", names.len());
        let one_thread = |name: &str| macros.contains(&format!("::runtime::{name}("));
        let missing: Vec<_> =
            names.iter().filter(|name| !listed.contains(name) && !one_thread(name)).collect();
        assert!(missing.is_empty(), "not in runtime_conformance!: {missing:?}");
    }
}
