//! A SYN is answered with a cookie, and nothing is kept.

use forwarder_common::cookie::CookieOptions;
use forwarder_tests::packet::{Flags, Segment};
use forwarder_tests::programs::bench::Bench;
use forwarder_tests::programs::client::{Client, LINUX};
use forwarder_tests::programs::shape::{Refusal, Shape};

/// That the pure code takes it for a cookie of this connection.
#[track_caller]
fn assert_cookie(client: &Client, cookie: u32) {
    assert!(client.is_cookie(cookie), "{cookie:08x} for {client:?}");
}

/// Options of a SYN, what the cookie must say of them, and the options of the answer.
struct Case {
    title: &'static str,
    offered: &'static [u8],
    known: CookieOptions,
    answered: &'static [u8],
}

/// In place of the answer's MSS.
const M: u8 = 0xee;

fn cases() -> Vec<Case> {
    let case = |title, offered, mss_index, window_scale, sack, answered| Case {
        title,
        offered,
        known: CookieOptions {
            mss_index,
            window_scale,
            sack,
        },
        answered,
    };
    const MSS: &[u8] = &[2, 4, M, M];
    const BOTH: &[u8] = &[2, 4, M, M, 1, 1, 4, 2, 1, 3, 3, 7];
    vec![
        case("Linux", &LINUX, 3, 7, true, BOTH),
        case(
            "Windows",
            &[2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2],
            3,
            8,
            true,
            BOTH,
        ),
        case(
            "macOS",
            &[
                2, 4, 5, 180, 1, 3, 3, 6, 1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 4, 2, 0, 0,
            ],
            3,
            6,
            true,
            BOTH,
        ),
        case("none", &[], 0, 15, false, MSS),
        case("MSS alone", &[2, 4, 5, 180], 3, 15, false, MSS),
        case("MSS 536", &[2, 4, 2, 24], 0, 15, false, MSS),
        case("MSS 1379", &[2, 4, 5, 99], 2, 15, false, MSS),
        case("MSS 0 counts as none", &[2, 4, 0, 0], 0, 15, false, MSS),
        case("MSS 65535", &[2, 4, 255, 255], 3, 15, false, MSS),
        case("no MSS, SACK", &[4, 2, 0, 0], 0, 15, false, MSS),
        case(
            "MSS and SACK",
            &[2, 4, 5, 180, 4, 2, 0, 0],
            3,
            15,
            false,
            MSS,
        ),
        case(
            "MSS and scale",
            &[2, 4, 5, 180, 1, 3, 3, 0],
            3,
            15,
            false,
            MSS,
        ),
        // One of the two alone is not kept: a cookie has no bit for it.
        case("scale 14", &[3, 3, 14, 0], 0, 15, false, MSS),
        case("scale 200 counts as 14", &[3, 3, 200, 0], 0, 15, false, MSS),
        case(
            "MSS twice: the last",
            &[2, 4, 2, 24, 2, 4, 5, 180],
            3,
            15,
            false,
            MSS,
        ),
        case(
            "end of list, then more",
            &[0, 4, 2, 2, 2, 4, 5, 180],
            0,
            15,
            false,
            MSS,
        ),
        case(
            "MSS of a wrong length",
            &[2, 3, 5, 3, 3, 7, 0, 0],
            0,
            15,
            false,
            MSS,
        ),
        case(
            "scale of a wrong length",
            &[3, 4, 7, 7, 4, 2, 0, 0],
            0,
            15,
            false,
            MSS,
        ),
        case("length 0", &[4, 0, 2, 4, 5, 180, 0, 0], 0, 15, false, MSS),
        case("length 1", &[8, 1, 4, 2], 0, 15, false, MSS),
        case("length beyond the end", &[4, 2, 2, 40], 0, 15, false, MSS),
        case("MSS cut off", &[1, 1, 2, 4], 0, 15, false, MSS),
        case("a kind at the very end", &[1, 1, 1, 2], 0, 15, false, MSS),
        case("only padding", &[1; 40], 0, 15, false, MSS),
        case(
            "scale 14 and SACK",
            &[3, 3, 14, 1, 1, 1, 4, 2],
            0,
            14,
            true,
            BOTH,
        ),
        case(
            "scale 200 and SACK: 14",
            &[4, 2, 1, 3, 3, 200, 0, 0],
            0,
            14,
            true,
            BOTH,
        ),
        case(
            "the last three of forty bytes",
            &[
                1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 7,
            ],
            0,
            15,
            false,
            MSS,
        ),
        case(
            "fast open and an unknown option",
            &[34, 2, 253, 4, 0xf9, 0x89, 2, 4, 5, 180, 4, 2],
            3,
            15,
            false,
            MSS,
        ),
        case(
            "a signature (RFC 2385)",
            &[
                19, 18, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 3, 3, 7, 0, 0, 0,
            ],
            0,
            15,
            false,
            MSS,
        ),
    ]
}

