//! Thin safe wrappers over the kernel.
