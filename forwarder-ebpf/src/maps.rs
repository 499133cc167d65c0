//! All maps. Names, keys and values are the ABI's; sizes here are defaults that the daemon overrides.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_fib_lookup};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::LpmTrie;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, Queue, RingBuf};
use forwarder_common::abi::{
    Address, ClosedSet, Endpoint, Event, Flow, FlowKey, Hello, ListenerStats, MaglevTable,
    NAME_KEY_BYTES, NameEntry, NameKey, Node, NodeStats, Path, PathStats, Pool, PublicLink,
    ReverseKey, Settings, SourceRule, Vip, slot, stage, tally,
};
use forwarder_common::closed;
use forwarder_common::node_options::LeastMss;
use forwarder_common::source_flows;
use forwarder_common::token_bucket::TokenBucket;
use forwarder_common::verdict::REASONS;

use crate::displace::Sample;
use crate::next_hop::{self, NextHop};
use crate::work::{CHUNK as CHUNK_BYTES, Work};

/// A piece of a packet.
#[repr(C)]
pub struct Chunk(pub [u8; CHUNK_BYTES + 16]);

/// Key of a look-up in the trie: prefix length in bits, table and reversed name, which begin at a multiple of
/// eight because they are also read by words.
#[repr(C)]
pub struct TrieKey {
    pub pad: u32,
    pub bits: u32,
    pub bytes: [u8; NAME_KEY_BYTES],
}

#[map]
pub static VIP_INDEX: HashMap<Endpoint, u32> = HashMap::with_max_entries(256, 0);
#[map]
pub static VIP_SLOTS: Array<u32> = Array::with_max_entries(slot::COUNT, 0);
#[map]
pub static VIPS: Array<Vip> = Array::with_max_entries(256, 0);
// Room for a million names would be 90 MB, were it taken before there are any.
#[map]
pub static NAMES: HashMap<NameKey, NameEntry> =
    HashMap::with_max_entries(1 << 18, BPF_F_NO_PREALLOC);
#[map]
pub static WILDCARDS: LpmTrie<[u8; NAME_KEY_BYTES], NameEntry> =
    LpmTrie::with_max_entries(1 << 18, 0);
#[map]
pub static VIP_MSS: Array<LeastMss> = Array::with_max_entries(256, 0);
#[map]
pub static POOLS: Array<Pool> = Array::with_max_entries(256, 0);
#[map]
pub static MAGLEV: Array<MaglevTable> = Array::with_max_entries(512, 0);
#[map]
pub static PATHS: Array<Path> = Array::with_max_entries(4096, 0);
#[map]
pub static NODE_INDEX: HashMap<Endpoint, u32> = HashMap::with_max_entries(1024, 0);
#[map]
pub static NODE_SLOTS: Array<u32> = Array::with_max_entries(slot::COUNT, 0);
#[map]
pub static NODES: Array<Node> = Array::with_max_entries(1024, 0);
#[map]
pub static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(65_536, 0);
/// Mostly empty, so it takes memory by the entry.
#[map]
pub static REVERSE: HashMap<ReverseKey, u32> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
#[map]
pub static SOURCE_FLOWS: Array<u64> = Array::with_max_entries(source_flows::CELLS, BPF_F_MMAPABLE);
#[map]
pub static CLOSED: Array<ClosedSet> = Array::with_max_entries(closed::SETS, 0);
#[map]
pub static HELLOS: Array<Hello> = Array::with_max_entries(1024, 0);
#[map]
pub static HELLO_INDEX: HashMap<FlowKey, u32> = HashMap::with_max_entries(1024, 0);
#[map]
pub static HELLO_FREE: Queue<u32> = Queue::with_max_entries(1024, 0);
#[map]
pub static HELLO_LOST: LruHashMap<FlowKey, u32> = LruHashMap::with_max_entries(4096, 0);
#[map]
pub static SOURCE_PORTS: Queue<u32> = Queue::with_max_entries(65_536, 0);
#[map]
pub static PORT_FLOWS: Array<FlowKey> = Array::with_max_entries(65_536, 0);
#[map]
pub static COOKIE_KEYS: Array<[u64; 2]> = Array::with_max_entries(4, 0);
#[map]
pub static SOURCE_RULES: LpmTrie<Address, SourceRule> = LpmTrie::with_max_entries(4096, 0);
#[map]
pub static PUBLIC_LINKS: HashMap<u32, PublicLink> = HashMap::with_max_entries(64, 0);
#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
pub static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASONS as u32, 0);
#[map]
pub static PATH_STATS: PerCpuArray<PathStats> = PerCpuArray::with_max_entries(4096, 0);
#[map]
pub static NODE_STATS: PerCpuArray<NodeStats> = PerCpuArray::with_max_entries(1024, 0);
#[map]
pub static LISTENER_STATS: PerCpuArray<ListenerStats> = PerCpuArray::with_max_entries(64, 0);
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
#[map]
pub static TALLIES: PerCpuArray<u64> = PerCpuArray::with_max_entries(tally::COUNT, 0);
#[map]
pub static STAGES: ProgramArray = ProgramArray::with_max_entries(stage::COUNT, 0);

/// What a stage hands to the next; one per CPU, because a packet is worked on without preemption.
#[map]
pub static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);
/// A piece of a packet, for checksums.
#[map]
pub static CHUNK: PerCpuArray<Chunk> = PerCpuArray::with_max_entries(1, 0);
/// The key of a name look-up.
#[map]
pub static NAME_KEY: PerCpuArray<TrieKey> = PerCpuArray::with_max_entries(1, 0);
/// The event being filled.
#[map]
pub static EVENT: PerCpuArray<Event> = PerCpuArray::with_max_entries(1, 0);
/// Next hops by a hash of the destination.
#[map]
pub static NEXT_HOPS: PerCpuArray<NextHop> = PerCpuArray::with_max_entries(next_hop::SLOTS, 0);
/// Buffers that may have to give way.
#[map]
pub static SAMPLE: PerCpuArray<Sample> = PerCpuArray::with_max_entries(1, 0);
/// Token bucket of resets.
#[map]
pub static RESETS: PerCpuArray<TokenBucket> = PerCpuArray::with_max_entries(1, 0);

/// Token bucket of errors about segments that are too big.
#[map]
pub static ERRORS: PerCpuArray<TokenBucket> = PerCpuArray::with_max_entries(1, 0);

/// Token bucket of segments of unknown connections that the XDP filter hands on.
#[map]
pub static STRAYS: PerCpuArray<TokenBucket> = PerCpuArray::with_max_entries(1, 0);

/// Token bucket of wrong cookies.
#[map]
pub static GUESSES: PerCpuArray<TokenBucket> = PerCpuArray::with_max_entries(1, 0);
/// A question to the routing table.
#[map]
pub static ROUTE: PerCpuArray<bpf_fib_lookup> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's [`Work`].
#[inline(always)]
pub fn work() -> Option<&'static mut Work> {
    // SAFETY: a packet is worked on without preemption, by one stage at a time.
    WORK.get_ptr_mut(0).map(|work| unsafe { &mut *work })
}
