//! SYN cookies: the handshake's state, kept by the client.
//!
//! The initial sequence number of a SYN-ACK says, under a key, what the SYN
//! said, so that no memory is spent before a client has proven its address:
//!
//! ```text
//!  31            16 15         8 7     5 4          1  0
//! +----------------+------------+-------+------------+----+
//! |  sequence MAC  | tuple MAC  |  MSS  |   window   |SACK|
//! |    16 bits     |   8 bits   | index |   scale    |    |
//! +----------------+------------+-------+------------+----+
//! ```
//!
//! The tuple MAC covers both addresses, both ports, the epoch and the low byte
//! (the options). The sequence MAC covers all of that and the client's initial
//! sequence number; both go on from the same state of SipHash. A cookie is good
//! only when both fit; the tuple MAC alone
//! tells "this acknowledges one of our cookies, though perhaps not with this
//! sequence number", which is how the second segment of a hello looks when it
//! overtakes the first.
//!
//! **Lifetime.** Epochs last 64 seconds. A caller accepts the current epoch and
//! the one before, so a cookie lives between 64 and 128 seconds.
//!
//! **Forging odds.** 24 bits are MAC, and two epochs are accepted: a blind
//! guess succeeds once in 2^23 (8.4 million) segments. It must also carry the
//! wanted name in its payload, because nothing is opened for a bare ACK. The
//! key is secret and changes every 64 epochs, so what is learned from one
//! tuple says nothing about another. [`tuple_matches`] alone is right by chance
//! once in 256 (128 over two epochs): let it decide about silence, never about
//! acceptance.
//!
//! Functions take the key that belongs to the epoch; see [`key_slot`].

use crate::abi::{Address, is_v4};
use crate::siphash::SipHash24;

/// Length of an epoch in nanoseconds.
pub const EPOCH_NS: u64 = 64_000_000_000;

/// How many epochs one key serves.
pub const EPOCHS_PER_KEY: u32 = 64;

/// How many keys exist at a time; see [`key_slot`].
pub const KEY_SLOTS: u32 = 4;

/// The segment sizes a cookie can express, ascending: the default of RFC 9293,
/// what fits tunnels of MTU 1280 and 1420 in IPv6 and IPv4, and the common
/// sizes of PPPoE and Ethernet.
pub const MSS_TABLE: [u16; 8] = [536, 1220, 1240, 1300, 1360, 1380, 1440, 1460];

/// [`CookieOptions::window_scale`] of a client that offered none.
pub const NO_WINDOW_SCALE: u8 = 15;

/// The largest shift that RFC 7323 section 2.3 allows.
pub const MAX_WINDOW_SCALE: u8 = 14;

/// The two ends of a connection.
///
/// `ports` holds both ports in any fixed layout. Byte order does not matter as
/// long as every caller on the machine uses the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Address of the client.
    pub client: Address,
    /// Address the client connects to.
    pub local: Address,
    /// Both ports.
    pub ports: u32,
}

/// How far a cookie is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is not.
    Nothing,
    /// It was made for these ends, but for another sequence number of the client's. See the module for what may
    /// rest on it.
    Ends,
    /// It answered this very SYN.
    Whole,
}

/// What a SYN offered and the spliced connection needs later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieOptions {
    /// Index into [`MSS_TABLE`], 0 to 7.
    pub mss_index: u8,
    /// Shift of the client's window, 0 to 14, or [`NO_WINDOW_SCALE`].
    pub window_scale: u8,
    /// Whether the client permits SACK.
    pub sack: bool,
}

impl CookieOptions {
    /// The low byte of a cookie. Bits beyond each field's width are dropped.
    #[inline(always)]
    pub const fn pack(self) -> u8 {
        (self.mss_index & 7) << 5 | (self.window_scale & 15) << 1 | self.sack as u8
    }

    /// Reads the low byte of a cookie.
    #[inline(always)]
    pub const fn unpack(byte: u8) -> Self {
        Self {
            mss_index: byte >> 5,
            window_scale: byte >> 1 & 15,
            sack: byte & 1 == 1,
        }
    }

