//! Stores: SQLite, redb, memory, and a wrapper that injects faults.
