//! TCP by hand, over a packet socket in a client's namespace: one-byte segments, segments out of
//! order, overlapping ones with different bytes, wrong checksums, forged resets.
//!
//! It uses addresses that the client's kernel does not own ([`ClientHost::raw_address`]), so that
//! the kernel never answers in between.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::lab::ClientHost;
use crate::link_socket::{LARGEST, Layer, LinkSocket};
use crate::netns::Namespace;
use crate::packet::{Checksums, Content, Flags, Packet, Segment};

/// How long an answer may take unless a test says otherwise; generous, for busy machines.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long nothing must happen for a test to believe that nothing will.
pub const SILENCE: Duration = Duration::from_millis(400);

/// The options of a modern client's SYN: MSS 1460, SACK permitted, window scale 7.
pub const SYN_OPTIONS: [u8; 12] = [2, 4, 5, 180, 4, 2, 1, 3, 3, 7, 1, 1];

static NEXT_PORT: AtomicU16 = AtomicU16::new(20_000);

/// Puts hand-made IP packets onto an interface.
#[derive(Debug)]
pub struct Injector {
    link: LinkSocket,
    neighbour: [u8; 6],
}

impl Injector {
    /// Sends by an interface of a namespace to the neighbour with a hardware address, which does not
    /// matter for a tunnel.
    pub fn open(namespace: &Namespace, interface: &str, neighbour: [u8; 6]) -> Result<Self> {
        namespace.enter(|| Self::here(interface, neighbour))?
    }

    /// As [`Injector::open`], for [`Injector::send_tagged`].
    pub fn frames(namespace: &Namespace, interface: &str, neighbour: [u8; 6]) -> Result<Self> {
        // Bound, so that a frame needs no address beside it.
        let link = namespace.enter(|| LinkSocket::open(interface, Layer::Frame))??;
        Ok(Self { link, neighbour })
    }

    /// Sends an IP packet in an Ethernet frame of our own address, with a tag (802.1Q).
    pub fn send_tagged(&self, packet: &[u8], ours: [u8; 6], tag: u16) -> Result<()> {
        let kind: [u8; 2] = match packet.first().map(|byte| byte >> 4) {
            Some(6) => [0x86, 0xdd],
            _ => [8, 0],
        };
        let [high, low] = tag.to_be_bytes();
        let tag = [0x81, 0, high, low];
        let frame = [&self.neighbour[..], &ours, &tag, &kind, packet].concat();
        self.link
            .send_frame(&frame)
            .context(|| "sending a hand-made frame".to_owned())
    }

    /// The same in the calling thread's namespace.
    pub fn here(interface: &str, neighbour: [u8; 6]) -> Result<Self> {
        let link = LinkSocket::sender(interface, Layer::Network)?;
        Ok(Self { link, neighbour })
    }

    /// Sends an IP packet.
    pub fn send(&self, packet: &[u8]) -> Result<()> {
        self.link
            .send_packet(packet, self.neighbour)
            .context(|| "sending a hand-made packet".to_owned())
    }
}

/// Reads a hardware address as `ip` writes it.
#[must_use]
pub fn hardware_address(text: &str) -> Option<[u8; 6]> {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().ok()?;
    bytes.try_into().ok()
}

/// One hand-made connection.
#[derive(Debug)]
pub struct RawTcp {
    link: LinkSocket,
    gateway: [u8; 6],
    /// Our address.
    pub local: SocketAddr,
    /// The other end's address.
    pub remote: SocketAddr,
    /// Our first sequence number.
    pub isn: u32,
    /// The sequence number of our next byte.
    pub next: u32,
    /// The sequence number that we expect next.
    pub expected: u32,
    /// The window that our segments announce.
    pub window: u16,
    /// How many packets with wrong checksums came.
    pub bad_checksums: usize,
    unread: VecDeque<Packet>,
    buffer: Vec<u8>,
}

impl RawTcp {
    /// A connection yet to be opened, from a client's hand-made address and a fresh port.
    pub fn new(client: &ClientHost, remote: SocketAddr) -> Result<Self> {
        let family = if remote.is_ipv4() {
            crate::lab::Family::V4
        } else {
            crate::lab::Family::V6
        };
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        Self::from(
            client,
            SocketAddr::new(client.raw_address(family, 1), port),
            remote,
        )
    }

