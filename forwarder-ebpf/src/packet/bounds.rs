//! Bounds that the optimiser cannot remove, for values that index maps and packets.
//!
//! LLVM drops a mask or comparison whose result it already knows; the verifier, which sees a number come
//! back from memory, does not know it. Inline assembly is opaque to LLVM and plain to the verifier.

use core::arch::asm;

/// As the stages of a hello call it.
pub use clobber as forget;

/// `value & MASK`.
#[inline(always)]
pub fn mask<const MASK: i32>(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: one arithmetic instruction on the operand.
    unsafe { asm!("{0} &= {1}", inout(reg) value, const MASK, options(pure, nomem, nostack)) };
    value
}

/// `value` where it is at most `MAX`, else `MAX`.
#[inline(always)]
pub fn at_most<const MAX: i32>(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: a jump over one assignment of the operand.
    unsafe {
        asm!("if {0} <= {1} goto +1", "{0} = {1}", inout(reg) value, const MAX, options(pure, nomem, nostack))
    };
    value
}

/// `value` in 1..=MASK + 1 (`MASK` one less than a power of two), in a form that verifiers before 6.8
/// understand: they do not raise the minimum on `!= 0`.
#[inline(always)]
pub fn positive<const MASK: i32>(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: three arithmetic instructions on the operand.
    unsafe {
        asm!("{0} += -1", "{0} &= {1}", "{0} += 1", inout(reg) value, const MASK, options(pure, nomem, nostack));
    }
    value
}

/// Makes LLVM write back and forget what it holds of the map value at `value`. A loop whose state is all in
/// a map then has one verifier state a round, whatever path the round took.
///
/// The pointer is an operand because LLVM trusts that nothing else reaches what a `&mut` refers to.
#[inline(always)]
pub fn clobber<T>(value: *mut T) {
    // SAFETY: a move to itself; without an instruction, two lines of debug information would share one
    // offset, which the kernel rejects.
    unsafe { asm!("{0} = {0}", inout(reg) value => _, options(nostack, preserves_flags)) };
}

/// The same number, of which LLVM no longer knows what it is, though the verifier does. A loop whose counter
/// goes through this is not unrolled.
#[inline(always)]
pub fn black_box(value: u32) -> u32 {
    let mut value = u64::from(value);
    // SAFETY: a move to itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
    value as u32
}

/// The same number, which LLVM then uses nowhere before this place. What belongs to one variant of an enumeration is not
/// set in the others; LLVM may read it before it has looked which one it has, and verifiers before 6.3 refuse that.
#[inline(always)]
pub fn here(value: u32) -> u32 {
    let mut value = u64::from(value);
    // SAFETY: a move to itself. Not `pure`: it stays where it is.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(nomem, nostack)) };
    value as u32
}

/// The same pointer into a packet, which LLVM then takes for one number: it would add up its parts anew, and the verifier
/// knows of a sum only what was compared.
#[inline(always)]
pub fn whole(pointer: usize) -> usize {
    let mut pointer = pointer;
    // SAFETY: a move to itself.
    unsafe { asm!("{0} = {0}", inout(reg) pointer, options(pure, nomem, nostack)) };
    pointer
}

/// Atomically adds to a counter in a map.
///
/// Kernels before 5.12 (arm64: 5.18) have no addition that fetches the old value, so none is written here. What is
/// written orders memory on x86 only; where the kernel has the fetching form, the loader puts it in the place of each
/// `lock … += …` on 32 bits (`forwarder/src/dataplane/bpf/atomics.rs`): it is a full barrier everywhere. It leaves the old
/// value in the register of the amount, which is why that is an output.
///
/// # Safety
/// `counter` points into a map value.
#[inline(always)]
pub unsafe fn atomic_add(counter: *mut u32, amount: i32) {
    // SAFETY: by the caller.
    unsafe {
        asm!("lock *(u32 *)({0} + 0) += {1}", in(reg) counter, inout(reg) i64::from(amount) => _, options(nostack));
    }
}

/// Adds to a count of 64 bits. It is whole, and orders nothing.
///
/// # Safety
/// `counter` points into a map value, at a multiple of eight bytes.
#[inline(always)]
pub unsafe fn count_up(counter: *mut u64, amount: u64) {
    // SAFETY: by the caller.
    unsafe {
        asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, inout(reg) amount => _, options(nostack));
    }
}

/// Atomically adds one to a counter in a map. 1 says that nobody else's one is in it: then nothing that follows is done
/// before that was known.
///
/// The loader turns the two instructions into an addition that fetches and one that adds one to what was fetched: what
/// a load of its own reads would say nothing of the loads behind it, except on x86.
///
/// # Safety
/// `counter` points into a map value.
#[inline(always)]
pub unsafe fn atomic_enter(counter: *mut u32) -> u32 {
    let mut count = 1_u64;
    // SAFETY: by the caller. The two instructions stand together, with the same registers.
    unsafe {
        asm!(
            "lock *(u32 *)({0} + 0) += {1}",
            "{1} = *(u32 *)({0} + 0)",
            in(reg) counter,
            inout(reg) count,
            options(nostack),
        );
    }
    count as u32
}

/// What was written before is visible before anything is read after this: an atomic addition is a barrier, on x86 in
/// either form, elsewhere in the one that fetches.
///
/// `value` is a map value whose first word nobody writes meanwhile but by atomic additions.
#[inline(always)]
pub fn barrier<T>(value: &mut T) {
    const { assert!(size_of::<T>() >= 4) };
    let value: *mut T = value;
    // SAFETY: the first word of a map value, to which nothing is added.
    unsafe { atomic_add(value.cast(), 0) };
    clobber(value);
}

/// Loads four bytes from any alignment, as they stand.
///
/// # Safety
/// Four bytes from `at` on are readable memory of one map value.
#[inline(always)]
pub unsafe fn load_u32(at: *const u8) -> u32 {
    let value: u64;
    // SAFETY: by the caller; BPF loads need no alignment on the architectures Linux runs XDP and TC on.
    unsafe {
        asm!("{0} = *(u32 *)({1} + 0)", out(reg) value, in(reg) at, options(readonly, nostack))
    };
    value as u32
}
