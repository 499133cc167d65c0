//! TCP headers that do not follow a plain IP header: IPv4 options, IPv6 extension headers, fragments.
//!
//! None of them is forwarded. What is for a claimed address and port is dropped rather than left to the host, which would
//! read it: a socket there would answer, or a reset would end an open flow. Everything else is the host's.
//!
//! **Fragments.** Only the first one holds the ports. It is dropped, so that nothing can be joined to a whole again; the
//! later ones pass, because they may belong to a connection of the host's own, and are thrown away when the first one does
//! not come.
//!
//! **Chains.** Extension headers are read as far as the stack reads them, but not more than [`HEADERS`]: a longer chain
//! to an address of this host is dropped whatever port it hides (RFC 8504 5.3 lets a host have such a limit), and so is
//! a first fragment that ends before the TCP header (RFC 7112 5).

use super::counters::add;
use super::header::{DESTINATION, FRAGMENT, FRAGMENT_V4, HOP_BY_HOP, OFFSET_V4, ROUTING, TCP};
use super::packet::{Frame, Packet};
use super::store::Store;
use super::work::Work;
use super::{ETHERNET, lookup, reverse};
use crate::abi::{V4_MAPPED, same, source_rule, stage};
use crate::verdict::{DropReason, Verdict};

/// The most extension headers that are read.
const HEADERS: u32 = 8;

/// From an entry point.
#[inline(always)]
pub fn enter<S: Store, P: Packet, const L3: usize, const V6: bool>(
    store: S,
    packet: P,
    public: bool,
) -> Verdict<S::Held> {
    let Some(mut work) = store.work() else {
        return Verdict::Drop(DropReason::KernelRefused);
    };
    work.l3 = L3 as u32;
    work.v6 = u32::from(V6);
    work.from_node = u32::from(!public);
    work.public_link = packet.ifindex();
    Verdict::Next(stage::EXTENDED)
}

/// What of the ports was found; the ends of the segment then stand in `work`, and the reason to drop it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ports {
    /// Both.
    Found,
    /// They cannot be found, but the stack might.
    Hidden,
    /// There are none, or it is no TCP.
    Absent,
}

/// The stage.
#[inline(always)]
pub fn stage<S: Store, P: Packet>(store: S, packet: P, work: &mut Work) -> Verdict<S::Held> {
    let ports = if work.v6 == 0 {
        find_v4(packet, work)
    } else {
        find_v6::<S, P>(packet, work)
    };
    if ports == Ports::Absent {
        return Verdict::Pass;
    }
    let hidden = ports == Ports::Hidden;
    S::clobber(work);
    let drops = if work.from_node == 0 {
        of_client(store, work, hidden)
    } else {
        of_node(store, packet, work, hidden)
    };
    if !drops {
        return Verdict::Pass;
    }
    store.count_number(work.reason);
    Verdict::Counted
}

/// Whether a client's packet ends here.
#[inline(always)]
fn of_client<S: Store>(store: S, work: &Work, hidden: bool) -> bool {
    if hidden {
        store.source_rule(&work.local) == Some(source_rule::OWN)
    } else {
        lookup::vip(store, &work.local, work.local_port_be).is_some_and(|(_, vip)| vip.closed == 0)
    }
}

/// Whether a node's packet ends here: one of a flow does, and one that would leave in clear.
#[inline(always)]
fn of_node<S: Store, P: Packet>(store: S, packet: P, work: &Work, hidden: bool) -> bool {
    let (source, destination) = (work.key.client, work.local);
    if hidden {
        return store.source_rule(&source) == Some(source_rule::NODE)
            && packet.leaves_in_clear(work, &source, &destination);
    }
    let Some((number, node)) = lookup::node(store, &source, work.key.port_be) else {
        return false;
    };
    let flow = reverse::flow(store, number, &node, &destination, work.local_port_be);
    if flow.is_none() {
        let other = same(&node.local, &destination) || node.transparent == 0;
        if other || !packet.leaves_in_clear(work, &source, &destination) {
            return false;
        }
    }
    add!(store.node_stats(number), strays += 1);
    true
}

