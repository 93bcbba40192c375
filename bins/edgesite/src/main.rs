//! The edgesite binary.
fn main() {}
