//! Seeds that found something once, and what it was.

/// The seed, and what was wrong before it was mended.
pub(crate) const FOUND: &[(u64, &str)] = &[
    (
        1,
        "after a restart of the API no informer of cloudcore ever listed again: a watch too old was answered with 410",
    ),
    (4, "a pod made and deleted before its node had heard of it stayed for ever"),
    (6, "a node back after an absence stayed NotReady for up to five minutes, and its pods were driven out"),
    (7, "a pod deleted while its node was away stayed for ever"),
    (8, "the edge stored an older form of a pod over the newer one that an answer had brought"),
    (9, "a confirmation that could not be recorded was never recorded, nor the object sent again"),
    (10, "the record of an answer was never made when the API was away at the moment of its confirmation"),
    (14, "the edge stored a pod as it was 19 changes before"),
    (57, "a ConfigMap that changed while cloudcore was away never reached an edge that had asked for it"),
    (
        91,
        "a model that its node had given up, unknown to a cloudcore that died over it, never came back to the node",
    ),
    (180, "the same as 91: a device that waits for its model for ever reports nothing"),
    (193, "the same as 91"),
    (446, "making a record of what the edge had asked for overwrote that the edge had it by then"),
    (10_024, "objects of a node that was away stayed unsent for ever when their records were removed"),
    (10_039, "a record that was removed was made again at the next connect only"),
    (
        10_072,
        "a pod that an earlier session had confirmed to be gone was not taken from an edge that had got it back with its disk",
    ),
    (
        10_281,
        "a container that had just been started was removed and started again: the runtime had not answered the next question",
    ),
    (
        10_297,
        "what an earlier session confirmed was recorded after its edge had lost its disk and was asked, and never sent again",
    ),
    (
        10_572,
        "the record of a pod for a node that was away, removed before any cache had heard of it, was missed by nobody",
    ),
    (10_670, "a record that was removed while a correction of it rested was never made again"),
    (
        700_004,
        "nothing: a disk that was restored from a backup was held to what it had stored after the backup",
    ),
    (
        800_007,
        "a record that was made and removed while no cache heard of either left its pod unsent when the session ended",
    ),
];
