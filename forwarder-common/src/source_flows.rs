//! How many flows a source may have: never more than are left free for all others.
//!
//! A source is an IPv4 address or an IPv6 /64 ([`crate::share::source`]). A new flow of one is refused when it has as
//! many already as there are free entries in the flow table: a dynamic threshold (Choudhury and Hahne, 1998, for
//! buffers of switches). Of an empty table one source may take half, and while the table is far from full no limit is
//! felt; as it fills, the largest sources are limited first. With `k` sources that take all they can, one part in
//! `k + 1` of the table is free for those that come later.
//!
//! Flows are counted in a count-min sketch (Cormode and Muthukrishnan, 2005) under a keyed hash: each source counts in a
//! cell of each row, the least of them is its estimate. It is never below the truth, and nobody can aim at the cells of
//! another. The sketch has a fixed size, however many sources there are. What it says too much of a source without flows
//! is at most the least that others count in one of its cells; that each of the four has one of 64 large sources in it
//! has a probability of 2⁻²⁸.
//!
//! A cell counts flows in its low half, and changes in its high half: whoever finds a cell as it was knows that nothing
//! has happened in between. So the sweeper, which sees every flow, sets right what a killed daemon left wrong, with a
//! compare-and-exchange that programs cannot get in the way of. A flow is counted before it is made and until after it
//! is removed.

use crate::abi::Address;
use crate::share;
use crate::siphash::siphash24;

/// Rows of the sketch.
pub const ROWS: u32 = 4;
/// Cells of a row, a power of two.
pub const COLUMNS: u32 = 1 << 13;
/// The cell behind the rows, which counts all flows.
pub const ALL: u32 = ROWS * COLUMNS;
/// How many cells there are.
pub const CELLS: u32 = ALL + 1;
/// Added to a cell: a flow more, and a change.
pub const MORE: u64 = 1 << 32 | 1;
/// Added to a cell: a flow less, and the change by its carry.
pub const LESS: u64 = 0xffff_ffff;

/// The keyed hash of a client's source; each row uses a part of it.
#[must_use]
#[inline(always)]
pub const fn digest(secret: [u64; 2], client: &Address) -> u64 {
    siphash24(secret, &[share::source(client)])
}

/// The cell of a row in which a source counts.
#[must_use]
#[inline(always)]
pub const fn cell(digest: u64, row: u32) -> u32 {
    row * COLUMNS + ((digest >> (16 * row)) as u32 & (COLUMNS - 1))
}

/// The flows that a cell counts. One that counts less than none, because somebody removed what was never counted, says
/// none.
#[must_use]
#[inline(always)]
pub const fn count(cell: u64) -> u32 {
    let count = cell as u32;
    if count.cast_signed() < 0 { 0 } else { count }
}

/// What a cell is changed to so that it counts as many flows.
#[must_use]
pub const fn set_right(cell: u64, flows: u32) -> u64 {
    (cell & !0xffff_ffff).wrapping_add(1 << 32) | flows as u64
}

/// Whether a source that is estimated to have `own` flows may have another one, in a table that holds `all` of at most
/// `capacity`, where no source may have more than `most` (0: no such limit).
#[must_use]
#[inline(always)]
pub const fn has_room(own: u32, all: u32, capacity: u32, most: u32) -> bool {
    let free = capacity.saturating_sub(all);
    // Who has none is never refused here: a table that is full says so itself.
    (own == 0 || own < free) && (most == 0 || known(own, all) < most)
}

