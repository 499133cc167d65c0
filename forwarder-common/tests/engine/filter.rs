//! The XDP filter.

use forwarder_common::abi::{client_address, tally};
use forwarder_common::engine::xdp_filter::{Filtered, filter};
use forwarder_common::segment::Segment;
use forwarder_common::tcp::flag;
use forwarder_common::verdict::DropReason;

use crate::entrance::{CLIENT_ISN, Entrance, on_every_machine};
use crate::skb::Bytes;

const DATA: &[u8] = b"hello";

/// What the filter does with a packet, behind an Ethernet header.
fn filtered<const V6: bool>(entrance: &Entrance<V6>, packet: &Bytes) -> Result<u32, DropReason> {
    let frame = packet.frame();
    match filter::<_, _, V6>(&entrance.host, &frame) {
        Filtered::Pass(slot) => Ok(slot),
        Filtered::Drop(reason) => Err(reason),
        Filtered::Answer => Ok(tally::XDP_ANSWERED),
    }
}

/// What a cookie is good for.
fn good_cookies<const V6: bool>(entrance: Entrance<V6>) {
    let connection = entrance.connection();
    let (seq, ack) = (
        CLIENT_ISN.wrapping_add(1),
        connection.cookie().wrapping_add(1),
    );
    let of = |flags, payload: &[u8]| {
        let packet = connection.client(flags, seq, ack, payload);
        filtered(&entrance, &packet)
    };
    assert_eq!(of(flag::ACK | flag::PSH, DATA), Ok(tally::XDP_HANDED_ON));
    assert_eq!(of(flag::ACK | flag::FIN, b""), Ok(tally::XDP_HANDED_ON));
    let before = entrance.host.listener_counts();
    assert_eq!(of(flag::ACK, b""), Err(DropReason::Absorbed));
    assert_eq!(of(flag::RST | flag::ACK, b""), Err(DropReason::Absorbed));
    assert_eq!(of(flag::RST, b""), Err(DropReason::Absorbed));
    let after = entrance.host.listener_counts();
    assert_eq!(after.packets, before.packets + 3, "what ends here counts");
    let length = if V6 { 60 } else { 40 };
    assert_eq!(after.bytes, before.bytes + 3 * length);
    assert_eq!(after.cookies_invalid, 0);
    assert!(entrance.host.is_clean());
}

#[test]
fn only_data_behind_a_good_cookie_is_handed_on() {
    on_every_machine(good_cookies, good_cookies);
}

/// As many segments without a good cookie are handed on as may be answered with a reset.
fn wrong_cookies<const V6: bool>(mut entrance: Entrance<V6>) {
    let settings = &mut entrance.host.settings;
    settings.reset_fill_ns = 3 * settings.reset_interval_ns;
    let interval = settings.reset_interval_ns;
    let connection = entrance.connection();
    let (seq, cookie) = (CLIENT_ISN.wrapping_add(1), connection.cookie());
    // A bit of the part that is made of the ends.
    let wrong = (cookie ^ 0x100).wrapping_add(1);
    let of = |flags, seq, ack, payload: &[u8]| {
        let packet = connection.client(flags, seq, ack, payload);
        filtered(&entrance, &packet)
    };
    for _ in 0..3 {
        assert_eq!(of(flag::ACK, seq, wrong, DATA), Ok(tally::XDP_HANDED_ON));
    }
    let invalid = || entrance.host.listener_counts().cookies_invalid;
    assert_eq!(invalid(), 0, "what is handed on the next hook counts");
    let limited = Err(DropReason::ResetRateLimited);
    assert_eq!(of(flag::ACK, seq, wrong, DATA), limited);
    assert_eq!(of(flag::ACK, seq, wrong, b""), limited);
    assert_eq!(of(flag::FIN, seq, 0, b""), limited);
    assert_eq!(invalid(), 3);

    // The second segment of a hello, whose first one may be right before it.
    let right = cookie.wrapping_add(1);
    let later = seq.wrapping_add(500);
    assert_eq!(of(flag::ACK, later, right, DATA), Ok(tally::XDP_HANDED_ON));
    assert_eq!(of(flag::ACK, later, right, b""), limited);
    assert_eq!(of(flag::ACK, seq, right, DATA), Ok(tally::XDP_HANDED_ON));

    let now = &entrance.host.now_ns;
    now.set(now.get() + interval);
    assert_eq!(of(flag::ACK, seq, wrong, DATA), Ok(tally::XDP_HANDED_ON));
    assert_eq!(of(flag::ACK, seq, wrong, DATA), limited);
}

