//! TCP headers that do not follow a plain IP header: IPv4 options, IPv6 extension headers, fragments.
//!
//! None of them is forwarded. What is for a claimed address and port is dropped rather than left to the host, which would
//! read it: a socket there would answer, or a reset would end an open flow. Everything else is the host's.
//!
//! **Fragments.** Only the first one holds the ports. It is dropped, so that nothing can be joined to a whole again; the
//! later ones pass, because they may belong to a connection of the host's own, and wait for their first one in vain.
//!
//! **Chains.** Extension headers are read as far as the stack reads them, but not more than [`HEADERS`]: a longer chain
//! to an address of this host is dropped whatever port it hides (RFC 8504 5.3 lets a host have such a limit), and so is
//! a first fragment that ends before the TCP header (RFC 7112 5).

use aya_ebpf::programs::TcContext;
use forwarder_common::abi::{V4_MAPPED, same, source_rule, stage};
use forwarder_common::verdict::DropReason;

use crate::bounds::forget;
use crate::count::{self, PASS};
use crate::header::{DESTINATION, FRAGMENT, FRAGMENT_V4, HOP_BY_HOP, OFFSET_V4, ROUTING, TCP};
use crate::packet::{Access, Ipv4, Packet};
use crate::work::Work;
use crate::{answer, fib, next, node, owner, sources};

/// The most extension headers that are read.
const HEADERS: u32 = 8;

