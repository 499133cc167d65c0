//! Records of nothing.

use forwarder_common::abi::{
    Flow, FlowKey, HELLO_BYTES, Hello, ListenerStats, NodeStats, PathStats,
};
use forwarder_common::engine::work::{Reply, Work};
use forwarder_common::hello::Reader;
use forwarder_common::pace::Pace;
use forwarder_common::tcp::SynOptions;

pub const KEY: FlowKey = FlowKey {
    client: [0; 4],
    port_be: 0,
    vip: 0,
};

pub fn flow() -> Flow {
    Flow {
        client_isn: 0,
        entrance_isn: 0,
        delta: 0,
        name: 0,
        opened_ms: 0,
        seen_ms: 0,
        client_end: 0,
        node_end: 0,
        client_acked: 0,
        node_acked: 0,
        public_link: 0,
        node: 0,
        path: 0,
        source_port_be: 0,
        client_address: 0,
        state: 0,
        node_options: 0,
        client_marks: 0,
        node_marks: 0,
    }
}

pub fn hello() -> Box<Hello> {
    Box::new(Hello {
        users: 0,
        client_isn: 0,
        entrance_isn: 0,
        state: 0,
        stored: 0,
        started_ms: 0,
        touched_ms: 0,
        syn_us: 0,
        syns: 0,
        node_syns: 0,
        attempt: 0,
        first_ordinal: 0,
        segments: 0,
        window: 0,
        header_len: 0,
        path_base: 0,
        pool: 0,
        name: 0,
        refused: 0,
        piece: 0,
        challenges: 0,
        pace: Pace::START,
        owner: KEY,
        reader: Reader::START,
        server_name: [0; 256],
        alpn: [0; 32],
        bytes: [0; HELLO_BYTES],
    })
}

pub fn work() -> Work {
    Work {
        key: KEY,
        local: [0; 4],
        local_port_be: 0,
        table: 0,
        listener: 0,
        mss: 0,
        on_refuse: 0,
        l3: 0,
        v6: 0,
        header_len: 0,
        payload_len: 0,
        seq: 0,
        ack: 0,
        flags: 0,
        window: 0,
        slot: 0,
        reply: Reply::new(0, 0, 0),
        skip: 0,
        reason: 0,
        replay_at: 0,
        runs: 0,
        left: 0,
        offset: 0,
        sum: 0,
        public_link: 0,
        node: 0,
        from_node: 0,
        options: SynOptions::START,
        option_bytes: [0; 64],
    }
}

pub const fn listener() -> ListenerStats {
    ListenerStats {
        syns: 0,
        cookies: 0,
        cookies_valid: 0,
        cookies_invalid: 0,
        hellos: 0,
        hello_bytes: 0,
        hello_segments: 0,
        hello_ms: 0,
        opened: 0,
        refused: 0,
        packets: 0,
        bytes: 0,
    }
}

pub const fn target() -> PathStats {
    PathStats {
        up_packets: 0,
        up_bytes: 0,
        down_packets: 0,
        down_bytes: 0,
        opened: 0,
        closed: 0,
        reset: 0,
        failed: 0,
        replays: 0,
    }
}

pub const fn node() -> NodeStats {
    NodeStats {
        syns: 0,
        syn_timeouts: 0,
        syn_resets: 0,
        accepted: 0,
        connect_us: 0,
        connect_buckets: [0; 16],
        strays: 0,
    }
}
