//! How many flows each source has ([`forwarder_common::source_flows`]): the daemon's side.
//!
//! The cells are mapped into memory, so that what the daemon adds and sets right is as atomic as what programs add.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use aya::maps::MapData;
use forwarder_common::abi::Address;
use forwarder_common::source_flows::{
    ALL, CELLS, LESS, MORE, ROWS, cell, count, digest, set_right,
};

/// A packet that was under way is done with its counts. Programs take microseconds.
const UNDER_WAY: Duration = Duration::from_millis(5);

/// The cells, and the secret of their hash.
pub struct SourceFlows {
    secret: [u64; 2],
    cells: Mapped,
}

impl SourceFlows {
    /// Over the map [`abi::map::SOURCE_FLOWS`](forwarder_common::abi::map::SOURCE_FLOWS), of which it keeps no descriptor,
    /// and with the secret of the settings.
    ///
    /// # Errors
    /// The map cannot be mapped into memory.
    pub fn over(map: &MapData, secret: [u64; 2]) -> io::Result<Self> {
        let cells = Mapped::new(map)?;
        Ok(Self { secret, cells })
    }

    /// A flow of this client is about to be made.
    pub fn more(&self, client: &Address) {
        self.add(client, MORE);
    }

    /// A flow of this client was removed, or not made.
    pub fn less(&self, client: &Address) {
        self.add(client, LESS);
    }

    fn add(&self, client: &Address, change: u64) {
        for at in cells(digest(self.secret, client)) {
            if let Some(cell) = self.cells.all().get(at) {
                cell.fetch_add(change, Ordering::SeqCst);
            }
        }
    }

    /// Flows of the client's source, and of all, as the programs see them.
    pub fn of(&self, client: &Address) -> (u32, u32) {
        let flows = |at: u32| self.cells.all().get(at as usize).map_or(0, read);
        let digest = digest(self.secret, client);
        let own = (0..ROWS).map(|row| flows(cell(digest, row))).min();
        (own.unwrap_or(0), flows(ALL))
    }

    /// Begins to count all flows.
    pub fn census(&self) -> Census {
        Census::begin(self.secret, self.cells.all())
    }

    /// Sets right what differs from what was counted. Says in how many cells that was.
    pub fn set_right(&self, census: &Census) -> usize {
        census.set_right(self.cells.all())
    }
}

fn read(cell: &AtomicU64) -> u32 {
    count(cell.load(Ordering::SeqCst))
}

/// Where a source counts.
fn cells(digest: u64) -> impl Iterator<Item = usize> {
    let rows = (0..ROWS).map(move |row| cell(digest, row));
    rows.chain([ALL]).map(|at| at as usize)
}

/// A count of all flows, and the cells as they were before.
pub struct Census {
    secret: [u64; 2],
    before: Vec<u64>,
    counted: Vec<u32>,
}

impl Census {
    /// What was counted and is not made yet, or removed and is counted still, is done with when the count begins.
    fn begin(secret: [u64; 2], cells: &[AtomicU64]) -> Self {
        let before: Vec<u64> = cells
            .iter()
            .map(|cell| cell.load(Ordering::SeqCst))
            .collect();
        thread::sleep(UNDER_WAY);
        Self {
            secret,
            counted: vec![0; before.len()],
            before,
        }
    }

    /// A flow of this client is there.
    pub fn saw(&mut self, client: &Address) {
        for at in cells(digest(self.secret, client)) {
            if let Some(counted) = self.counted.get_mut(at) {
                *counted += 1;
            }
        }
    }

    /// A cell that has changed since is left alone: the next sweep will see it.
    fn set_right(&self, cells: &[AtomicU64]) -> usize {
        let wrong = |(before, counted): (&u64, &u32)| *before as u32 != *counted;
        if !self.before.iter().zip(&self.counted).any(wrong) {
            return 0;
        }
        // A flow that was removed during the count is counted no more by now.
        thread::sleep(UNDER_WAY);
        let all = cells.iter().zip(&self.before).zip(&self.counted);
        all.filter(|((cell, before), counted)| {
            **before as u32 != **counted
                && cell
                    .compare_exchange(
                        **before,
                        set_right(**before, **counted),
                        Ordering::SeqCst,
                        Ordering::SeqCst,
                    )
                    .is_ok()
        })
        .count()
    }
}

/// The cells in memory.
struct Mapped(NonNull<AtomicU64>);

// SAFETY: memory of the process's own until it is dropped, and changed by atomic operations only.
unsafe impl Send for Mapped {}

impl Mapped {
    const BYTES: usize = CELLS as usize * size_of::<AtomicU64>();

