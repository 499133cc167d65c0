//! Loaded programs, and a packet at a time for them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use aya::maps::{MapData, MapError, ProgramArray};
use aya::programs::{
    Program, ProgramError, ProgramInfo, SchedClassifier, TestRun, TestRunOptions, Xdp,
};
use aya::{Ebpf, EbpfError, EbpfLoader};
use forwarder_common::abi::{map, program, stage};

use super::blank::{self, AnyMap, BlankError};

/// Room for the largest packet that comes back.
const LARGEST: usize = 70_000;
/// Size of `struct __sk_buff` (Linux `include/uapi/linux/bpf.h`).
const CONTEXT: usize = 192;
const CONTEXT_IFINDEX: usize = 40;
const CONTEXT_GSO_SEGMENTS: usize = 164;
const CONTEXT_GSO_SIZE: usize = 176;

/// Why the programs cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The object was not built.
    #[error("cannot read {}: run `cargo xtask build` first", path.display())]
    Unbuilt {
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Maps cannot be made, or the object is damaged.
    #[error("cannot create the kernel maps")]
    Object(#[from] Box<EbpfError>),
    /// The object lacks something.
    #[error("the kernel programs hold no {name}")]
    Missing {
        /// A program or a map.
        name: String,
    },
    /// The verifier refuses a program, or it cannot be run.
    #[error("the kernel refuses the program {name}")]
    Program {
        /// Its name.
        name: String,
        /// Why.
        source: ProgramError,
    },
    /// A map cannot be used.
    #[error("cannot use the map {name}")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        source: MapError,
    },
    /// A map cannot be emptied.
    #[error("the maps cannot be emptied")]
    Blank(#[from] BlankError),
}

/// Where the build puts the kernel programs; `FORWARDER_BPF_OBJECT` names another object.
#[must_use]
pub fn object() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if let Some(object) = std::env::var_os("FORWARDER_BPF_OBJECT") {
        return workspace.join(object);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace.join(target).join("bpf/forwarder.o")
}

/// An entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Ingress of a public Ethernet interface.
    PublicL2,
    /// Ingress of a public interface without link-layer header.
    PublicL3,
    /// Ingress of an Ethernet-like tunnel.
    TunnelL2,
    /// Ingress of a tunnel without link-layer header.
    TunnelL3,
}

impl Entry {
    /// The program's name.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::PublicL2 => program::PUBLIC_L2,
            Self::PublicL3 => program::PUBLIC_L3,
            Self::TunnelL2 => program::TUNNEL_L2,
            Self::TunnelL3 => program::TUNNEL_L3,
        }
    }
}

/// What the kernel tells a program beside the packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    /// The interface it came in by, of the calling thread's network namespace.
    pub ifindex: u32,
    /// How many packets of the wire it stands for; 0 for one.
    pub gso_segments: u32,
    /// Their payload.
    pub gso_size: u32,
}

/// What a program did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The action.
    pub action: i32,
    /// The packet as it then was.
    pub bytes: Vec<u8>,
}

/// Verified programs and the maps that belong to them.
pub struct Kernel {
    ebpf: Ebpf,
    spent_ns: AtomicU64,
    armour_runs: AtomicU32,
    runs: AtomicU32,
    // The kernel empties a tail-call table that nobody holds.
    _stages: ProgramArray<MapData>,
}

