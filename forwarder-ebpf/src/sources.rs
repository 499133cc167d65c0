//! Whether a source may open a connection; see [`forwarder_common::admit`].

use aya_ebpf::maps::lpm_trie::Key;
use forwarder_common::abi::{Address, SourceRule};
use forwarder_common::admit;
use forwarder_common::verdict::DropReason;

use crate::maps::SOURCE_RULES;

/// The rule of the longest prefix that covers an address.
#[inline(always)]
pub fn rule(address: &Address) -> Option<&'static SourceRule> {
    SOURCE_RULES.get(Key::new(128, *address))
}

/// Why a source may not connect to `local`, if so.
#[inline(always)]
pub fn refused<const V6: bool>(source: &Address, local: &Address) -> Option<DropReason> {
    if let Some(reason) = admit::impossible::<V6>(source, local) {
        return Some(reason);
    }
    admit::by_rule(rule(source)?)
}
