//! A Kubernetes API server over any store.
