//! What every [`ClusterApi`] must do: Kubernetes' rules for objects, as plain HTTP over the seam.
//!
//! ```
//! # use std::sync::Arc;
//! # use kubeedge_core::{cluster::ClusterApi, conformance::cluster::ClusterHarness};
//! # struct Acme;
//! # #[async_trait::async_trait]
//! # impl ClusterHarness for Acme {
//! #     fn cluster(&self) -> Arc<dyn ClusterApi> { unimplemented!() }
//! #     async fn forget(&self) -> bool { false }
//! # }
//! // `Acme` is your `ClusterHarness`.
//! kubeedge_core::cluster_conformance!(async { Acme });
//! # fn main() {}
//! ```
//!
//! Each case becomes a test; the crate's dev-dependencies need `tokio` with the features `macros` and
//! `rt-multi-thread`. Each case works in a namespace of its own, which it leaves behind, so that a kit may
//! run on a cluster that is used for other tests too. No controller needs to run; those that do must not mind
//! pods on nodes that do not exist.

// A kit's cases fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod access;
mod apply;
mod bench;
mod definitions;
mod deletion;
mod lists;
mod objects;
mod patches;
mod watches;

use std::sync::Arc;

pub use access::*;
pub use apply::*;
use async_trait::async_trait;
pub use bench::{Answer, Bench, Watching, ask};
pub use definitions::*;
pub use deletion::*;
pub use lists::*;
pub use objects::*;
pub use patches::*;
pub use watches::*;

use crate::cluster::ClusterApi;

/// The implementation under test.
#[async_trait]
pub trait ClusterHarness: Send + Sync + 'static {
    /// The cluster; the same one at each call until [`Self::forget`].
    fn cluster(&self) -> Arc<dyn ClusterApi>;

    /// Makes the cluster forget its history but not its objects, as a compaction or a restart does. `false`
    /// when there is no way to: what is then due is not tried.
    async fn forget(&self) -> bool;

    /// Whether requests of [`Actor::Node`](crate::cluster::Actor::Node) are held to what a node may do.
    fn restricts_nodes(&self) -> bool {
        true
    }
}

/// Makes tests of all cases; the argument is a future of a [`ClusterHarness`], run for each case anew.
#[macro_export]
macro_rules! cluster_conformance {
    ($make:expr) => {
        $crate::cluster_conformance!(@cases $make;
            what_is_created_is_read_listed_and_deleted
            a_name_that_is_taken_is_refused
            what_is_not_there_is_not_found
            an_update_of_an_old_version_conflicts
            a_name_is_made_from_a_prefix
            what_is_the_servers_no_client_sets
            each_change_of_the_specification_counts_a_generation
            a_write_that_changes_nothing_makes_no_version
            namespaces_are_kept_apart
            nothing_is_made_in_a_namespace_that_is_not_there
            an_unknown_kind_is_not_found
            a_kind_of_the_whole_cluster_is_not_found_in_a_namespace
            an_invalid_object_is_refused_with_every_cause
            a_body_that_is_no_object_is_refused
            status_and_specification_are_written_apart
            a_dry_run_answers_as_a_real_one_and_changes_nothing
            an_unknown_field_is_warned_of_or_refused_as_asked
            a_finalizer_holds_an_object_until_it_is_removed
            a_pod_on_a_node_is_given_time_to_end
            a_precondition_that_does_not_hold_keeps_the_object
            a_collection_is_deleted_by_its_labels
            a_json_patch_changes_what_it_names
            a_merge_patch_replaces_lists_and_removes_by_null
            a_strategic_patch_merges_containers_by_name
            a_patch_of_an_old_version_conflicts
            a_patch_of_an_unknown_form_is_refused
            applying_makes_what_is_not_there
            applying_a_field_of_another_conflicts_unless_forced
            a_field_no_longer_applied_is_removed
            a_field_that_somebody_removed_conflicts_no_more
            ports_of_one_number_are_told_apart_by_their_protocol
            a_selector_is_applied_as_a_whole
            applying_the_same_again_makes_no_version
            applying_needs_a_manager
            labels_select
            fields_select
            a_list_comes_in_pages
            a_table_comes_to_who_asks_for_it
            metadata_alone_comes_to_who_asks_for_it
            a_watch_tells_every_change_after_its_version
            a_watch_tells_what_comes_to_match_and_what_ceases_to
            a_bookmark_ends_what_was_there_at_first
            a_bookmark_comes_before_a_watch_ends
            a_version_that_was_forgotten_is_gone
            objects_of_a_new_definition_are_checked_pruned_and_filled_in
            the_status_of_a_custom_kind_is_written_apart
            lists_of_a_custom_kind_merge_as_its_schema_says
            a_custom_kind_takes_no_strategic_patch
            a_definition_that_goes_takes_its_kind_along
            a_node_writes_its_own_status_and_no_others
            a_node_does_not_write_what_people_write
        );
    };
    (@cases $make:expr; $($case:ident)*) => { $(
        #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::conformance::cluster::$case($make.await).await;
        }
    )* };
}