#[test]
fn segments_of_strangers_are_limited() {
    on_every_machine(wrong_cookies, wrong_cookies);
}

fn no_stack_sends<const V6: bool>(entrance: Entrance<V6>) {
    let connection = entrance.connection();
    for flags in [
        flag::SYN | flag::FIN,
        flag::SYN | flag::RST,
        flag::SYN | flag::ACK,
        flag::PSH,
        0,
    ] {
        let packet = connection.client(flags, CLIENT_ISN, 0, b"");
        let reason = Err(DropReason::MalformedSegment);
        assert_eq!(filtered(&entrance, &packet), reason, "{flags:#b}");
        assert_eq!(entrance.run(&packet), reason, "{flags:#b}");
    }
    let of_the_vip = |flags| {
        let segment = connection.bare(flags, CLIENT_ISN, 1);
        let source = segment.destination;
        connection.packet(&Segment { source, ..segment }, DATA)
    };
    let reason = Err(DropReason::InvalidSource);
    assert_eq!(filtered(&entrance, &of_the_vip(flag::ACK)), reason);
    assert_eq!(filtered(&entrance, &of_the_vip(flag::SYN)), reason);
    assert_eq!(entrance.run(&of_the_vip(flag::SYN)), reason);
    assert_eq!(entrance.host.listener_counts().cookies, 0);
}

#[test]
fn what_no_stack_sends_is_dropped_at_both_hooks() {
    on_every_machine(no_stack_sends, no_stack_sends);
}

/// What somebody else decides about.
fn what_passes<const V6: bool>(mut entrance: Entrance<V6>) {
    let syn = entrance.connection().syn();
    let seq = CLIENT_ISN.wrapping_add(1);
    assert_eq!(filtered(&entrance, &syn), Ok(tally::XDP_ANSWERED));

    let mut segment = entrance.connection().bare(flag::SYN, CLIENT_ISN, 0);
    segment.destination_port_be = 80_u16.to_be();
    let elsewhere = entrance.connection().packet(&segment, b"");
    assert_eq!(filtered(&entrance, &elsewhere), Ok(tally::XDP_FOREIGN));

    entrance.host.settings.predecessor = 1;
    let reset = entrance.connection().client(flag::RST, seq, 0, b"");
    assert_eq!(filtered(&entrance, &reset), Ok(tally::XDP_HANDED_ON));
    entrance.host.settings.predecessor = 0;
    assert_eq!(filtered(&entrance, &reset), Err(DropReason::Absorbed));

    entrance.connection().asked();
    assert_eq!(filtered(&entrance, &syn), Ok(tally::XDP_FLOW));
    assert_eq!(filtered(&entrance, &reset), Ok(tally::XDP_FLOW));

    entrance.host.vips[0].closed = 1;
    assert_eq!(filtered(&entrance, &syn), Ok(tally::XDP_FOREIGN));
}

#[test]
fn what_others_decide_about_passes() {
    on_every_machine(what_passes, what_passes);
}

/// A segment of a hello that is being read.
fn of_a_hello<const V6: bool>() {
    let entrance = Entrance::<V6>::new(client_address::TRANSPARENT, 0);
    let connection = entrance.connection();
    let ack = connection.client(flag::ACK, CLIENT_ISN.wrapping_add(1), 1, b"");
    entrance.host.take_hello(&connection.key(), |_| {});
    assert_eq!(filtered(&entrance, &ack), Ok(tally::XDP_HANDED_ON));
    let reset = connection.client(flag::RST, CLIENT_ISN.wrapping_add(1), 0, b"");
    assert_eq!(filtered(&entrance, &reset), Ok(tally::XDP_HANDED_ON));
}

#[test]
fn segments_of_a_hello_are_handed_on() {
    of_a_hello::<false>();
    of_a_hello::<true>();
}
