//! The short search of `cargo test`: kept inputs, then changed ones, without coverage and without libFuzzer.
//!
//! It finds what breaks at once, on every machine, in bounded time, and the same in every run:
//! `FORWARDER_FUZZ_SEED` and `FORWARDER_FUZZ_ROUNDS` choose another. `cargo xtask fuzz` searches properly.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

/// A target with where its inputs are.
pub struct Search<'a> {
    /// Its name.
    pub name: &'a str,
    /// Runs it.
    pub target: fn(&[u8]),
    /// Inputs beside its seeds and crashes: folders, from the root of the repository.
    pub beside: &'a [&'a str],
    /// Changed inputs to try.
    pub rounds: u32,
}

/// Longest input that is made.
const LONGEST: usize = 20_000;

impl Search<'_> {
    /// Runs the target over each kept input, at least `expected` of them, then over changed ones.
    pub fn run(&self, expected: usize) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let own = ["seeds", "crashes"].map(|folder| format!("fuzz/{folder}/{}", self.name));
        let folders = own
            .iter()
            .map(String::as_str)
            .chain(self.beside.iter().copied());
        let mut kept: Vec<PathBuf> = folders
            .filter_map(|folder| fs::read_dir(root.join(folder)).ok())
            .flatten()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .collect();
        kept.sort();
        assert!(kept.len() >= expected, "{} inputs", kept.len());
        let mut inputs = Vec::new();
        for path in kept {
            // Shown when the target panics.
            println!("{}", path.display());
            let input = fs::read(path).unwrap();
            (self.target)(&input);
            inputs.push(input);
        }
        inputs.push(Vec::new());

        let number = |name: &str, otherwise| {
            std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
        };
        let mut random = Random(number("FORWARDER_FUZZ_SEED", 1) | 1 << 40);
        let words = words(&root.join("fuzz/dictionaries").join(self.name));
        for _ in 0..number("FORWARDER_FUZZ_ROUNDS", self.rounds.into()) {
            let input = random.changed(&inputs, &words);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.target)(&input))) {
                let place = root.join("fuzz/crashes").join(self.name);
                fs::create_dir_all(&place).unwrap();
                let place = place.join("found");
                fs::write(&place, &input).unwrap();
                println!("kept as {}", place.display());
                resume_unwind(panic);
            }
        }
    }
}

/// The words of a dictionary in libFuzzer's notation, if there is one.
fn words(path: &Path) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let quoted = text.lines().filter_map(|line| {
        let line = line.trim().strip_prefix('"')?.strip_suffix('"')?;
        Some(unescaped(line))
    });
    quoted.collect()
}

/// `\\`, `\"` and `\xAB`.
fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        out.push(match (*byte, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                rest = after;
                let digits = [*high, *low];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            (b'\\', [other, after @ ..]) => {
                rest = after;
                *other
            }
            (byte, _) => byte,
        });
    }
    out
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn range_of(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(bytes.len() + 1);
        start..start + self.below((bytes.len() - start + 1).min(64))
    }

    /// One of the inputs with one to eight changes.
    fn changed(&mut self, inputs: &[Vec<u8>], words: &[Vec<u8>]) -> Vec<u8> {
        let mut own = inputs[self.below(inputs.len())].clone();
        for _ in 0..=self.below(8) {
            let at = self.below(own.len() + 1);
            match self.below(9) {
                0 if at < own.len() => own[at] ^= 1 << self.below(8),
                1 if at < own.len() => own[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                2 if at < own.len() => own[at] = self.next() as u8,
                3 => own.insert(at, self.next() as u8),
                4 => drop(own.drain(self.range_of(&own))),
                5 => {
                    let piece = own[self.range_of(&own)].to_vec();
                    own.splice(at..at, piece);
                }
                6 => {
                    let other = &inputs[self.below(inputs.len())];
                    let piece = other[self.range_of(other)].to_vec();
                    own.splice(at..at, piece);
                }
                7 if !words.is_empty() => {
                    let word = words[self.below(words.len())].clone();
                    own.splice(at..at, word);
                }
                _ if self.below(8) == 0 => own.truncate(at),
                _ => {}
            }
        }
        own.truncate(LONGEST);
        own
    }
}
