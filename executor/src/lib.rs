//! Tasks on processors: the scheduler of urpc.
