//! Reads the server name out of a TLS ClientHello (RFC 8446 4.1.2, RFC 6066 3), a few bytes at a time.
//!
//! The stream may be cut into segments and into TLS records anywhere, so the reader is a state machine
//! that remembers where it is: a step takes either one integer, one byte of a name, or one run of bytes
//! to skip, and never looks back. Its state is 64 bytes of integers that the kernel keeps in a map.
//!
//! Contract: **what cannot be read in one way only is refused.** Every inner length is checked against
//! the end of what encloses it before it is used, so no length can escape its parent; a name list with
//! two names, the extension twice, an empty record or bytes behind the message in its record are all
//! refused, because two readers could disagree about them.

use crate::name;
use crate::verdict::DropReason;

/// Where the reader takes bytes from and puts names to. Offsets beyond what was stored give any value.
pub trait Bytes {
    /// The byte at this offset of the stream.
    fn byte(&self, at: u32) -> u8;
    /// Four bytes from this offset, the first one highest.
    fn word(&self, at: u32) -> u32;
    /// Byte `index` (at most 252) of the server name, lower case.
    fn put_name(&mut self, index: u32, byte: u8);
    /// Byte `index` (at most 31) of the first ALPN protocol.
    fn put_alpn(&mut self, index: u32, byte: u8);
}

/// The longest server name: 253 bytes (RFC 1035 2.3.4, without the root label).
pub const NAME_MAX: u32 = 253;
/// The longest ALPN protocol that is kept; a longer one is passed on but not reported.
pub const ALPN_MAX: u32 = 32;
const LABEL_MAX: u32 = 63;
const RECORD_MAX: u32 = 1 << 14;
const HANDSHAKE_RECORD: u32 = 22;
const CLIENT_HELLO: u32 = 1;
const SERVER_NAME: u32 = 0;
const ALPN: u32 = 16;
/// In `label`: everything since the last dot was a digit.
const DIGITS: u32 = 1 << 8;
const SEEN_NAME: u32 = 1;
const SEEN_ALPN: u32 = 2;

mod phase {
    pub const MESSAGE: u32 = 0;
    pub const VERSION: u32 = 1;
    pub const RANDOM: u32 = 2;
    pub const SESSION_LENGTH: u32 = 3;
    pub const SESSION: u32 = 4;
    pub const CIPHERS_LENGTH: u32 = 5;
    pub const CIPHERS: u32 = 6;
    pub const COMPRESSION_LENGTH: u32 = 7;
    pub const COMPRESSION: u32 = 8;
    pub const BLOCK_LENGTH: u32 = 9;
    pub const EXTENSION: u32 = 10;
    pub const EXTENSION_BODY: u32 = 11;
    pub const NAME_LIST: u32 = 12;
    pub const NAME_ENTRY: u32 = 13;
    pub const NAME: u32 = 14;
    pub const ALPN_LIST: u32 = 15;
    pub const ALPN_LENGTH: u32 = 16;
    pub const ALPN: u32 = 17;
}

/// What the reader knows so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// A step was taken; take another.
    Continue,
    /// All stored bytes are read and the message is not complete.
    More,
    /// The message ends here and carries one acceptable server name.
    Complete,
    /// No continuation of these bytes will be forwarded.
    Refused(DropReason),
}

/// The reader's state. All zero but `need` is the start: see [`Reader::START`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    phase: u32,
    /// Offset of the next byte in the stream: behind the message once it is complete.
    pos: u32,
    /// Bytes left in the current TLS record.
    record_left: u32,
    /// Bytes the current phase still wants.
    need: u32,
    /// The integer being read.
    value: u32,
    /// Offset of the next byte in the handshake message, record headers not counted.
    at: u32,
    message_end: u32,
    extension_end: u32,
    /// End of the ALPN protocol being read.
    protocol_end: u32,
    seen: u32,
    /// Length of the current label, and [`DIGITS`].
    label: u32,
    name_len: u32,
    alpn_len: u32,
    /// Steps taken, for the record.
    steps: u32,
}

impl Reader {
    /// A reader before the first byte.
    pub const START: Self = Self {
        phase: phase::MESSAGE,
        pos: 0,
        record_left: 0,
        need: 4,
        value: 0,
        at: 0,
        message_end: 0,
        extension_end: 0,
        protocol_end: 0,
        seen: 0,
        label: 0,
        name_len: 0,
        alpn_len: 0,
        steps: 0,
    };

    /// Length of the server name.
    #[must_use]
    #[inline(always)]
    pub const fn name_len(&self) -> u32 {
        self.name_len
    }

    /// Length of the first ALPN protocol; 0 when none was offered, or none that fits [`ALPN_MAX`].
    #[must_use]
    #[inline(always)]
    pub const fn alpn_len(&self) -> u32 {
        self.alpn_len
    }

    /// How far the stream was read: the length of the hello once it is complete.
    #[must_use]
    #[inline(always)]
    pub const fn position(&self) -> u32 {
        self.pos
    }

