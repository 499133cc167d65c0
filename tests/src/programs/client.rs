//! A client on a bench, and the node that it is led to.

use std::net::SocketAddr;

use forwarder_common::cookie::{self, CookieOptions, Fit, Tuple};
use forwarder_common::segment::pair;

use super::bench::Bench;
use super::entrance::{COOKIE_KEYS, address};
use super::seen::Seen;
use super::shape::{Mode, Refusal};
use crate::hello::Hello;
use crate::packet::{Flags, Segment};

/// What Linux offers in a SYN: MSS 1460, SACK, timestamps, window scale 7.
pub const LINUX: [u8; 20] = [
    2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
];
/// What a Linux node answers to our SYN: MSS 1380, SACK, window scale 9.
pub const NODE: [u8; 12] = [2, 4, 5, 100, 1, 1, 4, 2, 1, 3, 3, 9];
/// The initial sequence number of every node.
pub const NODE_ISN: u32 = 0xffff_ff80;

/// A client and its connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its address.
    pub address: SocketAddr,
    /// The claimed address it connects to.
    pub vip: SocketAddr,
    /// The listener.
    pub refusal: Refusal,
    /// Its initial sequence number.
    pub isn: u32,
    /// The one it was answered with.
    pub cookie: u32,
}

impl Client {
    /// A client that has sent nothing. Every other one counts across zero in its first bytes.
    pub fn new(bench: &mut Bench, refusal: Refusal) -> Self {
        let address = bench.client_address();
        let port = u32::from(address.port());
        let isn = if port.is_multiple_of(2) {
            0xffff_fff0
        } else {
            port.wrapping_mul(0x0100_0193)
        };
        Self {
            address,
            vip: bench.vip(refusal),
            refusal,
            isn,
            cookie: 0,
        }
    }

    /// A client with the answer to its SYN.
    #[track_caller]
    pub fn connect(bench: &mut Bench, refusal: Refusal) -> Self {
        Self::connect_with(bench, refusal, &LINUX)
    }

    /// As [`Client::connect`], with these options.
    #[track_caller]
    pub fn connect_with(bench: &mut Bench, refusal: Refusal, options: &[u8]) -> Self {
        let mut client = Self::new(bench, refusal);
        client.cookie = bench.from_client(&client.syn(options)).segment().seq;
        client
    }

    /// Its SYN.
    #[must_use]
    pub fn syn(&self, options: &[u8]) -> Segment {
        let mut syn = Segment::new(self.address, self.vip, Flags::SYN);
        syn.seq = self.isn;
        syn.options = options.to_vec();
        syn
    }

    /// Whether the pure code takes a number for a cookie of this connection, minted within the last two
    /// epochs.
    #[must_use]
    pub fn is_cookie(&self, cookie: u32) -> bool {
        let tuple = self.tuple();
        epochs().any(|(epoch, key)| cookie::fit(key, &tuple, self.isn, cookie, epoch) == Fit::Whole)
    }

    /// Whether the pure code takes a number for a cookie of these ends with another sequence number. Of any number that is
    /// so once in 128.
    #[must_use]
    pub fn is_of_these_ends(&self, cookie: u32) -> bool {
        let tuple = self.tuple();
        epochs().any(|(epoch, key)| cookie::tuple_matches(key, &tuple, cookie, epoch))
    }

    /// The cookie that answered its SYN so many epochs ago, for a client that offered what Linux does.
    #[must_use]
    pub fn old_cookie(&self, age: u32) -> u32 {
        let epoch = cookie::epoch(now_ns()).wrapping_sub(age);
        let key = COOKIE_KEYS[cookie::key_slot(epoch) as usize];
        let offered = CookieOptions::of_syn(1_460, 7, true);
        cookie::mint(key, &self.tuple(), self.isn, offered, epoch)
    }

    /// Gives it a number for a cookie that has nothing of one of this connection's.
    pub fn forge(&mut self) {
        let tuple = self.tuple();
        // The offsets are those of segments that answer a FIN, or an alert and FIN, of the entrance's.
        let looks_right = |cookie: u32| {
            [0, 1, 8].iter().any(|offset| {
                let cookie = cookie.wrapping_sub(*offset);
                epochs().any(|(epoch, key)| cookie::tuple_matches(key, &tuple, cookie, epoch))
            })
        };
        self.cookie = (0..)
            .map(|n: u32| 0x1234_5678_u32.wrapping_add(n << 8))
            .find(|cookie| !looks_right(*cookie))
            .unwrap_or_default();
    }

    fn tuple(&self) -> Tuple {
        Tuple {
            client: address(self.address.ip()),
            local: address(self.vip.ip()),
            ports: pair(self.address.port().to_be(), self.vip.port().to_be()),
        }
    }

