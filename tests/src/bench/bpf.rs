//! The few kernel programs that the bench itself needs, each a dozen instructions made by hand: a
//! redirect, a drop, and sources of floods. They need no compiler, and nothing of the forwarder.
//!
//! System call and structures: Linux `include/uapi/linux/bpf.h`. TCX needs Linux 6.6, the floods 5.18.

pub mod code;
pub mod flood;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use code::{Instruction, Reg};

const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const LINK_CREATE: libc::c_long = 28;
const SCHED_CLS: u32 = 3;
const XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const ATTACH_TCX_INGRESS: u32 = 46;
const LIVE_FRAMES: u32 = 1 << 1;
/// `XDP_FLAGS_SKB_MODE`: by the stack, for any driver.
const GENERIC_MODE: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`: by the driver itself, or not at all.
const DRIVER_MODE: u32 = 1 << 2;
const HELPER_REDIRECT: i32 = 23;
const TC_ACT_OK: i32 = 0;
const TC_ACT_SHOT: i32 = 2;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;

/// Where a program is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// TCX ingress.
    TrafficIn,
    /// XDP, by the driver.
    Xdp,
    /// XDP, by the stack.
    GenericXdp,
}

impl Hook {
    fn program_type(self) -> u32 {
        match self {
            Self::TrafficIn => SCHED_CLS,
            Self::Xdp | Self::GenericXdp => XDP,
        }
    }
}

/// The index of an interface in the calling thread's namespace.
pub fn interface(name: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(name).map_err(io::Error::other)?;
    // SAFETY: the name is a C string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// A traffic program that hands every packet to an interface for sending.
pub fn redirect(interface: u32) -> io::Result<OwnedFd> {
    load(
        Hook::TrafficIn,
        &[
            Instruction::set(Reg::R1, interface.cast_signed()),
            Instruction::set(Reg::R2, 0),
            Instruction::call(HELPER_REDIRECT),
            Instruction::exit(),
        ],
    )
}

/// Two bytes of a frame: an EtherType, and what stands at an offset of frames of that type.
pub type Match = ([u8; 2], i16, [u8; 2]);

/// A program that drops Ethernet frames that match any of these, and lets all others pass.
pub fn drop_matching(hook: Hook, matches: &[Match]) -> io::Result<OwnedFd> {
    let (data, end) = match hook {
        // `data` and `data_end` of struct __sk_buff and of struct xdp_md.
        Hook::TrafficIn => (76, 80),
        Hook::Xdp | Hook::GenericXdp => (0, 4),
    };
    let (drop, pass) = match hook {
        Hook::TrafficIn => (TC_ACT_SHOT, TC_ACT_OK),
        Hook::Xdp | Hook::GenericXdp => (XDP_DROP, XDP_PASS),
    };
    let word = |bytes| i32::from(u16::from_ne_bytes(bytes));
    let furthest = matches.iter().map(|(_, offset, _)| *offset).max();
    let tests = matches.iter().flat_map(|(kind, offset, bytes)| {
        [
            Instruction::load16(Reg::R5, Reg::R2, 12),
            Instruction::jump_unless(Reg::R5, word(*kind), 3),
            Instruction::load16(Reg::R5, Reg::R2, *offset),
            Instruction::jump_unless(Reg::R5, word(*bytes), 1),
            Instruction::set(Reg::R0, drop),
        ]
    });
    let tests: Vec<_> = tests.collect();
    let skip = i16::try_from(tests.len()).map_err(io::Error::other)?;
    let mut code = vec![
        Instruction::load32(Reg::R2, Reg::R1, data),
        Instruction::load32(Reg::R3, Reg::R1, end),
        Instruction::set(Reg::R0, pass),
        Instruction::copy(Reg::R4, Reg::R2),
        Instruction::add(Reg::R4, i32::from(furthest.unwrap_or_default()) + 2),
        Instruction::jump_above(Reg::R4, Reg::R3, skip),
    ];
    code.extend(tests);
    code.push(Instruction::exit());
    load(hook, &code)
}

/// Lets everything pass at an interface of the calling thread's namespace, until the link is dropped: a veth hears
/// what XDP sends at its other end only while it has an XDP program itself.
pub fn ear(name: &str) -> io::Result<OwnedFd> {
    attach(&nothing(Hook::Xdp)?, Hook::Xdp, interface(name)?)
}

/// Attaches a program to an interface, until the link is dropped.
pub fn attach(program: &OwnedFd, hook: Hook, interface: u32) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::new();
    let (attach, flags) = match hook {
        Hook::TrafficIn => (ATTACH_TCX_INGRESS, 0),
        Hook::Xdp => (ATTACH_XDP, DRIVER_MODE),
        Hook::GenericXdp => (ATTACH_XDP, GENERIC_MODE),
    };
    attributes.put32(0, descriptor(program));
    attributes.put32(4, interface);
    attributes.put32(8, attach);
    attributes.put32(12, flags);
    owned(attributes.call(LINK_CREATE)?)
}

/// Has an XDP program make and send `count` frames of a length, as if they had come in by an interface of
/// the calling thread's namespace (`BPF_F_TEST_XDP_LIVE_FRAMES`).
///
/// The kernel enters the program into its XDP dispatcher for that, and waits some 20 ms until all processors have taken
/// notice, unless it is in there already because it is attached somewhere (`bpf_dispatcher_change_prog`,
/// kernel/bpf/dispatcher.c).
pub fn run_live(program: &OwnedFd, interface: u32, length: usize, count: u32) -> io::Result<()> {
    let data = vec![0_u8; length];
    let size = u32::try_from(length).map_err(io::Error::other)?;
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [0, size, 0, interface, 0, 0_u32];
    let mut attributes = Attributes::new();
    attributes.put32(0, descriptor(program));
    attributes.put32(8, size);
    attributes.put64(16, data.as_ptr() as u64);
    attributes.put32(32, count);
    attributes.put32(40, size_of_val(&context) as u32);
    attributes.put64(48, context.as_ptr() as u64);
    attributes.put32(64, LIVE_FRAMES);
    attributes.put32(72, 64);
    attributes.call(PROG_TEST_RUN).map(drop)
}

/// A program that lets everything pass.
pub fn nothing(hook: Hook) -> io::Result<OwnedFd> {
    let pass = match hook {
        Hook::TrafficIn => TC_ACT_OK,
        Hook::Xdp | Hook::GenericXdp => XDP_PASS,
    };
    load(
        hook,
        &[Instruction::set(Reg::R0, pass), Instruction::exit()],
    )
}

/// Hands a frame to a program once, and tells what that took by the kernel's clock.
pub fn test_run(program: &OwnedFd, frame: &[u8]) -> io::Result<Duration> {
    let mut attributes = Attributes::new();
    attributes.put32(0, descriptor(program));
    attributes.put32(8, u32::try_from(frame.len()).map_err(io::Error::other)?);
    attributes.put64(16, frame.as_ptr() as u64);
    attributes.put32(32, 1);
    attributes.call(PROG_TEST_RUN)?;
    Ok(Duration::from_nanos(attributes.get32(36).into()))
}

/// Verifies and loads a program.
pub fn load(hook: Hook, code: &[Instruction]) -> io::Result<OwnedFd> {
    let mut log = vec![0_u8; 64 << 10];
    let mut attributes = Attributes::new();
    attributes.put32(0, hook.program_type());
    attributes.put32(4, u32::try_from(code.len()).map_err(io::Error::other)?);
    attributes.put64(8, code.as_ptr() as u64);
    attributes.put64(16, c"GPL".as_ptr() as u64);
    attributes.put32(24, 1);
    attributes.put32(28, log.len() as u32);
    attributes.put64(32, log.as_mut_ptr() as u64);
    attributes.call(PROG_LOAD).and_then(owned).map_err(|error| {
        let length = log.iter().position(|byte| *byte == 0).unwrap_or_default();
        let text = String::from_utf8_lossy(&log[..length]).into_owned();
        io::Error::new(error.kind(), format!("{error}\n{text}"))
    })
}

/// `union bpf_attr`, the part of it that is used here.
#[repr(C, align(8))]
struct Attributes([u8; 128]);

impl Attributes {
    fn new() -> Self {
        Self([0; 128])
    }

    fn put32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn put64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }

    fn get32(&self, at: usize) -> u32 {
        let bytes = [0, 1, 2, 3].map(|i| self.0[at + i]);
        u32::from_ne_bytes(bytes)
    }

    fn call(&mut self, command: libc::c_long) -> io::Result<libc::c_long> {
        // SAFETY: the attributes are 128 initialised bytes, and what they point at belongs to the callers
        // above, who keep it until this returns; the kernel writes only to them and to the log that `load` gives it.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut self.0, 128) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(result)
        }
    }
}

fn descriptor(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn owned(descriptor: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