impl Kernel {
    /// Loads every program; maps that are not in `sizes` keep their default sizes.
    pub fn load(sizes: &[(&'static str, u32)]) -> Result<Self, KernelError> {
        let path = object();
        let object =
            std::fs::read(&path).map_err(|source| KernelError::Unbuilt { path, source })?;
        let mut loader = EbpfLoader::new();
        for (name, size) in sizes {
            loader.map_max_entries(name, *size);
        }
        let mut ebpf = loader.load(&object).map_err(Box::new)?;
        for (name, program) in ebpf.programs_mut() {
            let refused = |source| KernelError::Program {
                name: name.to_owned(),
                source,
            };
            let mut load = || match &mut *program {
                Program::Xdp(armour) => armour.load(),
                other => <&mut SchedClassifier>::try_from(other).and_then(SchedClassifier::load),
            };
            let mut result = load();
            // The kernel gives up on a program when a signal comes meanwhile.
            for _ in 0..4 {
                match &result {
                    Err(ProgramError::LoadError { io_error, .. })
                        if io_error.kind() == std::io::ErrorKind::WouldBlock => {}
                    _ => break,
                }
                result = load();
            }
            result.map_err(refused)?;
        }
        let stages = fill_stages(&mut ebpf)?;
        Ok(Self {
            ebpf,
            spent_ns: AtomicU64::new(0),
            armour_runs: AtomicU32::new(0),
            runs: AtomicU32::new(0),
            _stages: stages,
        })
    }

    /// What the programs took since the last call, by the kernel's clock, less `idle` for each run of the armour and of
    /// the others.
    pub fn spent(&self, [armour, others]: [Duration; 2]) -> Duration {
        let runs = |count: &AtomicU32| count.swap(0, Ordering::Relaxed);
        let spent = Duration::from_nanos(self.spent_ns.swap(0, Ordering::Relaxed));
        spent.saturating_sub(armour * runs(&self.armour_runs) + others * runs(&self.runs))
    }

    /// What the kernel tells of every program, under its name.
    pub fn programs(&self) -> impl Iterator<Item = (&str, Result<ProgramInfo, ProgramError>)> {
        let programs = self.ebpf.programs();
        programs.map(|(name, program)| (name, program.info()))
    }

    /// Every map that one of the programs can reach, whatever it holds.
    pub fn maps(&self) -> Result<Vec<AnyMap>, KernelError> {
        let mut programs = Vec::new();
        for (name, info) in self.programs() {
            programs.push(info.map_err(|source| KernelError::Program {
                name: name.to_owned(),
                source,
            })?);
        }
        Ok(blank::maps_of(&programs)?)
    }

    /// Empties all of them, and forgets what the programs took.
    pub fn empty_maps(&self) -> Result<(), KernelError> {
        for own in self.maps()? {
            own.empty()?;
        }
        self.spent([Duration::ZERO; 2]);
        Ok(())
    }

    /// Hands a packet to an entry program.
    pub fn run(
        &self,
        entry: Entry,
        packet: &[u8],
        context: Context,
    ) -> Result<Outcome, KernelError> {
        self.run_program(entry.program(), packet, context)
    }

    /// Hands a packet to a program by its name. A stage finds what the last packet on this processor left for it.
    pub fn run_program(
        &self,
        name: &str,
        packet: &[u8],
        context: Context,
    ) -> Result<Outcome, KernelError> {
        let refused = |source| KernelError::Program {
            name: name.to_owned(),
            source,
        };
        let program = self.ebpf.program(name).ok_or(KernelError::Missing {
            name: name.to_owned(),
        })?;
        let program: &SchedClassifier = program.try_into().map_err(refused)?;
        let mut bytes = vec![0; LARGEST];
        let context = context_bytes(context);
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(packet),
                data_out: Some(&mut bytes),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            })
            .map_err(refused)?;
        self.count(&self.runs, result.duration);
        bytes.truncate(usize::try_from(result.data_size_out).unwrap_or_default());
        Ok(Outcome {
            action: result.return_value.cast_signed(),
            bytes,
        })
    }
}

impl Kernel {
    /// Hands a frame to the armour, the XDP program.
    pub fn run_armour(&self, frame: &[u8]) -> Result<Outcome, KernelError> {
        let name = program::ARMOUR;
        let refused = |source| KernelError::Program {
            name: name.to_owned(),
            source,
        };
        let armour = self.ebpf.program(name).ok_or(KernelError::Missing {
            name: name.to_owned(),
        })?;
        let armour: &Xdp = armour.try_into().map_err(refused)?;
        let mut bytes = vec![0; LARGEST];
        let result = armour
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut bytes),
                ..TestRunOptions::default()
            })
            .map_err(refused)?;
        self.count(&self.armour_runs, result.duration);
        bytes.truncate(usize::try_from(result.data_size_out).unwrap_or_default());
        Ok(Outcome {
            action: result.return_value.cast_signed(),
            bytes,
        })
    }
}

impl Kernel {
    fn count(&self, runs: &AtomicU32, spent: Duration) {
        let spent = u64::try_from(spent.as_nanos()).unwrap_or_default();
        self.spent_ns.fetch_add(spent, Ordering::Relaxed);
        runs.fetch_add(1, Ordering::Relaxed);
    }
}

fn fill_stages(ebpf: &mut Ebpf) -> Result<ProgramArray<MapData>, KernelError> {
    let unusable = |source| KernelError::Map {
        name: map::STAGES,
        source,
    };
    let stages = ebpf.take_map(map::STAGES).ok_or(KernelError::Missing {
        name: map::STAGES.to_owned(),
    })?;
    let mut stages = ProgramArray::try_from(stages).map_err(unusable)?;
    for (slot, name) in stage::ALL {
        let missing = || KernelError::Missing {
            name: (*name).to_owned(),
        };
        let program = ebpf.program(name).ok_or_else(missing)?;
        let fd = program.fd().map_err(|source| KernelError::Program {
            name: (*name).to_owned(),
            source,
        })?;
        stages.set(*slot, fd, 0).map_err(unusable)?;
    }
    Ok(stages)
}

fn context_bytes(context: Context) -> [u8; CONTEXT] {
    let mut bytes = [0; CONTEXT];
    for (at, value) in [
        (CONTEXT_IFINDEX, context.ifindex),
        (CONTEXT_GSO_SEGMENTS, context.gso_segments),
        (CONTEXT_GSO_SIZE, context.gso_size),
    ] {
        bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}
