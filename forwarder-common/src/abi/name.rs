//! Listed names: their keys and what they lead to.

/// Size of a wildcard's key without its prefix length: the most an LPM trie takes.
pub const NAME_KEY_BYTES: usize = 256;

abi! {
    /// A listed name in a table, by its digest: see `name_key`.
    16 struct NameKey {
        /// The first 64 bits of the digest.
        digest: u64,
        /// 48 further bits of the digest, and in the low 16 the table.
        more_and_table: u64,
    }

    /// What a listed name leads to.
    8 struct NameEntry {
        /// Number of the listed name or pattern, for events and `status`.
        name: u32,
        /// First [`super::Path`] of (this listener, this route); the node's ordinal is added.
        path_base: u16,
        /// Index of [`super::map::POOLS`].
        pool: u16,
    }
}