/// How many of the `own` flows that a source is estimated to have are surely its own, when there are `all`: others count
/// in its cells too, this many on average.
#[must_use]
#[inline(always)]
pub const fn known(own: u32, all: u32) -> u32 {
    own.saturating_sub(all / COLUMNS)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::abi::{address_v4, address_v6};

    const SECRET: [u64; 2] = [1, 2];

    /// The sketch as the programs keep it, and the truth.
    struct Table {
        cells: Vec<u64>,
        flows: HashMap<u64, u32>,
        capacity: u32,
    }

    fn v4(number: u32) -> Address {
        address_v4(number.to_be_bytes())
    }

    impl Table {
        fn new(capacity: u32) -> Self {
            Self {
                cells: vec![0; CELLS as usize],
                flows: HashMap::new(),
                capacity,
            }
        }

        fn all(&self) -> u32 {
            self.flows.values().sum()
        }

        fn of(&self, client: &Address) -> u32 {
            let own = self.flows.get(&share::source(client));
            own.copied().unwrap_or_default()
        }

        fn add(&mut self, client: &Address, change: u64) {
            let digest = digest(SECRET, client);
            for at in (0..ROWS).map(|row| cell(digest, row)).chain([ALL]) {
                let cell = &mut self.cells[at as usize];
                *cell = cell.wrapping_add(change);
            }
        }

        fn estimate(&self, client: &Address) -> u32 {
            let digest = digest(SECRET, client);
            let cells = (0..ROWS).map(|row| count(self.cells[cell(digest, row) as usize]));
            cells.min().unwrap()
        }

        fn open(&mut self, client: &Address, most: u32) -> bool {
            let all = count(self.cells[ALL as usize]);
            if self.all() == self.capacity
                || !has_room(self.estimate(client), all, self.capacity, most)
            {
                return false;
            }
            self.add(client, MORE);
            *self.flows.entry(share::source(client)).or_default() += 1;
            true
        }

        fn close(&mut self, client: &Address) -> bool {
            match self.flows.get_mut(&share::source(client)) {
                Some(own) if *own > 0 => *own -= 1,
                _ => return false,
            }
            self.add(client, LESS);
            true
        }

        fn fill(&mut self, clients: impl Iterator<Item = Address> + Clone) {
            loop {
                let before = self.all();
                clients.clone().for_each(|client| {
                    self.open(&client, 0);
                });
                if self.all() == before {
                    return;
                }
            }
        }

        /// What a sweep counts, cell by cell.
        fn counted(&self, clients: &[Address]) -> Vec<u32> {
            let mut counted = vec![0; CELLS as usize];
            for client in clients {
                let digest = digest(SECRET, client);
                for at in (0..ROWS).map(|row| cell(digest, row)).chain([ALL]) {
                    counted[at as usize] += self.of(client);
                }
            }
            counted
        }

        fn is_exact(&self, clients: &[Address]) -> bool {
            let counted = self.counted(clients);
            let cells = self.cells.iter().map(|cell| *cell as u32);
            cells.eq(counted)
        }
    }

    fn clients(count: u32) -> impl Iterator<Item = Address> + Clone {
        (0..count).map(|number| v4(0x0900_0000 + number))
    }

    #[test]
    fn a_source_is_an_address_or_a_64() {
        let v6 = |last: u8, subnet: u8| {
            let mut octets = [0x20; 16];
            (octets[15], octets[7]) = (last, subnet);
            digest(SECRET, &address_v6(octets))
        };
        assert_eq!(v6(1, 1), v6(2, 1));
        assert_ne!(v6(1, 1), v6(1, 2));
        assert_ne!(digest(SECRET, &v4(1)), digest(SECRET, &v4(2)));
        assert_ne!(digest(SECRET, &v4(1)), digest([1, 3], &v4(1)));
    }

    #[test]
    fn one_source_takes_half_and_no_more() {
        let mut table = Table::new(1_000);
        table.fill([v4(1)].into_iter());
        assert_eq!(table.all(), 500);
        assert!(table.open(&v4(2), 0));
    }

    #[test]
    fn a_hard_limit_holds_besides() {
        let mut table = Table::new(1_000);
        assert!((0..7).all(|_| table.open(&v4(1), 7)));
        assert!(!table.open(&v4(1), 7));
        assert!(table.close(&v4(1)) && table.open(&v4(1), 7));
    }

    /// A low limit, and many sources with a flow each: nobody is refused because of what others count in his cells.
    #[test]
    fn a_hard_limit_does_not_fall_on_those_who_have_less() {
        let mut table = Table::new(1 << 18);
        assert!(clients(150_000).all(|client| table.open(&client, 0)));
        let newcomers = (0..2_000).map(|number| v4(0x0b00_0000 + number));
        let refused = newcomers.filter(|client| {
            let all = count(table.cells[ALL as usize]);
            !has_room(table.estimate(client), all, table.capacity, 4)
        });
        // Without the average of others, all of them.
        assert!(refused.count() < 20);
    }

    /// The last entry is anybody's who has none; the table itself refuses when it is full.
    #[test]
    fn who_has_nothing_is_never_refused() {
        let mut table = Table::new(64);
        let sources: Vec<Address> = clients(64).collect();
        assert!(sources.iter().all(|client| table.open(client, 0)));
        assert!(has_room(0, 64, 64, 0) && !has_room(1, 64, 64, 0));
    }

    #[test]
    fn a_cell_below_none_says_none() {
        let below = 0_u64.wrapping_add(LESS);
        assert_eq!((count(below), count(below.wrapping_add(MORE))), (0, 0));
        assert_eq!(count(MORE.wrapping_add(MORE).wrapping_add(LESS)), 1);
        assert_eq!(MORE.wrapping_add(LESS), 2 << 32, "two changes");
        assert_eq!(set_right(MORE, 9), 2 << 32 | 9);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whoever has the addresses to fill the table with many flows from each cannot keep others out.
        #[test]
        fn an_adversary_leaves_room(count in 1_u32..200, capacity in 1_000_u32..20_000, last: u32) {
            let mut table = Table::new(capacity);
            table.fill(clients(count));
            let free = capacity - table.all();
            prop_assert!(free >= capacity / (count + 1), "{free} of {capacity}");
            // A newcomer and a few more behind it, each of which opens what a browser does.
            for other in 0..(free / 12).min(8) {
                let client = v4(0x0a00_0000 | last.wrapping_add(other) & 0xff_ffff);
                for flow in 0..6 {
                    prop_assert!(table.open(&client, 0), "flow {flow} of {other}, {free} were free");
                }
            }
        }

        /// A large source that is there already, a carrier's address for instance, is not refused while most is free.
        #[test]
        fn nobody_is_refused_while_most_is_free(own in 0_u32..30_000, others in 0_u32..30_000) {
            let capacity = 65_536;
            prop_assume!(own + others < capacity / 2);
            prop_assert!(has_room(own, own + others, capacity, 0));
        }

        /// Whatever is opened and closed in whatever order: never below the truth, exact in all cells.
        #[test]
        fn it_never_counts_too_little(steps in prop::collection::vec((0_u32..300, any::<bool>()), 0..2_000)) {
            let mut table = Table::new(1 << 20);
            for (number, open) in &steps {
                let client = v4(*number);
                if *open {
                    table.open(&client, 0);
                } else {
                    table.close(&client);
                }
                prop_assert!(table.estimate(&client) >= table.of(&client));
            }
            let all: Vec<Address> = (0..300).map(v4).collect();
            prop_assert!(table.is_exact(&all));
            prop_assert_eq!(count(table.cells[ALL as usize]), table.all());
        }

        /// Counts that were lost or made twice, by whoever was killed in the middle, are gone after one quiet sweep.
        #[test]
        fn drift_ends_with_a_sweep(
            steps in prop::collection::vec(0_u32..300, 0..500),
            lost in prop::collection::vec((0_u32..300, any::<bool>()), 0..50),
        ) {
            let mut table = Table::new(1 << 20);
            for number in &steps {
                table.open(&v4(*number), 0);
            }
            for (number, more) in &lost {
                table.add(&v4(*number), if *more { MORE } else { LESS });
            }
            let all: Vec<Address> = (0..300).map(v4).collect();
            let counted = table.counted(&all);
            for (cell, flows) in table.cells.iter_mut().zip(counted) {
                *cell = set_right(*cell, flows);
            }
            prop_assert!(table.is_exact(&all));
        }
    }
}
