//! SYN cookies: the handshake's state, kept by the client.
//!
//! The initial sequence number of a SYN-ACK says, under a key, what the SYN
//! said, so that no memory is spent before a client has proven its address:
//!
//! ```text
//!  31            16 15         8  7  6     5 4          1  0
//! +----------------+------------+---+-------+------------+---+
//! |  sequence MAC  | tuple MAC  | . |  MSS  |   window   | . |
//! |    16 bits     |   8 bits   |   | index |   scale    |   |
//! +----------------+------------+---+-------+------------+---+
//! ```
//!
//! The two bits marked with a dot belong to the sequence MAC, which so has 18.
//! The tuple MAC covers both addresses, both ports, the epoch and the options
//! (bits 1 to 6). The sequence MAC covers all of that and the client's initial
//! sequence number; both go on from the same state of SipHash. A cookie is good
//! only when both fit; the tuple MAC alone
//! tells "this acknowledges one of our cookies, though perhaps not with this
//! sequence number", which is how the second segment of a hello looks when it
//! overtakes the first.
//!
//! **Options.** A client that offers a window scale is taken to permit selective
//! acknowledgements too, if it did; one that offers only one of the two gets
//! neither, which every stack can do without. Bits 1 to 4 mean what they meant
//! in version 5 of the ABI, so that its flows can go on.
//!
//! **Lifetime.** Epochs last 64 seconds. The epoch before the present one is
//! accepted for the first 32 seconds of it, so a cookie lives between 32 and 96
//! seconds; while many cookies are wrong, for the first 4 seconds, as long as a
//! handshake that the change of epochs finds half done may take
//! ([`accepts_previous`]).
//!
//! **Forging odds.** 26 bits are MAC. A blind guess succeeds once in 2^25 (33.6
//! million) segments while two epochs are accepted, and once in 2^26 (67.1
//! million) otherwise: half of the time, and 15/16 of it while somebody guesses.
//! Linux is at 2^29 and answers so only while its queue overflows; here every
//! connection begins so, without timestamps, which could hold more. A guess must
//! also carry the wanted name in its payload, because nothing is opened for a
//! bare ACK: at 1 Gbit/s (about 600,000 such segments a second) one in about
//! 110 seconds opens a connection, whose sender sees no answer. The
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

/// How long after its end an epoch is accepted, and how long while many cookies
/// are wrong.
const FRESH_NS: [u64; 2] = [32_000_000_000, 4_000_000_000];

/// Bits of a cookie that hold options; all others are MAC.
const OPTION_BITS: u32 = 0x7e;
/// Bits of the tuple MAC.
const TUPLE_BITS: u32 = 0xff00;
/// Bits of the sequence MAC.
const SEQUENCE_BITS: u32 = !(OPTION_BITS | TUPLE_BITS);

/// The segment sizes a cookie can express, ascending: the default of RFC 9293,
/// what fits tunnels of MTU 1280 and 1420 in IPv6, and Ethernet in IPv6. A tunnel
/// takes the smaller of its own and the client's, so larger ones count only
/// where it has an MTU above 1480.
pub const MSS_TABLE: [u16; 4] = [536, 1220, 1360, 1440];

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
    /// Index into [`MSS_TABLE`], 0 to 3.
    pub mss_index: u8,
    /// Shift of the client's window, 0 to 14, or [`NO_WINDOW_SCALE`].
    pub window_scale: u8,
    /// Whether the client permits SACK: it does if it offers a window scale.
    pub sack: bool,
}

impl CookieOptions {
    /// What a cookie can hold of what a SYN offered.
    #[inline(always)]
    pub const fn of_syn(mss: u16, window_scale: u8, sack: bool) -> Self {
        let both = sack && window_scale <= MAX_WINDOW_SCALE;
        Self {
            mss_index: mss_index(mss),
            window_scale: if both { window_scale } else { NO_WINDOW_SCALE },
            sack: both,
        }
    }

    /// Bits 1 to 6 of a cookie. Bits beyond each field's width are dropped.
    #[inline(always)]
    pub const fn pack(self) -> u8 {
        (self.mss_index & 3) << 5 | (self.window_scale & 15) << 1
    }

