//! What a peer says about our own ring while we send.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = urpc_channel::fuzzing::claims(bytes);
});