    /// The options inside a cookie. Meaningful only after [`fit`].
    #[inline(always)]
    pub const fn of_cookie(cookie: u32) -> Self {
        Self::unpack(cookie as u8)
    }
}

/// Index of the largest expressible segment size that is at most `mss`.
///
/// What is below the first entry counts as the first entry, as in the kernel's
/// own SYN cookies: 536 is what every host must accept (RFC 9293 section 3.7.1).
#[inline(always)]
pub const fn mss_index(mss: u16) -> u8 {
    match mss {
        0..1220 => 0,
        1220..1240 => 1,
        1240..1300 => 2,
        1300..1360 => 3,
        1360..1380 => 4,
        1380..1440 => 5,
        1440..1460 => 6,
        1460.. => 7,
    }
}

/// The segment size behind an index of [`MSS_TABLE`]. Only the low three bits
/// count.
#[inline(always)]
pub const fn mss_of(index: u8) -> u16 {
    // Shifts instead of the table: BPF programs then need no read-only data.
    const fn pack(sizes: [u16; 4]) -> u64 {
        let [a, b, c, d] = sizes;
        a as u64 | (b as u64) << 16 | (c as u64) << 32 | (d as u64) << 48
    }
    const LOW: u64 = {
        let [a, b, c, d, ..] = MSS_TABLE;
        pack([a, b, c, d])
    };
    const HIGH: u64 = {
        let [.., a, b, c, d] = MSS_TABLE;
        pack([a, b, c, d])
    };
    let four = if index & 4 == 0 { LOW } else { HIGH };
    (four >> ((index & 3) as u32 * 16)) as u16
}

/// The epoch that contains the monotonic time `now_ns`.
#[inline(always)]
pub const fn epoch(now_ns: u64) -> u32 {
    (now_ns / EPOCH_NS) as u32
}

/// The slot, below [`KEY_SLOTS`], whose key serves `epoch`.
///
/// Keys live in an array of four slots and serve [`EPOCHS_PER_KEY`] epochs each
/// in turn. At any time the current, the previous and the next slot must be
/// left alone (an epoch's key has to outlive it by one epoch, and to exist
/// before it begins); the fourth may be refilled.
#[inline(always)]
pub const fn key_slot(epoch: u32) -> u32 {
    epoch / EPOCHS_PER_KEY % KEY_SLOTS
}

/// The initial sequence number that answers a SYN.
#[inline(always)]
pub const fn mint(
    key: [u64; 2],
    tuple: &Tuple,
    client_isn: u32,
    options: CookieOptions,
    epoch: u32,
) -> u32 {
    let packed = options.pack();
    let mac = Mac::new(key, tuple, packed, epoch);
    mac.of_sequence(client_isn) | mac.of_tuple() | packed as u32
}

/// How far `cookie` is what [`mint`] made for these ends, this client sequence
/// number and this epoch. A stranger's costs one MAC, as a rule.
#[inline(always)]
pub const fn fit(key: [u64; 2], tuple: &Tuple, client_isn: u32, cookie: u32, epoch: u32) -> Fit {
    let mac = Mac::new(key, tuple, cookie as u8, epoch);
    if cookie & 0xff00 != mac.of_tuple() {
        Fit::Nothing
    } else if cookie & 0xffff_0000 != mac.of_sequence(client_isn) {
        Fit::Ends
    } else {
        Fit::Whole
    }
}

/// Whether `cookie` was made for these ends in this epoch, for whatever client
/// sequence number. See the module for what may rest on it.
#[inline(always)]
pub const fn tuple_matches(key: [u64; 2], tuple: &Tuple, cookie: u32, epoch: u32) -> bool {
    cookie & 0xff00 == Mac::new(key, tuple, cookie as u8, epoch).of_tuple()
}

/// SipHash that has read the ends, the epoch and the options: 16 bytes for
/// IPv4, 40 for IPv6. The tuple MAC ends there; the sequence MAC has four bytes
/// more. The length is part of SipHash, so one key serves all four kinds.
struct Mac {
    read: SipHash24,
    len: u8,
}