    /// Reads the low byte of a cookie.
    #[inline(always)]
    pub const fn unpack(byte: u8) -> Self {
        let window_scale = byte >> 1 & 15;
        Self {
            mss_index: byte >> 5 & 3,
            window_scale,
            sack: window_scale != NO_WINDOW_SCALE,
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
        1220..1360 => 1,
        1360..1440 => 2,
        1440.. => 3,
    }
}

/// The segment size behind an index of [`MSS_TABLE`]. Only the low two bits
/// count.
#[inline(always)]
pub const fn mss_of(index: u8) -> u16 {
    // A shift instead of the table: BPF programs then need no read-only data.
    const ALL: u64 = {
        let [a, b, c, d] = MSS_TABLE;
        a as u64 | (b as u64) << 16 | (c as u64) << 32 | (d as u64) << 48
    };
    (ALL >> ((index & 3) as u32 * 16)) as u16
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
    let mac = Mac::new(key, tuple, options_of(cookie), epoch);
    if cookie & TUPLE_BITS != mac.of_tuple() {
        Fit::Nothing
    } else if cookie & SEQUENCE_BITS != mac.of_sequence(client_isn) {
        Fit::Ends
    } else {
        Fit::Whole
    }
}

/// Whether `cookie` was made for these ends in this epoch, for whatever client
/// sequence number. See the module for what may rest on it.
#[inline(always)]
pub const fn tuple_matches(key: [u64; 2], tuple: &Tuple, cookie: u32, epoch: u32) -> bool {
    cookie & TUPLE_BITS == Mac::new(key, tuple, options_of(cookie), epoch).of_tuple()
}

/// The option bits of a cookie alone.
#[inline(always)]
const fn options_of(cookie: u32) -> u8 {
    (cookie & OPTION_BITS) as u8
}

/// Whether a cookie of the epoch before the present one is still good; `guessed`
/// says that many cookies are wrong at present.
#[inline(always)]
pub const fn accepts_previous(now_ns: u64, guessed: bool) -> bool {
    let [calm, strict] = FRESH_NS;
    now_ns % EPOCH_NS < if guessed { strict } else { calm }
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

    /// [`TUPLE_BITS`] of the cookie.
    #[inline(always)]
    const fn of_tuple(&self) -> u32 {
        self.read.finish(0, self.len) as u32 & TUPLE_BITS
    }

    /// [`SEQUENCE_BITS`] of the cookie.
    #[inline(always)]
    const fn of_sequence(&self, client_isn: u32) -> u32 {
        self.read.finish(client_isn as u64, self.len + 4) as u32 & SEQUENCE_BITS
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
        mss_index: 2,
        window_scale: 7,
        sack: true,
    };

    #[test]
    fn every_option_byte_survives_packing() {
        for byte in 0..=u8::MAX {
            let packed = CookieOptions::unpack(byte).pack();
            assert_eq!(packed, byte & OPTION_BITS as u8);
            assert_eq!(CookieOptions::unpack(packed), CookieOptions::unpack(byte));
        }
        for (scale, sack) in [
            (NO_WINDOW_SCALE, true),
            (7, false),
            (NO_WINDOW_SCALE, false),
        ] {
            let held = CookieOptions::of_syn(1_400, scale, sack);
            assert_eq!((held.window_scale, held.sack), (NO_WINDOW_SCALE, false));
            assert_eq!(CookieOptions::unpack(held.pack()), held);
        }
        for scale in 0..=MAX_WINDOW_SCALE {
            let held = CookieOptions::of_syn(1_400, scale, true);
            assert_eq!((held.window_scale, held.sack), (scale, true));
            assert_eq!(CookieOptions::unpack(held.pack()), held);
        }
    }

    /// Where version 5 of the ABI had the scale, flows that were opened under it still have it.
    #[test]
    fn the_scale_stands_where_it_stood() {
        for scale in 0..16 {
            let old = 5 << 5 | scale << 1 | 1;
            assert_eq!(CookieOptions::unpack(old).window_scale, scale);
        }
    }

    /// Every cookie but as many as there are options is wrong: no bit is left unchecked.
    #[test]
    fn every_other_bit_is_checked() {
        let cookie = mint(KEY, &TUPLE, 77, OPTIONS, 9);
        let mut good = 0;
        for options in 0..64_u32 {
            for flipped in (0..32).filter(|bit| OPTION_BITS >> bit & 1 == 0) {
                let forged = cookie & !OPTION_BITS | options << 1;
                let forged = forged ^ 1 << flipped;
                good += u32::from(fit(KEY, &TUPLE, 77, forged, 9) == Fit::Whole);
            }
        }
        assert_eq!(good, 0);
        assert_eq!((SEQUENCE_BITS | TUPLE_BITS).count_ones(), 26);
        assert_eq!(SEQUENCE_BITS | TUPLE_BITS | OPTION_BITS, u32::MAX);
    }

    /// A cookie lives 32 to 96 seconds, and 4 to 68 while somebody guesses.
    #[test]
    fn the_previous_epoch_is_accepted_while_it_is_fresh() {
        const SECOND: u64 = 1_000_000_000;
        let start = 7 * EPOCH_NS;
        for (guessed, fresh) in [(false, 32), (true, 4)] {
            assert!(accepts_previous(start, guessed));
            assert!(accepts_previous(start + fresh * SECOND - 1, guessed));
            assert!(!accepts_previous(start + fresh * SECOND, guessed));
            assert!(!accepts_previous(start + EPOCH_NS - 1, guessed));
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
        assert_eq!(mint(KEY, &TUPLE, 77, OPTIONS, 9) & 0x7e, 2 << 5 | 7 << 1);
        assert_eq!(mint(KEY, &TUPLE, 77, OPTIONS, 9), 0xacdc_d4cf);
        let v4 = Tuple {
            client: address_v4([198, 51, 100, 4]),
            local: address_v4([203, 0, 113, 7]),
            ..TUPLE
        };
        assert_eq!(mint(KEY, &v4, 77, OPTIONS, 9), 0xcb2b_b34f);
    }

    #[test]
    fn keys_rotate_through_four_slots() {
        assert_eq!(epoch(EPOCH_NS - 1), 0);
        assert_eq!(epoch(EPOCH_NS), 1);
        assert_eq!([0, 63, 64, 128, 192, 256].map(key_slot), [0, 0, 1, 2, 3, 0]);
    }
}
