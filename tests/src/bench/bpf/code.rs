//! BPF instructions by their names (RFC 9669).

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
}

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    const fn new(code: u8, to: Reg, from: Reg, offset: i16, immediate: i32) -> Self {
        Self {
            code,
            registers: (to as u8) | (from as u8) << 4,
            offset,
            immediate,
        }
    }

    /// `to = value`.
    #[must_use]
    pub const fn set(to: Reg, value: i32) -> Self {
        Self::new(0xb7, to, Reg::R0, 0, value)
    }

    /// `to = from`.
    #[must_use]
    pub const fn copy(to: Reg, from: Reg) -> Self {
        Self::new(0xbf, to, from, 0, 0)
    }

    /// `to += value`.
    #[must_use]
    pub const fn add(to: Reg, value: i32) -> Self {
        Self::new(0x07, to, Reg::R0, 0, value)
    }

    /// `to += from`.
    #[must_use]
    pub const fn add_register(to: Reg, from: Reg) -> Self {
        Self::new(0x0f, to, from, 0, 0)
    }

    /// `to &= value`.
    #[must_use]
    pub const fn and(to: Reg, value: i32) -> Self {
        Self::new(0x57, to, Reg::R0, 0, value)
    }

    /// `to ^= value`.
    #[must_use]
    pub const fn xor(to: Reg, value: i32) -> Self {
        Self::new(0xa7, to, Reg::R0, 0, value)
    }

    /// `to >>= bits`.
    #[must_use]
    pub const fn shift_right(to: Reg, bits: i32) -> Self {
        Self::new(0x77, to, Reg::R0, 0, bits)
    }

    /// `to = *(u32 *)(from + offset)`.
    #[must_use]
    pub const fn load32(to: Reg, from: Reg, offset: i16) -> Self {
        Self::new(0x61, to, from, offset, 0)
    }

    /// `to = *(u16 *)(from + offset)`.
    #[must_use]
    pub const fn load16(to: Reg, from: Reg, offset: i16) -> Self {
        Self::new(0x69, to, from, offset, 0)
    }

    /// `*(u32 *)(to + offset) = value`.
    #[must_use]
    pub const fn store32(to: Reg, offset: i16, value: i32) -> Self {
        Self::new(0x62, to, Reg::R0, offset, value)
    }

    /// `*(u16 *)(to + offset) = value`.
    #[must_use]
    pub const fn store16(to: Reg, offset: i16, value: u16) -> Self {
        Self::new(0x6a, to, Reg::R0, offset, value as i32)
    }

    /// `*(u32 *)(to + offset) = from`.
    #[must_use]
    pub const fn store32_register(to: Reg, offset: i16, from: Reg) -> Self {
        Self::new(0x63, to, from, offset, 0)
    }

    /// `*(u16 *)(to + offset) = from`.
    #[must_use]
    pub const fn store16_register(to: Reg, offset: i16, from: Reg) -> Self {
        Self::new(0x6b, to, from, offset, 0)
    }

    /// Skips instructions if `left > right`, unsigned.
    #[must_use]
    pub const fn jump_above(left: Reg, right: Reg, skip: i16) -> Self {
        Self::new(0x2d, left, right, skip, 0)
    }

    /// Skips instructions if `left >= right`, unsigned.
    #[must_use]
    pub const fn jump_at_least(left: Reg, right: Reg, skip: i16) -> Self {
        Self::new(0x3d, left, right, skip, 0)
    }

    /// Skips instructions if `left != value`.
    #[must_use]
    pub const fn jump_unless(left: Reg, value: i32, skip: i16) -> Self {
        Self::new(0x55, left, Reg::R0, skip, value)
    }

    /// Calls a helper of the kernel; `r1` to `r5` are lost, the result is in `r0`.
    #[must_use]
    pub const fn call(helper: i32) -> Self {
        Self::new(0x85, Reg::R0, Reg::R0, 0, helper)
    }

    /// Returns `r0`.
    #[must_use]
    pub const fn exit() -> Self {
        Self::new(0x95, Reg::R0, Reg::R0, 0, 0)
    }
}
