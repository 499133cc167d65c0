//! SYNs of unknown connections, at both hooks.

use forwarder_common::abi::client_address;
use forwarder_common::cookie::CookieOptions;
use forwarder_common::engine::xdp_filter::{Filtered, filter};
use forwarder_common::segment::Segment;
use forwarder_common::tcp::flag;
use forwarder_common::verdict::DropReason;

use crate::entrance::{
    CLIENT_ISN, Entrance, NAME, PUBLIC, damaged, ends, options_and_payload, right,
};

/// Option words as they stand in a packet.
const MSS_1460: [u8; 4] = [2, 4, 5, 180];
const MSS_1300: [u8; 4] = [2, 4, 5, 20];
const SCALE_7: [u8; 4] = [1, 3, 3, 7];
const SACK: [u8; 4] = [1, 1, 4, 2];
/// Of the listener, and of the path to the node.
const MSS_1380: [u8; 4] = [2, 4, 5, 100];
/// What a cookie has for 1,300.
const MSS_1220: [u8; 4] = [2, 4, 4, 196];

/// SYNs' options, those of their answers, and those of the SYN to the node.
const OPTIONS: [[&[[u8; 4]]; 3]; 6] = [
    [&[], &[MSS_1380], &[[2, 4, 2, 24]]],
    [&[MSS_1460], &[MSS_1380], &[MSS_1380]],
    [&[MSS_1460, SACK], &[MSS_1380], &[MSS_1380]],
    [&[MSS_1460, SCALE_7], &[MSS_1380], &[MSS_1380]],
    [
        &[MSS_1460, SCALE_7, SACK],
        &[MSS_1380, SACK, SCALE_7],
        &[MSS_1380, SACK, SCALE_7],
    ],
    [
        &[MSS_1300, SACK, SCALE_7],
        &[MSS_1380, SACK, SCALE_7],
        &[MSS_1220, SACK, SCALE_7],
    ],
];

fn each_syn_is_answered<const V6: bool>() {
    for [offered, answered, asked] in OPTIONS {
        let entrance = Entrance::<V6>::new(client_address::TRANSPARENT, 0);
        let host = &entrance.host;
        let connection = entrance.connection();
        let mut segment = Segment {
            option_words: offered.len() as u32,
            ..connection.bare(flag::SYN, CLIENT_ISN, 0)
        };
        for (to, option) in segment.options.iter_mut().zip(offered) {
            *to = u32::from_ne_bytes(*option);
        }
        let at_tc = connection.packet(&segment, b"");
        let at_xdp = at_tc.frame();

        assert_eq!(entrance.run(&at_tc), Ok(PUBLIC));
        let filtered = filter::<_, _, V6>(host, &at_xdp);
        assert!(matches!(filtered, Filtered::Answer));
        assert_eq!(at_tc.bytes.borrow()[..], at_xdp.bytes.borrow()[14..]);

        let answer = right::<V6>(&at_tc);
        assert_eq!(ends(&answer), [entrance.net.vip, connection.end()]);
        assert_eq!(answer.flags, flag::SYN | flag::ACK);
        assert_eq!(answer.ack, CLIENT_ISN.wrapping_add(1));
        assert_eq!(answer.window, 16_384);
        assert_eq!(answer.header_len, 20 + 4 * answered.len() as u32);
        assert_eq!(options_and_payload::<V6>(&at_tc), answered.concat());
        let both = offered.len() == 3;
        assert_eq!(CookieOptions::of_cookie(answer.seq).sack, both);

        let counts = host.listener_counts();
        assert_eq!((counts.syns, counts.cookies, counts.packets), (2, 2, 2));
        let length = if V6 { 60 } else { 40 } + 4 * offered.len() as u64;
        assert_eq!(counts.bytes, 2 * length);
        assert!(host.is_clean());

        let node = connection.judged(answer.seq, NAME).unwrap();
        assert_eq!(node.options, asked.concat());
    }
}

#[test]
fn a_syn_is_answered_alike_at_both_hooks_whatever_it_offers() {
    each_syn_is_answered::<false>();
    each_syn_is_answered::<true>();
}

fn a_damaged_syn<const V6: bool>() {
    let entrance = Entrance::<V6>::new(client_address::TRANSPARENT, 0);
    let at_tc = damaged::<V6>(entrance.connection().syn());
    let at_xdp = at_tc.frame();
    assert_eq!(entrance.run(&at_tc), Err(DropReason::BadChecksum));
    assert!(matches!(
        filter::<_, _, V6>(&entrance.host, &at_xdp),
        Filtered::Drop(DropReason::BadChecksum)
    ));
    let counts = entrance.host.listener_counts();
    assert_eq!((counts.syns, counts.cookies, counts.packets), (0, 0, 2));
}

#[test]
fn a_damaged_syn_is_dropped_at_both_hooks() {
    a_damaged_syn::<false>();
    a_damaged_syn::<true>();
}
