//! Mach-like messages: the kernel carries each one, and is told who is to run next.
//!
//! A pipe each way: 64 bytes are copied into the kernel and out of it, and a writer is taken to be about to sleep
//! (Linux wakes a pipe's reader with `WF_SYNC`), so that the reader gets its processor, as in Mach's
//! handoff scheduling (§3.1, §5.4). Left out: ports, rights and typed messages, which cost Mach more than this;
//! and that handing over skips the run queue, which Linux's hint does not.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::time::Instant;

use crate::common::child::{Child, ready};
use crate::common::contest::{Place, take_place};
use crate::common::shared::LINE;

/// Nanoseconds of a call, of so many.
pub fn measure(calls: u32, place: Place) -> f64 {
    let (there_end, mut there) = std::io::pipe().expect("a pipe");
    let (mut back, back_end) = std::io::pipe().expect("a pipe");
    let path = |fd: &dyn AsRawFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
    let ends = format!("{} {}", path(&there_end), path(&back_end));
    let _server = Child::start(&format!("pipe {ends} {}", place.of_server()));
    place.of_client(|| {
        run(calls / 10 + 1, &mut there, &mut back);
        run(calls, &mut there, &mut back)
    })
}

fn run(calls: u32, there: &mut PipeWriter, back: &mut PipeReader) -> f64 {
    let begin = Instant::now();
    for number in 0..calls {
        let mut message = [number as u8; LINE];
        there.write_all(&message).expect("the server reads");
        back.read_exact(&mut message).expect("the server answers");
        assert_eq!(message, [!(number as u8); LINE]);
    }
    begin.elapsed().as_nanos() as f64 / f64::from(calls)
}

/// The server's process: its answer is the complement of what it was asked.
pub fn server_child(there: &str, back: &str, cpu: &str) {
    take_place(cpu);
    let mut there = std::fs::File::open(there).expect("the parent's pipe");
    let mut back = std::fs::File::options()
        .write(true)
        .open(back)
        .expect("the parent's pipe");
    ready();
    let mut message = [0; LINE];
    while there.read_exact(&mut message).is_ok() {
        back.write_all(&message.map(|byte| !byte))
            .expect("the parent reads");
    }
}
