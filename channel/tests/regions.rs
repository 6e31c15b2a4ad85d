//! What a descriptor must be before it is mapped, and what a peer cannot do to it afterwards.

mod common;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::Ordering;

use common::*;
use rustix::fs::{self, FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::mm::{self, MapFlags, MprotectFlags, ProtFlags};
use urpc_channel::*;

const ALL: SealFlags = SealFlags::FUTURE_WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// A memfd of `len` bytes, filled with zeros by writing, sealed with `seals`.
fn memfd(len: usize, seals: SealFlags) -> OwnedFd {
    let fd = fs::memfd_create(c"test", MemfdFlags::ALLOW_SEALING).expect("a memfd");
    rustix::io::pwrite(&fd, &vec![0; len], 0).expect("room");
    fs::fcntl_add_seals(&fd, seals).expect("seals");
    fd
}

fn refusal(fd: OwnedFd) -> RegionError {
    PeerPage::accept(fd).expect_err("not a page of ours")
}

#[test]
fn a_region_without_one_of_the_seals_is_refused() {
    for seal in [SealFlags::FUTURE_WRITE, SealFlags::SHRINK, SealFlags::GROW] {
        let error = refusal(memfd(4096, ALL.difference(seal)));
        assert!(
            matches!(error, RegionError::Unsealed { missing } if missing == seal.bits()),
            "{error}"
        );
    }
    let error = refusal(memfd(4096, ALL.difference(SealFlags::SEAL)));
    assert!(
        matches!(error, RegionError::Unsealed { missing: 1 }),
        "{error}"
    );
    PeerPage::accept(memfd(4096, ALL)).expect("all four will do");
}

#[test]
fn a_region_of_another_size_is_refused() {
    for len in [1, 4095, 4097, 8192] {
        let error = refusal(memfd(len, ALL));
        let found = len as u64;
        assert!(
            matches!(error, RegionError::Size { expected: 4096, found: f } if f == found),
            "{error}"
        );
    }
}

#[test]
fn a_region_with_a_hole_is_refused() {
    let fd = fs::memfd_create(c"test", MemfdFlags::ALLOW_SEALING).expect("a memfd");
    fs::ftruncate(&fd, 4096).expect("room");
    fs::fcntl_add_seals(&fd, ALL).expect("seals");
    assert!(matches!(refusal(fd), RegionError::Hole { at: 0 }));
}

#[test]
fn a_hole_hidden_by_blocks_beyond_the_end_is_refused() {
    let fd = fs::memfd_create(c"test", MemfdFlags::ALLOW_SEALING).expect("a memfd");
    fs::ftruncate(&fd, 4096).expect("room");
    fs::fallocate(&fd, FallocateFlags::KEEP_SIZE, 4096, 8192).expect("room");
    fs::fcntl_add_seals(&fd, ALL).expect("seals");
    assert!(
        fs::fstat(&fd).expect("stat").st_blocks >= 8,
        "the block count alone would not tell"
    );
    assert!(matches!(refusal(fd), RegionError::Hole { at: 0 }));
}

#[test]
fn what_is_not_sealable_memory_is_refused() {
    let file =
        std::fs::File::open(std::env::current_exe().expect("a test binary")).expect("readable");
    let pipe = rustix::pipe::pipe().expect("a pipe").0;
    let (socket, _other) = std::os::unix::net::UnixStream::pair().expect("sockets");
    let mut others: Vec<OwnedFd> = vec![file.into(), pipe, socket.into()];
    // Not every machine has huge pages to spare; where one can be made, it is refused.
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    others.extend(fs::memfd_create(c"huge", flags).ok());
    for fd in others {
        let error = refusal(fd);
        let refused = matches!(
            error,
            RegionError::NotMemory { .. } | RegionError::Unsealed { .. }
        );
        assert!(refused, "{error}");
    }
}

#[test]
fn a_header_of_another_version_or_geometry_is_refused() {
    let geometry = Geometry::default();
    let accept = |at: usize, word: u64| {
        let mut outbox = Outbox::create(&geometry).expect("a memfd");
        outbox.word(at).store(word, Ordering::Relaxed);
        Inbox::accept(outbox.take_fd().expect("new"), &geometry)
    };
    for (at, word) in [(0, 0), (8, 2), (16, 0)] {
        let error = accept(at, word).expect_err("a header of another kind");
        assert!(
            matches!(error, RegionError::Header { at: a, found, .. } if (a, found) == (at, word)),
            "{error}"
        );
    }
    // The same size in other parts.
    let [one, other] = [(64, 8192), (128, 4096)].map(|(slots, arena)| Geometry { slots, arena });
    assert_eq!(one.size(), other.size());
    let fd = Outbox::create(&one)
        .expect("a memfd")
        .take_fd()
        .expect("new");
    assert!(matches!(
        Inbox::accept(fd, &other),
        Err(RegionError::Header { at: 16, .. })
    ));
    let fd = Outbox::create(&one)
        .expect("a memfd")
        .take_fd()
        .expect("new");
    let bad = Geometry {
        slots: 3,
        arena: 4096,
    };
    assert!(
        matches!(Inbox::accept(fd, &bad), Err(RegionError::Geometry(BadGeometry(b))) if b == bad)
    );
    assert!(Outbox::create(&bad).is_err());
}

const CHILD: &str = "URPC_TEST_DESCRIPTOR";

/// Runs this same test in a child process that holds nothing but the descriptor, as a peer does.
#[test]
fn a_peer_process_can_read_but_by_no_means_write() {
    if let Ok(fd) = std::env::var(CHILD) {
        return attack(fd.parse().expect("a number"));
    }
    let outbox = Outbox::create(&TIGHT).expect("a memfd");
    let fd = outbox.fd().expect("new");
    let number = fd.as_raw_fd();
    let mut child = Command::new(std::env::current_exe().expect("a test binary"));
    child.args([
        "--exact",
        "a_peer_process_can_read_but_by_no_means_write",
        "--nocapture",
    ]);
    child.env(CHILD, number.to_string());
    // SAFETY: between fork and exec the closure makes one system call, on a descriptor that `outbox` keeps
    // open in the parent until the child has ended.
    unsafe {
        child.pre_exec(move || {
            let fd = BorrowedFd::borrow_raw(number);
            Ok(fcntl_setfd(fd, FdFlags::empty())?)
        });
    }
    let output = child.output().expect("a child");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("repelled"),
        "{output:?}"
    );
    assert_eq!(outbox.word(64).load(Ordering::Relaxed), 0);
    outbox.word(64).store(1, Ordering::Relaxed); // still ours
}

