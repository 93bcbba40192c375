//! The HTTPS service: CA certificate, certificates for nodes, node checks.
