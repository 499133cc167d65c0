//! Atomic additions of the kernel programs, in the form that the kernel at hand has.
//!
//! The object holds additions that return nothing, because Linux before 5.12 (arm64: 5.18) refuses others even where they
//! are never reached. On x86 they order memory and do. Elsewhere the lock of hello buffers and the barrier between two
//! CPUs need additions that fetch the old value, which are full barriers on every architecture (`forwarder-common/tests/
//! ordering.rs` shows both). So each is replaced, at load, where the kernel takes it. All additions on 32 bits are those
//! of `forwarder-ebpf/src/bounds.rs`, which keeps nothing in the register that the fetched value overwrites. Those on 64
//! bits only count, order nothing, and stay as they are.

use std::borrow::Cow;
use std::ptr;

use object::elf::FileHeader64;
use object::read::elf::ElfFile;
use object::{Endianness, Object, ObjectSection, SectionKind};

/// Bytes of an instruction.
const INSTRUCTION: usize = 8;
/// `BPF_LD | BPF_IMM | BPF_DW`: two instructions long.
const LOAD_WIDE: u8 = 0x18;
/// `BPF_STX | BPF_ATOMIC | BPF_W`.
const ATOMIC: u8 = 0xc3;
/// `BPF_LDX | BPF_MEM | BPF_W`.
const LOAD: u8 = 0x61;
/// `BPF_ALU64 | BPF_ADD | BPF_K`.
const ADD: u8 = 0x07;
/// Operand of [`ATOMIC`]: `BPF_ADD`, and `BPF_ADD | BPF_FETCH`.
const RETURNS_NOTHING: [u8; 4] = [0, 0, 0, 0];
const FETCHES: [u8; 4] = [1, 0, 0, 0];

/// Why the programs cannot run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this kernel has no atomic additions that order memory: Linux 5.18 has, on arm64")]
pub struct Unordered;

/// The object as this kernel and machine need it.
///
/// # Errors
/// The additions would order nothing.
pub fn suited(object: &[u8]) -> Result<Cow<'_, [u8]>, Unordered> {
    if kernel_fetches() {
        return Ok(Cow::Owned(fetching(object)));
    }
    match cfg!(target_arch = "x86_64") {
        true => Ok(Cow::Borrowed(object)),
        false => Err(Unordered),
    }
}

/// The object with additions that fetch. What is no object is left as it is: whoever loads it says so.
#[must_use]
pub fn fetching(object: &[u8]) -> Vec<u8> {
    let mut changed = object.to_vec();
    let Ok(elf) = ElfFile::<FileHeader64<Endianness>>::parse(object) else {
        return changed;
    };
    for section in elf.sections() {
        let Some((start, length)) = section.file_range() else {
            continue;
        };
        let range = usize::try_from(start)
            .ok()
            .zip(usize::try_from(start + length).ok());
        if section.kind() != SectionKind::Text {
            continue;
        }
        if let Some(code) = range.and_then(|(from, to)| changed.get_mut(from..to)) {
            fetch_in(code);
        }
    }
    changed
}

fn fetch_in(code: &mut [u8]) {
    let (instructions, _) = code.as_chunks_mut::<INSTRUCTION>();
    let mut at = 0;
    while let Some([own, rest @ ..]) = instructions.get_mut(at..) {
        let [operation, registers, o0, o1, operand @ ..] = own;
        at += 1;
        match *operation {
            LOAD_WIDE => at += 1,
            ATOMIC if *operand == RETURNS_NOTHING => {
                *operand = FETCHES;
                // `count = *counter` behind it becomes `count += 1`.
                let (counter, count) = (*registers & 0xf, *registers >> 4);
                let loads = [LOAD, counter << 4 | count, *o0, *o1, 0, 0, 0, 0];
                if let Some(next) = rest.first_mut().filter(|next| **next == loads) {
                    *next = [ADD, count, 0, 0, 1, 0, 0, 0];
                }
            }
            _ => {}
        }
    }
}

