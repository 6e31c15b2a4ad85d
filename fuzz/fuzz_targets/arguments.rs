//! Arguments and replies.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = urpc::fuzzing::arguments(bytes);
});
