//! Container runtimes: process, CRI, memory.
