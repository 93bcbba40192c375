//! SyncController: what an edge has against what it should have.
