//! A node's segment while our SYN to it is open: RFC 9293 3.10.7.3, the state SYN-SENT.

use crate::tcp::flag;

/// How many acknowledgements of something else are answered with a reset and another SYN, for each time that the
/// client moves things on.
pub const CHALLENGES: u32 = 3;

/// What it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Answer {
    /// The node takes the connection.
    Accepted,
    /// The node takes none there.
    Refused,
    /// It acknowledges what we never sent: it still knows another connection of these ends. A reset with just that
    /// sequence number ends it, and then a SYN begins the new one.
    Challenge,
    /// Nothing.
    Nothing,
}

/// Reads the answer to a SYN with the sequence number `isn`, which carried no data.
#[inline(always)]
pub const fn answer(flags: u8, ack: u32, isn: u32) -> Answer {
    let has_ack = flags & flag::ACK != 0;
    let is_reset = flags & flag::RST != 0;
    if has_ack && ack != isn.wrapping_add(1) {
        return if is_reset {
            Answer::Nothing
        } else {
            Answer::Challenge
        };
    }
    if !has_ack {
        // A reset must acknowledge the SYN to be believed. Nodes open nothing towards clients.
        return Answer::Nothing;
    }
    if is_reset {
        Answer::Refused
    } else if flags & flag::SYN != 0 {
        Answer::Accepted
    } else {
        Answer::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The section, sentence by sentence, for every combination of flags.
    #[test]
    fn as_the_rfc_says() {
        for isn in [0, 7, u32::MAX] {
            for flags in 0..=u8::MAX {
                let (syn, rst, ack) = (flags & 2 != 0, flags & 4 != 0, flags & 16 != 0);
                for (number, acceptable) in
                    [(0_u32, false), (1, true), (2, false), (1 << 31, false)]
                {
                    let expected = match (ack, acceptable, rst, syn) {
                        (true, false, false, _) => Answer::Challenge,
                        (true, true, true, _) => Answer::Refused,
                        (true, true, false, true) => Answer::Accepted,
                        _ => Answer::Nothing,
                    };
                    assert_eq!(
                        answer(flags, isn.wrapping_add(number), isn),
                        expected,
                        "{flags:#b}"
                    );
                }
            }
        }
    }
}
