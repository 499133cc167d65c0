//! SipHash-2-4 over 64-bit words and a tail (Aumasson and Bernstein, 2012), with 64 bits of output or 128.
//!
//! The number of words is fixed, so the rounds unroll and nothing is indexed:
//! the same code runs in the daemon and, under the verifier, in BPF. A byte
//! string hashes to the same value when it is read as little-endian words.

/// SipHash-2-4 of `8 * N` input bytes under the 128-bit `key`.
///
/// `N` takes part in the hash through the length byte, so inputs of different
/// lengths never collide by padding. `N` is at most 31, the most that byte can
/// tell apart.
#[inline(always)]
pub const fn siphash24<const N: usize>(key: [u64; 2], words: &[u64; N]) -> u64 {
    const { assert!(N < 32, "the length byte holds 8 * N") };
    let mut state = SipHash24::new(key);
    let mut rest: &[u64] = words;
    while let [word, tail @ ..] = rest {
        state = state.word(*word);
        rest = tail;
    }
    state.finish(0, 8 * N as u8)
}

/// SipHash-2-4 of an input that comes in parts; a copy of it goes on from where the original stands.
#[derive(Clone, Copy)]
pub struct SipHash24(State);

impl SipHash24 {
    /// No input so far.
    #[inline(always)]
    pub const fn new([k0, k1]: [u64; 2]) -> Self {
        Self(State {
            v0: k0 ^ 0x736f_6d65_7073_6575,
            v1: k1 ^ 0x646f_7261_6e64_6f6d,
            v2: k0 ^ 0x6c79_6765_6e65_7261,
            v3: k1 ^ 0x7465_6462_7974_6573,
        })
    }

    /// Eight more bytes.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, word: u64) -> Self {
        Self(self.0.compress(word))
    }

    /// The hash, with the last `len % 8` bytes of input in the low end of `tail`; `len` counts all bytes.
    #[inline(always)]
    pub const fn finish(self, tail: u64, len: u8) -> u64 {
        self.0.compress((len as u64) << 56 | tail).finish()
    }
}

/// SipHash-2-4 with 128 bits of output, the reference implementation's `outlen` of 16.
#[derive(Clone, Copy)]
pub struct SipHash128(State);

impl SipHash128 {
    /// No input so far.
    #[inline(always)]
    pub const fn new(key: [u64; 2]) -> Self {
        let SipHash24(mut state) = SipHash24::new(key);
        state.v1 ^= 0xee;
        Self(state)
    }

    /// Eight more bytes.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, word: u64) -> Self {
        Self(self.0.compress(word))
    }

    /// The hash, first half first, with the last `len % 8` bytes of input in the low end of `tail`; `len` counts
    /// all bytes.
    #[inline(always)]
    pub const fn finish(self, tail: u64, len: u8) -> [u64; 2] {
        let mut state = self.0.compress((len as u64) << 56 | tail);
        state.v2 ^= 0xee;
        state = state.four_rounds();
        let first = state.folded();
        state.v1 ^= 0xdd;
        [first, state.four_rounds().folded()]
    }
}

#[derive(Clone, Copy)]
struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline(always)]
    const fn compress(mut self, word: u64) -> Self {
        self.v3 ^= word;
        self = self.round().round();
        self.v0 ^= word;
        self
    }

    #[inline(always)]
    const fn finish(mut self) -> u64 {
        self.v2 ^= 0xff;
        self.four_rounds().folded()
    }

    #[inline(always)]
    const fn four_rounds(self) -> Self {
        self.round().round().round().round()
    }

    #[inline(always)]
    const fn folded(self) -> u64 {
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }

    #[inline(always)]
    const fn round(self) -> Self {
        let Self {
            mut v0,
            mut v1,
            mut v2,
            mut v3,
        } = self;
        v0 = v0.wrapping_add(v1);
        v2 = v2.wrapping_add(v3);
        v1 = v1.rotate_left(13) ^ v0;
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.rotate_left(32);
        v2 = v2.wrapping_add(v1);
        v0 = v0.wrapping_add(v3);
        v1 = v1.rotate_left(17) ^ v2;
        v3 = v3.rotate_left(21) ^ v0;
        v2 = v2.rotate_left(32);
        Self { v0, v1, v2, v3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key bytes 00 01 .. 0f, as in the reference implementation's vectors.
    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    /// Words 0.. of the reference input 00 01 02 ..
    const fn input<const N: usize>() -> [u64; N] {
        let mut words = [0; N];
        let mut at = 0;
        while at < N {
            words[at] = 0x0706_0504_0302_0100 + 0x0808_0808_0808_0808 * at as u64;
            at += 1;
        }
        words
    }

    /// `vectors_sip64` of the reference implementation, the entries for inputs
    /// of 0, 8, 16, .. 56 bytes.
    #[test]
    fn reference_vectors() {
        let expect = |bytes: [u8; 8]| u64::from_le_bytes(bytes);
        let vector_0 = expect([0x31, 0x0e, 0x0e, 0xdd, 0x47, 0xdb, 0x6f, 0x72]);
        let vector_8 = expect([0x62, 0x24, 0x93, 0x9a, 0x79, 0xf5, 0xf5, 0x93]);
        let vector_16 = expect([0xdb, 0x9b, 0xc2, 0x57, 0x7f, 0xcc, 0x2a, 0x3f]);
        assert_eq!(siphash24(KEY, &input::<0>()), vector_0);
        assert_eq!(siphash24(KEY, &input::<1>()), vector_8);
        assert_eq!(siphash24(KEY, &input::<2>()), vector_16);
    }

    /// `vectors_sip128` of the reference implementation, the entries for inputs of 0, 3, 8, 15 and 16 bytes.
    #[test]
    fn reference_vectors_of_128_bits() {
        for (len, expected) in [
            (0, 0xa381_7f04_ba25_a8e6_6df6_7214_c755_0293_u128),
            (3, 0x9c70_b60c_5267_a94e_5f33_b6b0_2985_ed51),
            (8, 0x3b62_a9ba_6258_f561_0f83_e264_f314_97b4),
            (15, 0x5493_e999_33b0_a811_7e08_ec0f_97cf_c3d9),
            (16, 0x6ee2_a4ca_67b0_54bb_fd33_15bf_8523_0577),
        ] {
            let [first, second, third] = input::<3>();
            let start = SipHash128::new(KEY);
            let (hash, next) = match len / 8 {
                0 => (start, first),
                1 => (start.word(first), second),
                _ => (start.word(first).word(second), third),
            };
            let tail = next & !(u64::MAX << (8 * (len % 8)));
            let [a, b] = hash.finish(tail, len);
            let bytes = u128::from(a.swap_bytes()) << 64 | u128::from(b.swap_bytes());
            assert_eq!(bytes, expected, "{len} bytes");
        }
    }

    #[test]
    fn length_is_part_of_the_hash() {
        assert_ne!(siphash24(KEY, &[0]), siphash24(KEY, &[0, 0]));
    }
}
