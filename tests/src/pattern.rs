//! Endless bytes that both ends can make by themselves: what is sent can be checked without being
//! stored, and a byte in the wrong place is found.

use std::io::{self, Write};

/// A repeatable stream of bytes (SplitMix64 over a counter).
#[derive(Clone, Debug)]
pub struct Pattern {
    seed: u64,
    at: u64,
}

impl Pattern {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, at: 0 }
    }

    /// Fills a buffer with the next bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        let mut rest = buffer;
        while !rest.is_empty() {
            let word = mix(self.seed.wrapping_add(self.at >> 3)).to_le_bytes();
            let skip = usize::try_from(self.at & 7).unwrap_or_default();
            let now = rest.len().min(8 - skip);
            let (head, tail) = rest.split_at_mut(now);
            head.copy_from_slice(&word[skip..skip + now]);
            self.at += now as u64;
            rest = tail;
        }
    }
}

/// Writes the first `length` bytes of a seed's stream.
pub fn write(seed: u64, length: u64, to: &mut impl Write) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; 64 << 10];
    let mut rest = length;
    while rest > 0 {
        let now = usize::try_from(rest)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        pattern.fill(&mut buffer[..now]);
        to.write_all(&buffer[..now])?;
        rest -= now as u64;
    }
    to.flush()
}

/// The SHA-256 of the first `length` bytes of a seed's stream, in hexadecimal.
#[must_use]
pub fn digest(seed: u64, length: u64) -> String {
    let mut hash = Hash::default();
    // Hashing cannot fail.
    let _ = write(seed, length, &mut hash);
    hash.finish()
}

/// A running SHA-256.
#[derive(Clone, Debug, Default)]
pub struct Hash(sha2::Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Hash {
    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.0, bytes);
    }

    /// The digest in hexadecimal.
    #[must_use]
    pub fn finish(self) -> String {
        sha2::Digest::finalize(self.0)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Hash, Pattern, digest};

    #[test]
    fn the_stream_does_not_depend_on_how_it_is_cut() {
        let mut whole = [0; 1000];
        Pattern::new(3).fill(&mut whole);
        let (mut cut, mut pattern) = ([0; 1000], Pattern::new(3));
        for piece in cut.chunks_mut(7) {
            pattern.fill(piece);
        }
        assert_eq!(whole, cut);
        let mut hash = Hash::default();
        hash.add(&whole);
        assert_eq!(digest(3, 1000), hash.finish());
        assert_ne!(digest(3, 1000), digest(4, 1000));
    }
}