/// Whether the kernel loads a program with such an addition.
fn kernel_fetches() -> bool {
    const BPF_PROG_LOAD: libc::c_long = 5;
    const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
    /// Puts zero on the stack, adds one to it, and returns.
    const PROGRAM: [[u8; INSTRUCTION]; 5] = [
        [0x7a, 0x0a, 0xf8, 0xff, 0, 0, 0, 0],
        [0xb7, 0x01, 0, 0, 1, 0, 0, 0],
        [ATOMIC, 0x1a, 0xf8, 0xff, 1, 0, 0, 0],
        [0xb7, 0x00, 0, 0, 0, 0, 0, 0],
        [0x95, 0, 0, 0, 0, 0, 0, 0],
    ];
    /// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
    #[repr(C)]
    struct Attributes {
        kind: u32,
        instructions: u32,
        code: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    let attributes = Attributes {
        kind: BPF_PROG_TYPE_SOCKET_FILTER,
        instructions: PROGRAM.len() as u32,
        code: ptr::from_ref(&PROGRAM) as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads the attributes and what they point to, all of which outlives the call.
    let program = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if program < 0 {
        return false;
    }
    // SAFETY: a file descriptor of our own, closed once.
    unsafe { libc::close(program as libc::c_int) };
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::bpf::object::OBJECT;

    /// Additions in the programs, by whether they fetch, and those that are followed by a load of the same word.
    fn counted(object: &[u8]) -> (usize, usize, usize) {
        let elf = ElfFile::<FileHeader64<Endianness>>::parse(object).unwrap();
        let (mut plain, mut fetch, mut loads) = (0, 0, 0);
        for section in elf.sections().filter(|own| own.kind() == SectionKind::Text) {
            let code = section.data().unwrap().as_chunks::<INSTRUCTION>().0;
            let mut wide = false;
            for (at, own) in code.iter().enumerate() {
                if std::mem::take(&mut wide) {
                    continue;
                }
                wide = own[0] == LOAD_WIDE;
                if own[0] == ATOMIC {
                    plain += usize::from(own[4..] == RETURNS_NOTHING);
                    fetch += usize::from(own[4..] == FETCHES);
                    let next = code
                        .get(at + 1)
                        .is_some_and(|next| next[0] == LOAD && next[1] == own[1].rotate_left(4));
                    loads += usize::from(next);
                }
            }
        }
        (plain, fetch, loads)
    }

    #[test]
    fn every_addition_fetches_afterwards() {
        let (plain, fetch, loads) = counted(OBJECT);
        assert!(plain > 10 && loads > 0, "{plain} additions, {loads} locks");
        assert_eq!(fetch, 0, "no kernel before 5.12 would take it");
        let changed = fetching(OBJECT);
        assert_eq!(changed.len(), OBJECT.len());
        assert_eq!(counted(&changed), (0, plain, 0));
        let differ = changed.iter().zip(OBJECT).filter(|(a, b)| a != b).count();
        assert!(differ <= plain + 4 * loads, "{differ} bytes");
    }

    #[test]
    fn a_constant_that_looks_like_an_addition_is_left_alone() {
        let wide = [
            [LOAD_WIDE, 1, 0, 0, 7, 0, 0, 0],
            [ATOMIC, 0, 0, 0, 0, 0, 0, 0],
        ];
        let add = [
            [ATOMIC, 0x21, 8, 0, 0, 0, 0, 0],
            [LOAD, 0x12, 8, 0, 0, 0, 0, 0],
        ];
        let other = [
            [ATOMIC, 0x21, 8, 0, 0, 0, 0, 0],
            [LOAD, 0x13, 8, 0, 0, 0, 0, 0],
        ];
        let mut code = [wide, add, other].as_flattened().as_flattened().to_vec();
        fetch_in(&mut code);
        let add = [[ATOMIC, 0x21, 8, 0, 1, 0, 0, 0], [ADD, 2, 0, 0, 1, 0, 0, 0]];
        let other = [
            [ATOMIC, 0x21, 8, 0, 1, 0, 0, 0],
            [LOAD, 0x13, 8, 0, 0, 0, 0, 0],
        ];
        assert_eq!(code, [wide, add, other].as_flattened().as_flattened());
    }

    #[test]
    fn what_is_no_object_stays_as_it_is() {
        assert_eq!(fetching(b"nothing"), b"nothing");
    }
}
