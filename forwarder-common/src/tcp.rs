//! TCP as the data path needs it: flags, the options of a SYN, SACK blocks and windows.
//!
//! RFC 9293 (TCP), RFC 7323 (window scale), RFC 2018 (SACK).

/// Header flags. ECN and reserved bits are masked out, never compared.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// Push.
    pub const PSH: u8 = 8;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 16;
    /// The urgent pointer counts.
    pub const URG: u8 = 32;
}

/// The window scale we offer to every client: Linux nodes choose the same, so windows need no change.
pub const ENTRANCE_SCALE: u32 = 7;
/// "No window scale offered" in a cookie.
pub const NO_SCALE: u32 = crate::cookie::NO_WINDOW_SCALE as u32;
/// MSS of a host that offers none (RFC 9293 3.7.1).
pub const DEFAULT_MSS: u32 = 536;
/// The most bytes of options a header can have.
pub const OPTIONS_MAX: u32 = 40;

/// Where option bytes come from. Offsets up to `OPTIONS_MAX + 3` are asked for; beyond the header, any value.
pub trait OptionBytes {
    /// The byte at this offset of the option block.
    fn byte(&self, at: u32) -> u8;

    /// The four bytes from this offset on, the first in the highest place. All four are of the block, and the offset
    /// is a multiple of four.
    fn word(&self, at: u32) -> u32 {
        let bytes = [at, at + 1, at + 2, at + 3].map(|at| self.byte(at));
        u32::from_be_bytes(bytes)
    }
}

/// The options of a SYN or SYN-ACK, read one at a time so that a verifier sees each step alike.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynOptions {
    at: u32,
    /// Maximum segment size, bytes.
    pub mss: u32,
    /// Window scale, at most 14; [`NO_SCALE`] when not offered.
    pub scale: u32,
    /// 1 when selective acknowledgements are permitted.
    pub sack: u32,
}

impl SynOptions {
    /// Nothing read yet: what a header without options means.
    pub const START: Self = Self {
        at: 0,
        mss: DEFAULT_MSS,
        scale: NO_SCALE,
        sack: 0,
    };

    /// Reads one option of a block of `length` bytes, or a word of several; false when there is no further one.
    #[inline(always)]
    pub fn step(&mut self, bytes: &impl OptionBytes, length: u32) -> bool {
        const END: u8 = 0;
        const NOP: u8 = 1;
        const MSS: u8 = 2;
        const SCALE: u8 = 3;
        const SACK_PERMITTED: u8 = 4;
        let at = self.at;
        if at >= length {
            return false;
        }
        if at & 3 == 0 && at + 4 <= length && self.step_word(bytes.word(at), length) {
            return true;
        }
        let kind = bytes.byte(at);
        if kind == END {
            return false;
        }
        if kind == NOP {
            self.at = at + 1;
            return true;
        }
        let size = u32::from(bytes.byte(at + 1));
        if size < 2 || at + size > length {
            return false;
        }
        if kind == MSS && size == 4 {
            let mss = u32::from(bytes.byte(at + 2)) << 8 | u32::from(bytes.byte(at + 3));
            self.mss = if mss == 0 { DEFAULT_MSS } else { mss };
        } else if kind == SCALE && size == 3 {
            let scale = u32::from(bytes.byte(at + 2));
            self.scale = if scale > 14 { 14 } else { scale };
        } else if kind == SACK_PERMITTED && size == 2 {
            self.sack = 1;
        }
        self.at = at + size;
        true
    }

    /// The words that stacks fill up to with NOPs: an MSS, a window scale, SACK-permitted, a timestamp.
    #[inline(always)]
    fn step_word(&mut self, word: u32, length: u32) -> bool {
        const MSS: u32 = 0x0204;
        const NOP_SCALE: u32 = 0x01_03_03;
        const NOP_NOP_SACK: u32 = 0x0101_0402;
        const SACK_TIMESTAMP: u32 = 0x0402_080a;
        const NOP_NOP_TIMESTAMP: u32 = 0x0101_080a;
        let mut taken = 4;
        if word >> 16 == MSS {
            let mss = word & 0xffff;
            self.mss = if mss == 0 { DEFAULT_MSS } else { mss };
        } else if word >> 8 == NOP_SCALE {
            let scale = word & 0xff;
            self.scale = if scale > 14 { 14 } else { scale };
        } else if word == NOP_NOP_SACK {
            self.sack = 1;
        } else if (word == SACK_TIMESTAMP || word == NOP_NOP_TIMESTAMP) && self.at + 12 <= length {
            if word == SACK_TIMESTAMP {
                self.sack = 1;
            }
            taken = 12;
        } else {
            return false;
        }
        self.at += taken;
        true
    }
}

