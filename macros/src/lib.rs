//! The procedural macros of urpc.
