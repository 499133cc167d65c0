//! Whether this kernel takes the embedded programs: they are loaded with small maps of their own, one is attached
//! to the loopback interface of a network namespace that nobody else is in, and all of it is let go of.

use std::io;

use aya::programs::tc::{self, NlOptions, SchedClassifier, TcAttachOptions, TcAttachType};
use aya::programs::{LinkOrder, ProgramError};
use aya::{Ebpf, EbpfLoader};
use forwarder_common::abi::program;

use super::catalog::Code;
use super::finding::{Finding, Fix};
use crate::dataplane::bpf::atomics;
use crate::dataplane::bpf::load::{self, LoadError};
use crate::dataplane::bpf::sizes::Sizes;

/// Large enough for the kernel to make every map, and no larger.
const SIZES: Sizes = Sizes {
    vips: 16,
    names: 16,
    pools: 16,
    paths: 16,
    nodes: 16,
    listeners: 16,
    flows: 64,
    hellos: 16,
    source_ports: 64,
    first_port: 1_024,
};

/// Loads and attaches `object` on a thread of its own.
pub fn run(object: &'static [u8]) -> Vec<Finding> {
    let thread = std::thread::spawn(move || try_out(object));
    thread.join().unwrap_or_else(|_| {
        let seen = "the trial ended in a panic";
        vec![
            Finding::failure(Code::ProgramsLoad, "", seen)
                .fix(Fix::advice("please report it, with the output above")),
        ]
    })
}

fn try_out(object: &[u8]) -> Vec<Finding> {
    let mut ebpf = match loaded(object) {
        Ok(ebpf) => ebpf,
        Err(error) => {
            let seen = format!("{}", Chain(&error));
            return vec![
                Finding::failure(Code::ProgramsLoad, "", seen).fix(Fix::advice(
                    "if the kernel is 5.10 or newer, please report it with the output of `uname -a`",
                )),
            ];
        }
    };
    let count = ebpf.programs().count();
    let loaded = Finding::ok(
        Code::ProgramsLoad,
        "",
        format!("the kernel takes all {count} programs"),
    );
    let attached = match attached(&mut ebpf) {
        Ok(hook) => Finding::ok(Code::ProgramsAttach, "", format!("by {hook}")),
        Err(AttachTrial::Namespace(error)) => Finding::skipped(
            Code::ProgramsAttach,
            "",
            format!("no throw-away network namespace: {error}"),
        ),
        Err(AttachTrial::Refused(error)) => Finding::failure(
            Code::ProgramsAttach,
            "",
            format!("neither TCX nor clsact: {}", Chain(&error)),
        )
        .fix(Fix::here("modprobe -a sch_ingress cls_bpf"))
        .fix(Fix::advice(
            "a kernel with CONFIG_NET_CLS_ACT=y, CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF",
        )),
    };
    vec![loaded, attached]
}

/// The programs, verified; dropping them unloads them.
fn loaded(object: &[u8]) -> Result<Ebpf, LoadError> {
    load::raise_memlock();
    let mut loader = EbpfLoader::new();
    for (name, size) in SIZES.by_map() {
        loader.map_max_entries(name, size);
    }
    let object = atomics::suited(object)?;
    let mut ebpf = loader
        .load(&object)
        .map_err(|error| LoadError::Object(Box::new(error)))?;
    load::verify(&mut ebpf)?;
    Ok(ebpf)
}

enum AttachTrial {
    Namespace(io::Error),
    Refused(ProgramError),
}

fn attached(ebpf: &mut Ebpf) -> Result<&'static str, AttachTrial> {
    // SAFETY: unshare takes a plain number, and changes the network namespace of this thread only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(AttachTrial::Namespace(io::Error::last_os_error()));
    }
    let classifier: &mut SchedClassifier = ebpf
        .program_mut(program::PUBLIC_L2)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| AttachTrial::Namespace(io::ErrorKind::NotFound.into()))?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    if classifier
        .attach_with_options("lo", TcAttachType::Ingress, options)
        .is_ok()
    {
        return Ok("TCX");
    }
    // Whatever is wrong with it shows when attaching.
    let _ = tc::qdisc_add_clsact("lo");
    let options = TcAttachOptions::Netlink(NlOptions::default());
    classifier
        .attach_with_options("lo", TcAttachType::Ingress, options)
        .map(|_| "clsact")
        .map_err(AttachTrial::Refused)
}

/// An error and what it came from, in one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = self.0.to_string();
        let mut source = self.0.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        let line: Vec<_> = text.split_whitespace().collect();
        out.write_str(&line.join(" "))
    }
}
