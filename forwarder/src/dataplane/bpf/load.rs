//! Loads the kernel programs: new ones over pinned maps, with a tail-call table of their own.
//!
//! The table is not shared with the programs that run already: new entry programs must not run old stages.
//! It is pinned beside the old one and takes its name once every entry program has been replaced; the kernel
//! empties a table that has lost its last pin.

use std::fs;
use std::io;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aya::maps::{Map, MapError, ProgramArray};
use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use forwarder_common::abi::{map, program, stage};
use thiserror::Error;

use super::atomics;
use super::attach::{self, AttachError, Hook};
use super::pins::{self, MAPS, Pins, PinsError, Side};
use super::sizes::Sizes;
use super::xdp;
use crate::link::Link;

/// Lines of the verifier's log that are shown: its verdict stands at the end.
const LOG_LINES: usize = 12;

/// Why the programs could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Maps cannot be made, or the object is damaged.
    #[error("cannot create the kernel maps")]
    Object(#[source] Box<EbpfError>),
    /// The verifier refuses a program.
    #[error("the kernel refuses the program {name}: {log}")]
    Refused {
        /// The program.
        name: String,
        /// The end of its log.
        log: String,
    },
    /// A program cannot be loaded.
    #[error("cannot load the program {name}")]
    Program {
        /// The program.
        name: String,
        /// Why.
        source: ProgramError,
    },
    /// The object lacks a stage.
    #[error("the embedded kernel programs hold no {name}")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// The tail-call table cannot be filled.
    #[error("cannot fill the tail-call table")]
    Stages(#[source] MapError),
    /// The tail-call table cannot take its place.
    #[error("cannot rename {}", path.display())]
    Publish {
        /// The new table's pin.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The lock of hello buffers would not hold.
    #[error(transparent)]
    Unordered(#[from] atomics::Unordered),
    /// The tree of pins cannot be changed.
    #[error(transparent)]
    Pins(#[from] PinsError),
}

/// Loaded programs, ready to be attached.
pub struct Programs {
    ebpf: Ebpf,
    /// Their tail-call table.
    stages: Map,
    pins: Pins,
}

impl Programs {
    /// Loads `object`; maps that are not pinned yet are made with `sizes` and pinned.
    pub fn load(object: &[u8], pins: &Pins, sizes: &Sizes) -> Result<Self, LoadError> {
        raise_memlock();
        pins::remove_file(&pins.stages_new())?;
        let mut loader = EbpfLoader::new();
        for name in MAPS {
            loader.map_pin_path(name, pins.map(name));
        }
        loader.map_pin_path(map::STAGES, pins.stages_new());
        for (name, size) in sizes.by_map() {
            loader.map_max_entries(name, size);
        }
        let object = atomics::suited(object)?;
        let mut ebpf = loader
            .load(&object)
            .map_err(|e| LoadError::Object(Box::new(e)))?;
        let stages = ebpf.take_map(map::STAGES);
        let stages = stages.ok_or(LoadError::Missing { name: map::STAGES })?;
        let mut programs = Self {
            ebpf,
            stages,
            pins: pins.clone(),
        };
        verify(&mut programs.ebpf)?;
        programs.fill_stages()?;
        Ok(programs)
    }

    /// The program of the XDP filter, loaded.
    pub fn xdp(&mut self) -> Result<&mut Xdp, LoadError> {
        let names = xdp::PROGRAMS.iter().copied();
        let loaded = names
            .clone()
            .find(|name| self.ebpf.program(name).is_some_and(|it| it.fd().is_ok()));
        let name = match loaded {
            Some(name) => name,
            None => self.load_xdp()?,
        };
        let program = self.ebpf.program_mut(name);
        program
            .and_then(|program| program.try_into().ok())
            .ok_or(LoadError::Missing { name })
    }

    /// Loads the form of the XDP filter that this kernel takes, and returns its name.
    fn load_xdp(&mut self) -> Result<&'static str, LoadError> {
        let mut refused = None;
        for name in xdp::PROGRAMS {
            let program = self.ebpf.program_mut(name);
            let filter: &mut Xdp = program
                .and_then(|program| program.try_into().ok())
                .ok_or(LoadError::Missing { name })?;
            match persistently(|| filter.load()) {
                Ok(()) => return Ok(name),
                Err(error) => refused = Some(refusal(name, error)),
            }
        }
        Err(refused.unwrap_or(LoadError::Missing {
            name: program::ARMOUR,
        }))
    }

    /// Attaches the program that fits the interface. Whenever this is interrupted, the program that is attached
    /// there has its tail-call table pinned: see [`Pins::attached_stages`].
    pub fn attach(&mut self, side: Side, link: &Link) -> Result<Hook, AttachError> {
        let own = self.pins.free_stages_of(side, link.ifindex);
        let pinned = self.stages.pin(&own);
        pinned.map_err(|source| AttachError::Pin {
            interface: link.name.clone(),
            source,
        })?;
        let attached = self.attach_program(side, link);
        match attached {
            Ok(_) => {
                self.forget_stages(|place, path| place == (side, link.ifindex) && path != own)?
            }
            Err(_) => pins::remove_file(&own)?,
        }
        attached
    }

    /// The kernel's id of the program for an interface.
    pub fn id(&self, side: Side, link: &Link) -> Option<u32> {
        let name = attach::program_for(side, link).ok()?;
        let info = self.ebpf.program(name)?.info();
        info.ok().map(|info| info.id())
    }

    /// Lets go of the tail-call tables of programs that are not attached any more.
    pub fn forget_stages(
        &self,
        gone: impl Fn((Side, u32), &Path) -> bool,
    ) -> Result<(), PinsError> {
        for (side, ifindex, path) in self.pins.attached_stages()? {
            if gone((side, ifindex), &path) {
                pins::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn attach_program(&mut self, side: Side, link: &Link) -> Result<Hook, AttachError> {
        let name = attach::program_for(side, link)?;
        let classifier = self.ebpf.program_mut(name);
        let classifier: &mut SchedClassifier = classifier
            .and_then(|program| program.try_into().ok())
            .ok_or(AttachError::NoProgram { name })?;
        attach::attach(classifier, name, &self.pins, side, link)
    }

    /// Puts the new tail-call table in the place of the old one. Call it when everything is attached.
    pub fn publish(&self) -> Result<(), LoadError> {
        let path = self.pins.stages_new();
        fs::rename(&path, self.pins.stages()).map_err(|source| LoadError::Publish { path, source })
    }

    fn fill_stages(&mut self) -> Result<(), LoadError> {
        let mut stages = ProgramArray::try_from(&mut self.stages).map_err(LoadError::Stages)?;
        for (slot, name) in stage::ALL {
            let program = self.ebpf.program(name).ok_or(LoadError::Missing { name })?;
            let fd = program.fd().map_err(|source| LoadError::Program {
                name: (*name).to_owned(),
                source,
            })?;
            stages.set(*slot, fd, 0).map_err(LoadError::Stages)?;
        }
        Ok(())
    }
}

/// Lets the kernel verify every program of the TC hook, as many at a time as there are processors.
pub fn verify(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    // Those of XDP are loaded when they are first needed; without them the entrance works all the same.
    let programs = ebpf
        .programs_mut()
        .filter(|(_, program)| !matches!(program, Program::Xdp(_)));
    let waiting = Mutex::new(programs.collect::<Vec<_>>());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        while let Some((name, program)) = next() {
            verify_one(name, program)?;
        }
        Ok(())
    };
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

fn verify_one(name: &str, program: &mut Program) -> Result<(), LoadError> {
    let classifier: &mut SchedClassifier =
        program.try_into().map_err(|source| LoadError::Program {
            name: name.to_owned(),
            source,
        })?;
    persistently(|| classifier.load()).map_err(|error| refusal(name, error))
}

/// The kernel gives up on a program when a signal comes meanwhile (`EAGAIN`).
fn persistently(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    const TRIES: u32 = 5;
    for _ in 1..TRIES {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
    load()
}

fn refusal(name: &str, error: ProgramError) -> LoadError {
    let name = name.to_owned();
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let lines: Vec<_> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            LoadError::Refused {
                name,
                log: format!("{io_error}\n{end}"),
            }
        }
        source => LoadError::Program { name, source },
    }
}

/// Before Linux 5.11 maps count against the locked memory of the process.
pub fn raise_memlock() {
    let unlimited = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: `unlimited` is an rlimit that outlives the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) } != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, "locked memory stays limited");
    }
}
