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
        let refused = matches!(error, RegionError::NotMemory | RegionError::Unsealed { .. });
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
    for (at, word) in [(0, 0), (8, 1), (16, 0)] {
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

/// What the maker of a wake page sends, before its peer has mapped it.
fn unsealed() -> (UnsealedWakePage, OwnedFd) {
    let page = UnsealedWakePage::create().expect("a memfd");
    let fd = page.fd().try_clone_to_owned().expect("a descriptor");
    (page, fd)
}

#[test]
fn both_sides_write_a_wake_page_and_mean_the_same_words() {
    let (a, fd) = unsealed();
    let b = WakePage::accept(fd).expect("made by this crate");
    let a = a.sealed().expect("the other side has sealed it");
    let words = |page: &WakePage, of_a: bool, k| {
        let words = [page.lent_to_us(k), page.lent_to_peer(k)][usize::from(of_a)];
        [words.grant, words.returned].map(std::ptr::from_ref)
    };
    let mut seen = std::collections::HashSet::new();
    for (k, lent_by_a) in (0..layout::GRANTS).flat_map(|k| [(k, false), (k, true)]) {
        for (i, (one, other)) in words(&a, lent_by_a, k)
            .into_iter()
            .zip(words(&b, !lent_by_a, k))
            .enumerate()
        {
            // SAFETY: words of the two pages, which live on.
            let (one, other) = unsafe { (&*one, &*other) };
            one.store((k * 4 + i + 1) as u32, Ordering::Relaxed);
            assert_eq!(other.load(Ordering::Relaxed), (k * 4 + i + 1) as u32);
            other.store(0, Ordering::Relaxed);
            assert_eq!(one.load(Ordering::Relaxed), 0);
            assert!(
                seen.insert(std::ptr::from_ref(one)),
                "two words in one place"
            );
        }
    }
}

#[test]
fn no_hole_can_be_punched_into_a_wake_page_once_it_is_accepted() {
    let (page, fd) = unsealed();
    let kept = fd.try_clone().expect("a descriptor");
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_eq!(fs::fallocate(&kept, punch, 0, 4096), Ok(()), "before");
    rustix::io::pwrite(&kept, &[0; 4096], 0).expect("room");
    let _theirs = WakePage::accept(fd).expect("made by this crate");
    assert_eq!(fs::fallocate(&kept, punch, 0, 4096), Err(Errno::PERM));
    assert_eq!(fs::ftruncate(&kept, 0), Err(Errno::PERM));
    let both = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the place; the mapping is not touched.
    let third = unsafe { mm::mmap(std::ptr::null_mut(), 4096, both, MapFlags::SHARED, &kept, 0) };
    assert_eq!(third, Err(Errno::PERM), "nor does a third process get it");
    page.sealed().expect("it is whole");
}

#[test]
fn a_wake_page_that_is_not_sealed_or_not_whole_is_refused_by_its_maker() {
    let (page, _fd) = unsealed();
    assert!(matches!(page.sealed(), Err(RegionError::Unsealed { .. })));
    let (page, fd) = unsealed();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fs::fallocate(&fd, punch, 0, 4096).expect("not sealed yet");
    fs::fcntl_add_seals(&fd, ALL).expect("seals");
    assert!(matches!(page.sealed(), Err(RegionError::Hole { at: 0 })));
}

#[test]
fn what_cannot_be_a_wake_page_is_refused() {
    let refusal = |fd| WakePage::accept(fd).expect_err("no wake page");
    for len in [1, 4097] {
        let error = refusal(memfd(len, SealFlags::empty()));
        assert!(matches!(error, RegionError::Size { .. }), "{error}");
    }
    // Whoever sent it keeps the others from sealing it, or from writing it.
    let error = refusal(memfd(4096, SealFlags::SEAL));
    assert!(matches!(error, RegionError::Unsealed { .. }), "{error}");
    let error = refusal(memfd(4096, ALL));
    assert!(matches!(error, RegionError::Os(_)), "{error}");
    let program = std::env::current_exe().expect("a test binary");
    for path in [program.as_path(), "/dev/zero".as_ref()] {
        let file = std::fs::File::open(path).expect("readable");
        let error = refusal(file.into());
        let refused = matches!(error, RegionError::NotMemory | RegionError::Os(_));
        assert!(refused, "{error}");
    }
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
    let annex = size as u64;
    for at in [0, annex] {
        assert_eq!(fs::fallocate(fd, punch, at, 4096), Err(Errno::PERM));
    }
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
    let wakes = WakePage::accept(unsealed().1).expect("made by this crate");
    let _ = b.send(call(1, b"for the parent")).expect("open");
    assert!(!forked());
    let (a, mut dropped) = (std::sync::Arc::new(a), Some(dropped));
    let child_view = a.clone();
    let mut child = Command::new("true");
    let in_child = move || {
        let a = &child_view;
        drop(dropped.take());
        page.word(0).store(1, Ordering::Relaxed);
        wakes.lent_to_us(0).returned.store(1, Ordering::Relaxed);
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
