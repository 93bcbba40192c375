//! EdgeHub: the edge end of the link to the cloud.