/// The option words of our SYN or SYN-ACK in network order, and how many of them count (1 to 3).
///
/// MSS always; SACK-permitted and window scale only if `sack`, and `scale != NO_SCALE`, say so: the
/// answer to a SYN is never longer than the SYN plus an MSS option.
#[must_use]
#[inline(always)]
pub const fn syn_option_words(mss: u32, sack: bool, scale: u32) -> ([u32; 3], u32) {
    let mss = (0x0204_0000 | (mss & 0xffff)).to_be();
    let sack_word = 0x0101_0402_u32.to_be();
    let scale_word = (0x0103_0300 | (scale & 15)).to_be();
    let nop = 0x0101_0101_u32.to_be();
    if sack && scale != NO_SCALE {
        ([mss, sack_word, scale_word], 3)
    } else if sack {
        ([mss, sack_word, nop], 2)
    } else if scale != NO_SCALE {
        ([mss, scale_word, nop], 2)
    } else {
        ([mss, nop, nop], 1)
    }
}

/// A window as one side sent it, in the scale of the other.
///
/// `from` is the scale the sender uses, `to` what the receiver was told ([`NO_SCALE`]: none).
/// What does not fit is capped; what is smaller than one unit becomes zero, which a peer probes.
#[must_use]
#[inline(always)]
pub const fn rescale(window: u16, from: u32, to: u32) -> u16 {
    let from = if from == NO_SCALE { 0 } else { from & 15 };
    let to = if to == NO_SCALE { 0 } else { to & 15 };
    let bytes = (window as u32) << from;
    let scaled = bytes >> to;
    if scaled > 0xffff {
        0xffff
    } else {
        scaled as u16
    }
}

/// The four bytes before the blocks in the layout every known stack uses: NOP, NOP, SACK, length.
pub const SACK_LAYOUT: u32 = 0x0101_0500;
/// SACK blocks in one header at most (RFC 2018 3).
pub const SACK_BLOCKS_MAX: u32 = 4;

/// How many block edges (two a block) follow a first option word of [`SACK_LAYOUT`]; `None` for any other
/// word, and where the edges would not fit `options` bytes of options.
#[must_use]
#[inline(always)]
pub const fn sack_edges(first_word: u32, options: u32) -> Option<u32> {
    if first_word & 0xffff_ff00 != SACK_LAYOUT {
        return None;
    }
    let size = first_word & 0xff;
    if size < 10 || size & 7 != 2 || size > 2 + 8 * SACK_BLOCKS_MAX || size + 2 > options {
        return None;
    }
    Some((size - 2) / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Block([u8; 44]);

    impl OptionBytes for Block {
        fn byte(&self, at: u32) -> u8 {
            self.0[at as usize]
        }
    }

    fn read(options: &[u8]) -> SynOptions {
        let mut block = Block([0xff; 44]);
        block.0[..options.len()].copy_from_slice(options);
        let mut read = SynOptions::START;
        let mut steps = 0;
        while read.step(&block, options.len() as u32) {
            steps += 1;
        }
        assert!(steps <= options.len());
        read
    }

    #[test]
    fn options_of_known_stacks() {
        let linux = [
            2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
        ];
        assert_eq!(
            (read(&linux).mss, read(&linux).scale, read(&linux).sack),
            (1460, 7, 1)
        );
        let windows = [2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2];
        assert_eq!(
            (
                read(&windows).mss,
                read(&windows).scale,
                read(&windows).sack
            ),
            (1460, 8, 1)
        );
        assert_eq!(read(&[]).mss, DEFAULT_MSS);
        assert_eq!(read(&[]).scale, NO_SCALE);
    }

    #[test]
    fn options_that_lie_end_the_list() {
        for bad in [&[2, 0, 5, 180][..], &[2, 1], &[3, 40, 7], &[2], &[1, 1, 3]] {
            assert_eq!(read(bad).mss, DEFAULT_MSS, "{bad:?}");
            assert_eq!(read(bad).scale, NO_SCALE, "{bad:?}");
        }
        assert_eq!(read(&[3, 3, 200]).scale, 14);
    }

    #[test]
    fn windows() {
        assert_eq!(rescale(0, 7, 7), 0);
        assert_eq!(rescale(502, 7, 7), 502);
        assert_eq!(rescale(65535, 14, 7), 65535);
        assert_eq!(rescale(65535, 0, 7), 511);
        assert_eq!(rescale(100, 0, 7), 0);
        assert_eq!(rescale(512, 7, NO_SCALE), 65535);
        assert_eq!(rescale(3, 7, NO_SCALE), 384);
        assert_eq!(rescale(502, NO_SCALE, NO_SCALE), 502);
        assert_eq!(rescale(65535, NO_SCALE, 7), 511);
    }

    #[test]
    fn sack_layouts() {
        assert_eq!(sack_edges(0x0101_050a, 12), Some(2));
        assert_eq!(sack_edges(0x0101_0522, 36), Some(8));
        assert_eq!(sack_edges(0x0101_0522, 12), None);
        assert_eq!(sack_edges(0x0101_0502, 12), None);
        assert_eq!(sack_edges(0x0101_050b, 16), None);
        assert_eq!(sack_edges(0x0101_080a, 12), None);
    }
}
