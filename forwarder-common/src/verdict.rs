//! What becomes of a packet, and why one was not forwarded.
//!
//! One list of reasons feeds the counter index, the event stream, the Prometheus label, the CLI text and the
//! documentation. Numbers are part of the ABI: append, never reorder.

/// What a stage decided about a packet; whoever ran the stage carries it out. `H` is a held hello buffer
/// ([`crate::engine::Store::Held`]).
#[must_use]
pub enum Verdict<H> {
    /// It is not ours: other programs and the host's stack may have it.
    Pass,
    /// It is dropped, and counted for this reason.
    Drop(DropReason),
    /// It is dropped; it was counted already.
    Counted,
    /// It is finished, and leaves by this interface as it is.
    Redirect(u32),
    /// It is finished, and leaves by this Ethernet interface to the next hop.
    Forward {
        /// The interface.
        ifindex: u32,
        /// Its source, if that is an IPv4 address, as the word that stands in the packet: rules of the routing table may
        /// ask for it. The kernel finds the next hops of IPv6 by itself.
        source: u32,
        /// Its destination, if that is an IPv4 address; else 0.
        destination: u32,
    },
    /// Another stage has it ([`crate::abi::stage`]).
    Next(u32),
    /// The same with the buffer that this stage holds. If that stage cannot be run the hold ends.
    NextHeld(u32, H),
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $label:literal;)+) => {
        /// Why a packet was dropped or a connection refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl DropReason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The label in metrics, events and `status`: snake case, stable.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }

            /// The reason with this number, if there is one.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// The first bytes are not a TLS handshake record.
    NotTls = 0, "not_tls";
    /// The ClientHello contradicts itself: a length that lies, an empty record, trailing bytes.
    MalformedHello = 1, "malformed_hello";
    /// The ClientHello is longer than 16 KiB, or cut into more pieces than are read.
    HelloTooLong = 2, "hello_too_long";
    /// The ClientHello carries no server name.
    NoServerName = 3, "no_server_name";
    /// The server name is not a host name: bad bytes, a trailing dot, an IP address, an unknown type.
    BadServerName = 4, "bad_server_name";
    /// More than one server name, or the extension twice.
    SeveralServerNames = 5, "several_server_names";
    /// The server name is not listed on this listener.
    UnlistedName = 6, "unlisted_name";
    /// The flow table is full; new connections are refused until flows end.
    FlowTableFull = 7, "flow_table_full";
    /// Every source port of the tunnel side is in use.
    SourcePortsExhausted = 8, "source_ports_exhausted";
    /// The pool has no node of the client's address family with a tunnel that is up.
    NoNode = 9, "no_node";
    /// Every node of the pool was tried; none answered.
    NodesUnreachable = 10, "nodes_unreachable";
    /// Every hello buffer is in use, and nobody has to give way; the client sends again.
    HelloBuffersFull = 11, "hello_buffers_full";
    /// Two processors held the same hello at once; the client sends again.
    HelloBusy = 12, "hello_busy";
    /// The TCP checksum of a segment that would have been kept, or that begins or ends a connection, is wrong.
    BadChecksum = 13, "bad_checksum";
    /// A segment of no known flow without a valid cookie, answered with a reset.
    UnknownFlow = 14, "unknown_flow";
    /// As unknown_flow, but the reset was withheld by the rate limit.
    ResetRateLimited = 15, "reset_rate_limited";
    /// A hello segment that arrived before an earlier one; the client sends it again.
    OutOfOrder = 16, "out_of_order";
    /// A segment that arrived before the node answered; the client sends it again.
    BeforeNode = 17, "before_node";
    /// An IP fragment for a claimed port.
    Fragment = 18, "fragment";
    /// An IPv4 header with options, or an IPv6 header with extension headers, for a claimed port.
    IpOptions = 19, "ip_options";
    /// A TCP header that contradicts itself, or flags that no stack sends.
    MalformedSegment = 20, "malformed_segment";
    /// The time to live or hop limit ran out here.
    TtlExpired = 21, "ttl_expired";
    /// A node sent a segment for a connection that is not its own, or that is over.
    NotItsFlow = 22, "not_its_flow";
    /// The interface towards the node or the client is gone.
    LinkDown = 23, "link_down";
    /// A handshake segment that needs no answer: a bare ACK of the cookie, a duplicate, a late reset.
    Absorbed = 24, "absorbed";
    /// The kernel refused an operation on the packet or on a map.
    KernelRefused = 25, "kernel_refused";
    /// The connection was refused before and the client still sends.
    AlreadyRefused = 26, "already_refused";
    /// A client's segment that is larger than its node takes; the client is told so, as far as the rate limit of resets allows.
    SegmentTooBig = 27, "segment_too_big";
    /// The hello lost its buffer to another connection; the client is reset.
    HelloDisplaced = 28, "hello_displaced";
    /// The hello was not whole within `hello_timeout`; the client is reset.
    HelloTimeout = 29, "hello_timeout";
    /// A SYN or first data from an address that nobody out there has: loopback, multicast, our own, a node's.
    InvalidSource = 30, "invalid_source";
    /// An ICMP error that quotes a segment of a flow which cannot be under way.
    NotUnderWay = 31, "not_under_way";
    /// The client's IPv4 address or IPv6 /64 has as many flows as are left free in the flow table, or `max_flows_per_source`.
    SourceLimit = 32, "source_limit";
}

/// How many reasons there are: the size of the counter array.
pub const REASONS: usize = DropReason::ALL.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_labels_unique() {
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            assert_eq!(DropReason::from_number(i as u8), Some(*reason));
            assert!(
                reason
                    .label()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_')
            );
            assert!(
                DropReason::ALL[..i]
                    .iter()
                    .all(|other| other.label() != reason.label())
            );
        }
        assert_eq!(DropReason::from_number(REASONS as u8), None);
    }
}
