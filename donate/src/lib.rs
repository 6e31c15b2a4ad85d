//! Processors lent between processes: the processor reallocation of urpc.