    /// A connection yet to be opened, from any address at all.
    pub fn from(client: &ClientHost, local: SocketAddr, remote: SocketAddr) -> Result<Self> {
        let link = client
            .namespace
            .enter(|| LinkSocket::open("eth0", Layer::Network))??;
        link.ignore_outgoing()
            .context(|| "leaving out our own packets".to_owned())?;
        let isn = 0x1000_0000_u32.wrapping_add(u32::from(local.port()).wrapping_mul(0x0001_9660));
        Ok(Self {
            link,
            gateway: client.gateway,
            local,
            remote,
            isn,
            next: isn,
            expected: 0,
            window: 64_240,
            bad_checksums: 0,
            unread: VecDeque::new(),
            buffer: vec![0; LARGEST],
        })
    }

    /// Starts at another sequence number: near the wrap-around, for instance.
    #[must_use]
    pub fn with_isn(mut self, isn: u32) -> Self {
        (self.isn, self.next) = (isn, isn);
        self
    }

    /// A segment of this connection as it stands, to be changed at will.
    #[must_use]
    pub fn segment(&self, flags: Flags) -> Segment {
        let mut segment = Segment::new(self.local, self.remote, flags);
        segment.seq = self.next;
        segment.ack = if flags.has(Flags::ACK) {
            self.expected
        } else {
            0
        };
        segment.window = self.window;
        segment
    }

    /// A data segment whose first byte is `offset` bytes after our first byte of data.
    #[must_use]
    pub fn data_at(&self, offset: u32, bytes: &[u8]) -> Segment {
        let mut segment = self.segment(Flags::PSH_ACK);
        segment.seq = self.isn.wrapping_add(1).wrapping_add(offset);
        segment.payload = bytes.to_vec();
        segment
    }

    /// Sends a segment; [`RawTcp::next`] stays as it is.
    pub fn send(&self, segment: &Segment) -> Result<()> {
        self.send_packet(&segment.to_bytes())
    }

    /// Sends an IP packet.
    pub fn send_packet(&self, packet: &[u8]) -> Result<()> {
        self.link
            .send_packet(packet, self.gateway)
            .context(|| "sending a hand-made packet".to_owned())
    }

    /// Opens the connection; returns the SYN-ACK.
    pub fn connect(&mut self) -> Result<Segment> {
        self.connect_with(&SYN_OPTIONS)
    }

    /// Opens the connection with other options in the SYN.
    pub fn connect_with(&mut self, options: &[u8]) -> Result<Segment> {
        let mut syn = self.segment(Flags::SYN);
        syn.options = options.to_vec();
        self.send(&syn)?;
        self.next = self.isn.wrapping_add(1);
        let answer = self.expect("a SYN-ACK", |segment| segment.flags.has(Flags::SYN_ACK))?;
        self.expected = answer.seq.wrapping_add(1);
        self.send(&self.segment(Flags::ACK))?;
        Ok(answer)
    }

    /// Sends data in one segment, in order.
    pub fn send_data(&mut self, bytes: &[u8]) -> Result<()> {
        let mut segment = self.segment(Flags::PSH_ACK);
        segment.payload = bytes.to_vec();
        self.send(&segment)?;
        self.next = segment.end();
        Ok(())
    }

    /// Sends data in segments of at most `size` bytes, each once the one before is acknowledged or
    /// after a little while. The answer to the last one is left to the caller.
    pub fn send_in_pieces(&mut self, bytes: &[u8], size: usize) -> Result<()> {
        let mut pieces = bytes.chunks(size).peekable();
        while let Some(piece) = pieces.next() {
            self.send_data(piece)?;
            if pieces.peek().is_some() {
                let next = self.next;
                self.receive_matching(Duration::from_millis(20), |segment| segment.ack == next)?;
            }
        }
        Ok(())
    }

