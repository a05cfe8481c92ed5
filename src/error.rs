//! One error type.
