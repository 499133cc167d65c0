//! The armour: what needs no memory, done by a native XDP program in front of everything else, while a
//! flood lasts. SYNs are answered with the same cookies, ACKs that fit no cookie are dropped; open flows,
//! hellos and foreign traffic go on to the next hook, which does all it always did.
//!
//! Taking the program away or putting it there changes nothing for anybody but who floods.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::programs::XdpContext;
use forwarder_common::abi::{FlowKey, tally};
use forwarder_common::admit;
use forwarder_common::cookie::Fit;
use forwarder_common::tcp::flag;
use forwarder_common::token_bucket::Limit;
use forwarder_common::verdict::DropReason;

use crate::bounds::forget;
use crate::frame::Frame;
use crate::header::{Header, Kind};
use crate::maps::{FLOWS, HELLO_INDEX, SETTINGS, STRAYS};
use crate::packet::{Access, ETHERNET};
use crate::public::{ingress, syn};
use crate::work::Work;
use crate::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, cookies, count, extended, owner, predecessor, sources,
};

const L3: usize = ETHERNET as usize;

/// A frame on a public Ethernet interface. Returns the action. `NEW` on Linux 5.18 or newer.
#[inline(always)]
pub fn ingress<const NEW: bool>(context: &XdpContext) -> u32 {
    let frame = Frame::new(context.ctx, NEW);
    match frame.protocol_be() {
        ETHERTYPE_IPV4 => family::<false>(frame),
        ETHERTYPE_IPV6 => family::<true>(frame),
        _ => pass(tally::XDP_FOREIGN),
    }
}

#[inline(always)]
fn family<const V6: bool>(frame: Frame) -> u32 {
    let header = match Header::read::<L3, V6>(frame) {
        Kind::Tcp(header) => header,
        Kind::Extended if !V6 => {
            return match extended::claimed_v4(frame, L3) {
                Some(reason) if frame.is_for_this_host() => dropped(reason),
                _ => pass(tally::XDP_FOREIGN),
            };
        }
        _ => return pass(tally::XDP_FOREIGN),
    };
    let Some((id, vip)) = owner::vip(&header.destination, header.destination_port_be) else {
        return pass(tally::XDP_FOREIGN);
    };
    let key = FlowKey {
        client: header.source,
        port_be: header.source_port_be,
        vip: id as u16,
    };
    if vip.closed != 0 {
        return pass(tally::XDP_FOREIGN);
    }
    // A SYN of an open flow too: the node's challenge ACK resolves it, a cookie would not.
    if FLOWS.get_ptr(key).is_some() {
        return pass(tally::XDP_FLOW);
    }
    if !frame.is_for_this_host() {
        return pass(tally::XDP_FOREIGN);
    }
    // A frame in several buffers looks shorter here than it is; the next hook sees it whole.
    if header.malformed {
        return pass(tally::XDP_HANDED_ON);
    }
    let Some(work) = crate::maps::work() else {
        return pass(tally::XDP_HANDED_ON);
    };
    ingress::fill::<L3, V6>(work, &header, &key, vip);
    if let Some(reason) = ingress::unacceptable(&header) {
        return drop(frame, work, reason);
    }
    if let Some(reason) = admit::impossible::<V6>(&header.source, &vip.address) {
        return drop(frame, work, reason);
    }
    // From here on everything is read back from `work`: what follows is then verified in one state.
    forget(work);
    if work.has(flag::SYN) {
        return answer::<V6>(frame, work);
    }
    // SAFETY: only whether it is there counts.
    if unsafe { HELLO_INDEX.get(&work.key) }.is_some() {
        return pass(tally::XDP_HANDED_ON);
    }
    stranger(frame, work)
}

#[inline(always)]
fn answer<const V6: bool>(frame: Frame, work: &mut Work) -> u32 {
    match frame.checksum::<V6>(work) {
        Some(true) => {}
        Some(false) => return drop(frame, work, DropReason::BadChecksum),
        None => return pass(tally::XDP_HANDED_ON),
    }
    if let Some(reason) = sources::refused::<V6>(&work.key.client, &work.local) {
        return drop(frame, work, reason);
    }
    let reply = match syn::cookie::<V6>(frame, work) {
        Ok(reply) => reply,
        Err(reason) => return drop(frame, work, reason),
    };
    let bytes = u64::from(frame.len() - ETHERNET);
    if !frame.answer::<V6>(&reply.headers::<V6>()) {
        // The driver leaves no room for the four bytes of an MSS: the next hook makes its own.
        return pass(tally::XDP_HANDED_ON);
    }
    count_arrival(work, bytes);
    syn::answered(work);
    count::tally(tally::XDP_ANSWERED);
    XDP_TX
}

/// A segment of a connection of which nothing is kept: only data behind a good cookie, and now and then one that may
/// deserve a reset, are worth the next hook's time.
#[inline(always)]
fn stranger(frame: Frame, work: &Work) -> u32 {
    if predecessor::is_behind() {
        return pass(tally::XDP_HANDED_ON);
    }
    if work.has(flag::RST) {
        return drop(frame, work, DropReason::Absorbed);
    }
    let now = frame.now_ns();
    let (isn, cookie) = (work.seq.wrapping_sub(1), work.ack.wrapping_sub(1));
    let fit = if work.has(flag::ACK) {
        cookies::fit(work, isn, cookie, now)
    } else {
        Fit::Nothing
    };
    if fit == Fit::Whole {
        if work.payload_len == 0 && !work.has(flag::FIN) {
            return drop(frame, work, DropReason::Absorbed);
        }
        return pass(tally::XDP_HANDED_ON);
    }
    // The second segment of a hello: all frames of a batch come by here before the next hook sees the first.
    let later = fit == Fit::Ends && work.payload_len != 0;
    if later || handed_on(now) {
        return pass(tally::XDP_HANDED_ON);
    }
    count::add!(LISTENER_STATS, u32::from(work.listener), cookies_invalid, 1);
    drop(frame, work, DropReason::ResetRateLimited)
}

/// As many as may be answered with a reset.
#[inline(always)]
fn handed_on(now_ns: u64) -> bool {
    let (Some(bucket), Some(settings)) = (STRAYS.get_ptr_mut(0), SETTINGS.get(0)) else {
        return false;
    };
    let limit = Limit {
        interval_ns: settings.reset_interval_ns,
        fill_ns: settings.reset_fill_ns,
    };
    // SAFETY: this CPU's bucket.
    unsafe { (*bucket).take(now_ns, limit) }
}

/// What ends here is counted as the next hook would have.
#[inline(always)]
fn arrived(frame: Frame, work: &Work) {
    count_arrival(work, u64::from(frame.len() - ETHERNET));
}

#[inline(always)]
fn count_arrival(work: &Work, bytes: u64) {
    let listener = u32::from(work.listener);
    count::add!(LISTENER_STATS, listener, packets, 1, bytes, bytes);
}

#[inline(always)]
fn pass(slot: u32) -> u32 {
    count::tally(slot);
    XDP_PASS
}

#[inline(always)]
fn drop(frame: Frame, work: &Work, reason: DropReason) -> u32 {
    arrived(frame, work);
    dropped(reason)
}

#[inline(always)]
fn dropped(reason: DropReason) -> u32 {
    count::reason(reason);
    count::tally(tally::XDP_DROPPED);
    XDP_DROP
}
