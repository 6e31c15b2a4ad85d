//! Slots of a ring, 64 bytes each.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = urpc_channel::fuzzing::slots(bytes);
});
