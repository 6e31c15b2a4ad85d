//! A message of the handshake, in pieces, with descriptors.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: (u8, u8, &[u8])| {
    let (piece, descriptors, message) = input;
    let _ = urpc::fuzzing::handshake(message, piece, descriptors.min(253));
});
