//! Integrator stories: see the files under `examples/`.
