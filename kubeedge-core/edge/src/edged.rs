//! Edged, the edge's kubelet: runs the pods it is told of.