/// From an entry point.
#[inline(always)]
pub fn enter<const L3: usize, const V6: bool>(
    context: &TcContext,
    packet: Packet,
    public: bool,
) -> i32 {
    let Some(work) = crate::maps::work() else {
        return count::drop(DropReason::KernelRefused);
    };
    work.l3 = L3 as u32;
    work.v6 = u32::from(V6);
    work.from_node = u32::from(!public);
    work.public_link = packet.ifindex();
    next(context, stage::EXTENDED)
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
pub fn stage(_context: &TcContext, packet: Packet, work: &mut Work) -> i32 {
    let ports = if work.v6 == 0 {
        find_v4(packet, work)
    } else {
        find_v6(packet, work)
    };
    if ports == Ports::Absent {
        return PASS;
    }
    let hidden = ports == Ports::Hidden;
    forget(work);
    if work.from_node == 0 {
        of_client(work, hidden)
    } else {
        of_node(packet, work, hidden)
    }
}

#[inline(always)]
fn of_client(work: &Work, hidden: bool) -> i32 {
    let claimed = if hidden {
        sources::rule(&work.local).is_some_and(|rule| rule.kind == source_rule::OWN)
    } else {
        owner::vip(&work.local, work.local_port_be).is_some_and(|(_, vip)| vip.closed == 0)
    };
    if claimed { dropped(work) } else { PASS }
}

/// What is of a node's flow ends here, and what would leave in clear.
#[inline(always)]
fn of_node(packet: Packet, work: &Work, hidden: bool) -> i32 {
    let (source, destination) = (work.key.client, work.local);
    if hidden {
        let of_node = sources::rule(&source).is_some_and(|rule| rule.kind == source_rule::NODE);
        if of_node && fib::leaves_in_clear(packet, work, &source, &destination) {
            return dropped(work);
        }
        return PASS;
    }
    let Some((number, target)) = owner::node(&source, work.key.port_be) else {
        return PASS;
    };
    let flow = node::flow_of(number, target, &destination, work.local_port_be);
    if flow.is_none() {
        let other = same(&target.local, &destination) || target.transparent == 0;
        if other || !fib::leaves_in_clear(packet, work, &source, &destination) {
            return PASS;
        }
    }
    count::add!(NODE_STATS, number, strays, 1);
    dropped(work)
}

#[inline(always)]
fn dropped(work: &Work) -> i32 {
    count::number(work.reason);
    answer::COUNTED
}

#[inline(always)]
fn find_v4(packet: Packet, work: &mut Work) -> Ports {
    let mut ip = Ipv4 {
        version_length: 0,
        tos: 0,
        total_be: 0,
        id: 0,
        fragment_be: 0,
        ttl: 0,
        protocol: 0,
        checksum: 0,
        source: 0,
        destination: 0,
    };
    // SAFETY: the header has 20 bytes.
    if !unsafe { packet.load(work.l3, (&raw mut ip).cast(), 20) } {
        return Ports::Absent;
    }
    let fragment = u16::from_be(ip.fragment_be);
    let length = u32::from(ip.version_length & 0xf) * 4;
    if fragment & OFFSET_V4 != 0 || length < 20 {
        return Ports::Absent;
    }
    work.key.client = [0, 0, V4_MAPPED, ip.source];
    work.local = [0, 0, V4_MAPPED, ip.destination];
    work.reason = if fragment & FRAGMENT_V4 != 0 {
        DropReason::Fragment as u32
    } else {
        DropReason::IpOptions as u32
    };
    ports(packet, work, work.l3 + length)
}

/// A segment that ends before its ports is nobody's: the stack drops it too.
#[inline(always)]
fn ports(packet: Packet, work: &mut Work, at: u32) -> Ports {
    let mut ports = [0_u16; 2];
    // SAFETY: four bytes.
    if !unsafe { packet.load(at, ports.as_mut_ptr().cast(), 4) } {
        return Ports::Absent;
    }
    [work.key.port_be, work.local_port_be] = ports;
    Ports::Found
}

/// State of the walk: `work.offset` is where the next header begins, `work.left` its number, `work.skip` whether it is in
/// the first of several pieces.
#[inline(always)]
fn find_v6(packet: Packet, work: &mut Work) -> Ports {
    let mut ends = [0_u32; 8];
    let mut kind = [0_u8; 1];
    // SAFETY: one byte, then 32.
    let there = unsafe {
        packet.load(work.l3 + 6, kind.as_mut_ptr(), 1)
            && packet.load(work.l3 + 8, ends.as_mut_ptr().cast(), 32)
    };
    if !there {
        return Ports::Absent;
    }
    let [a, b, c, d, e, f, g, h] = ends;
    work.key.client = [a, b, c, d];
    work.local = [e, f, g, h];
    work.offset = work.l3 + 40;
    work.left = u32::from(kind[0]);
    work.skip = 0;
    for _ in 0..HEADERS {
        forget(work);
        let next = work.left as u8;
        if next == TCP {
            break;
        }
        if next != HOP_BY_HOP && next != ROUTING && next != DESTINATION && next != FRAGMENT {
            return Ports::Absent;
        }
        let mut header = [0_u8; 4];
        // SAFETY: four bytes.
        if !unsafe { packet.load(work.offset, header.as_mut_ptr(), 4) } {
            break;
        }
        let [following, length, high, low] = header;
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
    forget(work);
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
pub fn claimed_v4(packet: impl Access, l3: usize) -> Option<DropReason> {
    let data = packet.linear(l3 + 20)?;
    // SAFETY: the header was compared with data_end.
    let ip = unsafe { core::ptr::read(data.add(l3).cast::<Ipv4>()) };
    let fragment = u16::from_be(ip.fragment_be);
    if fragment & OFFSET_V4 != 0 {
        return None;
    }
    let length = usize::from(ip.version_length & 0xf);
    let mut port_be = None;
    for words in 5..16 {
        if length == words {
            let data = packet.linear(l3 + 4 * words + 4)?;
            // SAFETY: four bytes of ports were compared with data_end.
            port_be = Some(unsafe { core::ptr::read(data.add(l3 + 4 * words + 2).cast::<u16>()) });
        }
    }
    let (_, vip) = owner::vip(&[0, 0, V4_MAPPED, ip.destination], port_be?)?;
    if vip.closed != 0 {
        return None;
    }
    Some(if fragment & FRAGMENT_V4 != 0 {
        DropReason::Fragment
    } else {
        DropReason::IpOptions
    })
}
