//! Knobs of the data path.

abi! {
    /// Knobs of the data path.
    72 struct Settings {
        /// SipHash key of [`super::NameKey`], [`crate::closed`] and [`crate::source_flows`]: random, made with the maps, and
        /// the same for as long as they exist.
        name_secret: [u64; 2],
        /// Resets for unknown flows, per CPU: ns that one of them costs (`token_bucket::Limit`).
        reset_interval_ns: u64,
        /// The same bucket's depth, ns.
        reset_fill_ns: u64,
        /// Least time between two SYNs to nodes for one flow, and until a hello is sent again ([`crate::pace::Pace`]), µs.
        syn_interval_us: u32,
        /// SYNs to one node before the next is tried.
        syns_per_node: u32,
        /// Age from which on an incomplete hello may lose its buffer to any other, ms.
        hello_steal_ms: u32,
        /// How long a hello may take from its first byte on, ms.
        hello_timeout_ms: u32,
        /// [`events`] bits.
        events: u32,
        /// Number of entries of [`super::map::HELLOS`].
        hellos: u32,
        /// Number of entries of [`super::map::FLOWS`].
        flows: u32,
        /// Flows that a source may have at most; 0: as many as there is room for ([`crate::source_flows`]).
        flows_per_source: u32,
        /// The first source port towards nodes: the one that [`super::map::PORT_FLOWS`] begins with.
        first_port: u32,
        /// Not 0: programs of an earlier layout are attached behind these. What these do not know is theirs.
        predecessor: u32,
    }
}

/// [`Settings::events`].
pub mod events {
    /// Flows that open and close.
    pub const FLOWS: u32 = 1;
    /// Connections that are refused.
    pub const REFUSALS: u32 = 2;
    /// Bytes in [`crate::abi::map::EVENTS`] from which on its reader is woken; until then it looks by itself.
    pub const WAKE_BYTES: u64 = 128 << 10;
}

impl Settings {
    /// The index of a source port in [`super::map::PORT_FLOWS`].
    #[must_use]
    #[inline(always)]
    pub const fn port_slot(&self, port_be: u16) -> u32 {
        (u16::from_be(port_be) as u32).wrapping_sub(self.first_port)
    }
}