fn expected(bench: &Bench, client: &Client, cookie: u32, case: &Case) -> Segment {
    let mut answer = Segment::new(client.vip, client.address, Flags::SYN_ACK);
    answer.seq = cookie;
    answer.ack = client.isn.wrapping_add(1);
    answer.window = 16_384;
    answer.options = case.answered.to_vec();
    let mss: u16 = if bench.shape.v6 { 1_360 } else { 1_380 };
    answer.options[2..4].copy_from_slice(&mss.to_be_bytes());
    answer
}

#[test]
fn every_option_block_gets_its_cookie() {
    let mut bench = Bench::new();
    for shape in Shape::all() {
        bench.reshape(shape);
        for case in cases() {
            let client = Client::new(&mut bench, Refusal::Alert);
            let syn = client.syn(case.offered);
            let seen = bench.from_client(&syn);
            let cookie = seen.segment().seq;
            assert_cookie(&client, cookie);
            assert_eq!(
                CookieOptions::of_cookie(cookie),
                case.known,
                "{}",
                case.title
            );
            seen.expect(&expected(&bench, &client, cookie, &case), &[]);
            let (asked, answered) = (syn.to_bytes().len(), seen.bytes.unwrap().len());
            assert!(
                answered <= asked + 4,
                "{}: {answered} for {asked}",
                case.title
            );
        }
    }
    assert_eq!(bench.maps.flows.keys().count(), 0);
    assert_eq!(bench.maps.hello_index.keys().count(), 0);
    let stats = bench.maps.listener_stats(0);
    let seen = 8 * cases().len() as u64;
    assert_eq!(
        stats[..4],
        [seen, seen, 0, 0],
        "SYNs, cookies, valid, invalid"
    );
    assert_eq!(stats[10], seen, "packets");
}

/// Address family and ports make a cookie, and the SYN's own number does.
#[test]
fn a_cookie_is_of_one_connection() {
    let mut bench = Bench::new();
    let client = Client::connect(&mut bench, Refusal::Alert);
    let again = bench.from_client(&client.syn(&LINUX)).segment().seq;
    assert_cookie(&client, again);
    let mut other = client.clone();
    other.isn = other.isn.wrapping_add(1);
    let seq = bench.from_client(&other.syn(&LINUX)).segment().seq;
    assert_cookie(&other, seq);
    assert_ne!(seq, client.cookie);
    let next = Client::connect(&mut bench, Refusal::Alert);
    assert_ne!(next.cookie & !0xff, client.cookie & !0xff);
}

#[test]
fn congestion_flags_and_data_of_a_syn_are_ignored() {
    let mut bench = Bench::new();
    for v6 in [false, true] {
        bench.reshape(Shape {
            v6,
            ..Shape::COMMON
        });
        for (flags, data) in [
            (Flags::SYN.with(Flags::ECE).with(Flags::CWR), &b""[..]),
            (Flags::SYN.with(Flags::PSH).with(Flags::URG), b""),
            (Flags::SYN, b"early"),
            (Flags::SYN, &[7; 1_300]),
        ] {
            let client = Client::new(&mut bench, Refusal::Alert);
            let mut syn = client.syn(&LINUX);
            syn.flags = flags;
            syn.payload = data.to_vec();
            let seen = bench.from_client(&syn);
            let cookie = seen.segment().seq;
            assert_cookie(&client, cookie);
            seen.expect(&expected(&bench, &client, cookie, &cases()[0]), &[]);
        }
    }
}