    /// Steps taken so far.
    #[must_use]
    #[inline(always)]
    pub const fn steps(&self) -> u32 {
        self.steps
    }

    /// Whether a step in a stream of which `stored` bytes are there may find anything new.
    #[must_use]
    #[inline(always)]
    pub const fn can_go_on(&self, stored: u32) -> bool {
        self.need == 0 || self.pos < stored
    }

    /// Takes one step in a stream of which `stored` bytes are there.
    #[inline(always)]
    pub fn step(&mut self, bytes: &mut impl Bytes, stored: u32) -> Progress {
        self.steps = self.steps.wrapping_add(1);
        if self.need > 0 {
            let pos = self.pos;
            if pos >= stored {
                return Progress::More;
            }
            let here = stored - pos;
            if self.record_left == 0 {
                return self.record_header(bytes, pos, here);
            }
            let record_left = self.record_left;
            let available = if record_left < here {
                record_left
            } else {
                here
            };
            let need = self.need;
            let taken = if is_skip(self.phase) {
                if need < available { need } else { available }
            } else if need <= available && need <= 4 {
                let word = u64::from(bytes.word(pos));
                let value = (u64::from(self.value) << 32 | word) << (need * 8) >> 32;
                self.value = value as u32;
                need
            } else {
                self.value = self.value << 8 | u32::from(bytes.byte(pos));
                1
            };
            self.pos = pos.wrapping_add(taken);
            self.record_left = record_left.wrapping_sub(taken);
            self.at = self.at.wrapping_add(taken);
            self.need = need.wrapping_sub(taken);
            if need != taken {
                return Progress::Continue;
            }
        }
        self.advance(bytes)
    }

    /// RFC 8446 5.1. The minor version is not looked at: stacks disagree about it.
    #[inline(always)]
    fn record_header(&mut self, bytes: &impl Bytes, pos: u32, here: u32) -> Progress {
        let not_tls = if pos == 0 {
            DropReason::NotTls
        } else {
            DropReason::MalformedHello
        };
        let word = bytes.word(pos);
        if word >> 24 != HANDSHAKE_RECORD || here > 1 && word >> 16 & 0xff != 3 {
            return Progress::Refused(not_tls);
        }
        if here < 5 {
            return Progress::More;
        }
        let length = (word & 0xff) << 8 | u32::from(bytes.byte(pos.wrapping_add(4)));
        if length == 0 || length > RECORD_MAX {
            return Progress::Refused(not_tls);
        }
        self.record_left = length;
        self.pos = pos.wrapping_add(5);
        Progress::Continue
    }

    #[inline(always)]
    fn want(&mut self, phase: u32, need: u32) -> Progress {
        self.phase = phase;
        self.need = need;
        self.value = 0;
        Progress::Continue
    }

    /// The current phase has all its bytes: what do they mean, and what comes next?
    #[inline(always)]
    fn advance(&mut self, bytes: &mut impl Bytes) -> Progress {
        let value = self.value;
        let at = self.at;
        // Bytes of the message that are not read yet; no length below may exceed it.
        let left = self.message_end.wrapping_sub(at);
        match self.phase {
            phase::MESSAGE => {
                let length = value & 0x00ff_ffff;
                if value >> 24 != CLIENT_HELLO {
                    return MALFORMED;
                }
                if length > RECORD_MAX {
                    return Progress::Refused(DropReason::HelloTooLong);
                }
                self.message_end = at.wrapping_add(length);
                // version, random, empty session id, one cipher suite, one compression method
                if length < 41 {
                    MALFORMED
                } else {
                    self.want(phase::VERSION, 2)
                }
            }
            // A version that nobody knows yet is negotiated down (RFC 5246 E.1).
            phase::VERSION if value >= 0x0300 => self.want(phase::RANDOM, 32),
            phase::RANDOM => self.want(phase::SESSION_LENGTH, 1),
            phase::SESSION_LENGTH if value <= 32 && value < left => {
                self.want(phase::SESSION, value)
            }
            phase::SESSION if left >= 2 => self.want(phase::CIPHERS_LENGTH, 2),
            phase::CIPHERS_LENGTH if value >= 2 && value & 1 == 0 && value < left => {
                self.want(phase::CIPHERS, value)
            }
            phase::CIPHERS if left >= 1 => self.want(phase::COMPRESSION_LENGTH, 1),
            phase::COMPRESSION_LENGTH if value >= 1 && value <= left => {
                self.want(phase::COMPRESSION, value)
            }
            phase::COMPRESSION if left == 0 => Progress::Refused(DropReason::NoServerName),
            phase::COMPRESSION if left >= 2 => self.want(phase::BLOCK_LENGTH, 2),
            phase::BLOCK_LENGTH if value == left => self.next_extension(left),
            phase::EXTENSION => {
                let (kind, length) = (value >> 16, value & 0xffff);
                if length > left {
                    return MALFORMED;
                }
                self.extension_end = at.wrapping_add(length);
                if kind == SERVER_NAME {
                    if self.seen & SEEN_NAME != 0 {
                        return Progress::Refused(DropReason::SeveralServerNames);
                    }
                    self.seen |= SEEN_NAME;
                    return if length < 2 {
                        MALFORMED
                    } else {
                        self.want(phase::NAME_LIST, 2)
                    };
                }
                if kind == ALPN && self.seen & SEEN_ALPN == 0 && length >= 4 {
                    self.seen |= SEEN_ALPN;
                    return self.want(phase::ALPN_LIST, 2);
                }
                self.want(phase::EXTENSION_BODY, length)
            }
            phase::EXTENSION_BODY => self.next_extension(left),
            phase::NAME_LIST if value == self.extension_end.wrapping_sub(at) && value >= 3 => {
                self.want(phase::NAME_ENTRY, 3)
            }
            phase::NAME_ENTRY => {
                let (kind, length) = (value >> 16, value & 0xffff);
                let room = self.extension_end.wrapping_sub(at);
                if length > room {
                    return MALFORMED;
                }
                if kind != 0 || length == 0 || length > NAME_MAX {
                    return Progress::Refused(DropReason::BadServerName);
                }
                if length < room {
                    return Progress::Refused(DropReason::SeveralServerNames);
                }
                self.label = DIGITS;
                self.want(phase::NAME, 1)
            }
            phase::NAME => self.name_byte(bytes, value as u8, left),
            phase::ALPN_LIST => self.want(phase::ALPN_LENGTH, 1),
            phase::ALPN_LENGTH => {
                let room = self.extension_end.wrapping_sub(at);
                self.alpn_len = 0;
                if value == 0 || value > room || value > ALPN_MAX {
                    // Not ours to judge: the node reads ALPN for itself.
                    return self.want(phase::EXTENSION_BODY, room);
                }
                self.protocol_end = at.wrapping_add(value);
                self.want(phase::ALPN, 1)
            }
            phase::ALPN => self.alpn_byte(bytes, value),
            _ => MALFORMED,
        }
    }

