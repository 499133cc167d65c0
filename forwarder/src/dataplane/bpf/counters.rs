//! Reads the counters: each is kept per processor and summed here.

use aya::maps::PerCpuValues;
use forwarder_common::abi::{ListenerStats, NodeStats, PathStats, map, tally};
use forwarder_common::verdict::DropReason;

use super::maps::{CounterMaps, MapsError, OfMap, found};

/// A record of counters that can be summed field by field.
trait Sum: Sized {
    fn sum<'a>(records: impl Iterator<Item = &'a Self>) -> Self
    where
        Self: 'a;
}

macro_rules! sum_fields {
    ($ty:ident { $($field:ident),+ $(,)? } $([$array:ident])?) => {
        impl Sum for $ty {
            fn sum<'a>(records: impl Iterator<Item = &'a Self>) -> Self {
                let mut total = $ty { $($field: 0,)+ $($array: [0; 16],)? };
                for record in records {
                    $(total.$field = total.$field.wrapping_add(record.$field);)+
                    $(for (to, from) in total.$array.iter_mut().zip(record.$array) {
                        *to = to.wrapping_add(from);
                    })?
                }
                total
            }
        }
    };
}

sum_fields!(PathStats {
    up_packets,
    up_bytes,
    down_packets,
    down_bytes,
    opened,
    closed,
    reset,
    failed,
    replays,
});
sum_fields!(
    NodeStats {
        syns,
        syn_timeouts,
        syn_resets,
        accepted,
        connect_us,
        strays,
    }[connect_buckets]
);
sum_fields!(ListenerStats {
    syns,
    cookies,
    cookies_valid,
    cookies_invalid,
    hellos,
    hello_bytes,
    hello_segments,
    hello_ms,
    opened,
    refused,
    packets,
    bytes,
});

impl Sum for u64 {
    fn sum<'a>(records: impl Iterator<Item = &'a Self>) -> Self {
        records.fold(0, |total, own| total.wrapping_add(*own))
    }
}

fn total<T: Sum + aya::Pod>(values: &PerCpuValues<T>) -> T {
    T::sum(values.iter())
}

impl CounterMaps {
    /// Drops and refusals by reason; reasons this kernel map is too old for are 0.
    pub fn drops(&self) -> Result<Vec<(DropReason, u64)>, MapsError> {
        let mut counts = Vec::new();
        for reason in DropReason::ALL {
            let values = match self.drops.get(&(*reason as u32), 0) {
                Err(aya::maps::MapError::OutOfBounds { .. }) => None,
                other => found(other).reading(map::DROPS)?,
            };
            counts.push((*reason, values.map_or(0, |values| total(&values))));
        }
        Ok(counts)
    }

    /// Events that did not fit into the ring.
    pub fn events_lost(&self) -> Result<u64, MapsError> {
        self.tally(tally::EVENTS_LOST)
    }

    /// Frames by what the XDP filter did with them.
    pub fn xdp(&self) -> Result<Vec<(&'static str, u64)>, MapsError> {
        let slots = tally::XDP.iter();
        slots
            .map(|(slot, label)| Ok((*label, self.tally(*slot)?)))
            .collect()
    }

    fn tally(&self, slot: u32) -> Result<u64, MapsError> {
        let values = self.tallies.get(&slot, 0).reading(map::TALLIES)?;
        Ok(total(&values))
    }

    /// Counters of one path.
    pub fn path(&self, path: u16) -> Result<PathStats, MapsError> {
        let values = self
            .paths
            .get(&u32::from(path), 0)
            .reading(map::PATH_STATS)?;
        Ok(total(&values))
    }

    /// Counters of one node.
    pub fn node(&self, node: u16) -> Result<NodeStats, MapsError> {
        let values = self
            .nodes
            .get(&u32::from(node), 0)
            .reading(map::NODE_STATS)?;
        Ok(total(&values))
    }

    /// Counters of one listener.
    pub fn listener(&self, listener: u16) -> Result<ListenerStats, MapsError> {
        let values = self
            .listeners
            .get(&u32::from(listener), 0)
            .reading(map::LISTENER_STATS)?;
        Ok(total(&values))
    }
}

/// Sums counters of several paths.
pub fn sum_paths<'a>(records: impl Iterator<Item = &'a PathStats>) -> PathStats {
    Sum::sum(records)
}

/// Sums counters of several nodes.
pub fn sum_nodes<'a>(records: impl Iterator<Item = &'a NodeStats>) -> NodeStats {
    Sum::sum(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_summed() {
        let one = PathStats {
            up_packets: 1,
            up_bytes: 2,
            down_packets: 3,
            down_bytes: 4,
            opened: 5,
            closed: 6,
            reset: 7,
            failed: 8,
            replays: 9,
        };
        let two = sum_paths([one, one].iter());
        assert_eq!((two.up_packets, two.down_bytes, two.replays), (2, 8, 18));
        let mut node = NodeStats::sum([].iter());
        node.connect_buckets[3] = 4;
        node.syns = u64::MAX;
        let two = NodeStats::sum([node, node].iter());
        assert_eq!((two.connect_buckets[3], two.syns), (8, u64::MAX - 1));
    }
}