    fn new(map: &MapData) -> io::Result<Self> {
        // SAFETY: nothing is at a fixed address; the kernel refuses what is larger than the map.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(at.cast())
            .map(Self)
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
    }

    fn all(&self) -> &[AtomicU64] {
        // SAFETY: mapped for as long as this lives, page-aligned, and as long as that.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), CELLS as usize) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, with this length, and nobody holds a reference any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), Self::BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    use forwarder_common::abi::address_v4;

    use super::*;

    const SECRET: [u64; 2] = [3, 4];

    fn client(number: u32) -> Address {
        address_v4((0x0900_0000 | number).to_be_bytes())
    }

    fn add(all: &[AtomicU64], client: &Address, change: u64) {
        for at in cells(digest(SECRET, client)) {
            all[at].fetch_add(change, Ordering::SeqCst);
        }
    }

    fn flows(all: &[AtomicU64], client: &Address) -> u32 {
        cells(digest(SECRET, client))
            .map(|at| read(&all[at]))
            .min()
            .unwrap()
    }

    fn none() -> Vec<AtomicU64> {
        (0..CELLS).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_quiet_sweep_sets_right_what_is_wrong() {
        let all = none();
        for (number, counted) in [(1, 5), (2, 9), (3, 0), (4, 2)] {
            (0..counted).for_each(|_| add(&all, &client(number), MORE));
        }
        let mut census = Census::begin(SECRET, &all);
        for (number, flows) in [(1, 5), (2, 3), (3, 4), (4, 0)] {
            (0..flows).for_each(|_| census.saw(&client(number)));
        }
        assert_eq!(census.set_right(&all), 3 * ROWS as usize + 1);
        let counts = [1, 2, 3, 4].map(|number| flows(&all, &client(number)));
        assert_eq!((counts, read(&all[ALL as usize])), ([5, 3, 4, 0], 12));
        // Nothing is wrong now.
        let mut census = Census::begin(SECRET, &all);
        for (number, flows) in [(1, 5), (2, 3), (3, 4)] {
            (0..flows).for_each(|_| census.saw(&client(number)));
        }
        assert_eq!(census.set_right(&all), 0);
    }

    #[test]
    fn what_changes_meanwhile_is_left_alone() {
        let all = none();
        add(&all, &client(1), MORE);
        let census = Census::begin(SECRET, &all);
        // As many as before, but others: the count missed the old one and the new one.
        add(&all, &client(1), MORE);
        add(&all, &client(1), LESS);
        assert_eq!(census.set_right(&all), 0);
        assert_eq!(flows(&all, &client(1)), 1);
    }

    /// Sweeps while flows come and go: no count is lost by them.
    #[test]
    fn sweeps_disturb_nothing() {
        const SOURCES: u32 = 40;
        let all = none();
        // As the kernel lists them: what stays during the listing is listed once.
        let table: Vec<Mutex<u32>> = (0..SOURCES).map(|_| Mutex::new(0)).collect();
        let sweep = || {
            let mut census = Census::begin(SECRET, &all);
            for (number, flows) in (0..).zip(&table) {
                (0..*flows.lock().unwrap()).for_each(|_| census.saw(&client(number)));
            }
            census.set_right(&all)
        };
        // Two threads beside forty sweeps; with `drift`, somebody who is killed in between, again and again.
        let churn = |drift: bool| {
            let over = AtomicBool::new(false);
            thread::scope(|scope| {
                for thread in 0..2_u32 {
                    let (all, table, over) = (&all, &table, &over);
                    scope.spawn(move || {
                        let mut step = thread;
                        while !over.load(Ordering::SeqCst) {
                            step = step.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                            let number = (step >> 8) % SOURCES;
                            let mut flows = table[number as usize].lock().unwrap();
                            if step >> 31 == 0 {
                                add(all, &client(number), MORE);
                                *flows += 1;
                            } else if *flows > 0 {
                                *flows -= 1;
                                add(all, &client(number), LESS);
                            }
                            drop(flows);
                            // Some cells change during a sweep, others do not.
                            thread::sleep(Duration::from_micros(300));
                        }
                    });
                }
                let mut set_right = 0;
                for round in 0..40 {
                    if drift {
                        let change = if round % 2 == 0 { MORE } else { LESS };
                        add(&all, &client(round), change);
                    }
                    set_right += sweep();
                }
                over.store(true, Ordering::SeqCst);
                set_right
            })
        };
        let is_exact = || {
            (0..)
                .zip(&table)
                .all(|(number, truth)| flows(&all, &client(number)) == *truth.lock().unwrap())
        };
        assert!(churn(true) > 0);
        sweep();
        assert!(is_exact());
        assert_eq!(churn(false), 0, "a sweep took for wrong what was right");
        assert!(is_exact(), "a sweep lost a count");
    }
}