impl Mac {
    #[inline(always)]
    const fn new(key: [u64; 2], tuple: &Tuple, options: u8, epoch: u32) -> Self {
        let [c0, c1, c2, c3] = tuple.client;
        let [l0, l1, l2, l3] = tuple.local;
        let start = SipHash24::new(key);
        let (ends, len) = if is_v4(&tuple.client) && is_v4(&tuple.local) {
            (start.word(wide(c3, l3)), 16)
        } else {
            let client = start.word(wide(c0, c1)).word(wide(c2, c3));
            (client.word(wide(l0, l1)).word(wide(l2, l3)), 40)
        };
        // An epoch of which 24 bits count comes again after 34 years.
        let context = wide(epoch << 8 | options as u32, tuple.ports);
        Self {
            read: ends.word(context),
            len,
        }
    }

    /// Bits 8 to 15 of the cookie.
    #[inline(always)]
    const fn of_tuple(&self) -> u32 {
        self.read.finish(0, self.len) as u32 & 0xff00
    }

    /// Bits 16 to 31 of the cookie.
    #[inline(always)]
    const fn of_sequence(&self, client_isn: u32) -> u32 {
        self.read.finish(client_isn as u64, self.len + 4) as u32 & 0xffff_0000
    }
}

#[inline(always)]
const fn wide(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::address_v4;

    const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
    const TUPLE: Tuple = Tuple {
        client: [1, 2, 3, 4],
        local: [5, 6, 7, 8],
        ports: 443 << 16 | 50_000,
    };
    const OPTIONS: CookieOptions = CookieOptions {
        mss_index: 5,
        window_scale: 7,
        sack: true,
    };

    #[test]
    fn every_option_byte_survives_packing() {
        for byte in 0..=u8::MAX {
            assert_eq!(CookieOptions::unpack(byte).pack(), byte);
        }
    }

    #[test]
    fn mss_rounds_down_to_the_table() {
        for mss in 0..=u16::MAX {
            let expected = MSS_TABLE
                .iter()
                .rposition(|entry| *entry <= mss)
                .unwrap_or(0);
            assert_eq!(usize::from(mss_index(mss)), expected, "mss {mss}");
        }
        for (index, mss) in MSS_TABLE.iter().enumerate() {
            assert_eq!(mss_of(index as u8), *mss);
        }
    }

    #[test]
    fn fresh_cookie_verifies_and_carries_its_options() {
        let cookie = mint(KEY, &TUPLE, 77, OPTIONS, 9);
        assert_eq!(fit(KEY, &TUPLE, 77, cookie, 9), Fit::Whole);
        assert!(tuple_matches(KEY, &TUPLE, cookie, 9));
        assert_eq!(CookieOptions::of_cookie(cookie), OPTIONS);
    }

    /// Another sequence number fails the check but is still recognised as ours.
    #[test]
    fn overtaking_segment_is_told_from_a_stranger() {
        let cookie = mint(KEY, &TUPLE, 77, OPTIONS, 9);
        assert_eq!(fit(KEY, &TUPLE, 78, cookie, 9), Fit::Ends);
        assert!(tuple_matches(KEY, &TUPLE, cookie, 9));
    }

    /// A change of the layout or of the MAC invalidates every cookie in flight
    /// when the daemon is upgraded: this test makes such a change deliberate.
    #[test]
    fn layout_is_stable() {
        assert_eq!(
            mint(KEY, &TUPLE, 77, OPTIONS, 9) & 0xff,
            5 << 5 | 7 << 1 | 1
        );
        assert_eq!(mint(KEY, &TUPLE, 77, OPTIONS, 9), 0xa89e_faaf);
        let v4 = Tuple {
            client: address_v4([198, 51, 100, 4]),
            local: address_v4([203, 0, 113, 7]),
            ..TUPLE
        };
        assert_eq!(mint(KEY, &v4, 77, OPTIONS, 9), 0x7ee3_4eaf);
    }

    #[test]
    fn keys_rotate_through_four_slots() {
        assert_eq!(epoch(EPOCH_NS - 1), 0);
        assert_eq!(epoch(EPOCH_NS), 1);
        assert_eq!([0, 63, 64, 128, 192, 256].map(key_slot), [0, 0, 1, 2, 3, 0]);
    }
}
