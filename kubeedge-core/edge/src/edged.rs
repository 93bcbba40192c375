//! Edged, the edge's kubelet: runs the pods it is told of.
mod env;
mod plan;
mod quantity;
mod status;
mod view;
mod volumes;
