//! MetaManager: the edge's durable copy of what it should run.