    #[inline(always)]
    fn next_extension(&mut self, left: u32) -> Progress {
        if left >= 4 {
            return self.want(phase::EXTENSION, 4);
        }
        if left != 0 || self.record_left != 0 {
            return MALFORMED;
        }
        if self.seen & SEEN_NAME == 0 {
            return Progress::Refused(DropReason::NoServerName);
        }
        Progress::Complete
    }

    #[inline(always)]
    fn name_byte(&mut self, bytes: &mut impl Bytes, byte: u8, left: u32) -> Progress {
        let label_len = self.label & 0xff;
        if byte == b'.' {
            if label_len == 0 {
                return Progress::Refused(DropReason::BadServerName);
            }
            self.label = DIGITS;
        } else {
            if !name::is_name_byte(byte) || label_len >= LABEL_MAX {
                return Progress::Refused(DropReason::BadServerName);
            }
            let digits = if byte.is_ascii_digit() {
                self.label & DIGITS
            } else {
                0
            };
            self.label = (label_len + 1) | digits;
        }
        let index = self.name_len;
        bytes.put_name(index, name::lower(byte));
        self.name_len = index.wrapping_add(1);
        if self.at != self.extension_end {
            return self.want(phase::NAME, 1);
        }
        // A trailing dot leaves an empty label; a last label of digits only is an IPv4 address.
        if self.label & 0xff == 0 || self.label & DIGITS != 0 {
            return Progress::Refused(DropReason::BadServerName);
        }
        self.next_extension(left)
    }

    #[inline(always)]
    fn alpn_byte(&mut self, bytes: &mut impl Bytes, value: u32) -> Progress {
        let index = self.alpn_len;
        bytes.put_alpn(index, value as u8);
        self.alpn_len = index.wrapping_add(1);
        if self.at != self.protocol_end {
            // `value` keeps what was read, so that two GREASE bytes (RFC 8701) are recognised.
            self.need = 1;
            return Progress::Continue;
        }
        let room = self.extension_end.wrapping_sub(self.at);
        let grease = index == 1 && value & 0x0f0f == 0x0a0a && value >> 8 & 0xff == value & 0xff;
        if grease {
            self.alpn_len = 0;
            if room > 0 {
                return self.want(phase::ALPN_LENGTH, 1);
            }
        }
        self.want(phase::EXTENSION_BODY, room)
    }
}

const MALFORMED: Progress = Progress::Refused(DropReason::MalformedHello);

#[inline(always)]
const fn is_skip(phase: u32) -> bool {
    // One bit a phase: RANDOM, SESSION, CIPHERS, COMPRESSION, EXTENSION_BODY.
    const SKIPS: u32 = 1 << phase::RANDOM
        | 1 << phase::SESSION
        | 1 << phase::CIPHERS
        | 1 << phase::COMPRESSION
        | 1 << phase::EXTENSION_BODY;
    SKIPS >> (phase & 31) & 1 != 0
}
