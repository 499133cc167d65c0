//! Keys of exact names in the kernel's hash table: a digest in place of up to 255 bytes of table and name.
//!
//! The digest is SipHash-2-4 with 128 bits of output over the table id and the reversed name in lower case, the
//! bytes that a trie key has before its NUL ([`name`](crate::name)). 112 bits of it are kept, and the 16 bits of the
//! table id stay readable, so that the rows of a table can be told from those of another.
//!
//! Two names of one table may have one key. Of a million names any two do with a probability of 2⁻⁷³, and a name
//! that a client makes up meets one of them with 2⁻⁹²; it would then be led where that one leads. The SipHash key is
//! random and never leaves the machine, so that nobody can look for such names.

use crate::abi::NameKey;
use crate::name::{KEY_BYTES, MAX_NAME, TABLE_ID_BYTES, reversed};
use crate::siphash::SipHash128;

/// Words that the longest name fills. The rest of it is less than a word.
const WORDS: u32 = ((TABLE_ID_BYTES + MAX_NAME) / 8) as u32;
/// The bits of a key that are the table id.
const TABLE_BITS: u64 = 0xffff;

impl NameKey {
    /// The table it belongs to.
    #[must_use]
    pub const fn table(&self) -> u16 {
        (self.more_and_table & TABLE_BITS) as u16
    }
}

/// The key of a name in a table. A name longer than [`MAX_NAME`] is cut.
#[must_use]
pub fn of(secret: [u64; 2], table: u16, name: &str) -> NameKey {
    let (bits, bytes) = reversed(table, name);
    let (words, _) = bytes.as_chunks::<8>();
    const { assert!(KEY_BYTES.is_multiple_of(8)) };
    of_words(secret, table, bits / 8, |at| {
        words
            .get(at as usize)
            .map_or(0, |word| u64::from_le_bytes(*word))
    })
}

/// The same of `len` bytes of table and reversed name that `word` gives by eights, little-endian. Of the last word
/// it may give anything beyond `len`, which is at most 255.
#[inline(always)]
#[must_use]
pub fn of_words(
    secret: [u64; 2],
    table: u16,
    len: u32,
    mut word: impl FnMut(u32) -> u64,
) -> NameKey {
    let mut hash = SipHash128::new(secret);
    let whole = len / 8;
    for at in 0..WORDS {
        if at >= whole {
            break;
        }
        hash = hash.word(word(at));
    }
    let rest = 8 * (len % 8);
    let tail = word(whole) & !(u64::MAX << rest);
    let [digest, more] = hash.finish(tail, len as u8);
    NameKey {
        digest,
        more_and_table: more & !TABLE_BITS | table as u64,
    }
}
