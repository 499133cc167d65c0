//! Properties of the Maglev table and of the token bucket.

use forwarder_common::maglev::{Candidate, MAX_WEIGHT, NO_NODE, TABLE_SIZE, build};
use forwarder_common::token_bucket::{Limit, TokenBucket};
use proptest::prelude::*;

/// A table whose ordinals are the positions in `nodes`.
fn table(nodes: &[(String, u32)]) -> Vec<u16> {
    let mut candidates: Vec<_> = nodes
        .iter()
        .enumerate()
        .map(|(ordinal, (name, weight))| Candidate::new(ordinal as u16, name.as_bytes(), *weight))
        .collect();
    let mut table = [NO_NODE; TABLE_SIZE];
    build(&mut candidates, &mut table);
    table.to_vec()
}

/// The same table with names for ordinals.
fn named(nodes: &[(String, u32)]) -> Vec<String> {
    table(nodes)
        .iter()
        .map(|ordinal| nodes[usize::from(*ordinal)].0.clone())
        .collect()
}

fn share(table: &[u16], ordinal: u16) -> usize {
    table.iter().filter(|entry| **entry == ordinal).count()
}

/// Distinct node names, each with a weight.
fn nodes(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(String, u32)>> {
    prop::collection::hash_map("10\\.[0-9]\\.[0-9]{1,2}\\.[0-9]{1,2}:443", 1u32..5, count)
        .prop_map(|nodes| nodes.into_iter().collect())
}

fn equal(mut nodes: Vec<(String, u32)>) -> Vec<(String, u32)> {
    nodes.iter_mut().for_each(|(_, weight)| *weight = 1);
    nodes
}

proptest! {
    #[test]
    fn shares_follow_the_weights(nodes in nodes(1..20)) {
        let table = table(&nodes);
        prop_assert!(!table.contains(&NO_NODE));
        let total: u32 = nodes.iter().map(|(_, weight)| weight).sum();
        for (ordinal, (name, weight)) in nodes.iter().enumerate() {
            let ideal = TABLE_SIZE as f64 * f64::from(*weight) / f64::from(total);
            let share = share(&table, ordinal as u16) as f64;
            // The last round may end before everyone had a turn.
            prop_assert!((share - ideal).abs() <= 2.0, "{name}: {share} of ideally {ideal}");
        }
    }

    #[test]
    fn order_of_the_list_does_not_matter(nodes in nodes(1..20), turn in 0usize..20) {
        let mut turned = nodes.clone();
        turned.rotate_left(turn % nodes.len());
        prop_assert_eq!(named(&nodes), named(&turned));
        turned.reverse();
        prop_assert_eq!(named(&nodes), named(&turned));
    }

    /// Removing one of n nodes has to move its own share. Maglev moves a little
    /// more; a modulo hash would move nearly everything.
    #[test]
    fn removing_a_node_moves_little_else(nodes in nodes(3..15).prop_map(equal), gone: prop::sample::Index) {
        let gone = gone.index(nodes.len());
        let before = named(&nodes);
        let mut fewer = nodes.clone();
        let (gone, _) = fewer.remove(gone);
        let after = named(&fewer);
        let moved = before.iter().zip(&after).filter(|(was, is)| **was != gone && was != is).count();
        prop_assert!(moved * 4 <= TABLE_SIZE, "{moved} entries of others moved");
    }

    #[test]
    fn any_weight_terminates(weights in prop::collection::vec(any::<u32>(), 0..8)) {
        let nodes: Vec<_> =
            weights.iter().enumerate().map(|(at, weight)| (format!("node-{at}"), *weight)).collect();
        let table = table(&nodes);
        for (ordinal, weight) in weights.iter().enumerate() {
            prop_assert!(*weight > 0 || share(&table, ordinal as u16) == 0);
        }
        prop_assert_eq!(table.contains(&NO_NODE), weights.iter().all(|weight| *weight == 0));
    }

    /// Over any stretch of time no more than burst + rate x time events pass,
    /// and a patient caller is never refused.
    #[test]
    fn bucket_keeps_its_limit(
        rate in 1u32..100_000,
        burst in 1u32..1000,
        start in 0u64..1 << 60,
        gaps in prop::collection::vec(0u64..100_000_000, 1..300),
    ) {
        let limit = Limit::per_second(rate, burst);
        let mut bucket = TokenBucket::default();
        let (mut now, mut allowed) = (start, 0u64);
        for gap in gaps {
            now += gap;
            allowed += u64::from(bucket.take(now, limit));
            let ceiling = u64::from(burst) + (now - start) / limit.interval_ns;
            prop_assert!(allowed <= ceiling, "{allowed} events, {ceiling} permitted");
        }
        prop_assert!(bucket.take(now + limit.interval_ns * u64::from(burst), limit));
    }

    /// The same decisions as a bucket that counts its tokens.
    #[test]
    fn bucket_matches_a_counting_model(
        burst in 1u32..20,
        gaps in prop::collection::vec(0u64..3_000, 1..300),
    ) {
        let limit = Limit::per_second(1_000_000, burst);
        let mut bucket = TokenBucket::default();
        let capacity = u64::from(burst) * limit.interval_ns;
        let (mut now, mut credit) = (5_000, capacity);
        for gap in gaps {
            now += gap;
            credit = capacity.min(credit + gap);
            let expected = credit >= limit.interval_ns;
            if expected {
                credit -= limit.interval_ns;
            }
            prop_assert_eq!(bucket.take(now, limit), expected);
        }
    }
}

#[test]
fn heaviest_and_lightest_weight_share_a_table() {
    let nodes = [("light".to_owned(), 1), ("heavy".to_owned(), MAX_WEIGHT)];
    let table = table(&nodes);
    assert!((1..=2).contains(&share(&table, 0)), "{}", share(&table, 0));
}

/// Entrances and versions must agree on where a client goes: a change of the
/// hash or of the turns shows here.
#[test]
fn placement_is_stable() {
    let nodes: Vec<_> = [("10.0.0.2:443", 1), ("10.0.0.6:443", 2)]
        .map(|(name, weight)| (name.to_owned(), weight))
        .into();
    assert_eq!(
        table(&nodes)[..16],
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1, 1, 1, 1]
    );
}
