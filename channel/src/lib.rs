//! Pair-wise shared memory between two processes: the data transfer of urpc.