#[inline(always)]
fn find_v4<P: Packet>(packet: P, work: &mut Work) -> Ports {
    let Some([first, second, _, source, destination]) = packet.words::<5>(work.l3) else {
        return Ports::Absent;
    };
    let [version_length, ..] = first.to_ne_bytes();
    let [_, _, high, low] = second.to_ne_bytes();
    let fragment = u16::from_be_bytes([high, low]);
    let length = u32::from(version_length & 0xf) * 4;
    if fragment & OFFSET_V4 != 0 || length < 20 {
        return Ports::Absent;
    }
    work.key.client = [0, 0, V4_MAPPED, source];
    work.local = [0, 0, V4_MAPPED, destination];
    work.reason = if fragment & FRAGMENT_V4 != 0 {
        DropReason::Fragment as u32
    } else {
        DropReason::IpOptions as u32
    };
    ports(packet, work, work.l3 + length)
}

/// A segment that ends before its ports is nobody's: the stack drops it too.
#[inline(always)]
fn ports<P: Packet>(packet: P, work: &mut Work, at: u32) -> Ports {
    let Some([a, b, c, d]) = packet.bytes::<4>(at) else {
        return Ports::Absent;
    };
    let ports = [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])];
    [work.key.port_be, work.local_port_be] = ports;
    Ports::Found
}

/// State of the walk: `work.offset` is where the next header begins, `work.left` its number, `work.skip` whether it is in
/// the first of several pieces.
#[inline(always)]
fn find_v6<S: Store, P: Packet>(packet: P, work: &mut Work) -> Ports {
    let Some([kind]) = packet.bytes::<1>(work.l3 + 6) else {
        return Ports::Absent;
    };
    let Some([a, b, c, d, e, f, g, h]) = packet.words::<8>(work.l3 + 8) else {
        return Ports::Absent;
    };
    work.key.client = [a, b, c, d];
    work.local = [e, f, g, h];
    work.offset = work.l3 + 40;
    work.left = u32::from(kind);
    work.skip = 0;
    for _ in 0..HEADERS {
        S::clobber(work);
        let next = work.left as u8;
        if next == TCP {
            break;
        }
        if next != HOP_BY_HOP && next != ROUTING && next != DESTINATION && next != FRAGMENT {
            return Ports::Absent;
        }
        let Some([following, length, high, low]) = packet.bytes::<4>(work.offset) else {
            break;
        };
        work.left = u32::from(following);
        if next == FRAGMENT {
            let fragment = u16::from_be_bytes([high, low]);
            if fragment & 0xfff8 != 0 {
                return Ports::Absent;
            }
            work.skip |= u32::from(fragment & 1);
            work.offset += 8;
        } else {
            work.offset += u32::from(length) * 8 + 8;
        }
    }
    S::clobber(work);
    work.reason = if work.skip != 0 {
        DropReason::Fragment as u32
    } else {
        DropReason::IpOptions as u32
    };
    if work.left as u8 != TCP {
        return Ports::Hidden;
    }
    let ports = ports(packet, work, work.offset);
    if ports == Ports::Absent && work.skip != 0 {
        return Ports::Hidden;
    }
    ports
}

/// The same of a frame at the driver, as far as it is cheap: a claimed port behind IPv4 options. What this does not find
/// is the next hook's to find.
#[inline(always)]
pub fn claimed_v4<S: Store, F: Frame>(store: S, frame: F) -> Option<DropReason> {
    let ip = frame.ipv4::<{ ETHERNET as usize }>()?;
    let fragment = u16::from_be(ip.fragment_be);
    if fragment & OFFSET_V4 != 0 {
        return None;
    }
    let length = usize::from(ip.version_length & 0xf);
    let mut port_be = None;
    for words in 5..16 {
        if length == words {
            port_be = Some(frame.destination_port_be(words)?);
        }
    }
    let (_, vip) = lookup::vip(store, &[0, 0, V4_MAPPED, ip.destination], port_be?)?;
    if vip.closed != 0 {
        return None;
    }
    Some(if fragment & FRAGMENT_V4 != 0 {
        DropReason::Fragment
    } else {
        DropReason::IpOptions
    })
}
