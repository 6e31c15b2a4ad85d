//! urpc.
