//! CloudHub: the cloud end of the links, one session per node.
