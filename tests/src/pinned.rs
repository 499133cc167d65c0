//! What the pinned maps say about the configuration, byte for byte: what a reload must leave alone when it is refused.
//!
//! Counters, flows, hellos, free ports and keys are left out: they change by themselves.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::path::Path;

use aya::Pod;
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use forwarder_common::abi::{
    ABI_VERSION, Endpoint, MaglevTable, NAME_KEY_BYTES, NameEntry, NameKey, Node, Path as Way,
    Pool, Settings, Vip, map,
};

/// The bytes of each map that is written from the configuration: every key followed by its value.
///
/// # Errors
/// A map that is not pinned below `bpffs`, or that cannot be read.
pub fn configuration(bpffs: &Path) -> Result<BTreeMap<&'static str, Vec<u8>>, MapError> {
    let at = bpffs.join(format!("v{ABI_VERSION}"));
    let open = |name| MapData::from_pin(at.join(name));
    let mut all = BTreeMap::new();
    let mut array = |name, values: Vec<u8>| all.insert(name, values);
    array(map::VIPS, values::<{ size_of::<Vip>() }>(open(map::VIPS)?)?);
    array(
        map::POOLS,
        values::<{ size_of::<Pool>() }>(open(map::POOLS)?)?,
    );
    array(
        map::PATHS,
        values::<{ size_of::<Way>() }>(open(map::PATHS)?)?,
    );
    array(
        map::NODES,
        values::<{ size_of::<Node>() }>(open(map::NODES)?)?,
    );
    array(
        map::SETTINGS,
        values::<{ size_of::<Settings>() }>(open(map::SETTINGS)?)?,
    );
    // By its type: an array of bytes of this size would not fit on the stack.
    let maglev: Array<_, MaglevTable> = Map::Array(open(map::MAGLEV)?).try_into()?;
    let mut tables = Vec::new();
    for table in maglev.iter() {
        tables.extend(bytes(&table?));
    }
    array(map::MAGLEV, tables);
    array(map::VIP_SLOTS, values::<4>(open(map::VIP_SLOTS)?)?);
    for name in [map::VIP_INDEX, map::NODE_INDEX] {
        let index: HashMap<_, [u8; size_of::<Endpoint>()], u32> =
            Map::HashMap(open(name)?).try_into()?;
        array(name, pairs(index.iter())?);
    }
    let names: HashMap<_, [u8; size_of::<NameKey>()], [u8; size_of::<NameEntry>()]> =
        Map::HashMap(open(map::NAMES)?).try_into()?;
    array(map::NAMES, pairs(names.iter())?);
    let wildcards: LpmTrie<_, [u8; NAME_KEY_BYTES], [u8; size_of::<NameEntry>()]> =
        Map::LpmTrie(open(map::WILDCARDS)?).try_into()?;
    let mut listed = BTreeMap::new();
    for entry in wildcards.iter() {
        let (key, value) = entry?;
        listed.insert((key.prefix_len(), key.data()), value);
    }
    let listed = listed.into_iter().flat_map(|((length, name), value)| {
        let length = length.to_ne_bytes();
        length
            .into_iter()
            .chain(name)
            .chain(value)
            .collect::<Vec<u8>>()
    });
    array(map::WILDCARDS, listed.collect());
    Ok(all)
}

/// Every value of an array.
fn values<const N: usize>(map: MapData) -> Result<Vec<u8>, MapError> {
    let array: Array<_, [u8; N]> = Map::Array(map).try_into()?;
    let mut all = Vec::new();
    for value in array.iter() {
        all.extend(value?);
    }
    Ok(all)
}

/// Every pair, in the order of the keys.
fn pairs<K: Pod + Ord + Borrow<[u8]>, V: Pod>(
    pairs: impl Iterator<Item = Result<(K, V), MapError>>,
) -> Result<Vec<u8>, MapError> {
    let sorted: BTreeMap<K, Vec<u8>> = pairs
        .map(|pair| pair.map(|(key, value)| (key, bytes(&value))))
        .collect::<Result<_, _>>()?;
    let flat = sorted.into_iter().flat_map(|(key, value)| {
        let mut pair: Vec<u8> = key.borrow().to_vec();
        pair.extend(value);
        pair
    });
    Ok(flat.collect())
}

fn bytes<T: Pod>(value: &T) -> Vec<u8> {
    // SAFETY: `Pod` promises a type of plain bytes; the slice lives no longer than the value it is of.
    let bytes = unsafe {
        std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>())
    };
    bytes.to_vec()
}
