//! Descriptors in place of a peer's memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: [u8; 8]| {
    let _ = urpc_channel::fuzzing::descriptor(bytes);
});
