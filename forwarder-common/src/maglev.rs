//! Maglev consistent hashing (Eisenbud et al., NSDI 2016, section 3.4).
//!
//! A pool's table maps a hash to a node. Each node walks the table in an order
//! of its own, made from its name, and the nodes take turns to claim their next
//! free entry. Shares come out even, and adding or removing one node moves few
//! entries of the others. A node's weight is the number of turns it has where
//! the heaviest node has one in each round.
//!
//! The table depends only on the set of names and weights, not on the order in
//! which they are listed, so two entrances with one configuration agree. Tables
//! are built by the daemon; BPF programs only look entries up, at
//! `hash % TABLE_SIZE`.

use crate::abi::Address;
use crate::siphash::siphash24;

/// Entries of a table. A prime, as Maglev's walk needs; about a hundred times
/// the number of nodes a pool is expected to have.
pub const TABLE_SIZE: usize = 1021;

/// The entry of a table without any node.
pub const NO_NODE: u16 = u16::MAX;

/// The largest weight; larger ones count as this.
pub const MAX_WEIGHT: u32 = 1000;

/// Public constant, so that every build places a name alike.
const KEY: [u64; 2] = [0x6672_776d_6167_6c76, 0x0001_0000_0000_03fd];

/// One node while a table is built.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    ordinal: u16,
    weight: u32,
    hash: u64,
    /// Position in this node's walk, and the stride of the walk.
    at: usize,
    stride: usize,
    /// Turns earned and not yet taken, in parts of the heaviest weight.
    credit: u32,
}

impl Candidate {
    /// A node that the table is to call `ordinal`. `name` identifies it across
    /// tables: its address and port, say. Weight 0 gets no entry.
    pub fn new(ordinal: u16, name: &[u8], weight: u32) -> Self {
        let hash = hash_name(0, name);
        let size = TABLE_SIZE as u64;
        Self {
            ordinal,
            weight: weight.min(MAX_WEIGHT),
            hash,
            at: (hash % size) as usize,
            stride: (hash_name(1, name) % (size - 1)) as usize + 1,
            credit: 0,
        }
    }

    /// Claims this node's next free entry. The stride is coprime to the size,
    /// so the walk meets every entry within `TABLE_SIZE` steps.
    fn claim(&mut self, table: &mut [u16; TABLE_SIZE]) -> bool {
        for _ in 0..TABLE_SIZE {
            let entry = table.get_mut(self.at);
            self.at = (self.at + self.stride) % TABLE_SIZE;
            if let Some(entry) = entry
                && *entry == NO_NODE
            {
                *entry = self.ordinal;
                return true;
            }
        }
        false
    }
}

/// Fills `table` for the given nodes, which are sorted and used up on the way.
///
/// Shares are within two entries of what the weights say; a node whose share is
/// less than one entry may get none. Without any weighted node each entry is
/// [`NO_NODE`].
pub fn build(candidates: &mut [Candidate], table: &mut [u16; TABLE_SIZE]) {
    table.fill(NO_NODE);
    let heaviest = candidates
        .iter()
        .map(|candidate| candidate.weight)
        .max()
        .unwrap_or(0);
    if heaviest == 0 {
        return;
    }
    candidates.sort_unstable_by_key(|candidate| (candidate.hash, candidate.ordinal));
    let mut free = TABLE_SIZE;
    while free > 0 {
        for candidate in candidates.iter_mut() {
            candidate.credit += candidate.weight;
            if candidate.credit < heaviest {
                continue;
            }
            candidate.credit -= heaviest;
            if !candidate.claim(table) {
                return;
            }
            free -= 1;
        }
    }
}

/// Where a client stands in the tables of pools that balance by source: the position is this modulo
/// [`TABLE_SIZE`]. Programs choose by it and the daemon explains by it.
#[inline(always)]
#[must_use]
pub const fn client_hash(client: &Address) -> u32 {
    let [a, b, c, d] = *client;
    mix(d ^ mix(c ^ mix(b ^ mix(a))))
}

/// An avalanche of 32 bits (the finaliser of MurmurHash3, public domain).
#[inline(always)]
const fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x85eb_ca6b);
    x ^= x >> 13;
    x = x.wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}

/// Hashes a byte string; `salt` makes independent functions of one.
fn hash_name(salt: u64, name: &[u8]) -> u64 {
    let (words, tail) = name.as_chunks::<8>();
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(tail) {
        *to = *from;
    }
    let head = siphash24(KEY, &[salt, name.len() as u64]);
    words.iter().chain([&last]).fold(head, |state, word| {
        siphash24(KEY, &[state, u64::from_le_bytes(*word)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_size_is_prime() {
        assert!((2..TABLE_SIZE).all(|divisor| !TABLE_SIZE.is_multiple_of(divisor)));
    }

    #[test]
    fn no_nodes_give_an_empty_table() {
        let mut table = [7; TABLE_SIZE];
        build(&mut [], &mut table);
        assert_eq!(table, [NO_NODE; TABLE_SIZE]);

        build(&mut [Candidate::new(0, b"idle", 0)], &mut table);
        assert_eq!(table, [NO_NODE; TABLE_SIZE]);
    }

    #[test]
    fn one_node_gets_everything() {
        let mut table = [NO_NODE; TABLE_SIZE];
        build(&mut [Candidate::new(3, b"10.0.0.2:443", 5)], &mut table);
        assert_eq!(table, [3; TABLE_SIZE]);
    }

    /// Single clients of one network spread over the table; each byte of an address counts.
    #[test]
    fn neighbours_stand_apart() {
        let places: std::collections::BTreeSet<_> = (0..=255)
            .map(|last| client_hash(&crate::abi::address_v4([198, 51, 100, last])))
            .map(|hash| hash % TABLE_SIZE as u32)
            .collect();
        assert!(places.len() > 200, "{}", places.len());
        let mut seen = std::collections::BTreeSet::new();
        for at in 0..16 {
            let mut octets = [0; 16];
            octets[at] = 1;
            assert!(seen.insert(client_hash(&crate::abi::address_v6(octets))));
        }
    }

    #[test]
    fn names_hash_by_length_and_content() {
        assert_ne!(hash_name(0, b""), hash_name(0, b"\0"));
        assert_ne!(hash_name(0, b"12345678"), hash_name(0, b"12345678\0"));
        assert_ne!(hash_name(0, b"a"), hash_name(1, b"a"));
    }
}