    /// Waits for an ICMP packet to our address.
    pub fn expect_icmp(&mut self, what: &str) -> Result<Packet> {
        let end = Instant::now() + PATIENCE;
        loop {
            let icmp = |packet: &Packet| matches!(packet.content, Content::Icmp { .. });
            if let Some(at) = self.unread.iter().position(icmp)
                && let Some(packet) = self.unread.remove(at)
            {
                return Ok(packet);
            }
            if Instant::now() >= end {
                return Err(Error::Timeout {
                    what: what.to_owned(),
                    waited: PATIENCE,
                    detail: String::new(),
                });
            }
            self.fill(end)?;
        }
    }

    /// The next segment of this connection, if one comes in time.
    pub fn receive(&mut self, limit: Duration) -> Result<Option<Segment>> {
        self.receive_matching(limit, |_| true)
    }

    /// The next segment of this connection that fits; others are passed over.
    pub fn receive_matching(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&Segment) -> bool,
    ) -> Result<Option<Segment>> {
        let end = Instant::now() + limit;
        loop {
            while let Some(at) = self.unread.iter().position(|packet| packet.tcp().is_some()) {
                let packet = self.unread.remove(at);
                if let Some(segment) = packet.as_ref().and_then(Packet::tcp)
                    && wanted(segment)
                {
                    return Ok(Some(segment.clone()));
                }
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            self.fill(end)?;
        }
    }

    /// Waits for a segment that fits.
    pub fn expect(&mut self, what: &str, wanted: impl Fn(&Segment) -> bool) -> Result<Segment> {
        let found = self.receive_matching(PATIENCE, wanted)?;
        found.ok_or_else(|| Error::Timeout {
            what: format!("{what} from {} to {}", self.remote, self.local),
            waited: PATIENCE,
            detail: String::new(),
        })
    }

    /// Everything that comes until nothing has come for a while.
    pub fn drain(&mut self, silence: Duration) -> Result<Vec<Segment>> {
        let mut all = Vec::new();
        while let Some(segment) = self.receive(silence)? {
            all.push(segment);
        }
        Ok(all)
    }

    /// Reads data in order, acknowledging it, until `length` bytes are there or the other end is done.
    pub fn read(&mut self, length: usize, limit: Duration) -> Result<Vec<u8>> {
        let end = Instant::now() + limit;
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let rest = end.saturating_duration_since(Instant::now());
            let Some(segment) = self.receive(rest)? else {
                break;
            };
            if segment.flags.has(Flags::RST) {
                break;
            }
            let already =
                usize::try_from(self.expected.wrapping_sub(segment.seq)).unwrap_or(usize::MAX);
            if let Some(fresh) = segment.payload.get(already..)
                && !fresh.is_empty()
            {
                bytes.extend_from_slice(fresh);
                self.expected = self
                    .expected
                    .wrapping_add(u32::try_from(fresh.len()).unwrap_or_default());
            }
            if segment.flags.has(Flags::FIN) && segment.end().wrapping_sub(1) == self.expected {
                self.expected = segment.end();
                self.send(&self.segment(Flags::ACK))?;
                break;
            }
            if !segment.payload.is_empty() {
                self.send(&self.segment(Flags::ACK))?;
            }
        }
        Ok(bytes)
    }

    fn fill(&mut self, end: Instant) -> Result<()> {
        let wait = end.saturating_duration_since(Instant::now());
        let arrival = self
            .link
            .receive(&mut self.buffer)
            .context(|| "receiving by hand".to_owned())?;
        let Some(arrival) = arrival else {
            return self
                .link
                .wait(wait)
                .context(|| "waiting for packets".to_owned());
        };
        let Some(packet) = Packet::parse(&self.buffer[..arrival.length], arrival.unfinished) else {
            return Ok(());
        };
        let ours = match &packet.content {
            Content::Tcp(segment) => {
                segment.source == self.remote && segment.destination == self.local
            }
            Content::Icmp { .. } => packet.destination == self.local.ip(),
            Content::Other(_) => false,
        };
        if ours {
            if packet.checksums == Checksums::Bad {
                self.bad_checksums += 1;
            } else {
                self.unread.push_back(packet);
            }
        }
        Ok(())
    }
}
