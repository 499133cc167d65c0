//! Segments of our own making, as `etherparse` reads them.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{NetHeaders, PacketHeaders, TcpOptionElement, TransportHeader};
use forwarder_common::abi::{Address, address_v4, address_v6, is_v4};
use forwarder_common::checksum::Sum;
use forwarder_common::segment::{Headers, Segment, TTL};
use forwarder_common::tcp::{NO_SCALE, flag, syn_option_words};
use proptest::prelude::*;

/// The packet on the wire: headers, the checksum completed, payload.
fn packet(headers: &Headers, ip_len: usize, payload: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = headers
        .words
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    bytes.truncate(headers.len as usize);
    let checksum = (headers.pseudo + headers.tcp + Sum::of_bytes(payload)).checksum();
    bytes[ip_len + 16..ip_len + 18].copy_from_slice(&checksum.to_ne_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A segment, its payload, and the options that a reader should find.
type Case = (Segment, Vec<u8>, Vec<TcpOptionElement>);

fn segment(address: fn([u8; 16]) -> Address) -> impl Strategy<Value = Case> {
    let scale = prop_oneof![0u32..=14, Just(NO_SCALE)];
    let options = prop::option::of((500u32..9000, any::<bool>(), scale));
    let payload = prop::collection::vec(any::<u8>(), 0..1400);
    (
        any::<([u8; 16], [u8; 16])>(),
        any::<(u16, u16, u32, u32, u16)>(),
        0u8..32,
        options,
        payload,
    )
        .prop_map(
            move |((source, destination), numbers, flags, offer, payload)| {
                let (source_port, destination_port, seq, ack, window) = numbers;
                let mut expected = Vec::new();
                let (mut options, mut option_words) = ([0; 3], 0);
                if let Some((mss, sack, scale)) = offer {
                    (options, option_words) = syn_option_words(mss, sack, scale);
                    expected.push(TcpOptionElement::MaximumSegmentSize(mss as u16));
                    if sack {
                        expected.push(TcpOptionElement::SelectiveAcknowledgementPermitted);
                    }
                    if scale != NO_SCALE {
                        expected.push(TcpOptionElement::WindowScale(scale as u8));
                    }
                }
                let segment = Segment {
                    source: address(source),
                    destination: address(destination),
                    source_port_be: source_port.to_be(),
                    destination_port_be: destination_port.to_be(),
                    seq,
                    ack,
                    flags,
                    window,
                    options,
                    option_words,
                    payload_len: payload.len() as u32,
                };
                (segment, payload, expected)
            },
        )
}

fn v4(bytes: [u8; 16]) -> Address {
    let [a, b, c, d, ..] = bytes;
    address_v4([a, b, c, d])
}

/// What both families have in common.
fn assert_tcp(segment: &Segment, transport: Option<TransportHeader>, options: &[TcpOptionElement]) {
    let Some(TransportHeader::Tcp(tcp)) = transport else {
        panic!("not TCP: {transport:?}");
    };
    assert_eq!(tcp.source_port, u16::from_be(segment.source_port_be));
    assert_eq!(
        tcp.destination_port,
        u16::from_be(segment.destination_port_be)
    );
    assert_eq!(
        (tcp.sequence_number, tcp.acknowledgment_number),
        (segment.seq, segment.ack)
    );
    assert_eq!(tcp.window_size, segment.window);
    let flags = [
        (tcp.fin, flag::FIN),
        (tcp.syn, flag::SYN),
        (tcp.rst, flag::RST),
        (tcp.psh, flag::PSH),
        (tcp.ack, flag::ACK),
    ];
    for (set, bit) in flags {
        assert_eq!(set, segment.flags & bit != 0);
    }
    assert!(!(tcp.urg || tcp.ece || tcp.cwr || tcp.ns));
    let said: Vec<_> = tcp
        .options_iterator()
        .map(|option| option.unwrap())
        .filter(|option| *option != TcpOptionElement::Noop)
        .collect();
    assert_eq!(said, options);
}

proptest! {
    #[test]
    fn ipv4_segments((segment, payload, options) in segment(v4)) {
        prop_assert!(is_v4(&segment.source));
        let headers = segment.headers::<false>();
        let bytes = packet(&headers, 20, &payload);
        let parsed = PacketHeaders::from_ip_slice(&bytes).unwrap();
        let Some(NetHeaders::Ipv4(ip, _)) = &parsed.net else {
            panic!("{:?}", parsed.net);
        };
        prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        prop_assert_eq!(u32::from(ip.time_to_live), TTL);
        prop_assert_eq!(usize::from(ip.total_len), bytes.len());
        prop_assert!(ip.dont_fragment && !ip.more_fragments && ip.fragment_offset.value() == 0);
        let word = |address: Address| Ipv4Addr::from(address[3].to_ne_bytes());
        prop_assert_eq!(Ipv4Addr::from(ip.source), word(segment.source));
        prop_assert_eq!(Ipv4Addr::from(ip.destination), word(segment.destination));
        prop_assert_eq!(parsed.payload.slice(), payload.as_slice());
        if let Some(TransportHeader::Tcp(tcp)) = &parsed.transport {
            prop_assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(ip, &payload).unwrap());
        }
        assert_tcp(&segment, parsed.transport.clone(), &options);
    }

    #[test]
    fn ipv6_segments((segment, payload, options) in segment(address_v6)) {
        let headers = segment.headers::<true>();
        let bytes = packet(&headers, 40, &payload);
        let parsed = PacketHeaders::from_ip_slice(&bytes).unwrap();
        let Some(NetHeaders::Ipv6(ip, _)) = &parsed.net else {
            panic!("{:?}", parsed.net);
        };
        prop_assert_eq!(u32::from(ip.hop_limit), TTL);
        prop_assert_eq!(usize::from(ip.payload_length), bytes.len() - 40);
        let words = |address: Address| {
            let bits = address.into_iter().fold(0, |bits, word| bits << 32 | u128::from(u32::from_be(word)));
            Ipv6Addr::from(bits)
        };
        prop_assert_eq!(Ipv6Addr::from(ip.source), words(segment.source));
        prop_assert_eq!(Ipv6Addr::from(ip.destination), words(segment.destination));
        prop_assert_eq!(parsed.payload.slice(), payload.as_slice());
        if let Some(TransportHeader::Tcp(tcp)) = &parsed.transport {
            prop_assert_eq!(tcp.checksum, tcp.calc_checksum_ipv6(ip, &payload).unwrap());
        }
        assert_tcp(&segment, parsed.transport.clone(), &options);
    }
}