fn attack(number: i32) {
    let size = TIGHT.size().expect("a good geometry");
    // SAFETY: the parent passed this descriptor on, and nothing else in this process knows it.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let map = |fd: BorrowedFd<'_>, prot| {
        // SAFETY: the kernel chooses the place; the mapping is not touched.
        unsafe { mm::mmap(std::ptr::null_mut(), size, prot, MapFlags::SHARED, fd, 0) }
    };
    let both = ProtFlags::READ | ProtFlags::WRITE;
    assert_eq!(map(fd, both), Err(Errno::PERM));
    let read_only = map(fd, ProtFlags::READ).expect("reading is allowed");
    // SAFETY: the mapping just made, which nobody touches.
    let raised =
        unsafe { mm::mprotect(read_only, size, MprotectFlags::READ | MprotectFlags::WRITE) };
    assert!(raised.is_err());
    assert_eq!(rustix::io::pwrite(fd, b"x", 0), Err(Errno::PERM));
    assert_eq!(fs::ftruncate(fd, 0), Err(Errno::PERM));
    assert_eq!(fs::ftruncate(fd, 2 * size as u64), Err(Errno::PERM));
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_eq!(fs::fallocate(fd, punch, 0, 4096), Err(Errno::PERM));
    let path = format!("/proc/self/fd/{number}");
    if let Ok(again) = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
    {
        assert_eq!(map(again.as_fd(), both), Err(Errno::PERM));
        assert_eq!(rustix::io::pwrite(&again, b"x", 0), Err(Errno::PERM));
    }
    println!("repelled");
}

/// Between fork and exec the child tries everything that would touch a mapping it no longer has.
#[test]
fn a_forked_child_gets_errors_and_no_crash() {
    let (a, b) = pair(&Geometry::default(), Limits::default());
    let (page, dropped) = (
        OwnPage::create().expect("a memfd"),
        pair(&TIGHT, Limits::default()),
    );
    let _ = b.send(call(1, b"for the parent")).expect("open");
    assert!(!forked());
    let (a, mut dropped) = (std::sync::Arc::new(a), Some(dropped));
    let child_view = a.clone();
    let mut child = Command::new("true");
    let in_child = move || {
        let a = &child_view;
        drop(dropped.take());
        page.word(0).store(1, Ordering::Relaxed);
        a.outbox().grant(0).grant.store(1, Ordering::Relaxed);
        a.freed(1);
        a.withdraw(1);
        a.refresh_window();
        let why = a.send(call(2, b"")).map_err(|SendError(_, why)| why);
        let good = forked()
            && why == Err(Why::Forked)
            && a.receive(1, |_| ()) == Err(Violation::Forked)
            && a.try_reserve(1) == Err(Closed)
            && a.inbox().returned(0).load(Ordering::Relaxed) == 0
            && a.flush()
            && !(a.has_incoming() || a.staged() || a.unread_by_peer())
            && !(a.announce_blocked() || a.peer_blocked());
        // A child may make channels of its own; its parent's stay dead.
        let own = pair(&TIGHT, Limits::default());
        let sent = own.0.send(call(3, b""));
        let alive = matches!(sent, Ok(Sent::Published)) && own.1.has_incoming() && !forked();
        let still = a.send(call(2, b"")).is_err();
        if good && alive && still {
            Ok(())
        } else {
            Err(std::io::Error::other("reached the parent's memory"))
        }
    };
    // SAFETY: no other thread of this process holds a lock that the closure needs but the allocator's, which
    // the C library makes usable in a forked child.
    unsafe { child.pre_exec(in_child) };
    let status = child
        .status()
        .expect("every call in the child was answered as it should be");
    assert!(status.success(), "{status}");
    assert_eq!(drain(&a), [call(1, b"for the parent")]);
    assert!(!forked());
}
