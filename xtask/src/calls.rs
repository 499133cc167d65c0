//! Rejects kernel programs that call BPF functions.
//!
//! Linux 5.10 takes no tail calls in a program that also has calls of other BPF functions on arm64 (and other
//! architectures without `bpf_jit_supports_subprog_tailcalls`), so there must be none. LLVM makes them unasked: of a
//! closure or a function that it does not inline, and of `memset` and `memcpy`, which look like any other function to
//! the kernel.

use std::fmt::Write;

use anyhow::{Context, Result, bail};
use object::elf::{EM_BPF, FileHeader64, STT_FUNC};
use object::read::elf::{ElfFile, FileHeader};
use object::{Endianness, Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind};

/// Bytes of an instruction.
const INSTRUCTION: usize = 8;
/// `BPF_LD | BPF_IMM | BPF_DW`: two instructions long.
const LOAD_WIDE: u8 = 0x18;
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// Source register of a [`CALL`] that is one of a BPF function (`BPF_PSEUDO_CALL`).
const OF_FUNCTION: u8 = 1;
/// Where functions go that are not programs.
const FUNCTIONS: &str = ".text";

type Elf<'a> = ElfFile<'a, FileHeader64<Endianness>>;

/// Fails if a program of the object calls a BPF function.
pub fn check(object: &[u8]) -> Result<()> {
    let elf = Elf::parse(object).context("the kernel programs are no ELF object")?;
    if elf.elf_header().e_machine(elf.endian()) != EM_BPF {
        bail!("the kernel programs are not built for BPF");
    }
    let mut found = String::new();
    for section in elf.sections() {
        if section.kind() != SectionKind::Text || section.name()? == FUNCTIONS {
            continue;
        }
        for (at, operand) in calls(section.data()?) {
            let caller = function_at(&elf, section.index(), at);
            let callee = callee(&elf, &section, at, operand);
            write!(found, "\n  {caller} calls {callee}")?;
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    bail!(
        "kernel programs call BPF functions, which Linux 5.10 refuses beside tail calls on arm64:{found}\n\
         Inline what is called: `#[inline(always)]` on functions, a macro in place of a function that takes a closure, \
         and loops or `bounds` in place of large copies and zeroed arrays."
    )
}

/// Offset and operand of each call of a BPF function.
fn calls(code: &[u8]) -> Vec<(u64, i32)> {
    let mut calls = Vec::new();
    let mut instructions = (0_u64..)
        .step_by(INSTRUCTION)
        .zip(code.as_chunks::<INSTRUCTION>().0);
    while let Some((at, [operation, registers, _, _, operand @ ..])) = instructions.next() {
        match *operation {
            LOAD_WIDE => drop(instructions.next()),
            CALL if registers >> 4 == OF_FUNCTION => calls.push((at, i32::from_le_bytes(*operand))),
            _ => {}
        }
    }
    calls
}

/// The operand of a call that the linker left to the loader counts from where its relocation points to.
fn callee<'a>(elf: &Elf<'a>, section: &impl ObjectSection<'a>, at: u64, operand: i32) -> String {
    let relocation = section.relocations().find(|(offset, _)| *offset == at);
    let (index, base) = match relocation.map(|(_, relocation)| relocation.target()) {
        Some(RelocationTarget::Symbol(symbol)) => match elf.symbol_by_index(symbol) {
            Ok(symbol) => match symbol.section_index() {
                Some(index) => (index, symbol.address()),
                None => return String::from("something unknown"),
            },
            Err(_) => return String::from("something unknown"),
        },
        _ => (section.index(), at),
    };
    let next = i64::from(operand) + 1;
    function_at(
        elf,
        index,
        base.wrapping_add_signed(next * INSTRUCTION as i64),
    )
}

/// The function that this offset in this section belongs to.
fn function_at(elf: &Elf<'_>, section: object::SectionIndex, offset: u64) -> String {
    let mut symbols = elf.symbols();
    let found = symbols.find(|symbol| {
        symbol.elf_symbol().st_type() == STT_FUNC
            && symbol.section_index() == Some(section)
            && (symbol.address()..symbol.address() + symbol.size()).contains(&offset)
    });
    let name = found.and_then(|symbol| symbol.name().ok());
    name.unwrap_or("something unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_and_halves_of_wide_loads_are_no_calls() {
        let code: Vec<u8> = [
            // A helper, and a kernel function.
            [CALL, 0x00, 0, 0, 1, 0, 0, 0],
            [CALL, 0x20, 0, 0, 9, 0, 0, 0],
            // A wide load, the second half of which looks like a call.
            [LOAD_WIDE, 0x01, 0, 0, 5, 0, 0, 0],
            [CALL, 0x10, 0, 0, 7, 0, 0, 0],
            // A BPF function.
            [CALL, 0x10, 0, 0, 0xff, 0xff, 0xff, 0xff],
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(calls(&code), [(32, -1)]);
    }

    #[test]
    fn what_is_no_object_is_said_so() {
        assert!(check(b"#!/bin/sh").is_err());
    }
}
