//! The lock of hello buffers and the barrier between two CPUs, on a machine that orders nothing by itself.
//!
//! The programs have two forms of an atomic addition (`forwarder-ebpf/src/bounds.rs`). One returns nothing: on x86 it is
//! a full barrier, on arm64 it orders nothing (`stadd`). The other fetches the old value: the kernel's BPF compilers make
//! a full barrier of it everywhere (`ldaddal` on arm64, or a `dmb` beside it), but only Linux 5.12 (x86) and 5.18 (arm64)
//! have it. Plain loads and stores are relaxed. loom tries every order that this allows.

use std::panic;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use loom::sync::atomic::{AtomicU32, fence};
use loom::thread;

/// How the programs add, and what they learn from it.
trait Form: Send + Sync + 'static {
    /// Adds one; whether nobody else is in.
    fn enter(users: &AtomicU32) -> bool;

    /// Takes one away.
    fn leave(users: &AtomicU32);

    /// Adds nothing.
    fn barrier(word: &AtomicU32);
}

/// An addition that returns nothing, as arm64 does it.
struct Unordered;

impl Form for Unordered {
    fn enter(users: &AtomicU32) -> bool {
        users.fetch_add(1, Relaxed);
        users.load(Relaxed) == 1
    }

    fn leave(users: &AtomicU32) {
        users.fetch_sub(1, Relaxed);
    }

    fn barrier(word: &AtomicU32) {
        word.fetch_add(0, Relaxed);
    }
}

/// The same as x86 does it, where besides no load overtakes a load.
struct Strong;

impl Form for Strong {
    fn enter(users: &AtomicU32) -> bool {
        users.fetch_add(1, AcqRel);
        users.load(Acquire) == 1
    }

    fn leave(users: &AtomicU32) {
        users.fetch_sub(1, AcqRel);
    }

    fn barrier(word: &AtomicU32) {
        full(word);
    }
}

/// An addition that fetches.
struct Fetching;

impl Form for Fetching {
    fn enter(users: &AtomicU32) -> bool {
        users.fetch_add(1, AcqRel) == 0
    }

    fn leave(users: &AtomicU32) {
        users.fetch_sub(1, AcqRel);
    }

    fn barrier(word: &AtomicU32) {
        full(word);
    }
}

/// An addition that fetches, though the count is read by a load of its own.
struct Halfway;

impl Form for Halfway {
    fn enter(users: &AtomicU32) -> bool {
        users.fetch_add(1, AcqRel);
        users.load(Relaxed) == 1
    }

    fn leave(users: &AtomicU32) {
        Fetching::leave(users);
    }

    fn barrier(word: &AtomicU32) {
        Fetching::barrier(word);
    }
}

/// loom knows a full barrier only as a fence.
fn full(word: &AtomicU32) {
    fence(SeqCst);
    word.fetch_add(0, AcqRel);
    fence(SeqCst);
}

/// Two CPUs want one buffer; whoever gets it changes it, and the other may get it afterwards. loom objects to any two
/// accesses that nothing orders.
fn lock<F: Form>() {
    loom::model(|| {
        let shared = Arc::new((AtomicU32::new(0), UnsafeCell::new(0_u32)));
        let work = |shared: &(AtomicU32, UnsafeCell<u32>)| {
            let (users, bytes) = shared;
            if F::enter(users) {
                // SAFETY: loom checks that nobody else is there.
                bytes.with_mut(|bytes| unsafe { *bytes += 1 });
            }
            F::leave(users);
        };
        let other = Arc::clone(&shared);
        let other = thread::spawn(move || work(&other));
        work(&shared);
        other.join().unwrap();
        assert_eq!(shared.0.load(SeqCst), 0, "given back");
    });
}

/// Each of two CPUs writes its own word (the acknowledgement it saw; the mark that a node was taken) and looks at the
/// other's. At least one must see the other, or neither does what is left to do.
fn both_look<F: Form>() {
    loom::model(|| {
        let shared = Arc::new([(); 3].map(|()| AtomicU32::new(0)));
        let work = |shared: &[AtomicU32; 3], own: usize, others: usize| {
            shared[own].store(1, Relaxed);
            F::barrier(&shared[2]);
            shared[others].load(Relaxed) == 1
        };
        let other = Arc::clone(&shared);
        let other = thread::spawn(move || work(&other, 1, 0));
        let one = work(&shared, 0, 1);
        assert!(other.join().unwrap() | one, "neither saw the other");
    });
}

/// Whether loom finds an order that breaks it.
fn breaks(model: impl FnOnce() + panic::UnwindSafe) -> bool {
    panic::catch_unwind(model).is_err()
}

#[test]
fn fetching_additions_lock_on_every_machine() {
    lock::<Fetching>();
}

#[test]
fn fetching_additions_are_a_barrier_on_every_machine() {
    both_look::<Fetching>();
}

#[test]
fn plain_additions_do_on_x86() {
    lock::<Strong>();
    both_look::<Strong>();
}

#[test]
fn plain_additions_do_not_on_arm64() {
    assert!(breaks(lock::<Unordered>));
    assert!(breaks(both_look::<Unordered>));
}

/// The old value has to be used: what was read by another load says nothing of the order of the loads behind it.
#[test]
fn reading_the_count_again_is_not_enough_on_arm64() {
    assert!(breaks(lock::<Halfway>));
}
