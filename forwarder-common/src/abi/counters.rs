//! Counters of targets, nodes and listeners.

abi! {
    /// Counters of a path. Bytes are of whole packets from the IP header on.
    72 struct PathStats {
        /// Packets client → node.
        up_packets: u64,
        /// Bytes client → node.
        up_bytes: u64,
        /// Packets node → client.
        down_packets: u64,
        /// Bytes node → client.
        down_bytes: u64,
        /// Flows the node accepted.
        opened: u64,
        /// Flows that ended by FIN both ways.
        closed: u64,
        /// Flows that ended by a reset.
        reset: u64,
        /// Flows that no node accepted.
        failed: u64,
        /// Times a hello or part of it was sent again to the node.
        replays: u64,
    }

    /// Counters of a node.
    176 struct NodeStats {
        /// SYNs sent to it.
        syns: u64,
        /// SYNs it left unanswered so that another node was tried.
        syn_timeouts: u64,
        /// SYNs it answered with a reset.
        syn_resets: u64,
        /// Flows it accepted.
        accepted: u64,
        /// Sum of the times from SYN to SYN-ACK, µs.
        connect_us: u64,
        /// Flows by that time: bucket `i` counts those of at most 2^i × 250 µs; the last has no bound.
        connect_buckets: [u64; 16],
        /// Its segments that belonged to no flow of its own.
        strays: u64,
    }

    /// Counters of a listener.
    96 struct ListenerStats {
        /// SYNs seen.
        syns: u64,
        /// Cookies sent.
        cookies: u64,
        /// Connections whose first data carried a valid cookie.
        cookies_valid: u64,
        /// Segments of unknown connections without a valid cookie.
        cookies_invalid: u64,
        /// ClientHellos read to the end.
        hellos: u64,
        /// Their bytes.
        hello_bytes: u64,
        /// Their segments.
        hello_segments: u64,
        /// Sum of the times from first to last segment of a hello, ms.
        hello_ms: u64,
        /// Flows made.
        opened: u64,
        /// Connections refused.
        refused: u64,
        /// Packets seen on the claimed address and port.
        packets: u64,
        /// Their bytes.
        bytes: u64,
    }
}
