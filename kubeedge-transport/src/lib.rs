//! Transports: WebSocket over TLS, memory, and a wrapper that injects faults.
