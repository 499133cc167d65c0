//! What the kernel programs and the daemon share: map names, keys, values, tail-call slots.
//!
//! Every type is `repr(C)`, made of integers only, without implicit padding, and its size is asserted.
//! A change to any of them raises [`ABI_VERSION`], which is part of the pin path, so that a daemon never
//! reads a map of another layout.
//!
//! Addresses are four 32-bit words as they stand in a packet (network order in memory); IPv4 is held as
//! `::ffff:a.b.c.d` (RFC 4291 2.5.5.2). A field whose name ends in `_be` is in network order.
//! Times named `_ms` are milliseconds of `CLOCK_MONOTONIC`, modulo 2^32.

macro_rules! abi {
    ($($(#[$meta:meta])* $size:literal struct $name:ident { $($(#[$fmeta:meta])* $field:ident: $ty:ty,)+ })+) => {
        $(
            $(#[$meta])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name { $($(#[$fmeta])* pub $field: $ty,)+ }

            const _: () = assert!(size_of::<$name>() == $size);
            const _: () = assert!($(size_of::<$ty>() +)+ 0 == $size, "implicit padding");

            // SAFETY: integers and arrays of integers only, no padding (asserted above): any bytes are valid.
            #[cfg(feature = "user")]
            #[allow(clippy::undocumented_unsafe_blocks, reason = "documented above")]
            unsafe impl aya::Pod for $name {}
        )+
    };
}

pub mod address;
mod closed;
mod counters;
mod endpoint;
mod event;
mod flow;
mod hello;
pub mod link;
pub mod map;
mod name;
mod node;
mod policy;
mod pool;
pub mod program;
mod settings;
pub mod slot;
pub mod stage;
pub mod tally;
mod target;
mod vip;

pub use self::address::{Address, V4_MAPPED, address_v4, address_v6, is_v4, same};
pub use self::closed::{Closed, ClosedSet};
pub use self::counters::{ListenerStats, NodeStats, PathStats};
pub use self::endpoint::Endpoint;
pub use self::event::{Event, NONE, close_reason, event_kind};
pub use self::flow::{Flow, FlowKey, ReverseKey, mark, state};
pub use self::hello::{HELLO_BYTES, HELLO_CAP, HELLO_PREFIX, Hello, hello_state};
pub use self::link::PublicLink;
pub use self::name::{NAME_KEY_BYTES, NameEntry, NameKey};
pub use self::node::{HOMES, NO_HOME, Node};
pub use self::policy::{SourceRule, source_rule};
pub use self::pool::{MaglevTable, Pool, balance, client_address};
pub use self::settings::{Settings, events};
pub use self::target::Path;
pub use self::vip::{Vip, on_refuse};

/// The layout of all these types and maps. Part of the pin path: `<bpffs>/v6`.
pub const ABI_VERSION: u32 = 6;