    /// A segment of its own: `at` counts from its first byte of data.
    #[must_use]
    pub fn segment(&self, flags: Flags, at: u32, payload: &[u8]) -> Segment {
        let mut segment = Segment::new(self.address, self.vip, flags);
        segment.seq = self.isn.wrapping_add(1).wrapping_add(at);
        segment.ack = self.cookie.wrapping_add(1);
        segment.window = 502;
        segment.payload = payload.to_vec();
        segment
    }

    /// Sends data.
    #[track_caller]
    pub fn send(&self, bench: &mut Bench, at: u32, payload: &[u8]) -> Seen {
        bench.from_client(&self.segment(Flags::PSH_ACK, at, payload))
    }

    /// What the entrance itself sends it: `at` and `acked` count bytes of data.
    #[must_use]
    pub fn answer(&self, flags: Flags, at: u32, acked: u32, window: u16) -> Segment {
        let mut segment = Segment::new(self.vip, self.address, flags);
        segment.seq = self.cookie.wrapping_add(1).wrapping_add(at);
        segment.ack = self.isn.wrapping_add(1).wrapping_add(acked);
        segment.window = window;
        segment
    }

    /// Connects and sends a hello for a pool of this mode, in one segment.
    #[track_caller]
    pub fn open(bench: &mut Bench, mode: Mode) -> Opened {
        let hello = Hello::small(mode.name()).record();
        Self::open_with(bench, mode, &hello)
    }

    /// As [`Client::open`], with this hello.
    #[track_caller]
    pub fn open_with(bench: &mut Bench, mode: Mode, hello: &[u8]) -> Opened {
        let client = Self::connect(bench, Refusal::Alert);
        let syn = client.send(bench, 0, hello).segment();
        Opened {
            client,
            mode,
            hello: hello.to_vec(),
            syn,
        }
    }
}

/// This epoch, the last, and the next should it begin meanwhile, each with its key.
fn epochs() -> impl Iterator<Item = (u32, [u64; 2])> {
    let now = cookie::epoch(now_ns());
    [now, now.wrapping_sub(1), now.wrapping_add(1)]
        .into_iter()
        .map(|epoch| (epoch, COOKIE_KEYS[cookie::key_slot(epoch) as usize]))
}

/// `CLOCK_MONOTONIC`, which `bpf_ktime_get_ns` reads.
#[must_use]
pub fn now_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a local, and this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// A connection whose SYN went to a node.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its client.
    pub client: Client,
    /// What the pool does with the client's address.
    pub mode: Mode,
    /// The hello.
    pub hello: Vec<u8>,
    /// The SYN.
    pub syn: Segment,
}

impl Opened {
    /// A segment of the node: `at` counts from its first byte of data, `acked` from the client's first
    /// byte behind the hello.
    #[must_use]
    pub fn from_node(&self, flags: Flags, at: u32, acked: i32, payload: &[u8]) -> Segment {
        let mut segment = Segment::new(self.syn.destination, self.syn.source, flags);
        segment.seq = NODE_ISN.wrapping_add(1).wrapping_add(at);
        segment.ack = self
            .client
            .isn
            .wrapping_add(1)
            .wrapping_add(self.hello.len() as u32)
            .wrapping_add_signed(acked);
        segment.window = 200;
        segment.payload = payload.to_vec();
        segment
    }

    /// The node's SYN-ACK.
    #[must_use]
    pub fn syn_ack(&self, options: &[u8]) -> Segment {
        let mut answer = self.from_node(Flags::SYN_ACK, 0, 0, &[]);
        answer.seq = NODE_ISN;
        answer.ack = self.syn.seq.wrapping_add(1);
        answer.window = 64_000;
        answer.options = options.to_vec();
        answer
    }

    /// The node accepts. Returns what was sent to it.
    #[track_caller]
    pub fn accept(&self, bench: &mut Bench) -> Vec<Segment> {
        bench.from_node(&self.syn_ack(&NODE)).all()
    }

    /// The node accepts and acknowledges everything: from here on both ends talk to each other.
    #[track_caller]
    pub fn splice(&self, bench: &mut Bench) {
        assert!(!self.accept(bench).is_empty());
        let seen = bench.from_node(&self.from_node(Flags::ACK, 0, 0, &[]));
        assert_eq!(seen.reasons, []);
        assert_eq!(seen.segment().destination, self.client.address);
    }

    /// A segment of the client's: `at` counts from its first byte behind the hello, `acked` from the
    /// node's first byte.
    #[must_use]
    pub fn from_client(&self, flags: Flags, at: u32, acked: u32, payload: &[u8]) -> Segment {
        let at = (self.hello.len() as u32).wrapping_add(at);
        let mut segment = self.client.segment(flags, at, payload);
        segment.ack = segment.ack.wrapping_add(acked);
        segment
    }
}
